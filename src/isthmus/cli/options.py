"""Options that several commands share, and how a command runs what waits.

Decides nothing about clusters: it names the options as Istio's own command line does and hands
their values on.
"""

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, TypeVar

import click

from isthmus.base import imports

if TYPE_CHECKING:
    from isthmus.kube import access, client

Outcome = TypeVar("Outcome")
Command = TypeVar("Command", bound=Callable[..., object])


def cluster(command: Command) -> Command:
    """Add `kubeconfig`, `context` and `istio_namespace`: which cluster a command speaks to."""
    for option in (
        click.option(
            "--istioNamespace",
            "-i",
            "istio_namespace",
            default="istio-system",
            show_default=True,
            help="Namespace of the control plane.",
        ),
        click.option("--context", default=None, help="Context in the kubeconfig; else its own."),
        click.option(
            "--kubeconfig",
            "-c",
            default=None,
            type=click.Path(dir_okay=False),
            help="Kubeconfig file; else $KUBECONFIG or ~/.kube/config.",
        ),
    ):
        command = option(command)
    return command


def namespace(command: Command) -> Command:
    """Add `namespace`: where the objects are that a command is asked about."""
    return click.option("--namespace", "-n", default="", help="Namespace; else the context's own.")(
        command
    )


def output(*formats: str) -> Callable[[Command], Command]:
    """Add `output`: one of `formats`, or empty for a table."""
    return click.option(
        "--output",
        "-o",
        default="",
        type=click.Choice(["", *formats]),
        metavar="|".join(formats),
        help="Form of the output; else a table.",
    )


def accessed(kubeconfig: str | None, *, context: str | None) -> "access.Access":
    """Return how to reach the cluster that `kubeconfig` and `context` name."""
    from isthmus.kube import access  # many commands reach none

    return access.from_kubeconfig(kubeconfig, context=context)


def client_of(reached: "access.Access") -> "client.Client":
    """Return a connection to a cluster, for commands that only sometimes need one.

    What speaks HTTP takes longer to import than most commands run.
    """
    with imports.at_start():
        from isthmus.kube import client
    return client.Client(reached)


def run(work: Coroutine[object, object, Outcome]) -> Outcome:
    """Run what waits, to its end, and return what it returned."""
    import asyncio  # as above

    return asyncio.run(work)
