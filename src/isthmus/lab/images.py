"""Which local program stands for which container image.

Decides what a container executes; the table is `images.yaml` beside this module. Refuses to know
how it is executed.

Error: `UnknownImageError` (ISM-LAB-202), which a pod shows as `ErrImagePull`.
"""

import fnmatch
import functools
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import yaml

from isthmus.base import errors


class UnknownImageError(errors.IsthmusError):
    """No local program stands for an image."""

    code = "ISM-LAB-202"


@dataclass(frozen=True, slots=True)
class Image:
    """A program that stands for an image.

    Attributes:
        shown: The image's name in help.
        capabilities: What it may keep where users cannot be told apart.
        programs: Further programs that can be executed in it, by name.
    """

    patterns: tuple[str, ...]
    shown: str
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    env: Mapping[str, str]
    capabilities: tuple[str, ...]
    programs: Mapping[str, tuple[str, ...]]

    def executed(self, argv: Sequence[str]) -> tuple[str, ...]:
        """Return what to execute when somebody asks for `argv` in a container."""
        own = self.programs.get(argv[0]) if argv else None
        return _with_python((*own, *argv[1:]) if own else argv)

    def argv(self, *, command: Sequence[str], args: Sequence[str]) -> tuple[str, ...]:
        """Return what to execute; `command` replaces the entrypoint, `args` the arguments."""
        own = (*self.entrypoint, *(args or self.command))
        chosen = (*self.executed(command), *args) if command else own
        return _with_python(chosen)


def _with_python(argv: Sequence[str]) -> tuple[str, ...]:
    words = tuple(argv)
    return (sys.executable, *words[1:]) if words[:1] == ("python",) else words


def _found_by_python() -> Mapping[str, str]:
    """Return what lets a container's Python find the packages that this one was told to use."""
    told = os.environ.get("PYTHONPATH", "")
    return {"PYTHONPATH": told} if told else {}


def find(name: str) -> Image:
    """Return the program for an image.

    Raises:
        UnknownImageError: The lab has none; the hint names those that it has.
    """
    full = name if ":" in name.rpartition("/")[2] or "@" in name else f"{name}:latest"
    for image in table():
        if any(fnmatch.fnmatchcase(full, pattern) for pattern in image.patterns):
            return image
    raise UnknownImageError(
        f"the lab has no program for image `{name}`",
        hint="images it knows: " + ", ".join(image.shown for image in table()),
    )


@functools.cache
def table() -> tuple[Image, ...]:
    """Return all images that the lab knows."""
    text = pathlib.Path(__file__).with_name("images.yaml").read_text()
    return tuple(
        Image(
            patterns=tuple(entry["patterns"]),
            shown=entry["shown"],
            entrypoint=tuple(entry.get("entrypoint", ())),
            command=tuple(entry.get("command", ())),
            env={**_found_by_python(), **entry.get("env", {})},
            capabilities=tuple(entry.get("capabilities", ())),
            programs={name: tuple(argv) for name, argv in entry.get("programs", {}).items()},
        )
        for entry in yaml.safe_load(text)["images"]
    )
