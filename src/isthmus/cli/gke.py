"""`isthmus gke`: make Google's clusters and networks ready for one mesh."""

import pathlib
import sys
from collections.abc import Callable, Iterable
from typing import TypeVar

import click

from isthmus.cli import gke_page, gke_ports, groups, kubectl_target, options, render
from isthmus.gke import (
    applying,
    commands,
    google,
    guide,
    planning,
    plans,
    problems,
    reading,
    wishes,
)
from isthmus.kube import yamltext

CHANGES_DUE = 3
"""Exit status of `plan --exit-code` when something is to be changed."""

Command = TypeVar("Command", bound=Callable[..., object])


@click.group(cls=groups.Group)
def command() -> None:
    """Make clusters of Google Kubernetes Engine ready for one mesh on one network.

    Signs in as `gcloud auth application-default login` has it.

    Example: isthmus gke plan -f clusters.yaml
    """


def _common(target: Command) -> Command:
    for option in (
        click.option("--kubeconfig", "-c", default=None, help="Where contexts are looked up."),
        click.option(
            "--own-rules",
            is_flag=True,
            help="Make narrow firewall rules even where others' rules permit the traffic.",
        ),
        click.option(
            "--allow-wide",
            is_flag=True,
            help="All ports, or very large networks, are meant where the file has them.",
        ),
        click.option(
            "--filename",
            "-f",
            "path",
            required=True,
            type=click.Path(allow_dash=True),
            metavar="FILE",
            help="File of clusters; - for standard input.",
        ),
    ):
        target = option(target)
    return target


@command.command(name="plan")
@_common
@click.option("--gcloud", is_flag=True, help="Print the shell commands that do the same.")
@click.option(
    "--as-in-guide", is_flag=True, help="Print the commands of Google's guide: far wider ones."
)
@click.option(
    "--exit-code", is_flag=True, help=f"End with {CHANGES_DUE} if something is to be changed."
)
@options.output("json")
def plan_(  # noqa: PLR0913  # a command's options
    path: str,
    kubeconfig: str | None,
    output: str,
    *,
    own_rules: bool,
    allow_wide: bool,
    gcloud: bool,
    as_in_guide: bool,
    exit_code: bool,
) -> int:
    """Show what is missing so that the clusters can be one mesh, and why; change nothing.

    Ends with 1 if something must be settled first.

    Example: isthmus gke plan -f clusters.yaml --gcloud
    """
    asked = _asked(path)
    with google.Cloud() as cloud:
        made = _plan(cloud, asked, kubeconfig, own_rules=own_rules, allow_wide=allow_wide)
    if output:
        render.as_json(gke_page.document(made))
    elif as_in_guide:
        render.note("warning: the guide opens every port of the nodes to all pods of the others")
        _print(guide.commands(made))
    elif gcloud:
        _print(commands.commands(made))
        _print(guide.commented(made))
    else:
        _print(gke_page.lines(made))
    if not output:
        _tell_checks(made)
    if made.is_stopped and not as_in_guide:
        return 1
    return CHANGES_DUE if exit_code and made.steps else 0


@command.command(name="apply")
@_common
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option(
    "--timeout", default="30m", show_default=True, help="How long one change may take at most."
)
def apply_(  # a command's options
    path: str,
    kubeconfig: str | None,
    timeout: str,
    *,
    own_rules: bool,
    allow_wide: bool,
    yes: bool,
) -> int:
    """Show the plan, ask, and carry it out. Doing so again changes nothing.

    Each step looks again just before it acts and does not happen if somebody has changed what it
    is about.

    Ends with 1 if nothing was changed, or if a step failed: the message then lists what was done.

    Example: isthmus gke apply -f clusters.yaml
    """
    limit_s = kubectl_target.seconds(timeout)
    asked = _asked(path)
    with google.Cloud() as cloud:
        made = _plan(cloud, asked, kubeconfig, own_rules=own_rules, allow_wide=allow_wide)
        _print(gke_page.lines(made))
        _tell_checks(made)
        if made.is_stopped:
            raise problems.PlanStopped(
                "nothing was changed: the plan has problems that must be settled first",
                hint="they are above, each with what to do",
            )
        if made.steps and not yes and not _agreed(len(made.steps)):
            render.note("nothing was changed")
            return 1
        applying.apply(cloud, made, tell=render.note, limit_s=limit_s)
    joined = list(gke_page.next_steps(made))
    if joined:
        render.note("✔ the clusters are ready; what lets their control planes watch each other:\n")
        _print(joined)
    return 0


def _asked(path: str) -> wishes.Wishes:
    if path == "-":
        text = sys.stdin.read()
    else:
        text = pathlib.Path(path).read_text(encoding="utf-8", errors="replace")
    try:
        return wishes.wishes_of(yamltext.read(text))
    except yamltext.RefusedError as error:
        raise problems.FileRefused(f"`{path}` cannot be used: {error}") from error


def _plan(
    cloud: google.Cloud,
    asked: wishes.Wishes,
    kubeconfig: str | None,
    *,
    own_rules: bool,
    allow_wide: bool,
) -> plans.Plan:
    world = reading.world(cloud, asked, tell=render.note)
    served = options.run(gke_ports.served(asked, kubeconfig=kubeconfig))
    return planning.plan(asked, world, served, may_be_wide=allow_wide, always_own=own_rules)


def _tell_checks(made: plans.Plan) -> None:
    for check in made.checks:
        if check.stops:
            render.obstacle(check.finding)
        else:
            render.finding(check.finding)


def _agreed(count: int) -> bool:
    try:
        return click.confirm(f"Change {count} things in Google's cloud?", default=False, err=True)
    except click.exceptions.Abort:
        return False


def _print(found: Iterable[str]) -> None:
    for text in found:
        click.echo(text)
