"""What one transaction changed: old and new value by collection and key.

Most of what changes nobody asks about, so that what was there before is kept, and put beside what
is there now for who asks. A batch stays what it was when it was published: should somebody keep it,
the next transaction has it look at everything first.
"""

from collections.abc import Mapping
from typing import TypeVar, cast

from isthmus.engine import collections

K = TypeVar("K")
V = TypeVar("V")

Before = Mapping[collections.Readable, Mapping[object, object]]
"""What was there, by what has changed and key; ABSENT where nothing was."""

Found = Mapping[object, collections.Change[object]]


class Changes:
    """All that one transaction changed, in all collections."""

    __slots__ = ("__weakref__", "_before", "_found")

    def __init__(self, before: Before) -> None:
        self._before = before
        self._found: dict[collections.Readable, Found] = {}

    def of(self, collection: collections.Collection[K, V]) -> Mapping[K, collections.Change[V]]:
        """Return the changes of one collection, by key; empty when it is as it was."""
        # Sound: a batch is filed under the very collection that its keys and values came from.
        return cast("Mapping[K, collections.Change[V]]", self._of(collection))

    def of_single(self, single: collections.Single[V]) -> collections.Change[V] | None:
        """Return the change of a single value, or None when it is as it was."""
        found = self._of(single).get(collections.WHOLE)
        return cast("collections.Change[V] | None", found)

    def __bool__(self) -> bool:
        return bool(self._before)

    def settle(self) -> None:
        """Look at all that is there now, which is about to change."""
        for readable in self._before:
            self._of(readable)

    def _of(self, readable: collections.Readable) -> Found:
        before = self._before.get(readable)
        if before is None:
            return collections.NOTHING
        found = self._found.get(readable)
        if found is None:
            found = self._found[readable] = {
                key: collections.Change(_present(was), _present(readable.now(key)))
                for key, was in before.items()
            }
        return found


def _present(value: object) -> object:
    return None if value is collections.ABSENT else value
