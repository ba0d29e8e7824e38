"""`isthmus bootstrap`."""

from typing import Any, Final

import click

from isthmus.cli import asking, options, render
from isthmus.kube import client as kube_client

BOOTSTRAP: Final = "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump"


@click.command()
@click.argument("pod")
@options.cluster
@options.namespace
def command(
    pod: str, kubeconfig: str | None, context: str | None, istio_namespace: str, namespace: str
) -> None:
    """Print the configuration that the proxy of POD (`<pod>[.<namespace>]`) started with.

    Example: isthmus bootstrap sleep-5d4f8b9c6-x2x7q -n sample
    """
    reached_by = options.accessed(kubeconfig, context=context)
    name, _, in_name = pod.partition(".")
    where = namespace or in_name or reached_by.namespace or "default"

    async def ask() -> object:
        async with kube_client.Client(reached_by) as client:
            return await asking.asked(
                client,
                "config_dump",
                namespace=where,
                pod=name,
                programs=asking.PROXY,
                container="istio-proxy",
            )

    render.as_json(bootstrap_of(options.run(ask()), pod=f"{where}/{name}"))


def bootstrap_of(document: Any, *, pod: str) -> object:  # noqa: ANN401  # a JSON document
    """Return the bootstrap within what Envoy's admin page shows.

    Raises:
        NotUnderstood: There is none in it (ISM-WIRE-003).
    """
    configs = document.get("configs") if isinstance(document, dict) else None
    for config in configs or ():
        if config.get("@type") == BOOTSTRAP:
            return config.get("bootstrap")
    raise asking.NotUnderstood(
        f"the proxy of pod `{pod}` shows no bootstrap", hint="check that the proxy is running"
    )
