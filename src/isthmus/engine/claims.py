"""Which input gives an output key, when several would.

The smallest input wins, so that the answer follows from the inputs and not from their history.
"""

from collections.abc import Hashable, Iterable, Mapping
from typing import Generic, TypeVar

from isthmus.engine import collections

K = TypeVar("K")
V = TypeVar("V")
C = TypeVar("C")


def smallest(claimants: Iterable[C]) -> C:
    """Return the smallest claimant; by `repr` where they have no order.

    They are put in order of `repr` first: whether comparing fails may otherwise depend on the
    order in which they arrived.
    """
    in_order = sorted(claimants, key=repr)
    best = in_order[0]
    for claimant in in_order[1:]:
        try:
            is_smaller = claimant < best  # type: ignore[operator]  # Caught where it has no order.
        except TypeError:
            return in_order[0]
        if is_smaller:
            best = claimant
    return best


class Claims(Generic[K, C]):
    """Who claims which key. Almost always there is one, which is what this is small for."""

    __slots__ = ("_contested", "_sole")

    def __init__(self) -> None:
        self._sole: dict[K, C] = {}
        self._contested: dict[K, dict[C, None]] = {}

    def add(self, key: K, claimant: C) -> bool:
        """Note a claim, each of which is made once; say whether it is the only one."""
        if self._contested and key in self._contested:
            self._contested[key][claimant] = None
            return False
        present = self._sole.setdefault(key, claimant)
        if present is claimant:
            return True
        del self._sole[key]
        self._contested[key] = {present: None, claimant: None}
        return False

    def remove(self, key: K, claimant: C) -> bool:
        """Give up a claim that was made; say whether it was the only one."""
        rivals = self._contested.get(key) if self._contested else None
        if rivals is None:
            del self._sole[key]
            return True
        del rivals[claimant]
        if len(rivals) == 1:
            del self._contested[key]
            self._sole[key] = next(iter(rivals))
        return False

    def is_free(self, key: K) -> bool:
        """Say whether nobody claims a key."""
        return key not in self._sole and key not in self._contested

    def is_contested(self, key: K) -> bool:
        """Say whether several claim a key."""
        return bool(self._contested) and key in self._contested

    def winner(self, key: K) -> C | collections.Absent:
        """Return whose claim holds, or ABSENT when there is none."""
        rivals = self._contested.get(key)
        if rivals is None:
            return self._sole.get(key, collections.ABSENT)
        return smallest(rivals)

    def winner_of(self, key: Hashable) -> C | collections.Absent:
        """Return the same for what may not be a key at all."""
        # Sound: a dict may be asked for anything hashable.
        return self.winner(key)  # type: ignore[arg-type]

    def contested(self) -> Iterable[tuple[K, Mapping[C, None]]]:
        """Yield the keys with more than one claimant, and those."""
        yield from self._contested.items()
