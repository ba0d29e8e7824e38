"""Keeps the table of what a node's Envoy should have, as workloads, policies and pods change.

The one place in the agent where the graph, the builders and the table meet. A resource is built
again when its slice has changed, and told when its bytes have.
"""

from collections.abc import Callable, Mapping

from isthmus.engine import changes, graph, transactions
from isthmus.resources import snapshot
from isthmus.resources.nodeproxy import build
from isthmus.resources.ztunnel import reading
from isthmus.views import nodeproxy, nodeslices, wds
from isthmus.wire import nodeads, wdsclient


class Steering:
    """What a node's Envoy should have, from what is known now.

    Nothing is told before `begin`: with half of the mesh known, calls would go out in plain text.

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
        self._node = node

    def begin(self) -> None:
        """Tell what is known, and each change from now on."""
        self.change(lambda writes: writes.put(self.sources.nodes, self._node.name, self._node))

    def change(self, write: Callable[[transactions.Transaction], None]) -> None:
        """Let `write` change `sources`, and the table follow in one step."""
        with self._graph.transaction() as writes:
            write(writes)

    def take(self, news: wdsclient.News) -> Mapping[str, str]:
        """Take in what the control plane tells; return what cannot be read, and why, by name."""
        read, faults = dict[str, wds.NodeSlice](), dict[str, str]()
        for name, body in news.bodies.items():
            try:
                read[name] = reading.read(news.type_url, body)
            except reading.Unreadable as fault:
                faults[name] = str(fault)

        def write(writes: transactions.Transaction) -> None:
            for name in (*news.removed, *read):
                self._forget(writes, news.type_url, name)
            for name, slice_ in read.items():
                self._put(writes, name, slice_)

        self.change(write)
        return faults

    def _forget(
        self, writes: transactions.Transaction, type_url: snapshot.TypeUrl, name: str
    ) -> None:
        if type_url == snapshot.AUTHORIZATIONS:
            writes.delete(self.sources.policies, name)
            return
        # One name may have been a workload and be a service now.
        writes.delete(self.sources.workloads, name)
        writes.delete(self.sources.services, name)

    def _put(self, writes: transactions.Transaction, name: str, slice_: wds.NodeSlice) -> None:
        match slice_:
            case wds.WorkloadSlice():
                writes.put(self.sources.workloads, name, slice_)
            case wds.ServiceSlice():
                writes.put(self.sources.services, name, slice_)
            case wds.AuthorizationSlice():
                writes.put(self.sources.policies, name, slice_)

    def _tell(self, batch: changes.Changes) -> None:
        self.table.change(
            (build.TYPES[nodeslices.Kind(key.kind)], key.name, build.build(new) if new else None)
            for key, (_, new) in batch.of(self._proxy.slices).items()
        )
