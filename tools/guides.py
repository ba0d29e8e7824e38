"""Reads what `docs/howto/from-istio.md` says of each command of each guide."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs/howto/from-istio.md"
CODE = re.compile(r"``\s(?P<long>.+?)\s``|`(?P<short>[^`]+)`")
ROW = re.compile(r"^\| (?P<guide>.+) (?<!\\)\| (?P<here>.+) \|$")
AS_WRITTEN, REPLACED, ADDED = "as written", "replaced: ", "added: "
WAYS = (AS_WRITTEN, REPLACED, ADDED, "not needed", "not yet", "accepted by Kubernetes, not yet")
"""How the second column begins."""
BETWEEN = re.compile(r"[ ,]*(then|and)?[ ,]*")


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a table.

    Attributes:
        guide: The guide's commands, empty where it tells of something in words.
        here: What the page says about them.
        mentioned: Everything that the second column shows as code.
    """

    guide: Sequence[str]
    here: str
    mentioned: Sequence[str]

    @property
    def typed(self) -> Sequence[str]:
        """What a person types here, nothing where that is a cloud's."""
        if REPLACED in self.here or self.here.startswith(ADDED):
            return _leading_code(self.here.partition(": ")[2])
        is_same = self.here.startswith(AS_WRITTEN) and "(the cloud's)" not in self.here
        return self.guide if is_same else ()


def sections() -> dict[str, list[Row]]:
    """Return the rows below each heading of the page that has a table of commands."""
    return read(PAGE.read_text(encoding="utf-8"))


def read(text: str) -> dict[str, list[Row]]:
    """Return the rows below each heading that has a table of commands."""
    found: dict[str, list[Row]] = {}
    for part in text.split("\n## ")[1:]:
        heading, _, rest = part.partition("\n")
        _, begin, rows = rest.partition("| the guide's command | here |\n|---|---|\n")
        if begin:
            found[heading] = list(_rows(rows))
    return found


def _rows(text: str) -> Iterable[Row]:
    for line in text.splitlines():
        matched = ROW.match(line)
        if not matched:
            return
        yield Row(code(matched["guide"]), matched["here"], code(matched["here"]))


def code(text: str) -> list[str]:
    """Return what a cell shows as code."""
    return [_plain(matched) for matched in CODE.finditer(text)]


def _plain(matched: re.Match[str]) -> str:
    return (matched["long"] or matched["short"]).replace("\\|", "|")


def _leading_code(text: str) -> list[str]:
    """Return the commands that a text begins with, up to the first other word."""
    found, place = [], 0
    while matched := CODE.match(text, place):
        found.append(_plain(matched))
        gap = BETWEEN.match(text, matched.end())
        place = gap.end() if gap else matched.end()
    return found


def script(rows: Iterable[Row], swaps: Mapping[str, str]) -> str:
    """Return the rows as a shell program, with other words in place of some."""
    text = "\n".join(line for row in rows for line in row.typed) + "\n"
    for words, others in swaps.items():
        text = text.replace(words, others)
    return text
