"""Why something is as it is: the chain of inputs behind one value, as a tree to print.

It says what was read, not how the function weighed it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from typing_extensions import override

from isthmus.engine import collections, nodes, reader

MOST_INPUTS: Final = 50
"""Inputs shown of one value; the rest is counted."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """One value, and the values that it was computed from.

    Attributes:
        what: `collection[key]`.
        note: What is special about it, or empty.
    """

    what: str
    note: str = ""
    inputs: tuple["Explanation", ...] = ()

    def lines(self, indent: int = 0) -> Iterator[str]:
        """Yield one line a value, indented by depth."""
        note = f"  ({self.note})" if self.note else ""
        yield f"{'  ' * indent}{self.what}{note}"
        for below in self.inputs:
            yield from below.lines(indent + 1)

    @override
    def __str__(self) -> str:
        return "\n".join(self.lines())


def explain(by_rank: Mapping[int, nodes.Node], read: reader.Read) -> Explanation:
    """Follow `read` down to the sources; what was shown once is not opened again."""
    return _opened(by_rank, read, set())


def _opened(
    by_rank: Mapping[int, nodes.Node], read: reader.Read, shown: set[reader.Read]
) -> Explanation:
    readable, key = read
    what = _name(read)
    node = by_rank.get(readable.rank)
    if isinstance(readable, collections.Collection) and key is collections.WHOLE:
        return Explanation(what, f"all {len(readable.content)} entries")
    if isinstance(readable, collections.Collection) and key not in readable.content:
        return Explanation(what, "does not exist")
    if node is None:
        return Explanation(what)
    if read in shown:
        return Explanation(what, "as above")
    shown.add(read)
    origins = list(dict.fromkeys(node.origins(key)))
    note = f"{len(origins)} inputs, {MOST_INPUTS} shown" if len(origins) > MOST_INPUTS else ""
    return Explanation(
        what,
        note,
        tuple(_opened(by_rank, origin, shown) for origin in origins[:MOST_INPUTS]),
    )


def _name(read: reader.Read) -> str:
    readable, key = read
    return readable.name if key is collections.WHOLE else f"{readable.name}[{key!r}]"
