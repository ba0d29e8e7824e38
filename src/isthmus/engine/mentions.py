"""Which entries name something, where entries have names of their own and there are very many.

An index has a group for each thing that entries are looked up by, and each group takes a key, a place
in a table and maybe a list. Here entries are put into a fixed number of slots by the hash of each
name, and whoever looks one up goes through those of its slot and asks each. Readers are known by the
name, not by the slot: nobody is computed again because of what happens to lie beside.

Source: docs/decisions/0069-who-names-an-address-is-looked-for.md.
"""

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from types import MappingProxyType
from typing import Final, Generic, Protocol, TypeVar, cast

from typing_extensions import override

from isthmus.base import errors
from isthmus.engine import cells, collections, nodes, reader

I = TypeVar("I", bound=Hashable)  # noqa: E741
K = TypeVar("K")
V = TypeVar("V")
V_contra = TypeVar("V_contra", contravariant=True)

SLOTS: Final = 1 << 14
"""A slot for every six addresses of 100,000; of a million each has sixty to go through."""


class Naming(Protocol[I, V_contra]):
    """How entries name things."""

    def names(self, value: V_contra) -> Collection[I]:
        """Return all that an entry names, each once."""

    def is_named(self, value: V_contra, name: I) -> bool:
        """Say whether it is among them, without going through all."""


class Mentions(collections.Groups[I, K, None], Generic[I, K, V]):
    """The keys of the entries that name something.

    Attributes:
        slots: Keys by the hashes of what their entries name; a key is there once for each name.
    """

    __slots__ = ("_by", "_of", "slots")

    def __init__(
        self, name: str, *, owner: object, rank: int, of: Mapping[K, V], by: Naming[I, V]
    ) -> None:
        super().__init__(name, owner=owner, rank=rank)
        self.slots: list[tuple[K, ...]] = [()] * SLOTS
        self._of = of
        self._by = by

    @override
    def bucket(self, group: I) -> Mapping[K, None]:
        by, of = self._by, self._of
        found = self.slots[hash(group) % SLOTS]
        return MappingProxyType({key: None for key in found if by.is_named(of[key], group)})

    def put(self, name: I, key: K) -> None:
        """Note that an entry names something, which it did not."""
        at = hash(name) % SLOTS
        self.slots[at] = (*self.slots[at], key)

    def drop(self, name: I, key: K) -> None:
        """Note that an entry no longer names something, which it did."""
        at = hash(name) % SLOTS
        found = self.slots[at]
        gone = found.index(key)
        self.slots[at] = (*found[:gone], *found[gone + 1 :])


class Mentioning(Generic[I, K, V]):
    """Keeps up to date which entries name what.

    An entry of which that cannot be told names nothing, and that becomes a finding.
    """

    def __init__(
        self,
        out: Mentions[I, K, V],
        *,
        of: collections.Collection[K, V],
        by: Naming[I, V],
        enqueue: Callable[[int], None],
    ) -> None:
        self.out = out
        self._of = of
        self._by = by
        self._was: dict[K, V | collections.Absent] = {}
        self._failures: dict[K, errors.Finding] = {}
        self._enqueue: cells.Enqueue = enqueue
        of.followers.append(self)
        self.update(dict.fromkeys(of.content, collections.ABSENT))

    def update(self, keys: Mapping[K, object]) -> None:
        """Note that entries have changed, with what they were."""
        if keys and not self._was:
            self._enqueue(self.out.rank)
        # Sound: a collection says what its own entries were.
        self._was.update(cast("Mapping[K, V | collections.Absent]", keys))

    def refresh(self) -> int:
        """Note what has changed of the dirty entries' names, and mark who has asked for those."""
        woken: dict[I, None] = {}
        was, self._was = self._was, {}
        content = self._of.content
        for key, old in was.items():
            before = self._told(key, old)
            if self._failures:
                self._failures.pop(key, None)
            now = self._told(key, content.get(key, collections.ABSENT))
            for name in before:
                if name not in now:
                    woken[name] = None
                    self.out.drop(name, key)
            for name in now:
                if name not in before:
                    woken[name] = None
                    self.out.put(name, key)
        for name in woken:
            self.out.wake(name)
        return 0

    def findings(self) -> Iterable[errors.Finding]:
        """Yield a finding for each entry of which nobody can tell what it names."""
        yield from self._failures.values()

    def origins(self, key: Hashable) -> Iterable[reader.Read]:
        """Yield the entries that name something."""
        # Sound: it is asked for what somebody has looked up.
        yield from ((self._of, entry) for entry in self.out.bucket(cast("I", key)))

    def _told(self, key: K, value: V | collections.Absent) -> dict[I, None]:
        if value is collections.ABSENT:
            return {}
        try:
            found = dict.fromkeys(self._by.names(value))
        except Exception as error:  # One bad object must stop no other.
            self._failures[key] = nodes.failure(self.out.name, key, error)
            return {}
        return found
