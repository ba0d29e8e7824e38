"""How each kind of derived collection is kept up to date.

A node knows which of its inputs are dirty and computes just those again. It decides neither
when (the graph does, in order of rank) nor what (the given functions do). What a function raises
stops nothing: the input keeps its last good answer and the failure becomes a finding.
"""

import contextlib
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Generic, Protocol, TypeGuard, TypeVar, cast

from typing_extensions import override

from isthmus.base import errors, hashing
from isthmus.engine import cells, claims, collections, faults, hearing, kinds, reader

I = TypeVar("I")  # noqa: E741
K = TypeVar("K")
V = TypeVar("V")
K2 = TypeVar("K2")
V2 = TypeVar("V2")


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


KEEPS: Final = "its last good answer is kept"


def failure(node: str, key: object, error: Exception, *, still: str = KEEPS) -> errors.Finding:
    """Say that a function raised `error` for `key`."""
    reason = f"{type(error).__name__}: {error}"[:300]
    return errors.Finding(
        code=faults.DERIVATION_FAILED,
        subject=f"{node}[{key!r}]",
        happened=f"could not be computed: {reason}",
        still_working=still,
        hint="report this with the object that it names: an object must never do this",
    )


class Disputed(hashing.Word):
    """The type of `DISPUTED`."""

    DISPUTED = "disputed"


DISPUTED: Final = Disputed.DISPUTED
"""Stands for the value of a key that several inputs claim, or did a moment ago."""

Touched = dict[K2, collections.Absent | Disputed | V2]
"""What becomes of keys when a derivation has run."""

NO_OUTPUTS: Final[Mapping[object, object]] = MappingProxyType({})


Derivation = Callable[[reader.Reader, K, V], Iterable[tuple[K2, V2]]]


@dataclass(frozen=True, slots=True)
class Ways(Generic[K, V]):
    """How it is known what runs of a derivation have read, if not from what they read.

    Attributes:
        hears: Of what the derivation hears; reads of that are not written down.
        alike: Says of which kind an input is, where those of a kind read the same.
    """

    hears: tuple[hearing.Heard[K], ...] = ()
    alike: kinds.Alike[K, V] | None = None


class Derive(Generic[K, V, K2, V2]):
    """A function from one entry of a collection to any number of entries of another.

    Almost always an input gives one output, of its own key, that nobody else claims, or nothing.
    Of such an input nothing is kept: what the collection holds unclaimed at a key, the input of
    that key gave.
    """

    def __init__(  # each argument is an independent choice
        self,
        out: collections.Kept[K2, V2],
        *,
        over: collections.Collection[K, V],
        function: Derivation[K, V, K2, V2],
        enqueue: cells.Enqueue,
        gate: cells.Gate | None = None,
        ways: Ways[K, V] | None = None,
    ) -> None:
        self.out = out
        self._over = over
        self._function = function
        self._dirty = dirty = cells.DirtyKeys[K](rank=out.rank, enqueue=enqueue)
        self._ledger: cells.Ledger[K] | kinds.Kinds[K, V] = cells.Ledger(dirty)
        if ways is not None and ways.alike is not None:
            self._ledger = kinds.Kinds(dirty, over=over.content, alike=ways.alike)
        hears = () if ways is None else ways.hears
        self._hears: frozenset[collections.Readable] = frozenset([one.of for one in hears])
        self._hearing = [
            hearing.Hearing(one, inputs=over.content, dirty=dirty, rank=out.rank, enqueue=enqueue)
            for one in hears
        ]
        self._others: dict[K, collections.Lone[K2, V2] | Mapping[K2, V2]] = {}
        """The outputs of inputs that give something else than just their own key."""
        self._claims = claims.Claims[K2, K]()
        self._failures: dict[K, errors.Finding] = {}
        over.followers.append(self._dirty)
        self._gate = gate
        self._dirty.rests = gate is not None and gate.is_shut
        self._dirty.update(dict.fromkeys(over.content, collections.ABSENT))

    def refresh(self) -> int:
        """Compute the dirty inputs, then settle the keys that they claim or gave up."""
        if self._gate is not None and self._gate.is_shut is not self._dirty.rests:
            self._turn(self._gate)
        for one in self._hearing:
            one.tell()
        touched: Touched[K2, V2] = {}
        runs = 0
        content: Mapping[K, V] = {} if self._dirty.rests else self._over.content
        for key, was in self._dirty.take().items():
            value = content.get(key, collections.ABSENT)
            if value is collections.ABSENT:
                self._drop(key, was, touched)
            else:
                runs += 1
                self._compute(key, value, was, touched)
        settle = self.out.settle
        for key2, value2 in touched.items():
            settle(key2, self._won(key2) if value2 is DISPUTED else value2)
        if touched:
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
        winner: K | collections.Absent = self._claims.winner_of(key)
        if winner is collections.ABSENT and self._is_plain(key, {}):
            winner = key
        if winner is not collections.ABSENT:
            yield (self._over, winner)
            for readable, keys in self._reads_of(winner):
                yield from ((readable, one) for one in keys)

    def _reads_of(self, key: K) -> reader.Reads:
        """Return what an input's run has read, all that was not recorded included."""
        value = self._over.content.get(key, collections.ABSENT)
        if not self._hears or value is collections.ABSENT:
            return self._ledger.reads_of(key)
        read = reader.Reader(owner=self.out.owner, rank=self.out.rank, shows=True)
        with contextlib.suppress(Exception):  # Which is known already.
            for _ in self._function(read, key, value):
                pass
        return read.close()

    # --- what inputs give

    def _is_plain(self, key: Hashable, touched: Touched[K2, V2]) -> TypeGuard[K]:
        """Say whether a key is an input that gives just its own key, and alone claims that."""
        own = cast("K2", key)  # Sound: a dict may be asked for anything hashable.
        if key in self._others or not self._claims.is_free(own):
            return False
        found = touched[own] if own in touched else self.out.content.get(own, collections.ABSENT)
        return found is not collections.ABSENT

    def _outputs(self, key: K) -> Mapping[K2, V2]:
        """Return what an input gave last that is not plain."""
        found = self._others.get(key)
        if found is None:
            # Sound: nothing is never written.
            return cast("Mapping[K2, V2]", NO_OUTPUTS)
        return {found.key: found.value} if isinstance(found, collections.Lone) else found

    def _give(self, key: K, outputs: dict[K2, V2]) -> None:
        if len(outputs) == 1:
            self._others[key] = collections.Lone(*next(iter(outputs.items())))
        elif outputs:
            self._others[key] = outputs
        else:
            self._others.pop(key, None)

    def _won(self, key2: K2) -> V2 | collections.Absent:
        winner = self._claims.winner(key2)
        if winner is collections.ABSENT:
            return collections.ABSENT
        return self._outputs(winner)[key2]

    def _claim(self, key2: K2, key: K, touched: Touched[K2, V2]) -> bool:
        """Note that an input that is not plain gives a key; say whether it alone does."""
        if key2 != key and self._is_plain(key2, touched):
            self._expose(key2, touched)
        return self._claims.add(key2, key)

    def _expose(self, key: K, touched: Touched[K2, V2]) -> None:
        """Write down what a plain input gives, since it is plain no more."""
        own = cast("K2", key)  # Sound: its output has that key.
        # Sound: what is absent or disputed is not plain.
        value = cast("V2", touched[own]) if own in touched else self.out.content[own]
        self._others[key] = collections.Lone(own, value)
        self._claims.add(own, key)

    # --- running

    def _turn(self, gate: cells.Gate) -> None:
        """Begin to rest, or end it."""
        self._dirty.rests = False
        # Of the keys that it holds, those that are no inputs give nothing up.
        gave = [*self._ledger.inputs(), *self._others, *self._failures, *self.out.content]
        if gate.is_shut:
            # Sound: a dict may be asked for anything hashable.
            self._dirty.mark(cast("list[K]", gave))
        else:
            self._dirty.update(dict.fromkeys(self._over.content, collections.ABSENT))
        self._dirty.rests = gate.is_shut

    def _drop(self, key: K, was: object, touched: Touched[K2, V2]) -> None:
        if self._is_plain(key, touched):
            touched[cast("K2", key)] = collections.ABSENT
        elif key in self._others:
            for key2 in self._outputs(key):
                is_gone = self._claims.remove(key2, key)
                touched[key2] = collections.ABSENT if is_gone else DISPUTED
            del self._others[key]
        self._ledger.drop(key, was)
        self._failures.pop(key, None)

    def _compute(self, key: K, value: V, was: object, touched: Touched[K2, V2]) -> None:
        own = cast("K2", key)  # Sound: looked for only.
        # At the start there is nothing at any key yet, and nothing to be asked about it.
        has_own = own in self.out.content or own in touched
        is_plain = has_own and self._is_plain(key, touched)
        new = self._run(key, value, was, self.out.content.get(own) if is_plain else None)
        if new is None:
            return
        gives_own = len(new) == 1 and own in new
        if is_plain:
            if gives_own:
                old, value2 = self.out.content.get(own, collections.ABSENT), new[own]
                if old is not value2 and old != value2:
                    touched[own] = value2
                return
            self._expose(key, touched)
        elif key not in self._others:
            if not new:
                return
            if gives_own and self._claims.is_free(own):
                touched[own] = new[own]
                return
        self._compare(key, new, touched)

    def _compare(self, key: K, new: dict[K2, V2], touched: Touched[K2, V2]) -> None:
        """Note what differs from what an input gave before."""
        old, claims_ = self._outputs(key), self._claims
        kept = 0
        for key2, value2 in new.items():
            was = old.get(key2, collections.ABSENT) if old else collections.ABSENT
            if was is collections.ABSENT:
                touched[key2] = value2 if self._claim(key2, key, touched) else DISPUTED
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
        self._give(key, new)

    def _run(self, key: K, value: V, was: object, last: object) -> dict[K2, V2] | None:
        read = reader.Reader(owner=self.out.owner, rank=self.out.rank, last=last, hears=self._hears)
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
            self._ledger.note(key, was, read.close())
        if self._failures:
            self._failures.pop(key, None)
        return outputs


class Join(Generic[K, V]):
    """The union of collections; of equal keys the earlier collection's wins."""

    def __init__(
        self,
        out: collections.Kept[K, V],
        *,
        members: tuple[collections.Collection[K, V], ...],
        enqueue: cells.Enqueue,
    ) -> None:
        self.out = out
        self._members = members
        self._dirty = cells.DirtyKeys[K](rank=out.rank, enqueue=enqueue)
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


class SoleCell(cells.Cell):
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
        enqueue: cells.Enqueue,
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
        for readable, keys in self._cell.reads:
            yield from ((readable, one) for one in keys)

    def _mark(self) -> None:
        if not self._is_dirty:
            self._is_dirty = True
            self._enqueue(self.out.rank)
