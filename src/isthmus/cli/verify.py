"""`isthmus verify`: real requests between clusters, and what was seen of them."""

import contextlib
import dataclasses

import click

from isthmus.base import clock
from isthmus.cli import options, render
from isthmus.install import probing, verification
from isthmus.kube import client as kube_client

MOST_REQUESTS = 2000
"""Proxies' logs are searched for all of them."""

COLUMNS = ("FROM", "TO", "IN", "SHARE", "PATH", "CALLER SEEN THERE")


@click.command()
@click.option(
    "--contexts",
    default="cluster1,cluster2",
    show_default=True,
    help="Contexts of the clusters, with commas between.",
)
@click.option("--kubeconfig", "-c", default=None, help="Kubeconfig file; else $KUBECONFIG.")
@click.option("--namespace", "-n", default="sample", show_default=True, help="Of the service.")
@click.option("--service", default="helloworld", show_default=True, help="Service to ask.")
@click.option("--host", default="", help="Name to ask for, such as NAME.NAMESPACE.mesh.internal.")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=5000,
    show_default=True,
    help="Port of the service.",
)
@click.option("--path", default="/hello", show_default=True, help="Path to ask for.")
@click.option(
    "--requests",
    type=click.IntRange(1, MOST_REQUESTS),
    default=100,
    show_default=True,
    help="Requests from each cluster.",
)
@options.output("json")
def command(  # noqa: PLR0913  # a command's options
    contexts: str,
    kubeconfig: str | None,
    namespace: str,
    service: str,
    host: str,
    port: int,
    path: str,
    requests: int,
    output: str,
) -> int:
    """Send real requests from a client pod in every cluster and report what happened.

    Client pods are those labelled app=sleep or app=curl, with sidecars or in ambient mode. The exit status is 1 when something is
    wrong.

    Example: isthmus verify --contexts cluster1,cluster2
    """
    target = probing.Target(namespace, service, port, path, requests, host)
    names = list(dict.fromkeys(name.strip() for name in contexts.split(",") if name.strip()))
    if not names:
        raise click.UsageError("--contexts names no cluster")
    report = options.run(_verify(names, kubeconfig, target))
    if output == "json":
        render.as_json(dataclasses.asdict(report) | {"is_well": report.is_well})
    else:
        show(report)
    return 0 if report.is_well else 1


async def _verify(
    names: list[str], kubeconfig: str | None, target: probing.Target
) -> verification.Report:
    async with contextlib.AsyncExitStack() as stack:
        clusters = {
            name: await stack.enter_async_context(
                kube_client.Client(options.accessed(kubeconfig, context=name))
            )
            for name in names
        }
        return await probing.verify(clusters, target, system_clock=clock.SystemClock())


def show(report: verification.Report) -> None:
    """Print the report as a table, then what is wrong or that all is well."""
    rows = [
        (
            row.source,
            f"{row.version or row.pod}",
            row.cluster or "?",
            f"{row.share:.0%}",
            row.path.replace("gateway ", "via "),
            ", ".join(_short(caller) for caller in row.callers),
        )
        for row in report.rows
    ]
    if rows:
        render.table(COLUMNS, rows, gap=2)
    for address in report.refused_plaintext:
        render.note(f"plain text to the gateway at {address}: refused")
    for found in report.findings:
        render.finding(found)
    if report.is_well and report.elsewhere:
        render.note(f"all {report.requests} requests were answered, {report.elsewhere} of them in")
        render.note("clusters that were not looked at; name all with --contexts")
    elif report.is_well:
        render.note(f"all {report.requests} requests were answered, over mutual TLS")


def _short(identity: str) -> str:
    return "/".join(identity.split("/")[3:]) if identity.startswith("spiffe://") else identity
