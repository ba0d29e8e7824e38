"""Keeps the table of what a node's Envoy should have, as workloads, policies and pods change.

The one place in the agent where the graph, the builders and the table meet. A resource is built
again when its slice has changed, and told when its bytes have.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping

from isthmus.engine import changes, collections, graph, transactions
from isthmus.mesh import localities
from isthmus.resources import snapshot
from isthmus.resources.nodeproxy import build
from isthmus.resources.ztunnel import reading
from isthmus.views import nodeproxy, nodeslices, wds
from isthmus.wire import nodeads, wdsclient

PodChanges = Mapping[str, collections.Change[nodeslices.EnrolledPod]]
"""Who takes part and did not, or differs, or takes part no longer, by uid."""
ServiceChanges = Mapping[str, collections.Change[wds.ServiceSlice]]


class Steering:
    """What a node's Envoy should have, from what is known now.

    Nothing is told before `begin`: with half of the mesh known, calls would go out in plain text.

    Attributes:
        table: To be served to the proxy.
        sources: To be written in `change`.
    """

    def __init__(
        self,
        node: nodeslices.Node,
        *,
        pods_changed: Callable[[PodChanges], None],
        services_changed: Callable[[ServiceChanges], None],
    ) -> None:
        self.table = nodeads.Table()
        self._services_changed = services_changed
        self._pods_changed = pods_changed
        self._graph = graph.Graph()
        self._proxy = nodeproxy.build(self._graph)
        self.sources = self._proxy.sources
        self._graph.listen(self._tell)
        self._node = node
        self._has_begun = False

    def begin(self) -> None:
        """Tell what is known, and each change from now on."""
        self._has_begun = True
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
        self._settle(read.values())
        return faults

    def _settle(self, told: Iterable[wds.NodeSlice]) -> None:
        """Learn where the node is from those that run on it."""
        own = (self._node.cluster, self._node.name)
        for one in told:
            if isinstance(one, wds.WorkloadSlice) and (one.cluster, one.node) == own:
                if one.locality in (localities.NOWHERE, self._node.locality):
                    continue
                self._node = dataclasses.replace(self._node, locality=one.locality)
                if self._has_begun:
                    self.begin()

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

    def pod(self, uid: str) -> nodeslices.EnrolledPod | None:
        """Return a pod that takes part; None while the control plane does not know it."""
        return self._graph.get(self._proxy.pods, uid)

    def _tell(self, batch: changes.Changes) -> None:
        self._services_changed(batch.of(self.sources.services))
        self._pods_changed(batch.of(self._proxy.pods))
        self.table.change(
            (build.TYPES[nodeslices.Kind(key.kind)], key.name, build.build(new) if new else None)
            for key, (_, new) in batch.of(self._proxy.slices).items()
        )
