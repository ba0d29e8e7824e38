"""Keeps the table of what a node's Envoy should have, as workloads, policies and pods change.

The one place in the agent where the graph, the builders and the table meet. A resource is built
again when its slice has changed, and told when its bytes have.
"""

from collections.abc import Callable

from isthmus.engine import changes, graph, transactions
from isthmus.resources.nodeproxy import build
from isthmus.views import nodeproxy, nodeslices
from isthmus.wire import nodeads


class Steering:
    """What a node's Envoy should have, from what is known now.

    Attributes:
        table: To be served to the proxy.
        sources: To be written in `change`.
    """

    def __init__(self, node: nodeslices.Node) -> None:
        self.table = nodeads.Table()
        self._graph = graph.Graph()
        self._proxy = nodeproxy.build(self._graph)
        self.sources = self._proxy.sources
        self._graph.listen(self._tell)
        self.change(lambda writes: writes.put(self.sources.nodes, node.name, node))

    def change(self, write: Callable[[transactions.Transaction], None]) -> None:
        """Let `write` change `sources`, and the table follow in one step."""
        with self._graph.transaction() as writes:
            write(writes)

    def _tell(self, batch: changes.Changes) -> None:
        self.table.change(
            (build.TYPES[nodeslices.Kind(key.kind)], key.name, build.build(new) if new else None)
            for key, (_, new) in batch.of(self._proxy.slices).items()
        )
