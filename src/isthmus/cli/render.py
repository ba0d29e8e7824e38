"""Turns errors, tables and progress into text; nothing else in the product does.

Standard output is only for what a program may read; all else goes to standard error.
"""

import json
import shutil
import sys
from collections.abc import Iterable, Sequence

import click

from isthmus.base import errors
from isthmus.cli import tables


def error(problem_: errors.IsthmusError) -> None:
    """Print an error with its code, facts, what still works, and its hint."""
    click.echo(
        click.style(f"error[{problem_.code}]", fg="red", bold=True) + f": {problem_.happened}",
        err=True,
    )
    for line in problem_.detail.splitlines():
        click.echo(f"  {line}", err=True)
    if problem_.still_working:
        click.echo(f"  still working: {problem_.still_working}", err=True)
    if problem_.hint:
        click.echo("\n" + click.style("hint", bold=True) + f": {problem_.hint}", err=True)


def finding(found: errors.Finding) -> None:
    """Print a finding: something wrong with one object that stops nothing else."""
    click.echo(
        click.style(f"warning[{found.code}]", fg="yellow", bold=True)
        + f": {found.subject}: {found.happened}",
        err=True,
    )
    if found.hint:
        click.echo(f"  hint: {found.hint}", err=True)


def obstacle(found: errors.Finding) -> None:
    """Print a finding that must be settled before anything is done."""
    click.echo(
        click.style(f"error[{found.code}]", fg="red", bold=True)
        + f": {found.subject}: {found.happened}",
        err=True,
    )
    if found.hint:
        click.echo(f"  hint: {found.hint}", err=True)


def problem(text: str) -> None:
    """Print a short failure that has no code."""
    click.echo(click.style("error", fg="red", bold=True) + f": {text}", err=True)


def note(text: str) -> None:
    """Print progress or a remark for a person."""
    click.echo(text, err=True)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, gap: int = 3) -> None:
    """Print rows below headings, columns aligned by spaces, as Istio's own tables are.

    A terminal that is too narrow for them gets them in several lines each; who reads a pipe does not.
    """
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in tables.laid_out([headings, *rows], gap=gap, width=width):
        click.echo(line)


def as_json(document: object) -> None:
    """Print a document for a program."""
    json.dump(document, sys.stdout, indent=2, sort_keys=True)
    sys.stdout.write("\n")
