"""What one transaction changed: old and new value by collection and key.

Nothing here follows the graph further: a batch stays what it was when it was published.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Generic, NamedTuple, TypeVar, cast

from isthmus.engine import collections

K = TypeVar("K")
V = TypeVar("V")

NOTHING: Final[Mapping[object, object]] = MappingProxyType({})


class Change(NamedTuple, Generic[V]):
    """One key before and after; None where it did not exist. The two always differ."""

    old: V | None
    new: V | None


class Changes:
    """All that one transaction changed, in all collections."""

    __slots__ = ("_by_collection",)

    def __init__(
        self, by_collection: Mapping[collections.Readable, Mapping[object, Change[object]]]
    ) -> None:
        self._by_collection = by_collection

    def of(self, collection: collections.Collection[K, V]) -> Mapping[K, Change[V]]:
        """Return the changes of one collection, by key; empty when it is as it was."""
        found = self._by_collection.get(collection, NOTHING)
        # Sound: a batch is filed under the very collection that its keys and values came from.
        return cast("Mapping[K, Change[V]]", found)

    def of_single(self, single: collections.Single[V]) -> Change[V] | None:
        """Return the change of a single value, or None when it is as it was."""
        found = self._by_collection.get(single, NOTHING)
        return cast("Change[V] | None", found.get(collections.WHOLE))

    def __bool__(self) -> bool:
        return bool(self._by_collection)
