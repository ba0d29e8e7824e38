"""What every connected proxy should have, kept by scope, and who must hear of a change.

Resources live once per scope. Proxies with equal scopes share one view: one snapshot, which follows
the scopes' mappings, and one list of who waits. A change is told to those of its views' readers
that want one of its names, and copies nothing; who cares is looked up, not searched for.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Generic, Protocol, TypeVar

from typing_extensions import override

from isthmus.resources import snapshot
from isthmus.resources.snapshot import Resource, Snapshot, TypeUrl

Changed = Mapping[TypeUrl, frozenset[str]]
Wake = Callable[[Changed], None]
"""Told which resources have changed, by type and name."""

Named = dict[str, Resource]

S = TypeVar("S", bound=Hashable)
Seen_co = TypeVar("Seen_co", bound=Hashable, covariant=True)


class Key(Protocol[Seen_co]):
    """Where a resource stands."""

    @property
    def scope(self) -> Seen_co:
        """Who sees it."""

    @property
    def name(self) -> str:
        """What it is called there."""


class Shelf:
    """The resources of one scope."""

    def __init__(self) -> None:
        self.by_type: dict[TypeUrl, Named] = {}
        self.related: dict[TypeUrl, dict[str, set[str]]] = {}
        self.editions: dict[TypeUrl, snapshot.Edition] = {}

    def put(self, type_url: TypeUrl, name: str, resource: Resource | None) -> None:
        """Put, replace or remove a resource, and with it its collections."""
        held = self.by_type.setdefault(type_url, {})
        old = held.pop(name, None)
        if not _is_told_alike(old, resource):
            self.editions[type_url] = snapshot.Edition()
        before = old.collections if old is not None else ()
        after = resource.collections if resource is not None else ()
        for each in _besides(before, after):
            self.put(each.type_url, each.name, None)
        for each in _besides(after, before):
            self.put(each.type_url, each.name, each)
        if old is not None:
            self._unrelate(old)
        if resource is not None:
            held[name] = resource
            for other in (*resource.aliases, *resource.parts_of):
                related = self.related.setdefault(type_url, {})
                related.setdefault(other, set()).add(name)

    def _unrelate(self, resource: Resource) -> None:
        related = self.related.get(resource.type_url, {})
        for other in {*resource.aliases, *resource.parts_of}:
            names = related.get(other, set())
            names.discard(resource.name)
            if not names:
                related.pop(other, None)


class _Chains(Mapping[TypeUrl, Mapping[str, Resource]]):
    """The resources of some shelves by type, of which the earlier ones count more."""

    __slots__ = ("_shelves",)

    def __init__(self, shelves: tuple[Shelf, ...]) -> None:
        self._shelves = shelves

    @override
    def __getitem__(self, type_url: TypeUrl) -> Mapping[str, Resource]:
        held = [found for shelf in self._shelves if (found := shelf.by_type.get(type_url))]
        # Of most types only one shelf has any; to look into several for each name costs more.
        return held[0] if len(held) == 1 else _merged(held)

    @override
    def __iter__(self) -> Iterator[TypeUrl]:
        return iter(dict.fromkeys(kind for shelf in self._shelves for kind in shelf.by_type))

    @override
    def __len__(self) -> int:
        return len(tuple(iter(self)))


class _Leading(Mapping[TypeUrl, snapshot.Leads]):
    """What names lead to in some shelves: only one of these has resources of such a type."""

    __slots__ = ("_implied", "_shelves")

    def __init__(self, shelves: tuple[Shelf, ...], implied: frozenset[str]) -> None:
        self._shelves = shelves
        self._implied = implied

    @override
    def __getitem__(self, type_url: TypeUrl) -> snapshot.Leads:
        related = (shelf.related.get(type_url) for shelf in self._shelves)
        return snapshot.Leads(next(filter(None, related), {}), self._implied)

    @override
    def __iter__(self) -> Iterator[TypeUrl]:
        return iter(dict.fromkeys(kind for shelf in self._shelves for kind in shelf.related))

    @override
    def __len__(self) -> int:
        return len(tuple(iter(self)))


class View(Generic[S]):
    """What proxies with equal scopes have in common, and who they are."""

    __slots__ = ("_open", "_shelves", "_wanting", "_wants", "scopes", "snapshot", "stamps")

    def __init__(
        self, scopes: tuple[S, ...], shelves: tuple[Shelf, ...], implied: frozenset[str]
    ) -> None:
        self.scopes = scopes
        self._shelves = shelves[::-1]
        self._open: set[Wake] = set()
        """Those who never said what they want."""
        self._wanting: dict[TypeUrl, dict[frozenset[str], set[Wake]]] = {}
        self._wants: dict[Wake, dict[TypeUrl, frozenset[str]]] = {}
        self.stamps: dict[TypeUrl, snapshot.Stamp] | None = None
        """Those that were asked for, as long as nothing changes, of a view that is told if it does."""
        self.snapshot = self.following(implied)

    def __bool__(self) -> bool:
        """Tell whether anybody reads it."""
        return bool(self._open or self._wants)

    def following(self, implied: frozenset[str]) -> Snapshot:
        """Return what such a proxy should have, of which `implied` is wanted without naming it.

        It follows later changes, by type: what was looked up is what was there then.
        """
        return Snapshot(_Chains(self._shelves), _Leading(self._shelves, implied), self._stamp_of)

    def add(self, wake: Wake) -> None:
        """Begin to wake a reader on every change."""
        self._open.add(wake)

    def remove(self, wake: Wake) -> Changed:
        """Stop to wake a reader; return what it wanted."""
        self._open.discard(wake)
        wants = self._wants.pop(wake, {})
        for type_url, names in wants.items():
            self._unwant(wake, type_url, names)
        return wants

    def want(self, wake: Wake, type_url: TypeUrl, names: frozenset[str]) -> None:
        """Wake a reader of a type for these names only, and of what it never said for nothing."""
        self._open.discard(wake)
        wants = self._wants.setdefault(wake, {})
        before = wants.get(type_url)
        if before is names:
            return
        if before is not None:
            self._unwant(wake, type_url, before)
        wants[type_url] = names
        self._wanting.setdefault(type_url, {}).setdefault(names, set()).add(wake)

    def wake(self, changed: Changed) -> None:
        """Wake whom a change concerns, each once."""
        concerned = set(self._open)
        for type_url, names in changed.items():
            for wanted, wakes in self._wanting.get(type_url, {}).items():
                if snapshot.EVERYTHING in wanted or not wanted.isdisjoint(names):
                    concerned |= wakes
        for wake in concerned:
            wake(changed)

    def _unwant(self, wake: Wake, type_url: TypeUrl, names: frozenset[str]) -> None:
        groups = self._wanting[type_url]
        groups[names].discard(wake)
        if not groups[names]:
            del groups[names]

    def _stamp_of(self, type_url: TypeUrl) -> snapshot.Stamp:
        stamps = self.stamps
        if stamps is not None and (known := stamps.get(type_url)) is not None:
            return known
        found = tuple(
            [shelf.editions[type_url] for shelf in self._shelves if shelf.by_type.get(type_url)]
        )
        if stamps is not None:
            stamps[type_url] = found
        return found


class Catalog(Generic[S]):
    """All shelves, and the proxies that read them."""

    def __init__(self) -> None:
        self._shelves: dict[S, Shelf] = {}
        self._views: dict[tuple[S, ...], View[S]] = {}
        self._readers: dict[S, set[View[S]]] = {}

    def change(self, changed: Iterable[tuple[Key[S], TypeUrl, Resource | None]]) -> None:
        """Put, replace or remove resources, then wake each proxy that wants one, once."""
        touched: dict[S, dict[TypeUrl, set[str]]] = {}
        for key, type_url, resource in changed:
            shelf = self._shelves.setdefault(key.scope, Shelf())
            before = shelf.by_type.get(type_url, {}).get(key.name)
            shelf.put(type_url, key.name, resource)
            names = touched.setdefault(key.scope, {})
            if not _is_told_alike(before, resource):
                names.setdefault(type_url, set()).add(key.name)
            for each in _differing(before, resource):
                names.setdefault(each.type_url, set()).add(each.name)
        woken: dict[View[S], list[Changed]] = {}
        for scope, by_type in touched.items():
            frozen = {type_url: frozenset(names) for type_url, names in by_type.items()}
            for view in self._readers.get(scope, ()):
                view.stamps = {}
                woken.setdefault(view, []).append(frozen)
        for view, parts in woken.items():
            view.wake(parts[0] if len(parts) == 1 else joined(parts))

    def drop(self, scope: S) -> None:
        """Forget a scope that nobody reads any more."""
        if not self._readers.get(scope):
            self._shelves.pop(scope, None)

    def read(self, scopes: Iterable[S], wake: Wake) -> View[S]:
        """Begin to wake a reader on changes in these scopes; return what it shares with others."""
        wanted = tuple(scopes)
        view = self._views.get(wanted)
        if view is None:
            view = self._views[wanted] = self._view(wanted)
            view.stamps = {}
            for scope in wanted:
                self._readers.setdefault(scope, set()).add(view)
        view.add(wake)
        return view

    def leave(self, scopes: Iterable[S], wake: Wake) -> Changed:
        """Stop to wake a reader; return the names that it wanted, by type."""
        view = self._views.get(tuple(scopes))
        if view is None:
            return {}
        wants = view.remove(wake)
        if not view:
            self._forget(view)
        return wants

    def names(self, scopes: Iterable[S]) -> Changed:
        """Return the names of all resources in these scopes."""
        shelves = [self._shelves[scope] for scope in scopes if scope in self._shelves]
        return joined(
            {kind: frozenset(held) for kind, held in shelf.by_type.items() if held}
            for shelf in shelves
        )

    def _forget(self, view: View[S]) -> None:
        del self._views[view.scopes]
        for scope in view.scopes:
            views = self._readers[scope]
            views.discard(view)
            if not views:
                del self._readers[scope]

    def snapshot(self, scopes: Iterable[S], *, implied: frozenset[str] = frozenset()) -> Snapshot:
        """Return what a proxy with these scopes should have; it follows later changes.

        `implied` are names that it wants without naming them. Of equal names in several scopes
        the later scope's resource counts.
        """
        return self._view(tuple(scopes), implied).snapshot

    def _view(self, scopes: tuple[S, ...], implied: frozenset[str] = frozenset()) -> View[S]:
        shelves = tuple(self._shelves.setdefault(scope, Shelf()) for scope in scopes)
        return View(scopes, shelves, implied)


def _merged(held: Iterable[Named]) -> Named:
    merged: Named = {}
    for one in held:
        merged = {**one, **merged}
    return merged


def joined(parts: Iterable[Changed]) -> Changed:
    """Return the names of all parts."""
    names = dict[TypeUrl, set[str]]()
    for part in parts:
        for type_url, some in part.items():
            names.setdefault(type_url, set()).update(some)
    return {type_url: frozenset(some) for type_url, some in names.items()}


def _is_told_alike(before: Resource | None, now: Resource | None) -> bool:
    """Say whether all that differs, if anything does, is in collections, which are told apart."""
    if before is None or now is None or not before.collections or not now.collections:
        return False
    return before.version == now.version and before.aliases == now.aliases


def _differing(before: Resource | None, now: Resource | None) -> Iterable[Resource]:
    """Return the collections that come, go or have changed with a resource."""
    old = before.collections if before is not None else ()
    new = now.collections if now is not None else ()
    # Most are the same objects, and need no comparison.
    gone, come = _besides(old, new), _besides(new, old)
    return set(gone).symmetric_difference(come) if gone or come else ()


def _besides(some: Iterable[Resource], others: Iterable[Resource]) -> list[Resource]:
    """Return those that are not the very same objects as others."""
    known = {id(one) for one in others}
    return [one for one in some if id(one) not in known]
