"""How an index is kept up to date: which groups each entry is in.

Where an entry was follows from what it was, so that nothing is written down of that. As with every
node, neither when nor what is decided here. An entry whose groups cannot be told stays where it was,
and that becomes a finding.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Generic, TypeVar, cast

from isthmus.base import errors
from isthmus.engine import cells, collections, nodes, reader

I = TypeVar("I")  # noqa: E741
K = TypeVar("K")
V = TypeVar("V")


class Grouping(Generic[I, K, V]):
    """Keeps an index up to date."""

    def __init__(  # each argument is an independent choice
        self,
        out: collections.Index[I, K, V],
        *,
        of: collections.Collection[K, V],
        by: Callable[[K, V], Iterable[I]],
        enqueue: cells.Enqueue,
        gate: cells.Gate | None = None,
    ) -> None:
        self.out = out
        self._of = of
        self._by = by
        self._enqueue = enqueue
        self._was: dict[K, V | collections.Absent] = {}
        """What entries that have changed were before."""
        self._stuck: dict[K, tuple[I, ...]] = {}
        """The groups of entries that cannot be placed."""
        self._failures: dict[K, errors.Finding] = {}
        of.followers.append(self)
        self._gate = gate
        self._rests = gate is not None and gate.is_shut
        self._begin()

    def update(self, keys: Mapping[K, object]) -> None:
        """Note that entries have changed, with what they were."""
        if self._rests or not keys:
            return
        if not self._was:
            self._enqueue(self.out.rank)
        # Sound: a collection says what its own entries were.
        self._was.update(cast("Mapping[K, V | collections.Absent]", keys))

    def refresh(self) -> int:
        """Move the dirty entries to their groups, and mark who has read those."""
        woken: dict[I, None] = {}
        if self._gate is not None and self._gate.is_shut is not self._rests:
            self._turn(woken)
        was, self._was = self._was, {}
        content = self._of.content
        for key, old in was.items():
            self._place(key, old, content.get(key, collections.ABSENT), woken)
        for group in woken:
            self.out.wake(group)
        return 0

    def findings(self) -> Iterable[errors.Finding]:
        """Yield a finding for each entry that cannot be placed."""
        yield from self._failures.values()

    def origins(self, key: Hashable) -> Iterable[reader.Read]:
        """Yield the entries of one group."""
        # Sound: a dict may be asked for anything hashable.
        bucket = self.out.bucket(key)  # type: ignore[arg-type]
        yield from ((self._of, entry) for entry in bucket)

    def _begin(self) -> None:
        """Have all entries placed, of which none is, unless it rests."""
        if not self._rests:
            self.update(dict.fromkeys(self._of.content, collections.ABSENT))

    def _turn(self, woken: dict[I, None]) -> None:
        """Begin to rest, or end it."""
        self._rests = not self._rests
        for one in (self._was, self._stuck, self._failures):
            one.clear()
        woken.update(dict.fromkeys(self.out.buckets))
        self.out.buckets.clear()
        self._begin()

    def _place(
        self,
        key: K,
        was: V | collections.Absent,
        value: V | collections.Absent,
        woken: dict[I, None],
    ) -> None:
        old = self._groups_before(key, was)
        groups = () if value is collections.ABSENT else self._groups_of(key, value)
        if groups is None:
            groups = self._stuck[key] = old  # Where it was, it stays.
        for group in old:
            if group not in groups:
                woken[group] = None
                self.out.drop(group, key)
        if value is collections.ABSENT:
            self._failures.pop(key, None)
        else:
            for group in groups:
                woken[group] = None
                self.out.put(group, key, value)

    def _groups_before(self, key: K, was: V | collections.Absent) -> tuple[I, ...]:
        if self._stuck and key in self._stuck:
            return self._stuck.pop(key)
        return () if was is collections.ABSENT else self._told(key, was)

    def _groups_of(self, key: K, value: V) -> tuple[I, ...] | None:
        try:
            groups = self._told(key, value)
        except Exception as error:  # One bad object must stop no other.
            self._failures[key] = nodes.failure(self.out.name, key, error)
            return None
        if self._failures:
            self._failures.pop(key, None)
        return groups

    def _told(self, key: K, value: V) -> tuple[I, ...]:
        groups = tuple(self._by(key, value))
        if len(groups) > 1:
            groups = tuple(dict.fromkeys(groups))
        return groups
