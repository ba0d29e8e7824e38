"""What one transaction wants to change, gathered until its block ends.

Nothing is applied here: a block that raises leaves no trace.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar, cast

from isthmus.engine import collections, faults

K = TypeVar("K")
V = TypeVar("V")

Writes = dict[collections.Source[object, object], dict[object, "object | collections.Absent"]]
"""By source and key the value to be; ABSENT deletes."""


class Transaction:
    """Gathers writes; a later write to a key replaces an earlier one."""

    __slots__ = ("_is_open", "_owner", "_writes")

    def __init__(self, *, owner: object) -> None:
        self._owner = owner
        self._is_open = True
        self._writes: Writes = {}

    def put(self, source: collections.Source[K, V], key: K, value: V) -> None:
        """Make `key` be `value`."""
        self._of(source)[key] = value

    def delete(self, source: collections.Source[K, V], key: K) -> None:
        """Make `key` not exist; it need not."""
        self._of(source)[key] = collections.ABSENT

    def replace(
        self,
        source: collections.Source[K, V],
        within: Callable[[K], bool],
        values: Mapping[K, V],
    ) -> None:
        """Make all keys for which `within` holds exactly those of `values`.

        Raises:
            KeyOutsideReplacement: `values` has a key for which `within` does not hold
                (ISM-ENGINE-005).
        """
        for key in values:
            if not within(key):
                raise faults.KeyOutsideReplacement(
                    f"a replacement within `{source.name}` also writes `{key!r}`"
                )
        writes = self._of(source)
        for key in (*filter(within, source.content), *filter(within, writes)):
            writes[key] = collections.ABSENT
        writes.update(values)

    def close(self) -> Writes:
        """End the gathering and hand over what was gathered."""
        self._is_open = False
        gathered, self._writes = self._writes, {}
        return gathered

    def _of(self, source: collections.Source[K, V]) -> dict[K, V | collections.Absent]:
        if not self._is_open:
            raise faults.HandleClosed(f"`{source.name}` was written after its transaction")
        if source.owner is not self._owner:
            raise faults.ReadOutOfOrder(f"`{source.name}` belongs to another graph")
        # Sound: writes are filed under the very source that they are meant for.
        plain = cast("collections.Source[object, object]", source)
        writes = self._writes.setdefault(plain, {})
        return cast("dict[K, V | collections.Absent]", writes)
