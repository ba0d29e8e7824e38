"""What every connected proxy should have, kept by scope, and who must hear of a change.

Resources live once per scope. Proxies with equal scopes share one snapshot, which is a view of
the scopes' mappings: a change touches only the proxies of its scope and copies nothing.
"""

from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping

from isthmus.resources import snapshot
from isthmus.resources.snapshot import Resource, Snapshot, TypeUrl
from isthmus.views.view import Scope, SliceKey

Wake = Callable[[Mapping[TypeUrl, frozenset[str]]], None]
"""Told which resources have changed, by type and name."""

Named = dict[str, Resource]


class Shelf:
    """The resources of one scope."""

    def __init__(self) -> None:
        self.by_type: dict[TypeUrl, Named] = {kind: {} for kind in snapshot.PUSH_ORDER}
        self.related: dict[TypeUrl, dict[str, set[str]]] = {}

    def put(self, type_url: TypeUrl, name: str, resource: Resource | None) -> None:
        """Put, replace or remove a resource."""
        old = self.by_type[type_url].pop(name, None)
        if old is not None:
            self._unrelate(old)
        if resource is not None:
            self.by_type[type_url][name] = resource
            related = self.related.setdefault(type_url, {})
            for other in (*resource.aliases, *resource.parts_of):
                related.setdefault(other, set()).add(name)

    def _unrelate(self, resource: Resource) -> None:
        related = self.related.get(resource.type_url, {})
        for other in {*resource.aliases, *resource.parts_of}:
            names = related.get(other, set())
            names.discard(resource.name)
            if not names:
                related.pop(other, None)


class Catalog:
    """All shelves, and the proxies that read them."""

    def __init__(self) -> None:
        self._shelves: dict[Scope, Shelf] = {}
        self._readers: dict[Scope, set[Wake]] = {}

    def change(self, changed: Iterable[tuple[SliceKey, TypeUrl, Resource | None]]) -> None:
        """Put, replace or remove resources, then wake each proxy that sees one, once."""
        woken: dict[Wake, dict[TypeUrl, set[str]]] = {}
        for key, type_url, resource in changed:
            shelf = self._shelves.setdefault(key.scope, Shelf())
            shelf.put(type_url, key.name, resource)
            for wake in self._readers.get(key.scope, ()):
                woken.setdefault(wake, {}).setdefault(type_url, set()).add(key.name)
        for wake, names in woken.items():
            wake({type_url: frozenset(some) for type_url, some in names.items()})

    def drop(self, scope: Scope) -> None:
        """Forget a scope that nobody reads any more."""
        if not self._readers.get(scope):
            self._shelves.pop(scope, None)

    def read(self, scopes: Iterable[Scope], wake: Wake) -> None:
        """Begin to wake a reader on changes in these scopes."""
        for scope in scopes:
            self._readers.setdefault(scope, set()).add(wake)

    def leave(self, scopes: Iterable[Scope], wake: Wake) -> None:
        """Stop to wake a reader."""
        for scope in scopes:
            readers = self._readers.get(scope)
            if readers is not None:
                readers.discard(wake)
                if not readers:
                    del self._readers[scope]

    def snapshot(
        self, scopes: Iterable[Scope], *, implied: frozenset[str] = frozenset()
    ) -> Snapshot:
        """Return what a proxy with these scopes should have; it follows later changes.

        `implied` are names that it wants without naming them. Of equal names in several scopes the later scope's resource counts.
        """
        shelves = [self._shelves.setdefault(scope, Shelf()) for scope in reversed(tuple(scopes))]
        return Snapshot(
            {
                type_url: ChainMap(*(shelf.by_type[type_url] for shelf in shelves))
                for type_url in snapshot.PUSH_ORDER
            },
            # Only one kind of scope has resources of such a type, and a proxy sees one of it.
            {
                kind: snapshot.Leads(related, implied)
                for shelf in shelves
                for kind, related in shelf.related.items()
            },
        )
