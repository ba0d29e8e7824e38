"""Handles to what a graph holds: sources, derived collections, indexes and single values.

A handle names a collection and keeps its present content. It decides nothing: the graph fills
it, and reads go through `Graph` (from outside) or `Reader` (from a derivation, recorded).
Everything but `name` belongs to the engine.
"""

import abc
from collections.abc import Hashable, Iterator, Mapping, MutableMapping
from types import MappingProxyType
from typing import Final, Generic, NamedTuple, Protocol, TypeVar, cast

from typing_extensions import override

from isthmus.base import hashing

I = TypeVar("I")  # noqa: E741  # `I` for the key of an index, as K and V for key and value.
K = TypeVar("K")
V = TypeVar("V")


class Absent(hashing.Word):
    """The type of `ABSENT`."""

    ABSENT = "absent"


class Whole(hashing.Word):
    """The type of `WHOLE`."""

    WHOLE = "whole"


ABSENT: Final = Absent.ABSENT
"""Stands for "no such key", since None may be a value."""

WHOLE: Final = Whole.WHOLE
"""The key under which a read of a whole collection, or of a single, is recorded."""


NOTHING: Final[Mapping[object, "Change[object]"]] = MappingProxyType({})


NO_ENTRIES: Final[Mapping[object, object]] = MappingProxyType({})


class Change(NamedTuple, Generic[V]):
    """One key before and after; None where it did not exist. The two always differ."""

    old: V | None
    new: V | None


class Dependent(Protocol):
    """One computation that has read something."""

    def mark(self) -> None:
        """Note that what it read has changed."""


Several = tuple[Dependent, ...] | dict[Dependent, None]

SEVERAL: Final = 8
"""So many are kept as a tuple, which is a third of a dict, and gone through when one leaves."""


class Follower(Protocol[K]):
    """What is computed key by key from a collection."""

    def update(self, keys: Mapping[K, object]) -> None:
        """Note that these keys have changed, with what each was before, or ABSENT."""


class Readable:
    """Anything that a derivation can read.

    Attributes:
        rank: Its place in the order of computation.
        owner: The graph that it belongs to.
        readers: By key, who has read that key and must be computed again when it changes: one,
            as almost always, several, or many.
    """

    __slots__ = ("__weakref__", "name", "owner", "rank", "readers")

    def __init__(self, name: str, *, owner: object, rank: int) -> None:
        self.name = name
        self.owner = owner
        self.rank = rank
        self.readers: dict[Hashable, Dependent | Several] = {}

    def add_reader(self, key: Hashable, reader: Dependent) -> None:
        """Note that `reader`, which had not, has read `key`."""
        present = self.readers.setdefault(key, reader)
        if isinstance(present, dict):
            present[reader] = None
        elif isinstance(present, tuple):
            more = (*present, reader)
            # A dict and no set: the order of computation must not depend on memory addresses.
            self.readers[key] = more if len(more) <= SEVERAL else dict.fromkeys(more)
        elif present is not reader:
            self.readers[key] = (present, reader)

    def drop_reader(self, key: Hashable, reader: Dependent) -> None:
        """Note that `reader`, which had, no longer reads `key`."""
        present = self.readers[key]
        if isinstance(present, dict):
            del present[reader]
            if not present:
                del self.readers[key]
        elif isinstance(present, tuple) and len(present) > 1:
            self.readers[key] = tuple([one for one in present if one is not reader])
        else:
            del self.readers[key]

    def wake(self, key: Hashable) -> None:
        """Mark everyone who has read `key`."""
        found = self.readers.get(key)
        if isinstance(found, dict | tuple):
            for reader in found:
                reader.mark()
        elif found is not None:
            found.mark()

    def take_changes(self) -> Mapping[object, object]:
        """Hand over what has changed since the last call: by key what was there, or ABSENT.

        An index has nothing: it is a way to read a collection, and the collection is published.
        """
        return NO_ENTRIES

    def now(self, key: object) -> object:
        """Return what is there at a key that has changed, or ABSENT."""
        del key
        return ABSENT

    @override
    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


class Collection(Readable, Generic[K, V]):
    """Values by key. Keys are hashable; values are frozen and compare by what they hold.

    Attributes:
        content: Present values: a dict, or whatever else holds them or makes them for who looks.
        view: The same, read-only and never copied.
        changed: What this transaction has changed: by key what was there before, or ABSENT.
        followers: Nodes that are computed key by key from this collection.
    """

    __slots__ = ("changed", "content", "followers", "view")

    def __init__(self, name: str, *, owner: object, rank: int, content: Mapping[K, V]) -> None:
        super().__init__(name, owner=owner, rank=rank)
        self.content = content
        # Whatever is no dict has more to offer than a proxy would show.
        self.view = MappingProxyType(content) if isinstance(content, dict) else content
        self.changed: dict[K, V | Absent] = {}
        self.followers: list[Follower[K]] = []

    def announce(self) -> None:
        """Mark all that depends on the keys that have changed."""
        changed, readers = self.changed, self.readers
        if not changed:
            return
        for follower in self.followers:
            follower.update(changed)
        if not readers:
            return
        # The shorter list is gone through; each is in order of arrival.
        for key in changed if len(changed) <= len(readers) else readers:
            if key in readers and key in changed:
                self.wake(key)
        self.wake(WHOLE)

    @override
    def take_changes(self) -> Mapping[object, object]:
        taken, self.changed = self.changed, {}
        # Sound: who takes them reads them only.
        return cast("Mapping[object, object]", taken)

    @override
    def now(self, key: object) -> object:
        # Sound: a dict may be asked for anything that was its key.
        return self.content.get(cast("K", key), ABSENT)


class Kept(Collection[K, V]):
    """A collection whose values are kept."""

    __slots__ = ("_held",)

    def __init__(
        self,
        name: str,
        *,
        owner: object,
        rank: int,
        content: MutableMapping[K, V] | None = None,
    ) -> None:
        held: MutableMapping[K, V] = {} if content is None else content
        super().__init__(name, owner=owner, rank=rank, content=held)
        self._held = held

    def settle(self, key: K, new: V | Absent) -> None:
        """Make `key` what it is now; an equal value is no change."""
        held = self._held
        old = held.get(key, ABSENT)
        # What is absent is no value, and no value need be asked whether it equals it.
        if old is new or (old is not ABSENT and old == new):
            return
        if new is ABSENT:
            del held[key]
        else:
            held[key] = new
        self.changed.setdefault(key, old)


class Source(Kept[K, V]):
    """A collection that transactions write."""

    __slots__ = ()


class Lone(NamedTuple, Generic[K, V]):
    """The only entry of a group: most groups have one, and a dict for it would be large."""

    key: K
    value: V


class Few(tuple[K, ...]):
    """The keys of a small group, in order of arrival: a dict would be three times as large."""

    __slots__ = ()


class Looked(Mapping[K, V]):
    """Entries of which only the keys are kept: values are looked up where they are."""

    __slots__ = ("_keys", "_of")

    def __init__(self, keys: Mapping[K, object], of: Mapping[K, V]) -> None:
        self._keys = keys
        self._of = of

    @override
    def __getitem__(self, key: K) -> V:
        if key not in self._keys:
            raise KeyError(key)
        return self._of[key]

    @override
    def __iter__(self) -> Iterator[K]:
        return iter(self._keys)

    @override
    def __len__(self) -> int:
        return len(self._keys)


MOST_FEW: Final = 16


class Groups(Readable, Generic[I, K, V]):
    """Entries of a collection that can be looked up by something about them."""

    __slots__ = ()

    @abc.abstractmethod
    def bucket(self, group: I) -> Mapping[K, V]:
        """Return the entries of a group, read-only; empty when it has none."""


class Index(Groups[I, K, V]):
    """The entries of a collection, grouped by something about them; an entry may be in many groups.

    Attributes:
        buckets: The groups that have entries: the key of the only one, as almost always, those of
            a few, or all entries; None instead of values that are made anew for each look.
    """

    __slots__ = ("_keeps", "_of", "buckets")

    def __init__(self, name: str, *, owner: object, rank: int, of: Mapping[K, V]) -> None:
        super().__init__(name, owner=owner, rank=rank)
        self.buckets: dict[I, K | Few[K] | dict[K, V | None]] = {}
        self._of = of
        # A dict holds the very values that it is asked for; what else holds some may make them.
        self._keeps = isinstance(of, dict)

    @override
    def bucket(self, group: I) -> Mapping[K, V]:
        found = self.buckets.get(group, ABSENT)
        if found is ABSENT:
            # Sound: nothing is never written.
            return cast("Mapping[K, V]", NO_ENTRIES)
        of = self._of
        if isinstance(found, dict):
            # Sound: where values are kept, none is missing.
            kept = cast("dict[K, V]", found)
            return MappingProxyType(kept) if self._keeps else Looked(found, of)
        if isinstance(found, Few):
            return MappingProxyType({key: of[key] for key in found})
        return MappingProxyType({found: of[found]})

    def put(self, group: I, key: K, value: V) -> None:
        """Make an entry part of a group, or change it there."""
        found = self.buckets.setdefault(group, key)
        if isinstance(found, dict):
            found[key] = value if self._keeps else None
        elif isinstance(found, Few):
            if key not in found:
                self.buckets[group] = self._more(found, key, value)
        elif found is not key and found != key:
            self.buckets[group] = Few((found, key))

    def drop(self, group: I, key: K) -> None:
        """Take an entry out of a group that it is in."""
        found = self.buckets[group]
        if isinstance(found, dict):
            del found[key]
            if len(found) <= MOST_FEW // 2:
                self.buckets[group] = Few(found)
        elif isinstance(found, Few):
            left = Few([one for one in found if one != key])
            self.buckets[group] = left if len(left) > 1 else left[0]
        else:
            del self.buckets[group]

    def _more(self, few: Few[K], key: K, value: V) -> Few[K] | dict[K, V | None]:
        if len(few) < MOST_FEW:
            return Few((*few, key))
        if not self._keeps:
            return dict.fromkeys((*few, key))
        # What others are now. Who is no more is about to be dropped from here too.
        others = {other: self._of.get(other) for other in few}
        return {**others, key: value}


class Single(Readable, Generic[V]):
    """One value.

    Attributes:
        content: Present value; ABSENT while its derivation has never succeeded.
        changed: What was there before this transaction, under WHOLE, if that has changed it.
    """

    __slots__ = ("changed", "content")

    def __init__(self, name: str, *, owner: object, rank: int) -> None:
        super().__init__(name, owner=owner, rank=rank)
        self.content: V | Absent = ABSENT
        self.changed: dict[Whole, V | Absent] = {}

    def settle(self, new: V) -> None:
        """Make the value what it is now; an equal value is no change."""
        old = self.content
        if old is new or old == new:
            return
        self.changed.setdefault(WHOLE, old)
        self.content = new
        self.wake(WHOLE)

    @override
    def take_changes(self) -> Mapping[object, object]:
        taken, self.changed = self.changed, {}
        # Sound: who takes them reads them only.
        return cast("Mapping[object, object]", taken)

    @override
    def now(self, key: object) -> object:
        del key
        return self.content
