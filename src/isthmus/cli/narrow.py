"""Breaks shell commands between words, so that they fit into a narrow window and mean the same.

Lines of files that a command writes, between `<<EOF` and `EOF`, stay as they are.
"""

import re
from collections.abc import Iterable

WIDTH = 76
"""A demo puts four columns before a command, and two before its further lines."""

CONTINUED = "    "
_END = " \\"
_FILE = re.compile(r"<<'?(\w+)'?")
_LEADS = re.compile(r">|--?[a-z][-a-z]*")
_WORD = re.compile(r"""(?:'[^']*'|"(?:\\.|[^"\\])*"|\\.|[^\s'"\\])+""")


def narrowed(command: str) -> str:
    """Return a command whose lines are broken between words where they are too long."""
    return "\n".join(_lines(command.split("\n")))


def _lines(lines: list[str]) -> Iterable[str]:
    end, quotes = "", 0
    for line in lines:
        is_whole = not end and not quotes % 2
        if end:
            end = "" if line == end else end
        elif opened := _FILE.search(line):
            end = opened[1]
        else:
            quotes += line.count("'")
        if is_whole and not quotes % 2 and len(line) > WIDTH:
            yield from _broken(line)
        else:
            yield line


def _broken(line: str) -> Iterable[str]:
    start = line[: len(line) - len(line.lstrip())]
    ending = _END if line.endswith(_END) else ""
    taken, indent = "", start
    for part in _parts(line.removesuffix(_END)):
        if taken and not _fits(f"{taken} {part}"):
            yield taken + _END
            taken, indent = "", start or CONTINUED
        if not taken and not _fits(indent + part):
            *before, part = part.rsplit(" ", 1)
            yield from (f"{indent}{word}{_END}" for word in before)
            indent = ""
        taken = f"{taken} {part}" if taken else indent + part
    yield taken + ending


def _fits(line: str) -> bool:
    return len(line) + len(_END) <= WIDTH


def _parts(line: str) -> Iterable[str]:
    """Yield the words of a line, an option and `>` together with what they are about."""
    held = ""
    for word in _WORD.findall(line):
        if held and not word.startswith("-"):
            word = f"{held} {word}"
        elif held:
            yield held
        held = word if _LEADS.fullmatch(word) else ""
        if not held:
            yield word
    if held:
        yield held
