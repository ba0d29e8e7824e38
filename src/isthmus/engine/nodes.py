"""How each kind of derived collection is kept up to date.

A node knows which of its inputs are dirty and computes just those again. It decides neither
when (the graph does, in order of rank) nor what (the given functions do). What a function raises
stops nothing: the input keeps its last good answer and the failure becomes a finding.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from types import MappingProxyType
from typing import Final, Generic, Protocol, TypeVar, cast

from typing_extensions import override

from isthmus.base import errors, hashing
from isthmus.engine import claims, collections, faults, reader

I = TypeVar("I")  # noqa: E741
K = TypeVar("K")
V = TypeVar("V")
K2 = TypeVar("K2")
V2 = TypeVar("V2")

Enqueue = Callable[[int], None]
"""Tells the graph that the node of this rank has something to compute."""


class Node(Protocol):
    """What the graph keeps up to date."""

    @property
    def out(self) -> collections.Readable:
        """What it fills."""

    def refresh(self) -> int:
        """Compute what is dirty, mark what depends on it, and return how many functions ran."""

    def findings(self) -> Iterable[errors.Finding]:
        """Yield what is wrong with its functions at present."""

    def origins(self, key: Hashable) -> Iterable[reader.Read]:
        """Yield what the value of `key` was computed from."""


class Cell:
    """One run of a function, to be repeated when something that it read changes."""

    __slots__ = ("reads",)

    def __init__(self) -> None:
        self.reads: tuple[reader.Read, ...] = ()

    def mark(self) -> None:
        """Note that what it read has changed."""
        raise NotImplementedError

    def adopt(self, reads: dict[reader.Read, None]) -> None:
        """Depend on `reads`, and no longer on what is not among them."""
        old, new = self.reads, tuple(reads)
        if old == new:
            return
        self.reads = new
        for read in old:
            if read not in reads:
                readable, key = read
                readable.drop_reader(key, self)
        kept = set(old)
        for read in new:
            if read not in kept:
                readable, key = read
                readable.add_reader(key, self)


def failure(node: str, key: object, error: Exception) -> errors.Finding:
    """Say that a function raised `error` for `key`."""
    reason = f"{type(error).__name__}: {error}"[:300]
    return errors.Finding(
        code=faults.DERIVATION_FAILED,
        subject=f"{node}[{key!r}]",
        happened=f"could not be computed: {reason}",
        still_working="its last good answer is kept",
        hint="report this with the object that it names: an object must never do this",
    )


class DirtyKeys(Generic[K]):
    """The inputs to compute again, in order of marking."""

    __slots__ = ("_enqueue", "_keys", "_rank")

    def __init__(self, *, rank: int, enqueue: Enqueue) -> None:
        self._rank = rank
        self._enqueue = enqueue
        self._keys: dict[K, object] = {}

    def add(self, key: K) -> None:
        """Note one input."""
        if not self._keys:
            self._enqueue(self._rank)
        self._keys[key] = None

    def update(self, keys: Mapping[K, object]) -> None:
        """Note inputs."""
        if keys and not self._keys:
            self._enqueue(self._rank)
        self._keys.update(keys)

    def take(self) -> Iterable[K]:
        """Return all and forget them."""
        taken = self._keys
        self._keys = {}
        return taken


class Disputed(hashing.Word):
    """The type of `DISPUTED`."""

    DISPUTED = "disputed"


DISPUTED: Final = Disputed.DISPUTED
"""Stands for the value of a key that several inputs claim, or did a moment ago."""

NO_OUTPUTS: Final[Mapping[object, object]] = MappingProxyType({})


class DeriveCell(Cell, Generic[K, K2, V2]):
    """One input's run, with its outputs."""

    __slots__ = ("_dirty", "_key", "_outputs")

    def __init__(self, key: K, dirty: DirtyKeys[K]) -> None:
        super().__init__()
        self._key = key
        self._dirty = dirty
        self._outputs: collections.Lone[K2, V2] | Mapping[K2, V2] | None = None

    @property
    def outputs(self) -> Mapping[K2, V2]:
        """What it gave last."""
        found = self._outputs
        if found is None:
            # Sound: nothing is never written.
            return cast("Mapping[K2, V2]", NO_OUTPUTS)
        return {found.key: found.value} if isinstance(found, collections.Lone) else found

    def give(self, outputs: dict[K2, V2]) -> None:
        """Note what it gives now."""
        if len(outputs) > 1:
            self._outputs = outputs
        else:
            self._outputs = next((collections.Lone(*item) for item in outputs.items()), None)

    @override
    def mark(self) -> None:
        self._dirty.add(self._key)


Derivation = Callable[[reader.Reader, K, V], Iterable[tuple[K2, V2]]]


class Derive(Generic[K, V, K2, V2]):
    """A function from one entry of a collection to any number of entries of another."""

    def __init__(
        self,
        out: collections.Collection[K2, V2],
        *,
        over: collections.Collection[K, V],
        function: Derivation[K, V, K2, V2],
        enqueue: Enqueue,
    ) -> None:
        self.out = out
        self._over = over
        self._function = function
        self._dirty = DirtyKeys[K](rank=out.rank, enqueue=enqueue)
        self._cells: dict[K, DeriveCell[K, K2, V2]] = {}
        self._claims = claims.Claims[K2, K]()
        self._failures: dict[K, errors.Finding] = {}
        over.followers.append(self._dirty)
        self._dirty.update(over.content)

    def refresh(self) -> int:
        """Compute the dirty inputs, then settle the keys that they claim or gave up."""
        touched: dict[K2, V2 | collections.Absent | Disputed] = {}
        runs = 0
        content = self._over.content
        for key in self._dirty.take():
            value = content.get(key, collections.ABSENT)
            if value is collections.ABSENT:
                self._drop(key, touched)
            else:
                runs += 1
                self._compute(key, value, touched)
        settle = self.out.settle
        for key2, value2 in touched.items():
            settle(key2, self._won(key2) if value2 is DISPUTED else value2)
        self.out.announce()
        return runs

    def findings(self) -> Iterable[errors.Finding]:
        """Yield a finding for each failing input and each contested key."""
        yield from self._failures.values()
        for key2, rivals in self._claims.contested():
            winner = self._claims.winner(key2)
            yield errors.Finding(
                code=faults.KEY_CONTESTED,
                subject=f"{self.out.name}[{key2!r}]",
                happened=f"comes from {len(rivals)} inputs; the smallest wins: `{winner!r}`",
                still_working="the answer of that input is used",
            )

    def origins(self, key: Hashable) -> Iterable[reader.Read]:
        """Yield the winning input and all that its run read; nothing for what does not exist."""
        winner = self._claims.winner_of(key)
        if winner is not collections.ABSENT:
            yield (self._over, winner)
            yield from self._cells[winner].reads

    def _won(self, key2: K2) -> V2 | collections.Absent:
        winner = self._claims.winner(key2)
        if winner is collections.ABSENT:
            return collections.ABSENT
        return self._cells[winner].outputs[key2]

    def _drop(self, key: K, touched: dict[K2, V2 | collections.Absent | Disputed]) -> None:
        cell = self._cells.pop(key)
        self._failures.pop(key, None)
        cell.adopt({})
        for key2 in cell.outputs:
            is_gone = self._claims.remove(key2, key)
            touched[key2] = collections.ABSENT if is_gone else DISPUTED

    def _compute(
        self, key: K, value: V, touched: dict[K2, V2 | collections.Absent | Disputed]
    ) -> None:
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = DeriveCell(key, self._dirty)
        new = self._run(cell, key, value)
        if new is None:
            return
        old, claims_ = cell.outputs, self._claims
        kept = 0
        for key2, value2 in new.items():
            was = old.get(key2, collections.ABSENT) if old else collections.ABSENT
            if was is collections.ABSENT:
                touched[key2] = value2 if claims_.add(key2, key) else DISPUTED
                continue
            kept += 1
            if was is value2 or was == value2:
                new[key2] = was  # Lets go of the equal copy.
            else:
                touched[key2] = DISPUTED if claims_.is_contested(key2) else value2
        if kept < len(old):
            for key2 in old:
                if key2 not in new:
                    is_gone = claims_.remove(key2, key)
                    touched[key2] = collections.ABSENT if is_gone else DISPUTED
        cell.give(new)

    def _run(self, cell: DeriveCell[K, K2, V2], key: K, value: V) -> dict[K2, V2] | None:
        read = reader.Reader(owner=self.out.owner, rank=self.out.rank)
        try:
            outputs: dict[K2, V2] = {}
            for key2, value2 in self._function(read, key, value):
                outputs.setdefault(key2, value2)
        except reader.KeepLast:
            self._failures.pop(key, None)
            return None
        except Exception as error:  # One bad object must stop no other.
            self._failures[key] = failure(self.out.name, key, error)
            return None
        finally:
            cell.adopt(read.close())
        if self._failures:
            self._failures.pop(key, None)
        return outputs


class Grouping(Generic[I, K, V]):
    """Keeps an index up to date."""

    def __init__(
        self,
        out: collections.Index[I, K, V],
        *,
        of: collections.Collection[K, V],
        by: Callable[[K, V], Iterable[I]],
        enqueue: Enqueue,
    ) -> None:
        self.out = out
        self._of = of
        self._by = by
        self._dirty = DirtyKeys[K](rank=out.rank, enqueue=enqueue)
        self._groups: dict[K, tuple[I, ...]] = {}
        self._failures: dict[K, errors.Finding] = {}
        of.followers.append(self._dirty)
        self._dirty.update(of.content)

    def refresh(self) -> int:
        """Move the dirty entries to their groups, and mark who has read those."""
        woken: dict[I, None] = {}
        for key in self._dirty.take():
            self._place(key, woken)
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

    def _place(self, key: K, woken: dict[I, None]) -> None:
        value = self._of.content.get(key, collections.ABSENT)
        groups = () if value is collections.ABSENT else self._groups_of(key, value)
        if groups is None:
            return
        old = self._groups.get(key, ())
        for group in old:
            woken[group] = None
            if group not in groups:
                self.out.drop(group, key)
        if value is collections.ABSENT:
            self._failures.pop(key, None)
            self._groups.pop(key, None)
            return
        for group in groups:
            woken[group] = None
            self.out.put(group, key, value)
        if groups != old:
            self._groups[key] = groups

    def _groups_of(self, key: K, value: V) -> tuple[I, ...] | None:
        try:
            groups = tuple(self._by(key, value))
            if len(groups) > 1:
                groups = tuple(dict.fromkeys(groups))
        except Exception as error:  # One bad object must stop no other.
            self._failures[key] = failure(self.out.name, key, error)
            return None
        if self._failures:
            self._failures.pop(key, None)
        return groups


class Join(Generic[K, V]):
    """The union of collections; of equal keys the earlier collection's wins."""

    def __init__(
        self,
        out: collections.Collection[K, V],
        *,
        members: tuple[collections.Collection[K, V], ...],
        enqueue: Enqueue,
    ) -> None:
        self.out = out
        self._members = members
        self._dirty = DirtyKeys[K](rank=out.rank, enqueue=enqueue)
        for member in members:
            member.followers.append(self._dirty)
            self._dirty.update(member.content)

    def refresh(self) -> int:
        """Take the dirty keys from the first member that has them."""
        for key in self._dirty.take():
            self.out.settle(key, self._first(key))
        self.out.announce()
        return 0

    def findings(self) -> Iterable[errors.Finding]:
        """Yield nothing: no function runs here."""
        return ()

    def origins(self, key: Hashable) -> Iterable[reader.Read]:
        """Yield the member that gives the value."""
        yield from [(member, key) for member in self._members if key in member.content][:1]

    def _first(self, key: K) -> V | collections.Absent:
        for member in self._members:
            value = member.content.get(key, collections.ABSENT)
            if value is not collections.ABSENT:
                return value
        return collections.ABSENT


class SoleCell(Cell):
    """The run of a single value's function."""

    __slots__ = ("_mark",)

    def __init__(self, mark: Callable[[], None]) -> None:
        super().__init__()
        self._mark = mark

    @override
    def mark(self) -> None:
        self._mark()


class Sole(Generic[V]):
    """A function of what it reads to one value."""

    def __init__(
        self,
        out: collections.Single[V],
        *,
        function: Callable[[reader.Reader], V],
        enqueue: Enqueue,
    ) -> None:
        self.out = out
        self._function = function
        self._enqueue = enqueue
        self._is_dirty = False
        self._failure: errors.Finding | None = None
        self._cell = SoleCell(self._mark)
        self._mark()

    def refresh(self) -> int:
        """Compute the value."""
        self._is_dirty = False
        read = reader.Reader(owner=self.out.owner, rank=self.out.rank)
        try:
            self.out.settle(self._function(read))
            self._failure = None
        except reader.KeepLast:
            self._failure = None
        except Exception as error:  # One bad object must stop no other.
            self._failure = failure(self.out.name, (), error)
        self._cell.adopt(read.close())
        return 1

    def findings(self) -> Iterable[errors.Finding]:
        """Yield the failure, if it fails."""
        if self._failure is not None:
            yield self._failure

    def origins(self, key: Hashable) -> Iterable[reader.Read]:
        """Yield all that it read."""
        yield from self._cell.reads

    def _mark(self) -> None:
        if not self._is_dirty:
            self._is_dirty = True
            self._enqueue(self.out.rank)
