"""The options by which commands take an installation: files, flags, revision."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import click

from isthmus.install import helm, operator, options

Command = TypeVar("Command", bound=Callable[..., object])


def given(command: Command) -> Command:
    """Add `files`, `values`, `flags` and `revision`."""
    for option in (
        click.option("--revision", "-r", default="", help="Revision of the control plane."),
        click.option(
            "--set",
            "-s",
            "flags",
            multiple=True,
            metavar="PATH=VALUE",
            help="One field below `spec`, such as values.global.network=network1.",
        ),
        click.option(
            "--values",
            "values",
            multiple=True,
            metavar="FILE",
            help="Values as Helm's charts of Istio take them. May be repeated.",
        ),
        click.option(
            "--filename",
            "-f",
            "files",
            multiple=True,
            metavar="FILE",
            help="IstioOperator file; `-` reads standard input. May be repeated.",
        ),
    ):
        command = option(command)
    return command


def chosen(
    files: Sequence[str], flags: Sequence[str], revision: str, *, values: Sequence[str] = ()
) -> options.Options:
    """Return what the files, files of values and flags ask for.

    Raises:
        operator.OptionsRefused: Something in them cannot be understood (ISM-INST-001).
    """
    texts = [(name, _text(name)) for name in files]
    extra = [*flags, f"revision={revision}"] if revision else list(flags)
    given = [helm.read(name, _text(name)) for name in values]
    return options.of_spec(operator.read(texts, flags=extra, values=given))


def _text(name: str) -> str:
    if name == "-":
        return sys.stdin.read()
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise operator.OptionsRefused(
            f"cannot read `{name}`",
            detail=getattr(error, "strerror", None) or str(error),
            still_working="nothing was changed in the cluster",
            hint="name a file that is there, or `-` for what is piped in",
        ) from error
