"""`isthmus kubectl`: the few commands of kubectl that the walkthroughs use.

For machines that have no kubectl. It decides nothing of its own: tables are the API server's, and
objects are applied by the server.
"""

import click

from isthmus.cli import groups
from isthmus.cli import kubectl_reading as reading
from isthmus.cli import kubectl_running as running
from isthmus.cli import kubectl_target as targets
from isthmus.cli import kubectl_writing as writing


class Small(groups.Group):
    """A group that says whose command it is not."""

    otherwise = "This kubectl is a small one; the real one has more."


@click.group(cls=Small)
@click.option("--context", default=None, help="Context in the kubeconfig.")
@click.option("--kubeconfig", default=None, help="Kubeconfig file.")
@click.option("--namespace", "-n", default="", help="Namespace.")
@click.pass_context
def command(
    ctx: click.Context, context: str | None, kubeconfig: str | None, namespace: str
) -> None:
    """Do what the walkthroughs do with kubectl, on a machine that has none.

    Exit status: 0 success; 1 an error, which is explained; exec: the program's own.

    Example: isthmus kubectl --context cluster1 get pods -n sample
    """
    ctx.obj = targets.Target(context, kubeconfig, namespace)


for _each in (
    reading.get,
    reading.logs,
    writing.apply_,
    writing.create,
    writing.label,
    writing.annotate,
    writing.patch,
    writing.scale,
    writing.delete,
    running.exec_,
    running.wait,
    running.rollout,
):
    command.add_command(_each)
