"""What one cluster's objects of a kind are, without a table of their own once the mesh holds them.

What was heard and is not in the sources yet is kept here; all else is looked up there. Nobody else
may change what the sources hold of the cluster, as long as somebody asks.

It decides nothing about objects; when the sources hold them it is told.

Source: performance rule 8; docs/decisions/0061-what-objects-share-is-kept-once.md.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Final

from typing_extensions import override

from isthmus.fleet import pods, sources
from isthmus.kube import objects
from isthmus.mesh.identities import ClusterId

Held = Mapping[sources.ObjectKey, objects.Object]
"""Objects of all clusters, as the sources hold them at any time."""

Table = MutableMapping[sources.ObjectKey, objects.Object]

NOTHING: Final[Held] = {}


class Overlay(MutableMapping[sources.ObjectKey, objects.Object]):
    """The objects of one kind of one cluster: in a table of their own until it may `rest_on` others."""

    __slots__ = ("_cluster", "_empty", "_gone", "_held", "_own")

    def __init__(self, cluster: ClusterId, empty: Callable[[], Table] = dict) -> None:
        """Prepare to hold objects of a cluster, in tables that are `empty` at first."""
        self._cluster = cluster
        self._empty = empty
        self._held = NOTHING
        self._own = empty()
        self._gone = set[sources.ObjectKey]()
        """What is no more, whatever the sources hold."""

    def _find(self, key: sources.ObjectKey) -> objects.Object | None:
        found = self._own.get(key)
        if found is None and key not in self._gone:
            return self._held.get(key)
        return found

    @override
    def __getitem__(self, key: sources.ObjectKey) -> objects.Object:
        found = self._find(key)
        if found is None:
            raise KeyError(key)
        return found

    @override
    def get(  # type: ignore[override]  # Nobody asks for another default.
        self, key: sources.ObjectKey, default: None = None
    ) -> objects.Object | None:
        return self._find(key)

    @override
    def __contains__(self, key: object) -> bool:
        return isinstance(key, sources.ObjectKey) and self._find(key) is not None

    @override
    def __setitem__(self, key: sources.ObjectKey, value: objects.Object) -> None:
        self._own[key] = value
        self._gone.discard(key)

    @override
    def __delitem__(self, key: sources.ObjectKey) -> None:
        if key not in self:
            raise KeyError(key)
        self._own.pop(key, None)
        self._gone.add(key)

    @override
    def __iter__(self) -> Iterator[sources.ObjectKey]:
        """Go through the keys; of all clusters, if not of pods, which is why it is done rarely."""
        own, gone = self._own, self._gone
        yield from list(own)
        for key in list(_of(self._cluster, self._held)):
            if key not in own and key not in gone:
                yield key

    @override
    def __len__(self) -> int:
        return sum(1 for _ in self)

    def rest_on(self, held: Held) -> None:
        """Look up there what is the same there: the sources were just made what this says."""
        self._held = held
        # Anew, since a table that was large stays so.
        own, self._own = self._own, self._empty()
        self._own.update((key, found) for key, found in own.items() if held.get(key) != found)
        self._gone = {key for key in self._gone if key in held}

    def settle(self, keys: Iterable[sources.ObjectKey]) -> None:
        """Forget of these keys what the sources hold by now."""
        for key in keys:
            held = self._held.get(key)
            if held is None:
                self._gone.discard(key)
            elif self._own.get(key) == held:
                del self._own[key]


def _of(cluster: ClusterId, held: Held) -> Iterator[sources.ObjectKey]:
    if isinstance(held, pods.Pods):
        return held.of_cluster(cluster)
    return (key for key in held if key.cluster == cluster)
