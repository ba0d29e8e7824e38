"""`isthmus version`: of this program, and of what runs in a cluster."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import click

from isthmus.base import errors, version
from isthmus.cli import options, render


@click.command()
@options.cluster
@options.output("json")
@click.option(
    "--remote",
    type=bool,
    is_flag=False,
    flag_value=True,
    default=True,
    help="=false: of this program alone.",
)
def command(
    kubeconfig: str | None, context: str | None, istio_namespace: str, output: str, *, remote: bool
) -> None:
    """Print the versions of this program, and of control planes and proxies if there are any.

    What runs in the cluster is left out, with a remark, where nothing answers.

    Example: isthmus version --context cluster1
    """
    document = {"client": version.VERSION, "proxyImage": f"istio/proxyv2:{version.PROXY_VERSION}"}
    running: Mapping[str, Any] = {}
    if remote:
        try:
            reached = options.accessed(kubeconfig, context=context)
            running = options.run(_running(options.client_of(reached), istio_namespace))
        except errors.IsthmusError as error:
            render.note(f"no control plane answers: {error.happened}")
    if output == "json":
        render.as_json({**document, **running})
        return
    click.echo(f"client version: {document['client']}")
    click.echo(f"proxy image: {document['proxyImage']}")
    for line in lines(running):
        click.echo(line)


async def _running(client: Any, namespace: str) -> Mapping[str, Any]:  # noqa: ANN401  # imported late
    """Return the version of each control plane, and of each proxy by its name and cluster."""
    # Only where a cluster is asked: HTTP takes longer to load than all the rest.
    from isthmus.cli import asking

    planes: dict[str, str] = {}
    proxies: dict[str, str] = {}
    async with client:
        for answer in await asking.control_planes(client, "/debug/syncz", namespace=namespace):
            said = await asking.text(
                client,
                "/version",
                namespace=namespace,
                pod=answer.istiod,
                programs=asking.CONTROL_PLANE,
            )
            planes[answer.istiod] = said.partition("-")[0]
            for one in answer.document:
                name = f"{one['proxy']}.{one['cluster_id']}"
                proxies[name] = str(one.get("istio_version") or "unknown")
    return {"controlPlanes": planes, "proxies": proxies}


def lines(running: Mapping[str, Any]) -> Iterable[str]:
    """Yield what is said of control planes and proxies; nothing where none answered."""
    if not running:
        return
    yield f"control plane version: {', '.join(sorted({*running['controlPlanes'].values()}))}"
    counts = sorted(Counter(running["proxies"].values()).items())
    shown = ", ".join(f"{one} ({count} proxies)" for one, count in counts)
    yield f"data plane version: {shown or 'none'}"
