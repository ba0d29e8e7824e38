"""Endpoints that proxies are told one by one, as they hold them: each content exists once.

A hundred thousand endpoints of two thousand proxies would be two hundred million entries. What a
proxy holds of one cluster is therefore one value that never changes; a message leads from one such
value to the next, and whoever has the same shares it. What leads to the same is known by the members that
it adds and takes away alone, so that a set is only put together when nobody has had it yet. It
decides nothing of what is asked for: see `talks`.
"""

import functools
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

EVERY: Final = "*"
NOBODY: Final = frozenset[str]()
KEPT: Final = 256
"""So many ways lead on from a value."""

NAMES: Final = 500_000


class Body(Protocol):
    """A member as it was told."""

    @property
    def body(self) -> bytes:
        """Its message."""

    @property
    def markers(self) -> frozenset[bytes]:
        """The addresses of events in it."""

    @property
    def token(self) -> int:
        """A number that no other member has, nor the same one with another content."""


Members = Mapping[str, Body]


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """What one message says of one cluster's collections; equal to nothing but itself.

    Attributes:
        told: By collection the members that are new or other than before.
        gone: By collection the names of those that are gone.
    """

    cluster: str
    told: Mapping[str, Members]
    gone: Mapping[str, frozenset[str]]


Content = Mapping[str, int | None]
"""By collection the tokens of its members, each added without carry; None where they are unknown."""


class Crowds:
    """The collections of one cluster with their members; None for those that are not known yet."""

    __slots__ = ("__weakref__", "_content", "_next", "by_collection", "is_complete", "markers")

    def __init__(self, by_collection: Mapping[str, Members | None], content: Content) -> None:
        self.by_collection = by_collection
        self.is_complete = None not in by_collection.values()
        self.markers = frozenset[bytes]().union(
            *(one.markers for held in by_collection.values() for one in (held or {}).values())
        )
        self._content = content
        self._next: dict[object, Crowds] = {}

    def after(self, change: Change) -> "Crowds":
        """Return what they are once a message was heard."""
        found = self._next.get(change)
        if found is None:
            content = dict(self._counted(change))
            found = _all.get(frozenset(content.items()))
            if found is None:
                found = _kept(Crowds(dict(self._changed(change)), content), content)
            self._lead(change, found)
        return found

    def _lead(self, how: object, after: "Crowds") -> None:
        if len(self._next) >= KEPT:
            self._next.clear()
        self._next[how] = after

    def _counted(self, change: Change) -> Iterator[tuple[str, int | None]]:
        """Yield what the content of each collection will be, without putting it together."""
        for name, total in self._content.items():
            told, gone = change.told.get(name), change.gone.get(name, NOBODY)
            if told is None and not gone:
                yield name, total
                continue
            held, total = self.by_collection[name] or {}, total or 0
            for one in gone:
                total ^= held[one].token if one in held else 0
            for one, body in (told or {}).items():
                total ^= body.token
                total ^= held[one].token if one in held and one not in gone else 0
            yield name, total

    def _changed(self, change: Change) -> Iterator[tuple[str, Members | None]]:
        for name, held in self.by_collection.items():
            told, gone = change.told.get(name), change.gone.get(name, NOBODY)
            if told is None and not gone:
                yield name, held
                continue
            left = {one: body for one, body in (held or {}).items() if one not in gone}
            yield name, {**left, **(told or {})}

    def named(self, names: tuple[str, ...]) -> "Crowds":
        """Return what they are once an assignment names these collections."""
        found = self._next.get(names)
        if found is None:
            content = {name: self._content.get(name) for name in names}
            found = _all.get(frozenset(content.items()))
            if found is None:
                held = {name: self.by_collection.get(name) for name in names}
                found = _kept(Crowds(held, content), content)
            self._lead(names, found)
        return found

    def bodies(self) -> Iterator[bytes]:
        """Yield the messages of all members."""
        for held in self.by_collection.values():
            for one in (held or {}).values():
                yield one.body

    def holds(self, words: bytes) -> bool:
        """Say whether words stand in a member."""
        return any(words in body for body in self.bodies())


_all: Final[weakref.WeakValueDictionary[frozenset[tuple[str, int | None]], Crowds]] = (
    weakref.WeakValueDictionary()
)


def _kept(crowds: Crowds, content: Content) -> Crowds:
    """Keep the one value of its content as long as somebody has it."""
    _all[frozenset(content.items())] = crowds
    return crowds


NONE: Final = Crowds({}, {})


@dataclass(slots=True)
class Owners:
    """Which cluster each collection belongs to."""

    by_collection: dict[str, str] = field(default_factory=dict)

    def note(self, cluster: str, collections: Iterable[str]) -> None:
        """Take in what an assignment names."""
        self.by_collection.update(dict.fromkeys(collections, cluster))

    def changes(self, fresh: Iterable[tuple[str, Body]], gone: Iterable[str]) -> tuple[Change, ...]:
        """Return what a message says, by cluster; it is nothing of collections that nobody named."""
        found: dict[str, tuple[dict[str, dict[str, Body]], dict[str, set[str]]]] = {}
        for name, one in fresh:
            collection = _of(name)
            if (cluster := self.by_collection.get(collection)) is not None:
                members = found.setdefault(cluster, ({}, {}))[0]
                members.setdefault(collection, {})[name] = one
        for name in gone:
            collection = _of(name)
            if (cluster := self.by_collection.get(collection)) is not None:
                found.setdefault(cluster, ({}, {}))[1].setdefault(collection, set()).add(name)
        return tuple(
            Change(cluster, told, {name: frozenset(some) for name, some in left.items()})
            for cluster, (told, left) in found.items()
        )


@functools.lru_cache(maxsize=NAMES)
def _of(name: str) -> str:
    """Return the collection that a member is in."""
    return f"{name.rpartition('/')[0]}/{EVERY}"
