"""How a derivation reads: every read is recorded at the finest grain that it has.

A read of a key depends on that key alone, a lookup on that group, and a read of all entries on
every change of the collection. What is returned is read-only, is not a copy, and is valid until
the derivation returns. Its order is the order of arrival, or that of whatever holds a source: a
derivation that cares must sort.
"""

from collections.abc import Hashable, Mapping
from collections.abc import Set as AbstractSet
from typing import Final, TypeVar

from isthmus.engine import collections, faults

I = TypeVar("I")  # noqa: E741
K = TypeVar("K")
V = TypeVar("V")

Read = tuple[collections.Readable, Hashable]
"""What was read, and which part of it."""

Part = tuple[collections.Readable, tuple[Hashable, ...]]
"""What a run has read of one collection: the keys."""

Reads = tuple[Part, ...]
"""All that a run has read."""

CLOSED: Final = -1

ONCE: Final[dict[Hashable, None]] = {collections.WHOLE: None}
"""What is read of a single value; never written."""


class KeepLast(Exception):  # noqa: N818  # An answer, not an error: "my inputs are broken".
    """Raised by a derivation to keep its last good answer, which differs from "nothing exists"."""


class Reader:
    """Reads for one run of one derivation."""

    __slots__ = ("_hears", "_last", "_owner", "_rank", "_reads", "_shows")

    def __init__(
        self,
        *,
        owner: object,
        rank: int,
        last: object = None,
        hears: AbstractSet[collections.Readable] = frozenset(),
        shows: bool = False,
    ) -> None:
        self._hears = hears
        self._shows = shows
        self._last = last
        self._owner = owner
        self._rank = rank
        self._reads: dict[collections.Readable, dict[Hashable, None]] = {}

    @property
    def last(self) -> object:
        """What the run gave before, where that was a value of its own input's key, or None.

        To take equal parts over from it, so that they stay the same objects. The answer must be
        equal whatever it is.
        """
        return self._last

    def get(self, collection: collections.Collection[K, V], key: K) -> V | None:
        """Return the value of `key`, or None."""
        if collection.rank >= self._rank or collection.owner is not self._owner:
            self._refuse(collection)
        known = self._reads.get(collection)
        if known is None:
            self._reads[collection] = {key: None}
        else:
            known[key] = None
        return collection.content.get(key)

    def heard(self, collection: collections.Collection[K, V], key: K) -> V | None:
        """Return the value of `key`, or None, of a collection that the derivation hears of."""
        if self._shows:
            return self.get(collection, key)
        if collection not in self._hears or self._rank == CLOSED:
            self._refuse(collection)
        return collection.content.get(key)

    def items(self, collection: collections.Collection[K, V]) -> Mapping[K, V]:
        """Return all entries. Costly: any change of the collection computes the reader again."""
        self._record(collection, collections.WHOLE)
        return collection.view

    def lookup(self, index: collections.Groups[I, K, V], group: I) -> Mapping[K, V]:
        """Return the entries of one group; empty when it has none."""
        self._record(index, group)
        return index.bucket(group)

    def value(self, single: collections.Single[V]) -> V:
        """Return a single value; keeps the reader's last answer while there is none."""
        if single.rank >= self._rank or single.owner is not self._owner:
            self._refuse(single)
        self._reads[single] = ONCE
        if single.content is collections.ABSENT:
            raise KeepLast
        return single.content

    def close(self) -> Reads:
        """End the run and return what was read, in order."""
        self._rank = CLOSED
        return tuple([(readable, tuple(keys)) for readable, keys in self._reads.items()])

    def _record(self, readable: collections.Readable, key: Hashable) -> None:
        if readable.rank >= self._rank or readable.owner is not self._owner:
            self._refuse(readable)
        known = self._reads.get(readable)
        if known is None:
            self._reads[readable] = {key: None}
        else:
            known[key] = None

    def _refuse(self, readable: collections.Readable) -> None:
        if self._rank == CLOSED:
            raise faults.HandleClosed(
                f"`{readable.name}` was read through a reader whose derivation has returned",
                hint="read inside the derivation, and do not keep the reader",
            )
        if readable.owner is self._owner and readable.rank < self._rank:
            raise faults.ReadOutOfOrder(
                f"nobody says whom a change of `{readable.name}` concerns",
                hint="declare that the derivation hears of it, or have what it reads recorded",
            )
        raise faults.ReadOutOfOrder(
            f"`{readable.name}` is not computed before what reads it",
            hint="declare what is read before what reads it, in the same graph",
        )
