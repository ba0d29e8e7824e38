"""How an index is kept up to date: which groups each entry is in.

As with every node, neither when nor what is decided here. An entry whose groups cannot be told stays
where it was, and that becomes a finding.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Final, Generic, TypeVar, cast

from typing_extensions import override

from isthmus.base import errors
from isthmus.engine import cells, collections, nodes, reader

I = TypeVar("I")  # noqa: E741
K = TypeVar("K")
V = TypeVar("V")
V2 = TypeVar("V2")


class Several(tuple[I, ...]):
    """More groups than one, or none."""

    __slots__ = ()


class Grouping(Generic[I, K, V, V2]):
    """Keeps an index up to date."""

    def __init__(  # each argument is an independent choice
        self,
        out: collections.Index[I, K, V2],
        *,
        of: collections.Collection[K, V],
        by: Callable[[K, V], Iterable[I]],
        enqueue: cells.Enqueue,
        gate: cells.Gate | None = None,
    ) -> None:
        self.out = out
        self._of = of
        self._by = by
        self._dirty = cells.DirtyKeys[K](rank=out.rank, enqueue=enqueue)
        self._groups: dict[K, I | Several[I]] = {}
        """Of entries that are in any; almost always in one."""
        self._failures: dict[K, errors.Finding] = {}
        of.followers.append(self._dirty)
        self._gate = gate
        self._dirty.rests = gate is not None and gate.is_shut
        self._dirty.update(of.content)

    def refresh(self) -> int:
        """Move the dirty entries to their groups, and mark who has read those."""
        if self._gate is not None and self._gate.is_shut is not self._dirty.rests:
            self._turn(self._gate)
        woken: dict[I, None] = {}
        content: Mapping[K, V] = {} if self._dirty.rests else self._of.content
        for key in self._dirty.take():
            self._place(key, content.get(key, collections.ABSENT), woken)
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

    def _turn(self, gate: cells.Gate) -> None:
        """Begin to rest, or end it."""
        self._dirty.take()
        self._dirty.rests = False
        placed = dict.fromkeys([*self._groups, *self._failures])
        self._dirty.update(placed if gate.is_shut else self._of.content)
        self._dirty.rests = gate.is_shut

    def _place(self, key: K, value: V | collections.Absent, woken: dict[I, None]) -> None:
        old = self._groups_now(key)
        groups = () if value is collections.ABSENT else self._groups_of(key, value)
        if groups is None:
            groups = old  # Where it was, it stays.
        for group in old:
            if group not in groups:
                woken[group] = None
                self.out.drop(group, key)
        if value is collections.ABSENT:
            self._failures.pop(key, None)
        else:
            self._put(key, value, groups, woken)
        if groups != old:
            self._note(key, groups)

    def _note(self, key: K, groups: tuple[I, ...]) -> None:
        """Write down in which groups an entry is from now on."""
        if groups:
            self._groups[key] = groups[0] if len(groups) == 1 else Several(groups)
        else:
            del self._groups[key]

    def _put(self, key: K, value: V, groups: tuple[I, ...], woken: dict[I, None]) -> None:
        for group in groups:
            woken[group] = None
            # Sound: an index of entries has their values.
            self.out.put(group, key, cast("V2", value))

    def _groups_now(self, key: K) -> tuple[I, ...]:
        found = self._groups.get(key, NONE)
        # Sound: which groups several are is known from who wrote them down.
        return cast("Several[I]", found) if isinstance(found, Several) else (found,)

    def _groups_of(self, key: K, value: V) -> tuple[I, ...] | None:
        try:
            groups = tuple(self._by(key, value))
            if len(groups) > 1:
                groups = tuple(dict.fromkeys(groups))
        except Exception as error:  # One bad object must stop no other.
            self._failures[key] = nodes.failure(self.out.name, key, error)
            return None
        if self._failures:
            self._failures.pop(key, None)
        return groups


class KeyGrouping(Grouping[I, K, V, None]):
    """Keeps an index of keys up to date."""

    @override
    def _put(self, key: K, value: V, groups: tuple[I, ...], woken: dict[I, None]) -> None:
        before = set(self._groups_now(key))
        for group in groups:
            if group not in before:
                woken[group] = None
                self.out.put(group, key, None)


class KeyedGrouping(Grouping[I, K, V, V]):
    """Keeps an index up to date in which the key alone says where an entry is.

    So nothing need be written down of that.
    """

    def __init__(
        self,
        out: collections.Index[I, K, V],
        *,
        of: collections.Collection[K, V],
        by: Callable[[K], Iterable[I]],
        enqueue: cells.Enqueue,
    ) -> None:
        self._by_key = by
        super().__init__(out, of=of, by=lambda key, _: by(key), enqueue=enqueue)

    @override
    def _groups_now(self, key: K) -> tuple[I, ...]:
        groups = tuple(dict.fromkeys(self._by_key(key)))
        return groups if groups and self.out.holds(groups[0], key) else ()

    @override
    def _note(self, key: K, groups: tuple[I, ...]) -> None:
        """Nothing: the key says it."""


NONE: Final = Several[object]()
