"""What one cluster's objects of a kind are, without a table of their own once the mesh holds them.

What was heard and is not in the sources yet is kept here; all else is looked up there. Nobody else
may change what the sources hold of the cluster, as long as somebody asks.

It decides nothing about objects; when the sources hold them it is told.

Source: performance rule 8; docs/decisions/0061-what-objects-share-is-kept-once.md.
"""

import enum
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Final

from typing_extensions import override

from isthmus.fleet import sources
from isthmus.kube import objects
from isthmus.mesh.identities import ClusterId


class _Gone(enum.Enum):
    GONE = "gone"


Held = Mapping[sources.ObjectKey, objects.Object]
"""Objects of all clusters, as the sources hold them at any time."""

NOTHING: Final[Held] = {}


class Overlay(MutableMapping[sources.ObjectKey, objects.Object]):
    """The objects of one kind of one cluster: in a table of their own until it may `rest_on` others."""

    __slots__ = ("_cluster", "_held", "_own")

    def __init__(self, cluster: ClusterId) -> None:
        self._cluster = cluster
        self._held = NOTHING
        self._own: dict[sources.ObjectKey, objects.Object | _Gone] = {}

    def _find(self, key: sources.ObjectKey) -> objects.Object | None:
        found = self._own.get(key)
        if found is None:
            return self._held.get(key)
        return None if found is _Gone.GONE else found

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

    @override
    def __delitem__(self, key: sources.ObjectKey) -> None:
        if key not in self:
            raise KeyError(key)
        self._own[key] = _Gone.GONE

    @override
    def __iter__(self) -> Iterator[sources.ObjectKey]:
        """Go through the keys; of all clusters, which is why it is done rarely."""
        own = self._own
        yield from [key for key, found in own.items() if found is not _Gone.GONE]
        yield from [key for key in self._held if key.cluster == self._cluster and key not in own]

    @override
    def __len__(self) -> int:
        return sum(1 for _ in self)

    def rest_on(self, held: Held) -> None:
        """Look up there what is the same there: the sources were just made what this says."""
        self._held = held
        # Anew, since a table that was large stays so.
        self._own = {key: found for key, found in self._own.items() if not self._agrees(key)}

    def settle(self, keys: Iterable[sources.ObjectKey]) -> None:
        """Forget of these keys what the sources hold by now."""
        for key in keys:
            if key in self._own and self._agrees(key):
                del self._own[key]

    def _agrees(self, key: sources.ObjectKey) -> bool:
        found, held = self._own[key], self._held.get(key)
        return held is None if found is _Gone.GONE else found == held
