"""Endpoints that proxies are told one by one, as they hold them: each content exists once.

A hundred thousand endpoints of two thousand proxies would be two hundred million entries. What a
proxy holds of one cluster is therefore one value that never changes; a message leads from one such
value to the next, and whoever has the same and hears the same shares both. It decides nothing of
what is asked for: see `talks`.
"""

import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

EVERY: Final = "*"


class Body(Protocol):
    """A member as it was told."""

    @property
    def body(self) -> bytes:
        """Its message."""

    @property
    def markers(self) -> frozenset[bytes]:
        """The addresses of events in it."""


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


class Crowds:
    """The collections of one cluster with their members; None for those that are not known yet."""

    __slots__ = ("__weakref__", "_next", "by_collection", "is_complete", "markers")

    def __init__(self, by_collection: Mapping[str, Members | None]) -> None:
        self.by_collection = by_collection
        self.is_complete = None not in by_collection.values()
        self.markers = frozenset[bytes]().union(
            *(one.markers for held in by_collection.values() for one in (held or {}).values())
        )
        self._next: dict[object, Crowds] = {}

    def after(self, change: Change) -> "Crowds":
        """Return what they are once a message was heard."""
        found = self._next.get(change)
        if found is None:
            found = self._next[change] = _shared(dict(self._changed(change)))
        return found

    def _changed(self, change: Change) -> Iterator[tuple[str, Members | None]]:
        for name, held in self.by_collection.items():
            told, gone = change.told.get(name), change.gone.get(name)
            if told is None and gone is None:
                yield name, held
                continue
            left = {one: body for one, body in (held or {}).items() if one not in (gone or ())}
            yield name, {**left, **(told or {})}

    def named(self, names: tuple[str, ...]) -> "Crowds":
        """Return what they are once an assignment names these collections."""
        found = self._next.get(names)
        if found is None:
            found = _shared({name: self.by_collection.get(name) for name in names})
            self._next[names] = found
        return found

    def bodies(self) -> Iterator[bytes]:
        """Yield the messages of all members."""
        for held in self.by_collection.values():
            for one in (held or {}).values():
                yield one.body

    def holds(self, words: bytes) -> bool:
        """Say whether words stand in a member."""
        return any(words in body for body in self.bodies())


_all: Final[weakref.WeakValueDictionary[frozenset[Any], Crowds]] = weakref.WeakValueDictionary()


def _shared(by_collection: Mapping[str, Members | None]) -> Crowds:
    """Return the one value of this content; bodies of equal content are one object already."""
    content = frozenset(
        (name, held if held is None else frozenset((one, id(body)) for one, body in held.items()))
        for name, held in by_collection.items()
    )
    found = _all.get(content)
    if found is None:
        found = _all[content] = Crowds(by_collection)
    return found


NONE: Final = Crowds({})


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


def _of(name: str) -> str:
    return f"{name.rpartition('/')[0]}/{EVERY}"
