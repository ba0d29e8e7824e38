"""Puts what clusters hold into the sources: what is there before anybody looks, in one step.

What a service is follows from all clusters. Were each of ten clusters put as it comes, everything
would be computed ten times, each time from more; until the fleet is ready nobody is served from it.
"""

from collections.abc import Callable, Iterable, Mapping

from isthmus.base import memory
from isthmus.engine import graph, transactions
from isthmus.fleet import generations, overlays, snapshots, sources
from isthmus.mesh.identities import ClusterId

Rest = Callable[[Callable[[str], overlays.Held]], None]
"""Is told where to look up, by collection, what has been put."""


class Writer:
    """Fills the sources."""

    def __init__(self, graph_: graph.Graph, into: sources.Sources) -> None:
        self._graph = graph_
        self._into = into
        self._gathers = True
        self._gathered: dict[ClusterId, Callable[[], snapshots.Content]] = {}
        self._rests: dict[ClusterId, Rest] = {}
        """Whom to tell that what is gathered has been put."""

    def held(self, collection: str) -> overlays.Held:
        """Return what a source holds, of all clusters; it is never copied."""
        return self._graph.items(getattr(self._into, collection))

    def change(self, changes: generations.Changes) -> None:
        """Write what has changed in a cluster."""
        with self._graph.transaction() as transaction:
            for collection, entries in changes.items():
                source = getattr(self._into, collection)
                for key, value in entries.items():
                    if key.cluster in self._gathered:
                        continue  # It will be put as a whole, as it is by then.
                    if value is None:
                        transaction.delete(source, key)
                    else:
                        transaction.put(source, key, value)

    def put(
        self, cluster: ClusterId, content: snapshots.Content, rest_on: Rest | None = None
    ) -> None:
        """Make these a cluster's objects now.

        Who has said so may `rest_on` the sources from then on, until somebody else says it.
        """
        self._gathered.pop(cluster, None)
        self._rests.pop(cluster, None)
        with self._graph.transaction() as transaction:
            self._replace(transaction, cluster, content)
        if rest_on is not None:
            rest_on(self.held)

    def put_with_others(
        self,
        cluster: ClusterId,
        content: Callable[[], snapshots.Content],
        rest_on: Rest | None = None,
    ) -> None:
        """Make these a cluster's objects, together with those of others that are gathered."""
        if not self._gathers:
            self.put(cluster, content(), rest_on)
            return
        self._gathered[cluster] = content
        self._rests.pop(cluster, None)
        if rest_on is not None:
            self._rests[cluster] = rest_on

    def gather_no_more(self) -> None:
        """Put all that is gathered; whatever comes later is put at once."""
        self._gathers = False
        if not self._gathered:
            return
        # All that the mesh is: the collector would go through it again and again while it grows,
        # and then once more just before the program has it do so.
        with memory.without_collection(stays=True), self._graph.transaction() as transaction:
            self._put_gathered(transaction)
            # Before anybody is told: whoever fails then must not keep later changes away.
            self._gathered.clear()
        rests, self._rests = self._rests, {}
        for rest_on in rests.values():
            rest_on(self.held)

    def _put_gathered(self, transaction: transactions.Transaction) -> None:
        # Each collection at once: to look for a cluster's own is to look at all that is there.
        for collection, entries in _together(self._gathered.values()).items():
            transaction.replace(
                getattr(self._into, collection), lambda key: key.cluster in self._gathered, entries
            )

    def _replace(
        self,
        transaction: transactions.Transaction,
        cluster: ClusterId,
        content: snapshots.Content,
    ) -> None:
        for collection, entries in content.items():
            transaction.replace(
                getattr(self._into, collection), lambda key: key.cluster == cluster, entries
            )


def _together(
    contents: Iterable[Callable[[], snapshots.Content]],
) -> Mapping[str, Mapping[sources.ObjectKey, object]]:
    """Return what clusters hold, by collection."""
    found: dict[str, dict[sources.ObjectKey, object]] = {}
    for content in contents:
        for collection, entries in content().items():
            found.setdefault(collection, {}).update(entries)
    return found
