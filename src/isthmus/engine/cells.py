"""Who computes again when something that was read changes, and what is to be computed again.

Most runs of one derivation read the same few things: the settings, a node, a namespace. They share
one record of that, so that what is kept of a run is hardly more than its key. When a derivation is
computed again is not decided here.
"""

import abc
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sized
from typing import Final, Generic, TypeVar

from typing_extensions import override

from isthmus.base import hashing
from isthmus.engine import collections, reader

K = TypeVar("K")
V = TypeVar("V")

Enqueue = Callable[[int], None]
"""Tells the graph that the node of this rank has something to compute."""

FEW: Final = 6
"""Runs that read more than so much are hardly alike."""


class AsItWas(hashing.Word):
    """The type of `AS_IT_WAS`."""

    AS_IT_WAS = "as it was"


AS_IT_WAS: Final = AsItWas.AS_IT_WAS
"""Stands for what an input was that has not changed, but for something that it looks at."""


class DirtyKeys(Generic[K]):
    """The inputs to compute again, in order of marking, with what they were before.

    Attributes:
        rests: Whether nothing is to be computed at present, whatever changes.
    """

    __slots__ = ("_enqueue", "_keys", "_rank", "rests")

    def __init__(self, *, rank: int, enqueue: Enqueue) -> None:
        self._rank = rank
        self._enqueue = enqueue
        self._keys: dict[K, object] = {}
        self.rests = False

    def add(self, key: K) -> None:
        """Note one input."""
        if self.rests:
            return
        if not self._keys:
            self._enqueue(self._rank)
        self._keys.setdefault(key, AS_IT_WAS)

    def update(self, keys: Mapping[K, object]) -> None:
        """Note inputs that have changed, with what they were, or ABSENT."""
        if self.rests:
            return
        if keys and not self._keys:
            self._enqueue(self._rank)
        self._keys.update(keys)

    def mark(self, keys: Iterable[K]) -> None:
        """Note inputs that are as they were."""
        if self.rests:
            return
        marked: dict[K, object] = dict.fromkeys(keys, AS_IT_WAS)
        if self._keys:
            marked.update(self._keys)
        elif marked:
            self._enqueue(self._rank)
        self._keys = marked

    def lacks(self, keys: Iterable[K]) -> Iterator[K]:
        """Yield which of these are not noted; none where nothing is computed anyway."""
        return iter(()) if self.rests else (key for key in keys if key not in self._keys)

    def take(self) -> Mapping[K, object]:
        """Return all, with what they were, and forget them."""
        taken = self._keys
        self._keys = {}
        return taken


class Gate:
    """Lets a node rest, and hold nothing, as long as a collection is empty."""

    __slots__ = ("_content", "_enqueue", "_rank")

    def __init__(self, by: collections.Collection[K, V], *, rank: int, enqueue: Enqueue) -> None:
        self._content: Sized = by.content
        self._rank = rank
        self._enqueue = enqueue
        by.followers.append(self)

    @property
    def is_shut(self) -> bool:
        """Whether the node should rest."""
        return not self._content

    def update(self, _: object) -> None:
        """Let the node look whether it rests."""
        self._enqueue(self._rank)


class Cell(abc.ABC):
    """One run of a function, or several that read the same, to be repeated when that changes."""

    __slots__ = ("reads",)

    def __init__(self) -> None:
        self.reads: reader.Reads = ()

    @abc.abstractmethod
    def mark(self) -> None:
        """Note that what it read has changed."""

    def adopt(self, new: reader.Reads) -> None:
        """Depend on `new`, and no longer on what is not among them."""
        old = self.reads
        if old == new:
            return
        self.reads = new
        kept = {readable: set(keys) for readable, keys in new} if old else {}
        known = {readable: set(keys) for readable, keys in old} if new else {}
        for readable, keys in old:
            wanted = kept.get(readable, ())
            for key in keys:
                if key not in wanted:
                    readable.drop_reader(key, self)
        for readable, keys in new:
            had = known.get(readable, ())
            for key in keys:
                if key not in had:
                    readable.add_reader(key, self)


class Runs(Cell, Generic[K]):
    """Runs of one derivation that have read the same."""

    __slots__ = ("_count", "_keys", "_ledger")

    def __init__(self, ledger: "Ledger[K]") -> None:
        super().__init__()
        self._ledger = ledger
        self._keys: K | _Keys[K] | collections.Absent = collections.ABSENT
        self._count = 0

    def join(self, key: K) -> None:
        """Make the run of `key` one of them, which it was not."""
        present = self._keys
        self._count += 1
        if present is collections.ABSENT:
            self._keys = key
        elif isinstance(present, _Keys):
            present.append(key)
        else:
            self._keys = _Keys((present, key))

    def leave(self, key: K) -> bool:
        """Make the run of `key` none of them, which it was; say whether none is left.

        The ledger knows by then where it belongs.
        """
        self._count -= 1
        present = self._keys
        if isinstance(present, _Keys) and len(present) > FEW + 2 * self._count:
            present[:] = self._present(present)
        return not self._count

    @override
    def mark(self) -> None:
        present = self._keys
        if isinstance(present, _Keys):
            self._ledger.dirty.mark(self._present(present))
        elif present is not collections.ABSENT:
            self._ledger.dirty.add(present)

    def _present(self, keys: "_Keys[K]") -> dict[K, None]:
        """Return each of them once that has not left; in order, for what is computed follows it."""
        runs = self._ledger.runs
        return dict.fromkeys([key for key in keys if runs.get(key) is self])


class _Keys(list[K]):
    """Keys of runs that read the same, or did: who leaves is struck off with many others."""

    __slots__ = ()


class Ledger(Generic[K]):
    """What the runs of one derivation have read, by their input.

    Attributes:
        dirty: Where runs are marked.
        runs: Those that have read anything.
    """

    __slots__ = ("_alike", "_idle", "dirty", "runs")

    def __init__(self, dirty: DirtyKeys[K]) -> None:
        self.dirty = dirty
        self.runs: dict[K, Runs[K]] = {}
        self._alike: dict[reader.Reads, Runs[K]] = {}
        self._idle = Runs(self)
        """Of all that read nothing: these need not be marked, and nothing is kept of them."""

    def reads_of(self, key: K) -> reader.Reads:
        """Return what a run has read."""
        return self.runs.get(key, self._idle).reads

    def inputs(self) -> Iterable[K]:
        """Return the inputs whose runs have read anything."""
        return self.runs

    def note(self, key: K, was: object, reads: reader.Reads) -> None:
        """Note what an input's run has read; what it was before makes no difference."""
        del was
        old = self.runs.get(key, self._idle)
        if old.reads == reads:
            return
        if not reads:
            del self.runs[key]
        elif sum([len(keys) for _, keys in reads]) <= FEW:
            new = self._alike.get(reads)
            if new is None:
                reads = _sharing_parts(reads)
                new = self._alike[reads] = Runs(self)
                new.adopt(reads)
            new.join(key)
            self.runs[key] = new
        elif old is not self._idle and old.reads not in self._alike:
            old.adopt(_sharing_parts(reads))  # Which is its own: only the differences matter.
            return
        else:
            new = self.runs[key] = Runs(self)
            new.adopt(_sharing_parts(reads))
            new.join(key)
        self._leave(old, key)

    def drop(self, key: K, was: object) -> None:
        """Forget an input; what it was makes no difference."""
        del was
        self._leave(self.runs.pop(key, self._idle), key)

    def _leave(self, runs: Runs[K], key: K) -> None:
        if runs is self._idle or not runs.leave(key):
            return
        if self._alike.get(runs.reads) is runs:
            del self._alike[runs.reads]
        runs.adopt(())


def _sharing_parts(reads: reader.Reads) -> reader.Reads:
    """Return the same, of parts that exist already.

    Runs for many scopes differ in one or two of the things that they read. What nobody else has
    read has keys that were made to look it up; where values know their own keys, these are kept.
    """
    return tuple([_part(one) for one in reads])


def _part(fresh: reader.Part) -> reader.Part:
    readable, keys = fresh
    known = readable.readers.get(keys[0])
    other = next(iter(known)) if isinstance(known, dict | tuple) else known
    if isinstance(other, Cell):
        for part in other.reads:
            if part[0] is readable and part[1] == keys:
                return part
    if not isinstance(readable, collections.Collection):
        return fresh
    content = readable.content
    return readable, tuple([_own(content.get(key), key) for key in keys])


def _own(value: object, key: Hashable) -> Hashable:
    own: Hashable = getattr(value, "key", key)
    return own if own == key else key
