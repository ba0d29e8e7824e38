"""Who looks at something without its being written down, because it can be told whom it concerns.

What a derivation reads is recorded, which takes an entry for each thing that is read and for each
reader. Where an index says anyway whom a change concerns, as addresses lead from pods to the slices
that name them, a derivation hears of the change through that, and nothing is recorded.

It decides nothing about what is heard: whoever declares it answers for that it covers all that the
derivation looks at.

Where much changes at once, most of whom that concerns may have changed as well and is computed anyway:
of a cluster that is heard for the first time nobody need be looked for.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar, cast

from isthmus.engine import cells, collections, reader

K = TypeVar("K")
K2 = TypeVar("K2")
V2 = TypeVar("V2")
P = TypeVar("P", bound=Hashable)

MANY: Final = 50
"""Inputs that are gone through in the time in which one is found that a change concerns."""


@dataclass(frozen=True, slots=True)
class Heard(Generic[K]):
    """A collection that a derivation hears of, and which of its inputs look at an entry."""

    of: collections.Collection[object, object]
    concerns: Callable[[reader.Reader, object, object], Iterable[K]]
    part_of: Callable[[object], Hashable] | None


def heard(
    of: collections.Collection[K2, V2],
    concerns: Callable[[reader.Reader, K2, V2], Iterable[K]],
    *,
    part_of: Callable[[K | K2], P] | None = None,
) -> Heard[K]:
    """Return how a derivation hears of a collection.

    Args:
        of: What it hears of.
        concerns: Which inputs look at an entry, from what it is and from what it was before. It may
            read what is computed before the derivation.
        part_of: In which part an entry is, and an input, if no input looks at entries of another
            part than its own. A part whose inputs have all changed is not asked about.
    """
    # Sound: it is asked about the keys and values of that very collection.
    return Heard(
        cast("collections.Collection[object, object]", of),
        cast("Callable[[reader.Reader, object, object], Iterable[K]]", concerns),
        cast("Callable[[object], Hashable] | None", part_of),
    )


class Hearing(Generic[K]):
    """Marks the inputs of a derivation that look at what has changed."""

    __slots__ = ("_dirty", "_enqueue", "_heard", "_inputs", "_rank", "_was")

    def __init__(
        self,
        said: Heard[K],
        *,
        inputs: Mapping[K, object],
        dirty: cells.DirtyKeys[K],
        rank: int,
        enqueue: cells.Enqueue,
    ) -> None:
        self._heard = said
        self._inputs = inputs
        self._dirty = dirty
        self._rank = rank
        self._enqueue = enqueue
        self._was: dict[object, object] = {}
        said.of.followers.append(self)

    def update(self, keys: Mapping[object, object]) -> None:
        """Note that entries have changed, with what they were."""
        if keys and not self._was:
            self._enqueue(self._rank)
        self._was.update(keys)

    def tell(self) -> None:
        """Mark whom it concerns; what says so is computed by now."""
        was, self._was = self._was, {}
        if not was:
            return
        read = reader.Reader(owner=self._heard.of.owner, rank=self._rank)
        concerned = dict[K, None]()
        try:
            for key, old in self._asked_about(was).items():
                for value in (old, self._heard.of.content.get(key, collections.ABSENT)):
                    if value is not collections.ABSENT:
                        found = self._heard.concerns(read, key, value)
                        concerned.update(dict.fromkeys(found))
        except Exception:  # Nobody knows whom one bad object concerns.
            concerned.update(dict.fromkeys(self._inputs))
        read.close()
        self._dirty.mark([key for key in concerned if key in self._inputs])

    def _asked_about(self, was: Mapping[object, object]) -> Mapping[object, object]:
        """Return those that may concern an input that is not computed anyway."""
        part_of = self._heard.part_of
        if part_of is None or len(was) * MANY < len(self._inputs):
            return was
        parts = {part_of(key) for key in self._dirty.lacks(self._inputs)}
        return {key: old for key, old in was.items() if part_of(key) in parts}
