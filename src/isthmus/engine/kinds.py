"""What runs have read where that follows from what their inputs are alike in.

Of most derivations nobody knows beforehand what a run reads, and each input needs an entry in a table
that says it. Where inputs of one kind read the same, as pods of one node do, and the kind can be told
from the input, only kinds need entries. A kind has read what any of its inputs has; should one of them
read less, it is computed once too often, and never too seldom.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Final, Generic, TypeVar

from typing_extensions import override

from isthmus.base import hashing
from isthmus.engine import cells, collections, reader

K = TypeVar("K")
V = TypeVar("V")

Alike = Callable[[K, V], Hashable]
"""Says of which kind an input is."""

SPARE: Final = 8
"""So many that have left are struck off together, at least."""


class Unknown(hashing.Word):
    """The type of `UNKNOWN`."""

    UNKNOWN = "unknown"


UNKNOWN: Final = Unknown.UNKNOWN
"""The kind of inputs that cannot be told from what they are."""


class Kind(cells.Cell, Generic[K, V]):
    """The inputs of one kind."""

    __slots__ = ("_count", "_keys", "_kinds", "_name")

    def __init__(self, kinds: "Kinds[K, V]", name: Hashable) -> None:
        super().__init__()
        self._kinds = kinds
        self._name = name
        self._keys: list[K] = []
        self._count = 0

    @override
    def mark(self) -> None:
        self._kinds.dirty.mark(self._present())

    def join(self, key: K) -> None:
        """Make an input one of them, which it was not."""
        self._count += 1
        self._keys.append(key)

    def leave(self) -> bool:
        """Make an input none of them, which is of another kind by now; say whether none is left."""
        self._count -= 1
        if len(self._keys) > SPARE + 2 * self._count:
            self._keys[:] = dict.fromkeys(self._present())
        return not self._count

    def learn(self, reads: reader.Reads) -> None:
        """Note what one of them has read."""
        known = {readable: dict.fromkeys(keys) for readable, keys in self.reads}
        for readable, keys in reads:
            known.setdefault(readable, {}).update(dict.fromkeys(keys))
        self.adopt(tuple([(readable, tuple(keys)) for readable, keys in known.items()]))

    def _present(self) -> Iterator[K]:
        """Yield each that has not left, maybe twice; in order, for what is computed follows it."""
        named = self._kinds.named
        return (key for key in self._keys if named(key) == self._name)


class Kinds(Generic[K, V]):
    """What the runs of one derivation have read, by the kind of their input.

    Attributes:
        dirty: Where runs are marked.
    """

    __slots__ = ("_alike", "_kinds", "_over", "dirty")

    def __init__(
        self, dirty: cells.DirtyKeys[K], *, over: Mapping[K, V], alike: Alike[K, V]
    ) -> None:
        self.dirty = dirty
        self._over = over
        self._alike = alike
        self._kinds: dict[Hashable, Kind[K, V]] = {}

    def reads_of(self, key: K) -> reader.Reads:
        """Return what inputs like this one have read."""
        kind = self._kinds.get(self.named(key))
        return () if kind is None else kind.reads

    def inputs(self) -> Iterator[K]:
        """Yield inputs that have read anything."""
        for kind in self._kinds.values():
            yield from kind._present()  # noqa: SLF001  # Both are one.

    def note(self, key: K, was: object, reads: reader.Reads) -> None:
        """Note what an input's run has read, and what it was before."""
        name = self.named(key)
        before = name if was is cells.AS_IT_WAS else self._name_of(key, was)
        kind = self._kinds.get(name)
        if kind is None:
            kind = self._kinds[name] = Kind(self, name)
        if name != before:
            kind.join(key)
            self._leave(before)
        if kind.reads != reads:
            kind.learn(reads)

    def drop(self, key: K, was: object) -> None:
        """Forget an input, which was this."""
        self._leave(self.named(key) if was is cells.AS_IT_WAS else self._name_of(key, was))

    def named(self, key: K) -> Hashable:
        """Return of which kind an input is; ABSENT if it is not there."""
        return self._name_of(key, self._over.get(key, collections.ABSENT))

    def _name_of(self, key: K, value: object) -> Hashable:
        if value is collections.ABSENT:
            return collections.ABSENT
        try:
            # Sound: it is asked about what its own inputs are, or were.
            return self._alike(key, value)  # type: ignore[arg-type]
        except Exception:  # One bad object must stop no other.
            return UNKNOWN

    def _leave(self, name: Hashable) -> None:
        kind = self._kinds.get(name)
        if kind is not None and kind.leave():
            del self._kinds[name]
            kind.adopt(())
