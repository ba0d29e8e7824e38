"""`isthmus multicluster check`: can each cluster use each other, and where does it break if not."""

import asyncio
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import click

from isthmus.base import clock
from isthmus.cli import check_facts, checks, render
from isthmus.cli import options as cli_options
from isthmus.kube import client as kube_client

WIDTH: Final = 80
GOOD, BAD = "✅", "❌"


@click.command()
@click.option("--contexts", required=True, help="Contexts of the clusters, with commas between.")
@click.option("--precheck", is_flag=True, help="Only what must be so before they are linked.")
@click.option("--verbose", is_flag=True, help="A line for each check, also for good ones.")
@click.option("--kubeconfig", "-c", default=None, help="Kubeconfig file; else $KUBECONFIG.")
@click.option(
    "--istioNamespace",
    "-i",
    "istio_namespace",
    default="istio-system",
    show_default=True,
    help="Namespace of the control planes.",
)
@cli_options.output("json")
def command(
    contexts: str,
    kubeconfig: str | None,
    istio_namespace: str,
    output: str,
    *,
    precheck: bool,
    verbose: bool,
) -> int:
    """Check whether each cluster can use each other, from inside of each.

    Control planes climb to each other's gateways: DNS, TCP, TLS, identity, HBONE, HTTP. What breaks
    is told with one cause and one fix.

    Exit status: 0 all is well; 1 something is broken.

    Example: isthmus multicluster check --contexts=cluster1,cluster2
    """
    named = list(dict.fromkeys(one.strip() for one in contexts.split(",") if one.strip()))
    found = cli_options.run(_checked(named, kubeconfig, system=istio_namespace, is_early=precheck))
    if output == "json":
        render.as_json([document(one) for one in found])
    else:
        for line in lines(found, verbose=verbose):
            click.echo(line)
    return 0 if all(one.is_good for one in found) else 1


async def _checked(
    contexts: Sequence[str], kubeconfig: str | None, *, system: str, is_early: bool
) -> list[checks.Check]:
    async def one(context: str) -> check_facts.Facts:
        reached_by = cli_options.accessed(kubeconfig, context=context)
        async with kube_client.Client(reached_by) as client:
            return await check_facts.gathered(
                client, context=context, system=system, looks=not is_early
            )

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(context)) for context in contexts]
    facts = [task.result() for task in tasks]
    now = clock.SystemClock().now()
    found = [check for each in facts for check in checks.of_cluster(each, others=facts, now=now)]
    pairs = [
        (each, other)
        for each in facts
        for other in facts
        if other is not each and each.planes and other.cluster
    ]
    if not is_early:
        found += [check for each in facts for check in checks.findings(each)]
        return found + [check for both in pairs for check in checks.after_link(*both)]
    async with asyncio.TaskGroup() as group:
        dialling = [group.create_task(_reached(*both, kubeconfig, system=system)) for both in pairs]
    for both, task in zip(pairs, dialling, strict=True):
        found += checks.before_link(*both, task.result())
    return found


async def _reached(
    one: check_facts.Facts, other: check_facts.Facts, kubeconfig: str | None, *, system: str
) -> list[check_facts.Reached]:
    """Return which gateways of another cluster can be connected to from inside of one."""
    access = cli_options.accessed(kubeconfig, context=one.context)
    async with kube_client.Client(access) as client:
        return [
            await check_facts.reached(
                client, one.planes[0][0], system=system, address=address, port=port
            )
            for address, port in checks.places(one, other)
        ]


def document(check: checks.Check) -> dict[str, object]:
    """Return a check for a program."""
    return {
        "about": check.about,
        "check": check.title,
        "good": check.is_good,
        "found": check.said,
        "fix": check.fix,
    }


def lines(found: Iterable[checks.Check], *, verbose: bool) -> Iterator[str]:
    """Yield what is told to people: a heading for each cluster and pair, and what is broken."""
    groups = dict[str, list[checks.Check]]()
    for check in found:
        groups.setdefault(check.about, []).append(check)
    for about, group in groups.items():
        broken = [check for check in group if not check.is_good]
        count = f"{len(broken)} of {len(group)} broken" if broken else f"{len(group)} checks"
        yield f"{BAD if broken else GOOD} {about}: {count}"
        for check in group if verbose else broken:
            yield from _block(check)


def _block(check: checks.Check) -> Iterator[str]:
    mark = GOOD if check.is_good else BAD
    yield from _wrapped(f"{mark} {check.title}: {check.said}", first="   ", rest="      ")
    if not check.is_good:
        yield from _wrapped(f"fix: {check.fix}", first="      ", rest="           ")


def _wrapped(text: str, *, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH - 1,  # the marks are two columns wide
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
