"""`isthmus uninstall`: removes just what `install` brought."""

import click

from isthmus.cli import options as cli_options
from isthmus.install import ambient_probing, installing
from isthmus.kube import apply, kinds
from isthmus.kube import client as kube_client


@click.command()
@cli_options.cluster
@click.option("--revision", "-r", default="", help="Only this revision's objects.")
@click.option("--purge", is_flag=True, help="Also the definitions of Istio's kinds, with all "
              "objects of these kinds.")  # fmt: skip
@click.option("--yes", "-y", "--skip-confirmation", "yes", is_flag=True, help="Do not ask.")
def command(
    kubeconfig: str | None,
    context: str | None,
    istio_namespace: str,
    revision: str,
    *,
    purge: bool,
    yes: bool,
) -> int:
    """Remove what `install` applied, and nothing else.

    Example: isthmus uninstall --context cluster1 -y
    """
    access = cli_options.accessed(kubeconfig, context=context)

    async def work() -> int:
        async with kube_client.Client(access) as client:
            owner = "" if purge else istio_namespace
            doomed = await installing.installed(client, revision=revision, namespace=owner)
            if purge:
                doomed += await installing.definitions(client)
            for manifest in doomed:
                metadata = manifest["metadata"]
                where = f"{metadata['namespace']}/" if metadata.get("namespace") else ""
                click.echo(f"  delete {manifest['kind']} {where}{metadata['name']}", err=True)
            if any(one["kind"] == kinds.DAEMON_SET.kind for one in doomed):
                await _warn_of_members(client)
            if doomed and not yes and not click.confirm("Proceed?", default=False, err=True):
                return 1
            await apply.delete(client, doomed)
            click.echo(f"✔ {len(doomed)} objects removed", err=True)
            return 0

    return cli_options.run(work())


async def _warn_of_members(client: kube_client.Client) -> None:
    """Say that pods in ambient mode lose their network with their nodes' proxy."""
    pods = await client.list_(kinds.POD)
    members = [one["metadata"]["namespace"] for one in pods if ambient_probing.takes_part(one)]
    if not members:
        return
    namespaces = sorted(set(members))
    click.echo(
        f"warning: {len(members)} pods take part in ambient mode, and will reach nobody without "
        f"their nodes' proxy, in: {', '.join(namespaces)}\n"
        f"  hint: kubectl label namespace {namespaces[0]} istio.io/dataplane-mode-   # first",
        err=True,
    )
