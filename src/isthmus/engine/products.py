"""How a collection of all pairs is kept up to date: each place with each entry that it sees.

A derivation over the entries that reads all places would give all pairs anew for each place that
comes. Here a place that comes costs the entries, an entry that changes costs the places, and nothing
but the pairs themselves is kept. What is asked may read nothing: it follows from place and entry.
"""

from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

from isthmus.base import errors
from isthmus.engine import cells, collections, nodes, reader

P = TypeVar("P")
K = TypeVar("K")
V = TypeVar("V")


class Product(Generic[P, K, V]):
    """Keeps pairs up to date."""

    def __init__(  # each argument is an independent choice
        self,
        out: collections.Kept[tuple[P, K], V],
        *,
        over: collections.Collection[K, V],
        places: collections.Collection[P, None],
        sees: Callable[[P, V], bool],
        enqueue: cells.Enqueue,
    ) -> None:
        self.out = out
        self._over = over
        self._places = places
        self._sees = sees
        self._keys = cells.DirtyKeys[K](rank=out.rank, enqueue=enqueue)
        self._fresh = cells.DirtyKeys[P](rank=out.rank, enqueue=enqueue)
        self._failures: dict[tuple[P, K], errors.Finding] = {}
        over.followers.append(self._keys)
        places.followers.append(self._fresh)
        self._keys.update(over.content)

    def refresh(self) -> int:
        """Look at the pairs of which a part has come, gone or changed."""
        keys, fresh = dict.fromkeys(self._keys.take()), dict.fromkeys(self._fresh.take())
        for key in keys:
            for place in {**self._places.content, **fresh}:
                self._look(place, key)
        for place in fresh:
            for key in self._over.content:
                if key not in keys:
                    self._look(place, key)
        self.out.announce()
        return len(keys) + len(fresh)

    def findings(self) -> Iterable[errors.Finding]:
        """Yield a finding for each pair that could not be judged."""
        yield from self._failures.values()

    def origins(self, key: Hashable) -> Iterable[reader.Read]:
        """Yield both parts of a pair, if it exists."""
        if key in self.out.content and isinstance(key, tuple):
            yield (self._over, key[1])
            yield (self._places, key[0])

    def _look(self, place: P, key: K) -> None:
        pair, value = (place, key), self._over.content.get(key, collections.ABSENT)
        if self._failures:
            self._failures.pop(pair, None)
        if value is collections.ABSENT or place not in self._places.content:
            self.out.settle(pair, collections.ABSENT)
            return
        try:
            is_seen = self._sees(place, value)
        except Exception as error:  # One bad object must stop no other.
            self._failures[pair] = nodes.failure(self.out.name, pair, error)
            return
        self.out.settle(pair, value if is_seen else collections.ABSENT)
