"""`isthmus remote-clusters`."""

from collections.abc import Iterable
from typing import Any, Final

import click

from isthmus.base import errors
from isthmus.cli import asking, findings, options, render
from isthmus.kube import client as kube_client

PAGE: Final = "/debug/clusterz"
REFUSED: Final = ("ISM-FLEET-", "ISM-REG-030", "ISM-REG-031")
"""Codes of what is said of remote secrets, of links, and of what linked clusters tell."""

HEADINGS: Final = ("NAME", "SECRET", "STATUS", "ISTIOD", "REVISION")


@click.command()
@options.cluster
@options.output("json", "wide")
def command(kubeconfig: str | None, context: str | None, istio_namespace: str, output: str) -> None:
    """Print the clusters that each control plane watches, and how well.

    While a cluster does not answer, two more columns say how old what is known of it is, and why.
    Remote secrets that were refused are named below the table, with the reason; so are links to
    other clusters, which the table lists with the name of their Gateway.

    Example: isthmus remote-clusters --context cluster1
    """
    reached_by = options.accessed(kubeconfig, context=context)

    async def ask() -> tuple[list[asking.Answer], list[asking.Answer]]:
        async with kube_client.Client(reached_by) as client:
            known = await asking.control_planes(client, PAGE, namespace=istio_namespace)
            wrong = await asking.control_planes(client, findings.PAGE, namespace=istio_namespace)
            return known, wrong

    answers, wrong = options.run(ask())
    if output == "json":
        render.as_json(document(answers))
        return
    is_wide = output == "wide" or any(is_troubled(one) for one in document(answers))
    headings = (*HEADINGS, "AGE", "ERROR") if is_wide else HEADINGS
    render.table(headings, rows(answers, is_wide=is_wide), gap=5)
    for finding in findings.document(wrong):
        if finding["code"].startswith(REFUSED):
            render.finding(errors.Finding(**finding))


def document(answers: Iterable[asking.Answer]) -> list[dict[str, Any]]:
    """Return all clusters of all control planes, each with whom it was heard from."""
    return [
        {**cluster, "istiod": answer.istiod, "revision": answer.revision}
        for answer in answers
        for cluster in answer.document
    ]


def is_troubled(cluster: dict[str, Any]) -> bool:
    """Tell whether there is more to say of a cluster than its status."""
    return bool(cluster.get("ageSeconds") or cluster.get("error"))


def rows(answers: Iterable[asking.Answer], *, is_wide: bool) -> list[tuple[str, ...]]:
    """Return the rows of the table; wide ones say how old the last answer of a cluster is."""
    found: list[tuple[str, ...]] = []
    for cluster in document(answers):
        row = (
            str(cluster.get("id", "")),
            str(cluster.get("secretName") or cluster.get("link") or ""),
            str(cluster.get("syncStatus", "")),
            cluster["istiod"],
            cluster["revision"],
        )
        shown = age_of(cluster)
        found.append((*row, shown, str(cluster.get("error") or "")) if is_wide else row)
    return found


def age_of(cluster: dict[str, Any]) -> str:
    """Return how long ago a cluster was last heard."""
    seconds = cluster.get("ageSeconds")
    if seconds is not None:
        return age(seconds)
    is_missed = "ageSeconds" in cluster and cluster.get("syncStatus") != "closed"
    return "never" if is_missed else "-"


def age(seconds: float) -> str:
    """Return how old something is, as kubectl shows it."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f}{unit}"
    return f"{seconds:.0f}s"
