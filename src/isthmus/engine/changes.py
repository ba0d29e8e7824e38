"""What one transaction changed: old and new value by collection and key.

Nothing here follows the graph further: a batch stays what it was when it was published.
"""

from collections.abc import Mapping
from typing import TypeVar, cast

from isthmus.engine import collections

K = TypeVar("K")
V = TypeVar("V")


class Changes:
    """All that one transaction changed, in all collections."""

    __slots__ = ("_by_collection",)

    def __init__(
        self,
        by_collection: Mapping[collections.Readable, Mapping[object, collections.Change[object]]],
    ) -> None:
        self._by_collection = by_collection

    def of(self, collection: collections.Collection[K, V]) -> Mapping[K, collections.Change[V]]:
        """Return the changes of one collection, by key; empty when it is as it was."""
        found = self._by_collection.get(collection, collections.NOTHING)
        # Sound: a batch is filed under the very collection that its keys and values came from.
        return cast("Mapping[K, collections.Change[V]]", found)

    def of_single(self, single: collections.Single[V]) -> collections.Change[V] | None:
        """Return the change of a single value, or None when it is as it was."""
        found = self._by_collection.get(single, collections.NOTHING)
        return cast("collections.Change[V] | None", found.get(collections.WHOLE))

    def __bool__(self) -> bool:
        return bool(self._by_collection)
