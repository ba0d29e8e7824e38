"""`isthmus multicluster link` and `unlink`: lets clusters use what others share, or no longer.

IsthmusError
└── LinkSilent
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import click
import yaml

from isthmus.base import errors
from isthmus.cli import multicluster_trust, render
from isthmus.cli import options as cli_options
from isthmus.install import exposing, links
from isthmus.kube import apply, kinds, problems, waiting
from isthmus.kube import client as kube_client

MANAGER: Final = "isthmus-link"
Command = TypeVar("Command", bound=Callable[..., object])


class LinkSilent(errors.IsthmusError):
    """A link was made, and the other cluster is not heard."""

    code = "ISM-CLI-052"


@dataclass(frozen=True, slots=True)
class Chosen:
    """What was asked for.

    Attributes:
        pairs: Contexts: who uses whom.
    """

    kubeconfig: str | None
    system: str
    namespace: str
    pairs: tuple[tuple[str, str], ...]

    @property
    def contexts(self) -> tuple[str, ...]:
        """All contexts, each once."""
        return tuple(dict.fromkeys(one for pair in self.pairs for one in pair))


def _selection(command: Command) -> Command:
    for option in (
        click.option("--to", "to", default="", help="Context of the cluster that is used."),
        click.option("--from", "from_", default="", help="Context of the cluster that uses it."),
        click.option("--contexts", default="", help="Contexts, with commas: each uses each."),
        click.option(
            "--namespace",
            "-n",
            default=exposing.NAMESPACE,
            show_default=True,
            help="Namespace of the east-west gateways, and of the links.",
        ),
    ):
        command = option(command)
    return command


def pairs_of(contexts: str, *, from_: str, to: str) -> tuple[tuple[str, str], ...]:
    """Return who shall use whom.

    Raises:
        click.UsageError: It was not said, or twice.
    """
    several = list(dict.fromkeys(one.strip() for one in contexts.split(",") if one.strip()))
    if several and (from_ or to):
        raise click.UsageError("say either --contexts, or --from and --to")
    if bool(from_) != bool(to):
        raise click.UsageError("--from and --to go together")
    if from_:
        if from_ == to:
            raise click.UsageError("--from and --to are the same context")
        return ((from_, to),)
    if len(several) <= 1:
        raise click.UsageError("say --contexts=A,B, or --from A --to B")
    return tuple((one, other) for one in several for other in several if one != other)


@click.command()
@cli_options.cluster
@_selection
@click.option("--generate", is_flag=True, help="Print what describes --context, for others.")
@cli_options.output("json", "yaml")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until all are heard.")
@click.option(
    "--timeout",
    "timeout_s",
    default=120,
    show_default=True,
    type=click.IntRange(1, 3600),
    help="How many seconds.",
)
def link(  # noqa: PLR0913  # each is an option of its own
    kubeconfig: str | None,
    context: str | None,
    istio_namespace: str,
    namespace: str,
    contexts: str,
    from_: str,
    to: str,
    output: str,
    timeout_s: int,
    *,
    generate: bool,
    wait: bool,
) -> None:
    """Let clusters use the services that others share.

    Exit status: 0 all are linked; 1 something failed, or a cluster was not heard in time.

    Example: isthmus multicluster link --contexts=cluster1,cluster2,cluster3
    """
    if generate:
        found = _described(kubeconfig, context, istio_namespace, namespace)
        _print(cli_options.run(found), output)
        return
    pairs = pairs_of(contexts, from_=from_, to=to)
    chosen = Chosen(kubeconfig, istio_namespace, namespace, pairs)
    cli_options.run(_link(chosen, timeout_s=timeout_s if wait else 0))


@click.command()
@cli_options.cluster
@_selection
@click.option("--cluster", default="", help="Name of a cluster that is gone, in place of --to.")
def unlink(  # noqa: PLR0913  # each is an option of its own
    kubeconfig: str | None,
    context: str | None,
    istio_namespace: str,
    namespace: str,
    contexts: str,
    from_: str,
    to: str,
    cluster: str,
) -> None:
    """Let clusters no longer use what others share.

    A cluster that cannot be asked for its name any more is named with --cluster: it is then
    forgotten by --from, or by each of --contexts.

    Example: isthmus multicluster unlink --from cluster1 --to cluster2
    """
    if cluster:
        several = [one.strip() for one in contexts.split(",") if one.strip()]
        gone = Chosen(kubeconfig, istio_namespace, namespace, ())
        for one in several or [from_ or context or ""]:
            cli_options.run(_forget(gone, one or None, cluster))
        return
    pairs = pairs_of(contexts, from_=from_, to=to)
    cli_options.run(_unlink(Chosen(kubeconfig, istio_namespace, namespace, pairs)))


def _print(manifests: list[dict[str, Any]], output: str) -> None:
    if output == "json":
        items = {"apiVersion": "v1", "kind": "List", "items": manifests}
        render.as_json(manifests[0] if len(manifests) == 1 else items)
        return
    click.echo(yaml.safe_dump_all(manifests, sort_keys=False), nl=False)
    sys.stdout.flush()


async def _described(
    kubeconfig: str | None, context: str | None, system: str, namespace: str
) -> list[dict[str, Any]]:
    reached_by = cli_options.accessed(kubeconfig, context=context)
    async with kube_client.Client(reached_by) as client:
        found = await links.describe(client, system=system, namespace=namespace)
        more = await multicluster_trust.manifests(client, namespace=system)
        return [*links.manifests(found), *more]


@contextlib.asynccontextmanager
async def _clients(chosen: Chosen) -> AsyncIterator[dict[str, kube_client.Client]]:
    async with contextlib.AsyncExitStack() as stack:
        yield {
            one: await stack.enter_async_context(
                kube_client.Client(cli_options.accessed(chosen.kubeconfig, context=one))
            )
            for one in chosen.contexts
        }


async def _asked(
    chosen: Chosen, clients: dict[str, kube_client.Client], *, needs_gateways: bool
) -> dict[str, links.Described]:
    """Ask each cluster what the others must know of it."""
    used = {to for _, to in chosen.pairs} if needs_gateways else set()
    return {
        one: await links.describe(
            client,
            system=chosen.system,
            namespace=chosen.namespace,
            needs_gateway=one in used,
        )
        for one, client in clients.items()
    }


async def _link(chosen: Chosen, *, timeout_s: int) -> None:
    async with _clients(chosen) as clients:
        described = await _asked(chosen, clients, needs_gateways=True)
        links.check(described.values())
        for using, used in chosen.pairs:
            if described[using].trust_domain != described[used].trust_domain:
                # First: from the link on, each has to do with identities of the other.
                both = (clients[using], clients[used])
                await multicluster_trust.list_pair(*both, namespace=chosen.system)
            await _make(clients[using], links.manifests(described[used]), chosen.namespace)
        if timeout_s:
            await _heard(chosen, clients, described, timeout_s=timeout_s)


async def _make(
    client: kube_client.Client, manifests: list[dict[str, Any]], namespace: str
) -> None:
    if manifests and await client.find(kinds.NAMESPACE, namespace) is None:
        manifests = [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
            *manifests,
        ]
    for change in await apply.apply(client, manifests, field_manager=MANAGER):
        if change.action != "unchanged":
            render.note(f"{client.access.name}: {change.title}: {change.action}")


async def _heard(
    chosen: Chosen,
    clients: dict[str, kube_client.Client],
    described: dict[str, links.Described],
    *,
    timeout_s: int,
) -> None:
    """Wait until each hears those that it uses."""

    async def wait(using: str, used: str) -> str:
        name = links.name_of(described[used].cluster)
        try:
            _ = await waiting.until(
                clients[using],
                kinds.KUBERNETES_GATEWAY,
                name,
                namespace=chosen.namespace,
                missing=links.lacks,
                timeout_s=timeout_s,
                on_progress=lambda text: (
                    render.note(f"  {using} → {used}: {text}") if text else None
                ),
            )
        except problems.WaitEnded as error:
            return f"{using} → {used}: {error.detail or error.happened}"
        click.echo(f"✔ {using} hears {used}")
        return ""

    async with asyncio.TaskGroup() as group:
        waits = [group.create_task(wait(*pair)) for pair in chosen.pairs]
    silent = [text for one in waits if (text := one.result())]
    if silent:
        raise LinkSilent(
            f"{len(silent)} of {len(chosen.pairs)} links are not heard after {timeout_s} s",
            detail="\n".join(silent),
            still_working="the links stay, and are followed as soon as that is possible",
            hint="isthmus remote-clusters --context CONTEXT, which says why and what helps",
        )


async def _unlink(chosen: Chosen) -> None:
    async with _clients(chosen) as clients:
        described = await _asked(chosen, clients, needs_gateways=False)
        for using, used in chosen.pairs:
            await _delete(clients[using], described[used].cluster, chosen.namespace)
        for using, used in chosen.pairs:
            client, other = clients[using], described[using].cluster
            if not await _links_to(clients[used], other, chosen.namespace):
                # Neither uses the other: nobody from there has to be let in any more.
                system = chosen.system
                await multicluster_trust.forget(client, described[used].cluster, namespace=system)
                await multicluster_trust.forget(clients[used], other, namespace=system)


async def _forget(chosen: Chosen, context: str | None, cluster: str) -> None:
    reached_by = cli_options.accessed(chosen.kubeconfig, context=context)
    async with kube_client.Client(reached_by) as client:
        await _delete(client, cluster, chosen.namespace)
        await multicluster_trust.forget(client, cluster, namespace=chosen.system)


async def _links_to(
    client: kube_client.Client, cluster: str, namespace: str
) -> list[dict[str, Any]]:
    found = await apply.labelled(
        client,
        [kinds.KUBERNETES_GATEWAY],
        labels=f"{links.CLUSTER_LABEL}={cluster}",
        namespace=namespace,
    )
    return [one for one in found if one["spec"].get("gatewayClassName") == links.CLASS]


async def _delete(client: kube_client.Client, cluster: str, namespace: str) -> None:
    ours = await _links_to(client, cluster, namespace)
    for change in await apply.delete(client, ours):
        render.note(f"{client.access.name}: {change.title}: {change.action}")
    title = client.access.name or "the cluster"
    said = "no longer uses" if ours else "did not use"
    click.echo(f"✔ {title} {said} {cluster}")
