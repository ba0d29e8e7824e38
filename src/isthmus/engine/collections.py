"""Handles to what a graph holds: sources, derived collections, indexes and single values.

A handle names a collection and keeps its present content. It decides nothing: the graph fills
it, and reads go through `Graph` (from outside) or `Reader` (from a derivation, recorded).
Everything but `name` belongs to the engine.
"""

import enum
from collections.abc import Callable, Hashable, Mapping
from types import MappingProxyType
from typing import Final, Generic, Protocol, TypeVar

from typing_extensions import override

I = TypeVar("I")  # noqa: E741  # `I` for the key of an index, as K and V for key and value.
K = TypeVar("K")
V = TypeVar("V")


class Absent(enum.Enum):
    """The type of `ABSENT`."""

    ABSENT = "absent"


class Whole(enum.Enum):
    """The type of `WHOLE`."""

    WHOLE = "whole"


ABSENT: Final = Absent.ABSENT
"""Stands for "no such key", since None may be a value."""

WHOLE: Final = Whole.WHOLE
"""The key under which a read of a whole collection, or of a single, is recorded."""


class Dependent(Protocol):
    """One computation that has read something."""

    def mark(self) -> None:
        """Note that what it read has changed."""


class Readable:
    """Anything that a derivation can read.

    Attributes:
        rank: Its place in the order of computation.
        owner: The graph that it belongs to.
        readers: By key, who has read that key and must be computed again when it changes.
    """

    __slots__ = ("__weakref__", "name", "owner", "rank", "readers")

    def __init__(self, name: str, *, owner: object, rank: int) -> None:
        self.name = name
        self.owner = owner
        self.rank = rank
        # A dict and no set: the order of computation must not depend on memory addresses.
        self.readers: dict[Hashable, dict[Dependent, None]] = {}

    def wake(self, key: Hashable) -> None:
        """Mark everyone who has read `key`."""
        for reader in self.readers.get(key, ()):
            reader.mark()

    def changed_keys(self) -> Mapping[object, tuple[object, object]]:
        """Hand over old and new value by key since the last call; ABSENT where there is none.

        An index has none: it is a way to read a collection, and the collection is published.
        """
        return {}

    @override
    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


class Collection(Readable, Generic[K, V]):
    """Values by key. Keys are hashable; values are frozen and compare by what they hold.

    Attributes:
        content: Present values.
        view: The same, read-only and never copied.
        before: Values before this transaction, of the keys that it changed.
        followers: Nodes that are computed key by key from this collection.
    """

    __slots__ = ("before", "content", "followers", "view")

    def __init__(self, name: str, *, owner: object, rank: int) -> None:
        super().__init__(name, owner=owner, rank=rank)
        self.content: dict[K, V] = {}
        self.view: Mapping[K, V] = MappingProxyType(self.content)
        self.before: dict[K, V | Absent] = {}
        self.followers: list[Callable[[K], None]] = []

    def settle(self, key: K, new: V | Absent) -> None:
        """Make `key` what it is now; an equal value is no change."""
        old = self.content.get(key, ABSENT)
        if old is new or old == new:
            return
        self.before[key] = old
        if new is ABSENT:
            del self.content[key]
        else:
            self.content[key] = new

    def announce(self) -> None:
        """Mark all that depends on the keys that have changed."""
        for key in self.before:
            for follow in self.followers:
                follow(key)
            if key in self.readers:
                self.wake(key)
        if self.before:
            self.wake(WHOLE)

    @override
    def changed_keys(self) -> Mapping[object, tuple[object, object]]:
        changed: dict[object, tuple[object, object]]
        changed = {key: (old, self.content.get(key, ABSENT)) for key, old in self.before.items()}
        self.before.clear()
        return changed


class Source(Collection[K, V]):
    """A collection that transactions write."""

    __slots__ = ()


class Index(Readable, Generic[I, K, V]):
    """The entries of a collection, grouped by something about them; an entry may be in many groups.

    Attributes:
        buckets: The groups that have entries.
    """

    __slots__ = ("buckets",)

    def __init__(self, name: str, *, owner: object, rank: int) -> None:
        super().__init__(name, owner=owner, rank=rank)
        self.buckets: dict[I, dict[K, V]] = {}


class Single(Readable, Generic[V]):
    """One value.

    Attributes:
        content: Present value; ABSENT while its derivation has never succeeded.
        before: The value before this transaction, if it changed, else None.
    """

    __slots__ = ("before", "content")

    def __init__(self, name: str, *, owner: object, rank: int) -> None:
        super().__init__(name, owner=owner, rank=rank)
        self.content: V | Absent = ABSENT
        self.before: tuple[V | Absent] | None = None

    def settle(self, new: V) -> None:
        """Make the value what it is now; an equal value is no change."""
        if self.content is new or self.content == new:
            return
        self.before = (self.content,)
        self.content = new
        self.wake(WHOLE)

    @override
    def changed_keys(self) -> Mapping[object, tuple[object, object]]:
        if self.before is None:
            return {}
        changed: dict[object, tuple[object, object]] = {WHOLE: (self.before[0], self.content)}
        self.before = None
        return changed
