"""What a client must hear of a collection: the members that it has not, and those that are gone.

A client names collections and gets their members. When it comes again on another stream it goes on
with the members that it has, but does not say which: nobody could tell it what is gone. So each
stream calls its collections by another turn, a letter in their names, and tells assignments with
these names: they are other collections, of which the client has nothing. It uses what it has until
it has all of the new ones. Which turn a client has had stands in its versions of assignments.

Source: xDS protocol, glob collections of `xdstp` names; docs/decisions/0045.
"""

import functools
import string
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final, NamedTuple

from typing_extensions import override

from isthmus.resources.snapshot import ENDPOINTS, MEMBERS, Contents, Resource
from isthmus.xds import commons

CONCERNED: Final = frozenset({ENDPOINTS, MEMBERS})
"""Types in which names of collections stand."""

FIRST_TURN: Final = "a"
"""How collections are called before any stream calls them otherwise."""

TAIL: Final = len("/a/*")
MOST_REMEMBERED: Final = 4096
SET_BYTES: Final = 64
"""What a name takes in a set, at most."""


class News(NamedTuple):
    """What there is to tell of a collection."""

    resources: tuple[Resource, ...]
    removed: tuple[str, ...]


NOTHING: Final = Contents.made("", dict)


def turn_after(versions: Mapping[str, str]) -> str:
    """Return a turn of which a client has nothing that has these versions of assignments."""
    taken = {version[-1] for version in versions.values() if version[-2:-1] == "-"}
    free = (letter for letter in string.ascii_lowercase if letter not in taken)
    return next(free, FIRST_TURN)


def named(name: str, turn: str) -> str:
    """Return the name of a collection in a turn."""
    return f"{name[: 1 - TAIL]}{turn}/*" if name.endswith("/*") else name


_NAMED: Final[commons.Steps[frozenset[str]]] = commons.Steps()


def all_named(names: frozenset[str], turn: str) -> frozenset[str]:
    """Return the names of collections in a turn; the same set for equal ones."""

    def compute() -> tuple[frozenset[str], int]:
        fresh = commons.names(frozenset(named(name, turn) for name in names))
        return fresh, commons.STEP_BYTES + SET_BYTES * (len(names) + len(fresh))

    return _NAMED.taken((names, turn), compute)


def of_member(name: str) -> str:
    """Return the name of the collection that a member belongs to."""
    return f"{name.rpartition('/')[0]}/*"


def news(before: str | None, now: str | None, *, turn: str = FIRST_TURN) -> News:
    """Return what a client must hear that has one version, or none, and shall have another."""
    old = before if isinstance(before, Contents) else NOTHING
    new = now if isinstance(now, Contents) else NOTHING
    return _news(old, new, turn)


@functools.lru_cache(maxsize=MOST_REMEMBERED // 4)
def _news(before: Contents, now: Contents, turn: str) -> News:
    old, new = before.members(), now.members()
    changed = (
        member
        for name, member in new.items()
        if name not in old or old[name].version != member.version
    )
    told = [replace(member, name=_member(member.name, turn)) for member in changed]
    return News(tuple(told), tuple(sorted(_member(one, turn) for one in old.keys() - new.keys())))


def _member(name: str, turn: str) -> str:
    collection, _, own = name.rpartition("/")
    return f"{collection[:-1]}{turn}/{own}"


class Turned(Mapping[str, Resource]):
    """Resources of one type by the names of a turn."""

    __slots__ = ("_held", "_turn")

    def __init__(self, held: Mapping[str, Resource], turn: str) -> None:
        self._held = held
        self._turn = turn

    @override
    def __getitem__(self, name: str) -> Resource:
        held = self._held[named(name, FIRST_TURN)]
        return turned(held, self._turn)

    @override
    def __iter__(self) -> Iterator[str]:
        return (named(name, self._turn) for name in self._held)

    @override
    def __len__(self) -> int:
        return len(self._held)


def in_turn(resources: Mapping[str, Resource], turn: str) -> Mapping[str, Resource]:
    """Return resources of a type that is concerned as they are told in a turn."""
    return resources if turn == FIRST_TURN else Turned(resources, turn)


@functools.lru_cache(maxsize=MOST_REMEMBERED)
def turned(resource: Resource, turn: str) -> Resource:
    """Return an assignment, or a collection, as it is told in a turn."""
    body = resource.body
    for each in resource.collections:
        # Names of all turns are equally long, so that nothing else in the message changes.
        body = body.replace(each.name.encode(), named(each.name, turn).encode())
    if resource.type_url == MEMBERS:
        return replace(resource, name=named(resource.name, turn))
    if not resource.collections:
        return resource
    return replace(resource, version=f"{resource.version[:-1]}{turn}", body=body)
