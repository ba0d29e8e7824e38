"""`isthmus demo`: a walkthrough, step by step, in a lab of its own.

Runs the very commands that it prints, in the order of the walkthrough, and ends with the
verification. The lab is taken down afterwards unless it is to be kept.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from isthmus.base import errors
from isthmus.cli import (
    ambient_walkthrough,
    external_walkthrough,
    fifty_walkthrough,
    older_walkthroughs,
    tables,
    walkthrough,
)
from isthmus.lab import topology as topologies

PROMPT, FURTHER, OUTPUT_INDENT = "  $ ", "  ", "    "
COLUMNS = 80
PLACES = ("WORK_DIR", "ISTIO")
"""Where older guides keep files: their own, and those of a release."""
NUMBERS = {2: "two", 3: "three"}
TOPOLOGIES = {
    **walkthrough.TOPOLOGIES,
    **older_walkthroughs.TOPOLOGIES,
    **external_walkthrough.TOPOLOGIES,
    **fifty_walkthrough.TOPOLOGIES,
    **ambient_walkthrough.TOPOLOGIES,
}
SIZES = (walkthrough.OF_THREE, fifty_walkthrough.OF_TWELVE)
"""The same with other numbers of clusters."""


class StepFailed(errors.IsthmusError):
    """A step of the walkthrough ended with a failure."""

    code = "ISM-CLI-020"


@click.command()
@click.option(
    "--topology",
    default="primary-remote",
    show_default=True,
    type=click.Choice(sorted(TOPOLOGIES)),
    metavar="NAME",
    help=f"Which walkthrough to run: {', '.join(sorted(TOPOLOGIES))}.",
)
@click.option(
    "--clusters",
    default=None,
    type=click.IntRange(2, 50),
    help="How many: 3 where every cluster has a control plane, 12 in place of fifty.",
)
@click.option("--keep", is_flag=True, help="Leave the lab running afterwards.")
@click.option("--name", default="demo", show_default=True, help="Name of the lab.")
def command(topology: str, clusters: int | None, name: str, *, keep: bool) -> int:
    """Boot clusters, join them into one mesh, and show that it works.

    Unless told otherwise: two clusters on two networks, one of which has the control plane.

    Needs no Docker, no root and no cluster. Takes less than a minute and cleans up after itself.

    Example: isthmus demo --keep
    """
    walk = chosen(topology, clusters)
    _check_programs(walk)
    with tempfile.TemporaryDirectory(prefix="isthmus-demo-") as folder:
        show = _Show(Path(folder), name)
        try:
            booted = len(topologies.load(walk.lab).clusters)
            count = NUMBERS.get(booted, str(booted))
            show.run(
                walkthrough.Step(
                    f"Boot {count} clusters", f"isthmus lab up {walk.lab} --name {name}"
                )
            )
            show.use_kubeconfig()
            show.name(walk.variables, walk.steps)
            for step in walk.steps:
                show.run(step)
            show.sum_up()
        finally:
            if not keep:
                show.end()
    _what_next(name, walk, keep=keep)
    return 0


def chosen(topology: str, clusters: int | None) -> walkthrough.Walkthrough:
    """Return the walkthrough of a topology with so many clusters, its usual number if None.

    Raises:
        click.BadParameter: There is none.
    """
    offered = [TOPOLOGIES[topology], *(each[topology] for each in SIZES if topology in each)]
    for one in offered:
        if clusters in (None, one.clusters):
            return one
    counts = " or ".join(str(one.clusters) for one in offered)
    others = [name for each in SIZES for name, one in each.items() if one.clusters == clusters]
    hint = f"; {clusters} are for: {', '.join(others)}" if others else ""
    raise click.BadParameter(f"`{topology}` joins {counts}{hint}", param_hint="--clusters")


def _check_programs(chosen: walkthrough.Walkthrough) -> None:
    missing = [name for name in chosen.programs if shutil.which(name) is None]
    if missing:
        raise StepFailed(
            f"this walkthrough calls `{missing[0]}`, which is not on this machine",
            hint="install it, or take another --topology",
        )


def timed(shown: str, took_s: float) -> str:
    """Return what follows a command that was shown: how long it took, below it if need be."""
    took = f"   {took_s:.1f} s"
    last = f"{PROMPT}{shown}".rpartition("\n")[2]
    is_narrow = len(last) + len(took) <= COLUMNS
    return took if is_narrow else f"\n{OUTPUT_INDENT}{took.strip()}"


def _what_next(name: str, walk: walkthrough.Walkthrough, *, keep: bool) -> None:
    click.echo("\nWhat to try next:")
    if not keep:
        click.echo("  isthmus demo --keep          the same, and the clusters stay for you")
        click.echo("  isthmus lab up --help        clusters of your own on this machine")
    else:
        click.echo(f'  export KUBECONFIG="$(isthmus lab kubeconfig --name {name})"')
        kubectl = f"kubectl -n {walk.namespace} --context"
        click.echo(f"  {kubectl} cluster1 get pods")
        click.echo(f"  {kubectl} cluster2 scale deploy helloworld-v2 --replicas=0")
        host = f" --host {walk.host}" if walk.host else ""
        click.echo(f"  isthmus verify -n {walk.namespace}{host}")
        click.echo(f"  isthmus lab down --name {name}")
    click.echo(f"  {walk.page:28} the same steps by hand, and on real clusters")


class _Show:
    """Runs steps and tells of them."""

    def __init__(self, folder: Path, lab: str) -> None:
        self._folder = folder
        self._lab = lab
        self._began = time.monotonic()
        self.first_answer_s = 0.0
        self._environment = environment(folder)
        for part in ("samples", "tools"):
            place = Path(__file__).resolve().parents[3] / part
            if not place.is_dir():
                raise StepFailed(
                    f"the demo's {part} are not beside this installation",
                    hint="run `make demo` in a checkout of the project",
                )
            (folder / part).symlink_to(place)

    def use_kubeconfig(self) -> None:
        """Point every further command to the lab's clusters."""
        found = self._output(f"isthmus lab kubeconfig --name {self._lab}")
        self._environment["KUBECONFIG"] = found.strip()

    def name(self, variables: Mapping[str, str], steps: Sequence[walkthrough.Step]) -> None:
        """Set what the steps' guide calls things."""
        used = [place for place in PLACES if any(f"{{{place}}}" in each.command for each in steps)]
        if variables:
            click.echo("\n" + click.style("What the guide calls things", bold=True))
            places = dict.fromkeys(used, str(self._folder))
            for key, value in {**places, **variables}.items():
                click.echo(f"  $ export {key}={value}")
                self._environment[key] = value
            click.echo("  $ alias istioctl=isthmus")

    def run(self, step: walkthrough.Step) -> None:
        """Print a step, run it, and print how long it took.

        Raises:
            StepFailed: With all that the command wrote (ISM-CLI-020).
        """
        for name, text in step.files.items():
            (self._folder / name).write_text(text, encoding="utf-8")
        if step.title:
            click.echo("\n" + click.style(step.title, bold=True))
        for name, text in step.files.items():
            click.echo(f"  $ cat {name}")
            click.echo("".join(f"{OUTPUT_INDENT}{line}\n" for line in text.splitlines()), nl=False)
        shown = step.typed.replace("\n", f"\n{FURTHER}")
        click.echo(f"{PROMPT}{shown}", nl=False)
        sys.stdout.flush()
        began = time.monotonic()
        ended = self._run(step.typed, merged=step.shows_output)
        took = timed(shown, time.monotonic() - began)
        click.echo(click.style(took, dim=True))
        if ended.returncode:
            raise StepFailed(
                f"a step ended with status {ended.returncode}: {step.command.splitlines()[0]}",
                detail=(ended.stdout + (ended.stderr or ""))[-4000:],
                hint="isthmus lab doctor checks this machine; --keep leaves the lab to look at",
            )
        if step.shows_output:
            room = COLUMNS - len(OUTPUT_INDENT)
            for line in tables.fitted(ended.stdout.splitlines(), width=room):
                click.echo(OUTPUT_INDENT + line)
        if step.awaited and step.awaited in ended.stdout and not self.first_answer_s:
            self.first_answer_s = time.monotonic() - self._began
        if step.variable:
            self._environment[step.variable] = ended.stdout.strip()

    def sum_up(self) -> None:
        """Print how long it took, from the lab's start on."""
        took_s = time.monotonic() - self._began
        click.echo(
            f"\nfirst answer from another cluster after {self.first_answer_s:.1f} s, "
            f"all done after {took_s:.1f} s"
        )

    def end(self) -> None:
        """Take the lab down, if it is up."""
        self._run(f"isthmus lab down --name {self._lab}")

    def _output(self, text: str) -> str:
        ended = self._run(text)
        if ended.returncode:
            raise StepFailed(f"a step ended with status {ended.returncode}: {text}",
                             detail=ended.stderr)  # fmt: skip
        return ended.stdout

    def _run(self, text: str, *, merged: bool = False) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["/bin/sh", "-c", text],
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merged else subprocess.PIPE,
            text=True,
            check=False,
        )


def environment(folder: Path) -> dict[str, str]:
    """Return an environment in which `isthmus` is this one, and `kubectl` is one that exists."""
    programs = folder / "bin"
    programs.mkdir()
    for name in ("isthmus", "istioctl"):
        _program(programs / name, f'exec {sys.executable} -m isthmus "$@"')
    if shutil.which("kubectl") is None:
        _program(programs / "kubectl", f'exec {sys.executable} -m isthmus kubectl "$@"')
    return {**os.environ, "PATH": f"{programs}:{os.environ.get('PATH', '/usr/bin:/bin')}"}


def _program(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
    path.chmod(0o755)
