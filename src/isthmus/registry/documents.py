"""Reads YAML that came from a cluster, within limits.

The text is scanned first, without recursion, and refused when it is too large, nests too deeply or
repeats itself by aliases. Only then is it built, by the loader in Python: the one in C ends the
process on some inputs.
"""

from collections.abc import Mapping
from typing import Final

import yaml

from isthmus.base import errors

MOST_CHARACTERS: Final = 128 * 1024
MOST_LEVELS: Final = 24

OPENING: Final = (
    yaml.BlockMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.FlowSequenceStartToken,
)
CLOSING: Final = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)


class DocumentBroken(errors.IsthmusError):
    """A text is no YAML that we read."""

    code = "ISM-REG-001"


def parse(text: str) -> object:
    """Return what a YAML text says; None for an empty one.

    Raises:
        DocumentBroken: It is malformed, or beyond the limits (ISM-REG-001).
    """
    if len(text) > MOST_CHARACTERS:
        raise DocumentBroken(f"is longer than {MOST_CHARACTERS} characters")
    try:
        _scan(text)
        document: object = yaml.load(
            text, Loader=yaml.SafeLoader
        )  # Pure Python, plain values only.
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" at line {mark.line + 1}" if mark else ""
        raise DocumentBroken(f"is malformed{where}: {error.problem}") from error
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError, TypeError) as error:
        raise DocumentBroken(f"is malformed: {str(error)[:200]}") from error
    return document


def layered(text: str, *, below: str) -> object:
    """Return what a text says, and where it is silent, what the one below it says.

    Raises:
        DocumentBroken: One of them is malformed, or beyond the limits (ISM-REG-001).
    """
    document = parse(text)
    return _laid(parse(below), document) if below else document


def _laid(below: object, above: object) -> object:
    if isinstance(below, Mapping) and isinstance(above, Mapping):
        return {**below, **{key: _laid(below.get(key), value) for key, value in above.items()}}
    return below if above is None else above


def _scan(text: str) -> None:
    levels = 0
    for token in yaml.scan(text, Loader=yaml.SafeLoader):
        if isinstance(token, OPENING):
            levels += 1
        elif isinstance(token, CLOSING):
            levels -= 1
        elif isinstance(token, yaml.AliasToken):
            raise DocumentBroken("uses an alias (`*name`), which is not read")
        if levels > MOST_LEVELS:
            raise DocumentBroken(f"nests deeper than {MOST_LEVELS} levels")
