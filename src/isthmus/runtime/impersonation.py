"""Which certificates of others a node proxy may have: those of its own node's pods, and no more.

The node is not the proxy's word. Its token is bound to its pod, and the API server of its cluster
says on which node that pod runs, as on which node the pods run that it asks for.

Source: spec section 1.3.2; decision 0022.
"""

from collections.abc import Iterable

from isthmus.mesh.identities import SpiffeId
from isthmus.mesh.workloads import WorkloadKey
from isthmus.runtime import assembly
from isthmus.wire import callers


class Judge:
    """Knows which accounts node proxies run as, and which pods each node has."""

    def __init__(self, mesh: assembly.Mesh, *, node_accounts: Iterable[tuple[str, str]]) -> None:
        self._mesh = mesh
        self._node_accounts = frozenset(node_accounts)

    def objection(self, caller: callers.Caller, identity: SpiffeId) -> str:
        """Say why a caller may not have a certificate of an identity; empty when it may."""
        account = (caller.namespace, caller.service_account)
        if account not in self._node_accounts:
            return f"account `{'/'.join(account)}` is none of a node proxy"
        if not caller.pod:
            return "its token is bound to no pod, so that nobody knows its node"
        graph, model = self._mesh.graph, self._mesh.model
        own = WorkloadKey(caller.cluster, caller.namespace, caller.pod)
        pod = graph.get(model.workloads, own)
        if pod is None or not pod.node:
            return "its own pod is not known yet, or runs on no node"
        # An account that a pod is said to have is the proxy's too only while the pod runs there.
        if pod.service_account != caller.service_account:
            return "its own pod runs as another account"
        self._begin()
        neighbours = graph.lookup(model.for_nodes.by_node, (caller.cluster, pod.node)).values()
        wanted = (identity.namespace, identity.service_account)
        if not any((one.key.namespace, one.service_account) == wanted for one in neighbours):
            return f"no pod of account `{'/'.join(wanted)}` runs on node `{pod.node}`"
        return ""

    def _begin(self) -> None:
        """Have it known which pods each node has, from the first time on that somebody asks."""
        graph, judging = self._mesh.graph, self._mesh.model.for_nodes.judging
        if not graph.items(judging):
            with graph.transaction() as transaction:
                transaction.put(judging, "node proxies", True)
