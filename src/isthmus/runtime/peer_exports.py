"""Tells linked clusters' control planes what this cluster shares, and nothing else.

All of them are told the same. Who they are is proven by certificate before a byte is read; a record
is encoded once, when it changes, and only changed ones are sent.

Source: spec section 7.7; security rules XA-1, XA-2 and GW-1.
"""

from collections.abc import Callable, Mapping

from typing_extensions import override

from isthmus.base import logs
from isthmus.engine import changes
from isthmus.mesh import identities
from isthmus.mesh.identities import ClusterId
from isthmus.mesh.proxies import ProxyKind
from isthmus.resources import peering as records
from isthmus.resources.snapshot import Resource, Snapshot, TypeUrl
from isthmus.runtime import assembly, peer_acceptance
from isthmus.wire import ads, callers, nodes
from isthmus.xds import messages

_LOG = logs.Log("isthmus.peering")

Changed = Mapping[TypeUrl, frozenset[str]]
Wake = Callable[[Changed], None]


class PeerAuthenticator(callers.Authenticator):
    """Proves control planes of other clusters by their certificates."""

    def __init__(
        self,
        house: Callable[[], peer_acceptance.House],
        *,
        vouches: Callable[[identities.TrustDomain, str], bool] = lambda *_: True,
    ) -> None:
        """Prepare.

        Args:
            house: Gives whom this cluster knows.
            vouches: Says whether what is listed for a trust domain has signed a chain of
                certificates.
        """
        self._house = house
        self._vouches = vouches

    @override
    async def authenticate(self, credentials: callers.Credentials) -> callers.Caller:
        if len(credentials.peer_identities) != 1:
            raise callers.CallerRefused("the caller showed no certificate with one identity")
        identity = identities.parse_spiffe_id(credentials.peer_identities[0])
        claimed = credentials.claimed_cluster
        reason = peer_acceptance.objection(identity, claimed, house=self._house())
        if not reason and not self._vouches(identity.trust_domain, credentials.peer_chain):
            reason = "is not signed by what is listed for its trust domain"
        if reason:
            raise callers.CallerRefused(f"`{identity}` {reason}")
        return callers.Caller(ClusterId(claimed), identity.namespace, identity.service_account)


class Exports(ads.Discovery):
    """What every linked cluster is told."""

    def __init__(
        self,
        mesh: assembly.Mesh,
        *,
        authenticator: callers.Authenticator,
        unready: Callable[[], str],
    ) -> None:
        self.authenticator = authenticator
        self._mesh = mesh
        self._unready = unready
        self._readers: set[Wake] = set()
        self._held: dict[TypeUrl, dict[str, Resource]] = {
            records.CLUSTER: {records.CLUSTER_NAME: self._cluster()},
            records.SERVICE: dict(mesh.graph.items(mesh.exports)),
        }
        mesh.graph.listen(self._published)

    @override
    def open(self, caller: callers.Caller, node: nodes.Node) -> "Watch":
        if node.kind is not ProxyKind.CONTROL_PLANE:
            raise nodes.NodeRefused("only control planes are told here", status="PERMISSION_DENIED")
        reason = self._unready()
        if reason:
            # An early answer would take services away from a cluster that knows of them.
            raise ads.NotReady(reason)
        return Watch(self)

    def snapshot(self) -> Snapshot:
        """Return all that is told; it follows later changes."""
        return Snapshot(self._held)

    def read(self, wake: Wake) -> None:
        """Begin to wake a reader on changes."""
        self._readers.add(wake)

    def leave(self, wake: Wake) -> None:
        """Stop to wake a reader."""
        self._readers.discard(wake)

    def _cluster(self) -> Resource:
        graph, model = self._mesh.graph, self._mesh.model
        return records.cluster_resource(
            records.Speaker(
                self._mesh.seat.cluster,
                graph.value(model.peers.network),
                graph.value(model.settings).trust_domain,
            )
        )

    def _published(self, batch: changes.Changes) -> None:
        changed = dict[TypeUrl, frozenset[str]]()
        services = self._held[records.SERVICE]
        told = batch.of(self._mesh.exports)
        for name, change in told.items():
            if change.new is None:
                services.pop(name, None)
            else:
                services[name] = change.new
        if told:
            changed[records.SERVICE] = frozenset(told)
        cluster = self._cluster()
        if cluster != self._held[records.CLUSTER][records.CLUSTER_NAME]:
            self._held[records.CLUSTER][records.CLUSTER_NAME] = cluster
            changed[records.CLUSTER] = frozenset({records.CLUSTER_NAME})
        if changed:
            for wake in tuple(self._readers):
                wake(changed)


class Watch(ads.Watch):
    """What one linked cluster is told."""

    def __init__(self, exports: Exports) -> None:
        self._exports = exports
        self._wakes: list[Wake] = []

    @override
    def snapshot(self) -> Snapshot:
        return self._exports.snapshot()

    @override
    def on_change(self, wake: Wake) -> None:
        self._wakes.append(wake)
        self._exports.read(wake)

    @override
    def heeds(self, type_url: TypeUrl, names: frozenset[str]) -> None:
        """Nothing: linked clusters want all that there is."""

    @override
    def status(self, report: messages.Report) -> None:
        """Nothing: the stream itself keeps the record, and logs what is refused."""

    @override
    def close(self) -> None:
        for wake in self._wakes:
            self._exports.leave(wake)
