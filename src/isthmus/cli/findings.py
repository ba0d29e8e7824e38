"""`isthmus findings`: what the control plane met that is wrong, object by object."""

from collections.abc import Iterable
from typing import Any, Final

import click

from isthmus.cli import asking, options, render
from isthmus.kube import client as kube_client

PAGE: Final = "/debug/findings"
FIELDS: Final = ("code", "subject", "happened", "still_working", "hint")


@click.command()
@options.cluster
@options.output("json")
def command(kubeconfig: str | None, context: str | None, istio_namespace: str, output: str) -> int:
    """Print what is wrong with single objects: what each means, what still works, what to do.

    Asks every control plane of the cluster; none of what it prints stops anything else. Each code
    has a page in docs/errors. The exit status is 1 when there are any.

    Example: isthmus findings --context cluster1
    """
    reached_by = options.accessed(kubeconfig, context=context)

    async def ask() -> list[asking.Answer]:
        async with kube_client.Client(reached_by) as client:
            return await asking.control_planes(client, PAGE, namespace=istio_namespace)

    found = document(options.run(ask()))
    if output == "json":
        render.as_json(found)
    elif not found:
        render.note("no findings: every object is understood and obeyed")
    else:
        click.echo("\n".join(block(finding) for finding in found))
    return 1 if found else 0


def document(answers: Iterable[asking.Answer]) -> list[dict[str, Any]]:
    """Return the findings of all control planes, each once, by code and subject."""
    distinct = {
        tuple(str(finding.get(name) or "") for name in FIELDS)
        for answer in answers
        for finding in answer.document
    }
    return [dict(zip(FIELDS, finding, strict=True)) for finding in sorted(distinct)]


def block(finding: dict[str, Any]) -> str:
    """Return one finding as its lines."""
    lines = [f"{finding['code']}  {finding['subject']}", f"  {finding['happened']}"]
    lines += [
        f"  {name}: {finding[key]}"
        for name, key in (("still working", "still_working"), ("hint", "hint"))
        if finding[key]
    ]
    return "\n".join(lines)
