"""What talks have in common: each step that one of them took is taken by the others for free.

A subscription is a value, and what follows from it is a function of it and of what happened. Most
clients want the same, have the same and hear the same, so that a step is computed for the first
of them and looked up for the rest, with the very message that it leads to. Only so many steps are
remembered, and those that depend on resources no longer than these are what they were: what is
forgotten is computed again.
"""

import weakref
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

from isthmus.resources import snapshot

T = TypeVar("T")

MOST_BYTES: Final = 8 << 20
"""How much is remembered of what clients say and hear, about."""

MOST_EDITION_BYTES: Final = 2 << 20
"""How much is remembered of what is told of one edition."""

STEP_BYTES: Final = 600
NAME_BYTES: Final = 20
"""What a name takes in what was said."""

_NAMES: Final[weakref.WeakValueDictionary[int, frozenset[str]]] = weakref.WeakValueDictionary()


class Steps(Generic[T]):
    """Remembers what followed, the newest so many."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most = most_bytes
        self._weight = 0
        self._known: dict[Hashable, tuple[T, int]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def taken(self, key: Hashable, compute: Callable[[], tuple[T, int]]) -> T:
        """Return what follows from `key`; `compute` gives that with its bytes if need be."""
        known = self._known.get(key)
        if known is not None:
            return known[0]
        found, weight = compute()
        self.note(key, found, weight)
        return found

    def known(self, key: Hashable) -> T | None:
        """Return what follows from `key`, if that is remembered."""
        known = self._known.get(key)
        return None if known is None else known[0]

    def note(self, key: Hashable, found: T, weight: int) -> None:
        """Remember what follows from `key`, which was not known, and takes so many bytes."""
        if weight * 4 > self._most:
            # It would push out too much of what others need.
            return
        self._known[key] = found, weight
        self._weight += weight
        while self._weight > self._most:
            oldest = next(iter(self._known))
            self._weight -= self._known.pop(oldest)[1]


def names(wanted: frozenset[str]) -> frozenset[str]:
    """Return the one set that is equal to this, which it is when there was none."""
    found = _NAMES.setdefault(hash(wanted), wanted)
    return found if found == wanted else wanted


def steps_of(stamp: snapshot.Stamp) -> Steps[T]:
    """Return what followed from resources as they are, which ends with them."""
    steps = stamp[-1].kept
    if not isinstance(steps, Steps):
        steps = stamp[-1].kept = Steps[T](MOST_EDITION_BYTES)
    return steps
