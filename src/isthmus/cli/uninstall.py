"""`isthmus uninstall`: removes just what `install` brought."""

import click

from isthmus.cli import options as cli_options
from isthmus.install import installing
from isthmus.kube import apply
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
            if doomed and not yes and not click.confirm("Proceed?", default=False, err=True):
                return 1
            await apply.delete(client, doomed)
            click.echo(f"✔ {len(doomed)} objects removed", err=True)
            return 0

    return cli_options.run(work())
