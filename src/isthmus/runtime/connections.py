"""Connected proxies: which scopes each of them sees, and what each should have.

A proxy's scopes follow from what the registry knows of its pod, so they can change while it is
connected; it then gets the difference. Scopes that nobody sees are not computed.

Source: spec sections 3.1, 4.2, 4.4 and 7.2; promise P2.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from typing_extensions import override

from isthmus.engine import changes
from isthmus.mesh.identities import ClusterId
from isthmus.mesh.proxies import NO_TUNNELS, Proxy, ProxyKind, Tunnelling
from isthmus.mesh.workloads import WorkloadKey
from isthmus.resources.snapshot import Snapshot
from isthmus.runtime import assembly, catalog, viewing, watching
from isthmus.views import view
from isthmus.views.view import Scope
from isthmus.wire import ads, callers, nodes

NAME_IN_ID: Final = 2
"""Which part of a node's id, between tildes, is its name."""

TUNNELLING: Final = frozenset({ProxyKind.ZTUNNEL, ProxyKind.WAYPOINT})
"""Who is told of services that only linked clusters have."""

Ready = Callable[[ClusterId], str]
"""Says why the proxies of a cluster cannot be served yet; empty when all is well."""


class Connections(ads.Discovery):
    """Implements discovery on top of the compiler."""

    def __init__(
        self,
        mesh: assembly.Mesh,
        *,
        authenticator: callers.Authenticator,
        unready: Ready,
        unlinked: Callable[[], str] = str,
        node_accounts: Iterable[tuple[str, str]] = (),
        tunnelling: Tunnelling = NO_TUNNELS,
    ) -> None:
        self.views = viewing.Views()
        """Counts what they see, and bounds it; to be replaced before anybody connects."""
        self.authenticator = authenticator
        self._mesh = mesh
        self._unready = unready
        self._unlinked = unlinked
        self._node_accounts = frozenset(node_accounts)
        self._tunnelling = tunnelling
        self.tells_apart = False
        """Whether Envoys that can are told of each endpoint by itself."""
        self._catalog = catalog.Catalog[Scope]()
        self._watches: dict[str, watching.ProxyWatch[Scope]] = {}
        self._seen: Counter[Scope] = Counter()
        self._moved: set[str] = set()
        self._number = 0
        mesh.graph.listen(self._published)

    @override
    def open(self, caller: callers.Caller, node: nodes.Node) -> watching.ProxyWatch[Scope]:
        self._check_kind(caller, node)
        reason = self._unready(caller.cluster)
        if not reason and node.kind in TUNNELLING:
            reason = self._unlinked()
        if reason:
            # An early answer would take configuration away from a proxy that has some.
            raise ads.NotReady(reason)
        self._number += 1
        key = f"{caller.cluster}/{node.name}/{self._number}"
        proxy = proxy_of(caller, node, tunnelling=self._tunnelling, tells_apart=self.tells_apart)
        with self._mesh.graph.transaction() as transaction:
            transaction.put(self._mesh.views.proxies, key, proxy)
        self._moved.discard(key)
        scopes = self._scopes_of(key)
        reason = self.views.objection(scope for scope in scopes if not self._seen[scope])
        if reason:
            self._forget(key)
            raise ads.NotReady(reason)
        watch = watching.ProxyWatch(self, key, implies=proxy.kind is ProxyKind.ZTUNNEL)
        self._watches[key] = watch
        watch.move(scopes)
        return watch

    def _check_kind(self, caller: callers.Caller, node: nodes.Node) -> None:
        """Refuse whoever says that it is a node proxy and is none: it would learn of all pods.

        Control planes of other clusters are told elsewhere.
        """
        if node.kind is ProxyKind.CONTROL_PLANE:
            raise nodes.NodeRefused("control planes are not told here", status="PERMISSION_DENIED")
        if node.kind is not ProxyKind.ZTUNNEL:
            return
        account = (caller.namespace, caller.service_account)
        if account not in self._node_accounts:
            raise nodes.NodeRefused(
                f"account `{'/'.join(account)}` is none of a node proxy",
                status="PERMISSION_DENIED",
                hint="set `PILOT_ENABLE_AMBIENT=true`, and list the account in "
                "`CA_TRUSTED_NODE_ACCOUNTS`, where istiod runs",
            )

    def _scopes_of(self, key: str) -> tuple[Scope, ...]:
        return self._mesh.graph.get(self._mesh.views.proxy_scopes, key) or ()

    def see(self, fresh: tuple[Scope, ...], *, instead_of: tuple[Scope, ...]) -> None:
        """Have the fresh scopes computed, and forget those that nobody sees any more."""
        before = {scope for scope in (*fresh, *instead_of) if self._seen[scope]}
        self._seen.update(fresh)
        self._seen.subtract(instead_of)
        unseen = [scope for scope in dict.fromkeys(instead_of) if self._seen[scope] <= 0]
        with self._mesh.graph.transaction() as transaction:
            for scope in dict.fromkeys(fresh):
                if scope not in before:
                    # How many see it is kept here: a count in the graph would recompute it.
                    transaction.put(self._mesh.views.scopes, scope, 1)
                    self.views.come(scope)
            for scope in unseen:
                transaction.delete(self._mesh.views.scopes, scope)
                del self._seen[scope]
                self.views.come(scope, -1)
        for scope in unseen:
            # What somebody goes on seeing stays: the compiler tells differences only.
            self._catalog.drop(scope)

    @property
    def count(self) -> int:
        """How many proxies there are."""
        return len(self._watches)

    def seeing(self, scope: Scope) -> int:
        """Return how many proxies see a scope."""
        return self._seen[scope]

    @property
    def catalog(self) -> catalog.Catalog[Scope]:
        """What each scope holds."""
        return self._catalog

    def close(self, key: str) -> None:
        """Forget a proxy."""
        watch = self._watches.pop(key, None)
        if watch is None:
            return
        watch.leave()
        self._forget(key)

    def _forget(self, key: str) -> None:
        with self._mesh.graph.transaction() as transaction:
            transaction.delete(self._mesh.views.proxies, key)

    def proxies(self) -> Mapping[str, Proxy]:
        """Return the connected proxies."""
        return self._mesh.graph.items(self._mesh.views.proxies)

    def named(self, name: str) -> dict[ClusterId, str]:
        """Return the connected proxies that `name` may mean: a key for each cluster.

        `<pod>.<namespace>`, the same with the cluster's name after a dot, the id of a connection,
        or the beginning of the id of a node.
        """
        found = dict[ClusterId, str]()
        for key, proxy in self.proxies().items():
            if key in self._watches and name in {proxy.id, f"{proxy.id}.{proxy.cluster}"}:
                found[proxy.cluster] = key  # Of two streams of one pod the newer one counts.
        shorter = _shortened(name)
        return found or (self.named(shorter) if shorter != name else {})

    def implied_of(self, key: str) -> frozenset[str]:
        """Return what a proxy wants without naming it: a node proxy all that runs on its node."""
        proxy = self._mesh.graph.get(self._mesh.views.proxies, key)
        if proxy is None or proxy.kind is not ProxyKind.ZTUNNEL or not proxy.pod:
            return frozenset()
        pod = WorkloadKey(proxy.cluster, proxy.namespace, proxy.pod)
        workload = self._mesh.graph.get(self._mesh.model.workloads, pod)
        node = workload.node if workload is not None else proxy.node
        return frozenset({view.wds.node_name(proxy.cluster, node)} if node else ())

    def snapshot_of(self, key: str) -> Snapshot:
        """Return what the proxy of a key should have."""
        return self._watches[key].snapshot()

    def scopes_of(self, key: str) -> tuple[Scope, ...]:
        """Return what the proxy of a key sees."""
        return self._scopes_of(key)

    def _published(self, batch: changes.Changes) -> None:
        resources = batch.of(self._mesh.resources)
        if resources:
            self._catalog.change(
                (key, assembly.TYPE_OF[key.kind], change.new) for key, change in resources.items()
            )
        moved = [key for key in batch.of(self._mesh.views.proxy_scopes) if key in self._watches]
        if moved and not self._moved:
            # Scopes are changed in a transaction of their own, after this one has ended.
            asyncio.get_running_loop().call_soon(self._move)
        self._moved.update(moved)

    def _move(self) -> None:
        moved, self._moved = self._moved, set()
        for key in moved:
            watch = self._watches.get(key)
            if watch is not None:
                watch.move(self._scopes_of(key))


def _shortened(name: str) -> str:
    """Return what is left of a longer id: a node's own name, or a connection without its number."""
    parts = name.split("~")
    if len(parts) > NAME_IN_ID:
        return parts[NAME_IN_ID]
    before, _, number = name.rpartition("-")
    return before if number.isdecimal() and "." in before else name


def proxy_of(
    caller: callers.Caller,
    node: nodes.Node,
    *,
    tunnelling: Tunnelling = NO_TUNNELS,
    tells_apart: bool = False,
) -> Proxy:
    """Return the proxy that a proven caller with this node is.

    What was proven counts before what the node says of itself.
    """
    return Proxy(
        id=node.name,
        kind=node.kind,
        cluster=caller.cluster,
        network=node.network,
        namespace=caller.namespace,
        service_account=caller.service_account,
        pod=caller.pod or node.pod,
        address=node.addresses[0] if node.addresses else "",
        labels=node.labels,
        locality=node.locality,
        node=node.host,
        requested_networks=node.requested_networks,
        has_metadata_exchange=node.has_metadata_exchange,
        captures_dns=node.captures_dns,
        allocates_addresses=node.allocates_addresses,
        marks_sockets=node.marks_sockets,
        ends_tunnels=node.ends_tunnels and tunnelling.ends,
        begins_tunnels=node.begins_tunnels and tunnelling.begins,
        hears_endpoints_apart=node.follows_collections and tells_apart,
    )
