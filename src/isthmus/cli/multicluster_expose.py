"""`isthmus multicluster expose`: gives clusters the gateway by which others reach them.

IsthmusError
├── NetworkUnknown
└── GatewaysUnserved
"""

import sys
from typing import Final

import click
import yaml

from isthmus.base import errors
from isthmus.cli import options as cli_options
from isthmus.cli import render
from isthmus.install import exposing
from isthmus.kube import apply, kinds, waiting
from isthmus.kube import client as kube_client

NOT_YET: Final = "isthmus install --set values.pilot.env.PILOT_ENABLE_GATEWAY_API=true"


class NetworkUnknown(errors.IsthmusError):
    """Nobody has said in which network a cluster is."""

    code = "ISM-CLI-040"


class GatewaysUnserved(errors.IsthmusError):
    """No control plane of a cluster runs Gateways of the class."""

    code = "ISM-CLI-041"


@click.command()
@cli_options.cluster
@click.option("--contexts", default="", help="Several contexts, with commas between.")
@click.option(
    "--namespace",
    "-n",
    default=exposing.NAMESPACE,
    show_default=True,
    help="Namespace of the gateway.",
)
@click.option("--name", default=exposing.NAME, show_default=True, help="Name of the gateway.")
@click.option("--network", default="", help="Network; else as the system namespace's label says.")
@click.option("--generate", is_flag=True, help="Print the Gateway, and change nothing.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until it is up.")
@click.option(
    "--timeout",
    "timeout_s",
    default=120,
    show_default=True,
    type=click.IntRange(1, 3600),
    help="How many seconds.",
)
def command(  # noqa: PLR0913  # each is an option of its own
    kubeconfig: str | None,
    context: str | None,
    istio_namespace: str,
    contexts: str,
    namespace: str,
    name: str,
    network: str,
    timeout_s: int,
    *,
    generate: bool,
    wait: bool,
) -> None:
    """Give a cluster the gateway by which other clusters reach it.

    Exit status: 0; 1 something failed, or the gateway was not up in time.

    Example: isthmus multicluster expose --context cluster1 --namespace istio-gateways
    """
    several = [one.strip() for one in contexts.split(",") if one.strip()]
    named: list[str | None] = [*several] or [context]
    if generate and network:
        _print([exposing.manifest(network=network, name=name, namespace=namespace)])
        return

    async def work(one: str | None) -> dict[str, object]:
        async with kube_client.Client(cli_options.accessed(kubeconfig, context=one)) as client:
            said = network or await _network_of(client, istio_namespace)
            wanted = exposing.manifest(network=said, name=name, namespace=namespace)
            if not generate:
                await _expose(client, wanted, timeout_s=timeout_s if wait else 0)
            return wanted

    found = [cli_options.run(work(one)) for one in named]
    if generate:
        _print(found)


def _print(manifests: list[dict[str, object]]) -> None:
    click.echo(yaml.safe_dump_all(manifests, sort_keys=False), nl=False)
    sys.stdout.flush()


async def _network_of(client: kube_client.Client, system: str) -> str:
    """Return the network that the system namespace says the cluster is in."""
    found = await client.find(kinds.NAMESPACE, system)
    labels = ((found or {}).get("metadata") or {}).get("labels") or {}
    network = str(labels.get(exposing.NETWORK_LABEL, ""))
    if not network:
        raise NetworkUnknown(
            f"nobody has said in which network {_title(client)} is",
            still_working="nothing was changed in the cluster",
            hint=f"kubectl label namespace {system} {exposing.NETWORK_LABEL}=NETWORK, or --network",
        )
    return network


async def _expose(client: kube_client.Client, wanted: dict[str, object], *, timeout_s: int) -> None:
    metadata, spec = wanted["metadata"], wanted["spec"]
    assert isinstance(metadata, dict)
    assert isinstance(spec, dict)
    name, namespace = metadata["name"], metadata["namespace"]
    if await client.find(kinds.GATEWAY_CLASS, spec["gatewayClassName"]) is None:
        raise GatewaysUnserved(
            f"no control plane of {_title(client)} runs Gateways of class "
            f"`{spec['gatewayClassName']}`",
            still_working="nothing was changed in the cluster",
            hint=NOT_YET,
        )
    manifests = [wanted]
    if await client.find(kinds.NAMESPACE, namespace) is None:
        manifests.append({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    for change in await apply.apply(client, manifests):
        render.note(f"{_title(client)}: {change.title}: {change.action}")
    if not timeout_s:
        return
    await waiting.until(
        client,
        kinds.KUBERNETES_GATEWAY,
        name,
        namespace=namespace,
        missing=exposing.lacks,
        timeout_s=timeout_s,
        on_progress=lambda text: render.note(f"  {text}") if text else None,
    )
    there = await client.get(kinds.KUBERNETES_GATEWAY, name, namespace=namespace)
    for text in exposing.unserved(there):
        render.note(f"warning: listener {text}")
    click.echo(f"✔ {_title(client)} is reached at {', '.join(exposing.addresses_of(there))}")


def _title(client: kube_client.Client) -> str:
    return f"cluster `{client.access.name}`" if client.access.name else "the cluster"
