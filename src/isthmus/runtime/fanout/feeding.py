"""What one worker is told of scopes: those that its proxies see, and of these what has changed.

What has changed is a set of names until the worker takes it, however slow that is; what it is told
is what they hold by then, all of one moment.

Source: docs/decisions/0051; performance rule 6.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Generic, NamedTuple, TypeVar

from isthmus.resources.snapshot import ENDPOINTS, MEMBERS, Resource, TypeUrl
from isthmus.runtime import catalog
from isthmus.runtime.fanout import messages

S = TypeVar("S", bound=Hashable)

MOST_IN_PART = 512


class Current(NamedTuple):
    """A resource of a scope as it is; None where there is none."""

    scope: int
    type_url: TypeUrl
    name: str
    resource: Resource | None


class _Reader(Generic[S]):
    """Sees one scope for all proxies of a worker, and notes what changes."""

    __slots__ = ("dirty", "held", "number", "wake")

    def __init__(
        self, shelves: catalog.Catalog[S], scope: S, number: int, wake: Callable[[], None]
    ) -> None:
        self.number = number
        self.wake = wake
        self.held = shelves.read((scope,), self).snapshot
        self.dirty: dict[TypeUrl, set[str]] = {}

    def __call__(self, changed: catalog.Changed) -> None:
        for type_url, names in changed.items():
            self.dirty.setdefault(type_url, set()).update(names)
        self.wake()

    def take(self) -> Iterator[Current]:
        dirty, self.dirty = self.dirty, {}
        # Collections come with what refers to them, if that has changed as well.
        assignments = self.held.of(ENDPOINTS)
        told = (assignments.get(name) for name in dirty.get(ENDPOINTS, ()))
        with_it = {each.name for one in told if one is not None for each in one.collections}
        if MEMBERS in dirty:
            dirty[MEMBERS] -= with_it
        for type_url, names in dirty.items():
            resources = self.held.of(type_url)
            for name in names:
                yield Current(self.number, type_url, name, resources.get(name))


class Feed(Generic[S]):
    """All scopes that proxies of one worker see."""

    def __init__(self, shelves: catalog.Catalog[S], *, wake: Callable[[], None]) -> None:
        self._shelves = shelves
        self._wake = wake
        self._readers: dict[S, _Reader[S]] = {}
        self._seen = Counter[S]()
        self._number = 0
        self._forgotten: list[int] = []

    def __len__(self) -> int:
        return len(self._readers)

    @property
    def waiting(self) -> int:
        """How many resources wait to be told."""
        return sum(len(n) for one in self._readers.values() for n in one.dirty.values())

    def see(self, scopes: Iterable[S]) -> tuple[int, ...]:
        """Begin to tell of scopes for one more proxy; return how they are called."""
        numbers = []
        for scope in scopes:
            self._seen[scope] += 1
            reader = self._readers.get(scope)
            if reader is None:
                reader = self._readers[scope] = self._read(scope)
            numbers.append(reader.number)
        return tuple(numbers)

    def leave(self, scopes: Iterable[S]) -> None:
        """Tell of scopes for one proxy less."""
        for scope in scopes:
            self._seen[scope] -= 1
            if self._seen[scope] <= 0:
                del self._seen[scope]
                reader = self._readers.pop(scope)
                self._shelves.leave((scope,), reader)
                self._shelves.drop(scope)
                self._forgotten.append(reader.number)
                self._wake()

    def close(self) -> None:
        """Tell of nothing any more."""
        self.leave(list(self._seen.elements()))
        self._forgotten.clear()

    def take(self) -> tuple[list[Current], tuple[int, ...]]:
        """Return what has changed since this was called last, and scopes that are forgotten."""
        changed = [each for reader in self._readers.values() for each in reader.take()]
        forgotten, self._forgotten = tuple(self._forgotten), []
        return changed, forgotten

    def _read(self, scope: S) -> _Reader[S]:
        self._number += 1
        reader = _Reader(self._shelves, scope, self._number, self._wake)
        reader(self._shelves.names((scope,)))
        return reader


def parts(changed: list[Current]) -> Iterator[messages.Changed]:
    """Cut what has changed into messages."""
    found: list[messages.Change] = []
    size = 0
    for each in changed:
        held = None if each.resource is None else messages.held(each.resource)
        found.append(messages.Change(each.scope, each.type_url, each.name, held))
        size += len(held.body) if held is not None else 0
        if size > messages.PART_BYTES or len(found) >= MOST_IN_PART:
            yield messages.Changed(tuple(found), is_last=False)
            found, size = [], 0
    yield messages.Changed(tuple(found), is_last=True)
