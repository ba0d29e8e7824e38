"""Lays tables out, also in windows that are too narrow for them; pure.

A table that is too wide has less between its columns. Where that is not enough, each row takes
several lines, and each of these is aligned for itself, so that nothing is cut and nothing breaks within a word.
"""

import itertools
import re
from collections.abc import Iterator, Sequence

NARROW_GAP = 2
FURTHER = "    "
"""Stands before the further lines of a row."""

_HEADING = re.compile(r"[A-Z][A-Z0-9()/-]*(?: [A-Z0-9()/-]+)*")
_HEADINGS = re.compile(rf"{_HEADING.pattern}(?: {{2,}}{_HEADING.pattern})+ *")


def laid_out(rows: Sequence[Sequence[str]], *, gap: int, width: int | None = None) -> Iterator[str]:
    """Yield the lines of a table, whose first row is its headings; without a width it has room."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    if width is not None and _taken(widths, gap) > width:
        gap = min(gap, NARROW_GAP)
    parts = _parts(widths, gap, width)
    for row in rows:
        for part in parts:
            cells = [row[at].ljust(widths[at]) for at in part]
            line = (" " * gap).join(cells).rstrip()
            if line or len(parts) == 1:
                yield line if part.start == 0 else FURTHER + line


def fitted(lines: Sequence[str], *, width: int) -> Iterator[str]:
    """Yield what a command has written, with its tables laid out anew and other long lines cut."""
    rest = list(lines)
    while rest:
        rows = _rows(rest)
        if any(len(line) > width for line in rest[: len(rows)]):
            yield from laid_out(rows, gap=NARROW_GAP, width=width)
        else:
            yield from (_cut(line, width) for line in rest[: len(rows) or 1])
        del rest[: len(rows) or 1]


def _taken(widths: Sequence[int], gap: int) -> int:
    return sum(widths) + gap * (len(widths) - 1)


def _parts(widths: Sequence[int], gap: int, width: int | None) -> list[range]:
    """Return which columns are in which line of a row."""
    if width is None:
        return [range(len(widths))]
    parts, begin = list[range](), 0
    for end in range(1, len(widths) + 1):
        room = width - (len(FURTHER) if begin else 0)
        if end > begin + 1 and _taken(widths[begin:end], gap) > room:
            parts.append(range(begin, end - 1))
            begin = end - 1
    return [*parts, range(begin, len(widths))]


def _rows(lines: Sequence[str]) -> list[list[str]]:
    """Return the rows of the table that lines begin with, if they do."""
    starts = _starts(lines[0])
    rows = itertools.takewhile(lambda line: _is_row(line, starts), lines if starts else ())
    return [_cells(line, starts) for line in rows]


def _starts(line: str) -> list[int]:
    """Return where columns begin below a line of headings; nowhere if it is none."""
    if not _HEADINGS.fullmatch(line):
        return []
    return [found.start() for found in _HEADING.finditer(line)]


def _is_row(line: str, starts: Sequence[int]) -> bool:
    return bool(line) and all(line[at - 1 : at] in {"", " "} for at in starts[1:])


def _cells(line: str, starts: Sequence[int]) -> list[str]:
    ends = [*starts[1:], None]
    return [line[start:end].strip() for start, end in zip(starts, ends, strict=True)]


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else f"{line[: width - 1].rstrip()}…"
