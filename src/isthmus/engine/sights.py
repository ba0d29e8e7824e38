"""Collections of which nothing is kept: a value is made whenever somebody looks at it.

A value follows from its entry and from what entries of its kind are given, as a workload does from its
pod and from where the pod's node is. What they are given is read once for each kind. So a look reads nothing,
and what is known of reads is a record for each kind with the number of its entries, not their keys: when
they are given something else they are found by whoever can, or by going through all entries, which is dear.

An entry that has changed is computed for what it is now and, unless that is remembered, for what it
was, from what its kind was given then. So nobody who hears of a change can tell such a collection from one
that is kept. What fails is absent, for there is no last good answer of it; it is found out when an entry
changes, or what it is given, and not by looks.
"""

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar, overload

from typing_extensions import override

from isthmus.base import errors
from isthmus.engine import cells, collections, nodes, reader

I = TypeVar("I")  # noqa: E741
K = TypeVar("K")
V = TypeVar("V")
G = TypeVar("G")
W = TypeVar("W")
T = TypeVar("T")

FEW: Final = 1024
"""So many values that were made lately are remembered from one transaction to the next."""

MOST: Final = 16384
"""So many are at any time: those of the pods of one cluster, as a rule, while they are learned of."""

IS_ABSENT: Final = "it counts as absent, and no other does"


@dataclass(frozen=True, slots=True)
class Making(Generic[I, K, V, G, W]):
    """How values are made; each function answers the same when asked again.

    Attributes:
        function: Makes a value of a key, its entry and what its kind is given; or nothing.
        alike: Says of which kind an entry is.
        given: Reads what entries of a kind are given.
        find: Yields the keys of all entries of some kinds, and maybe others; where there is none, all
            entries are gone through.
    """

    function: Callable[[K, V, G], W | None]
    alike: Callable[[K, V], I]
    given: Callable[[reader.Reader, I], G]
    find: Callable[[Collection[I]], Iterable[K]] | None = None


class Kind(cells.Cell, Generic[I, G]):
    """Entries that are given the same.

    Attributes:
        count: How many there are.
        given: What they are given; ABSENT as long as it could never be read.
        former: What they were given before this transaction.
    """

    __slots__ = ("_mark", "count", "former", "given", "name")

    def __init__(self, name: I, mark: Callable[["Kind[I, G]"], None]) -> None:
        super().__init__()
        self.name = name
        self.count = 0
        self.given: G | collections.Absent = collections.ABSENT
        self.former: G | collections.Absent = collections.ABSENT
        self._mark = mark

    @property
    def is_moved(self) -> bool:
        """Whether they are given something else than before."""
        return self.given is not self.former and self.given != self.former

    @override
    def mark(self) -> None:
        self._mark(self)


class Values(Mapping[K, W], Generic[I, K, V, G, W]):
    """The values, in the order of the entries; each is made when it is looked at.

    Attributes:
        kinds: By name; of every entry that is there.
        missing: Entries that give nothing, with what is wrong if something is.
        recent: What was made lately and holds. What changes is looked at by several, one after the
            other, and a slice that changes looks at all of its pods.
    """

    __slots__ = ("_alike", "_function", "_over", "kinds", "missing", "recent")

    def __init__(self, over: Mapping[K, V], making: Making[I, K, V, G, W]) -> None:
        self._over = over
        self._alike = making.alike
        self._function = making.function
        self.kinds: dict[I, Kind[I, G]] = {}
        self.missing: dict[K, errors.Finding | None] = {}
        self.recent: dict[K, W] = {}

    @overload
    def get(self, key: K, /) -> W | None: ...
    @overload
    def get(self, key: K, default: W | T, /) -> W | T: ...
    @override
    def get(self, key: K, default: object = None, /) -> object:
        found: W | collections.Absent | None = self.recent.get(key, collections.ABSENT)
        if found is not collections.ABSENT:
            return found
        entry = self._over.get(key, collections.ABSENT)
        if entry is collections.ABSENT or (self.missing and key in self.missing):
            return default
        given = self.kinds[self._alike(key, entry)].given
        # Sound: who is not missing is given something, and gives something.
        found = self._function(key, entry, given)  # type: ignore[arg-type]
        self.remember(key, found)  # type: ignore[arg-type]
        return found

    def remember(self, key: K, value: W) -> None:
        """Note what was just made."""
        if len(self.recent) >= MOST:
            self.recent.clear()
        self.recent[key] = value

    def rest(self) -> None:
        """Forget what was made if it is more than a few."""
        if len(self.recent) > FEW:
            self.recent.clear()

    @override
    def __getitem__(self, key: K) -> W:
        found: W | collections.Absent = self.get(key, collections.ABSENT)
        if found is collections.ABSENT:
            raise KeyError(key)
        return found

    @override
    def __contains__(self, key: object) -> bool:
        return key in self._over and key not in self.missing

    @override
    def __iter__(self) -> Iterator[K]:
        if not self.missing:
            return iter(self._over)
        return (key for key in self._over if key not in self.missing)

    @override
    def __len__(self) -> int:
        return len(self._over) - len(self.missing)


class Seen(collections.Collection[K, W]):
    """A collection whose values are made when somebody looks."""

    __slots__ = ("_rest",)

    def __init__(
        self,
        name: str,
        *,
        owner: object,
        rank: int,
        content: Mapping[K, W],
        rest: Callable[[], None],
    ) -> None:
        super().__init__(name, owner=owner, rank=rank, content=content)
        self._rest = rest

    @override
    def take_changes(self) -> Mapping[object, object]:
        self._rest()
        return super().take_changes()


class Sight(Generic[I, K, V, G, W]):
    """Knows the kinds of a collection that is not kept, and says which of its values have changed."""

    def __init__(
        self,
        name: str,
        *,
        over: collections.Collection[K, V],
        making: Making[I, K, V, G, W],
        place: tuple[object, int],
        enqueue: cells.Enqueue,
    ) -> None:
        owner, rank = place
        self._values = values = Values(over.content, making)
        self.out = Seen(name, owner=owner, rank=rank, content=values, rest=values.rest)
        self._over = over
        self._making = making
        self._enqueue = enqueue
        self._changed = cells.DirtyKeys[K](rank=rank, enqueue=enqueue)
        self._stale: dict[Kind[I, G], None] = {}
        self._emptied: list[Kind[I, G]] = []
        self._failures: dict[I, errors.Finding] = {}
        """Of kinds."""
        self._runs = 0
        over.followers.append(self._changed)
        self._changed.update(dict.fromkeys(over.content, collections.ABSENT))

    def refresh(self) -> int:
        """Look at what has changed; return for how many entries and kinds that is computed."""
        self._runs = 0
        stale, self._stale = self._stale, {}
        for kind in stale:
            self._learn(kind)
        changed, content = self._changed.take(), self._over.content
        for key, was in changed.items():
            # Sound: a collection says what its own entries were.
            self._turn(key, was, content.get(key, collections.ABSENT))  # type: ignore[arg-type]
        moved = {kind.name for kind in stale if kind.count and kind.is_moved}
        if moved:
            for key, entry in self._of(moved):
                if key not in changed:
                    self._turn(key, entry, entry)
        self._rest(stale)
        self.out.announce()
        return self._runs

    def findings(self) -> Iterable[errors.Finding]:
        """Yield a finding for each kind and each entry that fails."""
        yield from self._failures.values()
        yield from (found for found in self._values.missing.values() if found is not None)

    def origins(self, key: Hashable) -> Iterable[reader.Read]:
        """Yield the entry and all that was read for its kind; nothing for what does not exist."""
        if key not in self._values:
            return
        yield (self._over, key)
        # Sound: what is there is a key.
        kind = self._kind_of(key, self._over.content[key])  # type: ignore[arg-type,index]
        for readable, keys in kind.reads:
            yield from ((readable, one) for one in keys)

    # --- kinds

    def _stales(self, kind: Kind[I, G]) -> None:
        if not self._stale:
            self._enqueue(self.out.rank)
        self._stale[kind] = None

    def _kind_of(self, key: K, entry: V) -> Kind[I, G]:
        """Return the kind of an entry, which may be the first of it; raise if it cannot be told."""
        name = self._making.alike(key, entry)
        kind = self._values.kinds.get(name)
        if kind is None:
            kind = self._values.kinds[name] = Kind(name, self._stales)
            self._learn(kind)
            kind.former = kind.given
        return kind

    def _of(self, names: set[I]) -> Iterator[tuple[K, V]]:
        """Yield the entries of some kinds."""
        alike, find, content = self._making.alike, self._making.find, self._over.content
        all_ = content.items() if find is None else [(key, content[key]) for key in find(names)]
        for key, entry in all_:
            try:
                is_one = alike(key, entry) in names
            except Exception:  # Who is of no kind is of none of these.
                continue
            if is_one:
                yield key, entry

    def _learn(self, kind: Kind[I, G]) -> None:
        """Read what those of a kind are given; should that fail, it stays what it was."""
        self._runs += 1
        self._failures.pop(kind.name, None)
        read = reader.Reader(owner=self.out.owner, rank=self.out.rank)
        try:
            kind.given = self._making.given(read, kind.name)
        except reader.KeepLast:
            pass
        except Exception as error:  # One bad object must stop no other.
            self._failures[kind.name] = nodes.failure(self.out.name, kind.name, error)
        kind.adopt(read.close())

    def _rest(self, stale: Iterable[Kind[I, G]]) -> None:
        """Forget what was, and kinds of which none is left."""
        for kind in stale:
            kind.former = kind.given
        emptied, self._emptied = self._emptied, []
        for kind in emptied:
            if not kind.count and self._values.kinds.pop(kind.name, None) is not None:
                self._failures.pop(kind.name, None)
                kind.adopt(())

    # --- entries

    def _turn(self, key: K, was: V | collections.Absent, entry: V | collections.Absent) -> None:
        """Note what an entry is now, and whether anybody sees a difference."""
        before: W | collections.Absent = collections.ABSENT
        after: W | collections.Absent = collections.ABSENT
        if was is not collections.ABSENT:
            before = self._before(key, was)
        if entry is not collections.ABSENT:
            after = self._after(key, entry)
        if before is not after and before != after:
            self.out.changed[key] = before

    def _before(self, key: K, was: V) -> W | collections.Absent:
        kind = self._left(key, was)
        if key in self._values.missing:
            del self._values.missing[key]
            return collections.ABSENT
        if key in self._values.recent:
            return self._values.recent.pop(key)
        # Sound: what was not missing was of a kind, was given something and gave something.
        return self._making.function(key, was, kind.former)  # type: ignore[arg-type,return-value,union-attr]

    def _left(self, key: K, was: V) -> Kind[I, G] | None:
        """Return of which kind an entry was, which is not counted there any more."""
        try:
            kind = self._kind_of(key, was)
        except Exception:  # It was of none.
            return None
        kind.count -= 1
        if not kind.count:
            self._emptied.append(kind)
        return kind

    def _after(self, key: K, entry: V) -> W | collections.Absent:
        self._runs += 1
        finding = None
        try:
            kind = self._kind_of(key, entry)
            kind.count += 1
            if kind.given is not collections.ABSENT:
                made = self._making.function(key, entry, kind.given)
                if made is not None:
                    self._values.remember(key, made)
                    return made
        except Exception as error:  # One bad object must stop no other.
            finding = nodes.failure(self.out.name, key, error, still=IS_ABSENT)
        self._values.missing[key] = finding
        return collections.ABSENT
