"""The control plane among those of linked clusters: tells them, and follows them.

Towards other clusters it serves on a port of its own, on which nothing but what this cluster shares
is told, and nobody is let in without a certificate of a control plane. Gateways lead there whoever
asks for this cluster's control plane by its own name.

Source: spec section 7.7; decision 0028.
"""

import asyncio
import contextlib
import datetime
import functools
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from isthmus.base import clock, errors, logs, metrics, tasks
from isthmus.ca import authority as authorities
from isthmus.engine import changes
from isthmus.kube import client
from isthmus.mesh import peering
from isthmus.mesh.identities import ClusterId, SpiffeId, TrustDomain
from isthmus.runtime import (
    assembly,
    peer_acceptance,
    peer_exports,
    peer_imports,
    peer_snapshots,
    peer_telling,
    trusting,
)
from isthmus.wire import ads, grpc_tls, listening, peerclient, tls

_LOG = logs.Log("isthmus.peering")

LIFETIME: Final = datetime.timedelta(hours=24)
LOOK_S: Final = 5.0
DRAIN_S: Final = 1.0
PATIENCE_S: Final = 30.0
"""How long a control plane that starts waits to hear linked clusters before it serves proxies."""

PATIENCE_KNOWN_S: Final = 5.0
"""How long it waits for those that it knows from a snapshot: most answer within this time."""

Recall = Callable[[Callable[[], bool]], Awaitable[list[client.Obj]]]
"""Reads what an earlier control plane kept; given whether that is still of use."""


async def _nothing(_: Callable[[], bool]) -> list[client.Obj]:
    return []


@dataclass(frozen=True, slots=True)
class Place:
    """Where this control plane is.

    Attributes:
        account: As which it runs.
        port: On which other clusters' control planes are told.
        pace: How often we ask those whether they are there.
        dialled: What to connect to for an address of a link.
        recall: Reads what linked clusters told an earlier control plane here.
    """

    cluster: ClusterId
    namespace: str = "istio-system"
    pod: str = "istiod"
    account: str = "istiod"
    address: str = "0.0.0.0"  # inside the pod's own network
    port: int = peering.TELLING_PORT
    pace: peerclient.Pace = peerclient.USUAL
    dialled: Callable[[str], str] = str
    recall: Recall = _nothing


class Peering:
    """What is between this control plane and those of linked clusters."""

    def __init__(
        self,
        mesh: assembly.Mesh,
        *,
        place: Place,
        authority: Callable[[], authorities.Authority | None],
        unready: Callable[[], str],
        system_clock: clock.Clock,
        registered: metrics.Metrics | None = None,
    ) -> None:
        """Put it together.

        Args:
            mesh: What is told, and what is told to us.
            place: Where we are.
            authority: Signs what proves us.
            unready: Says why nothing may be told yet; empty when all is well.
            system_clock: Measures ages.
            registered: Where counts go.
        """
        self._mesh = mesh
        self._place = place
        self._authority = authority
        self._clock = system_clock
        self._counters = peer_imports.Counters(registered or metrics.Metrics())
        self._peers: dict[ClusterId, peer_imports.Peer] = {}
        self._following: dict[ClusterId, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._proof: tuple[authorities.Authority, SpiffeId, tls.Certificate] | None = None
        self._began = False
        self._ready_at: float | None = None
        self._is_settled = False
        self._recalled: dict[ClusterId, peer_snapshots.Recalled] = {}
        self._refused_snapshots: dict[str, errors.Finding] = {}
        self._unready = unready
        self.keeper = peer_snapshots.Snapshots(
            self, namespace=place.namespace, system_clock=system_clock
        )
        """Keeps what is told, where we lead."""
        self.port = 0
        """Where it serves; 0 until it does."""
        self._service = ads.Service(
            peer_exports.Exports(
                mesh,
                authenticator=peer_exports.PeerAuthenticator(
                    self._house, vouches=functools.partial(trusting.vouches, mesh)
                ),
                unready=unready,
            ),
            system_clock=system_clock,
        )
        self._service.greeting = peerclient.GREETING
        if registered is not None:
            registered.before_each(self._show_ages)
        mesh.graph.listen(self._published)

    # --- what others ask ------------------------------------------------------------------------

    def proof(self) -> tls.Certificate | None:
        """Return what proves this control plane to other clusters; None while nobody signs."""
        return self._proven()

    def statuses(self) -> list[peer_imports.Status]:
        """Return how well each linked cluster is heard."""
        return [one.status() for _, one in sorted(self._peers.items())]

    def told(self) -> list[peer_telling.Document]:
        """Return the control planes that listen here, and how far each has come."""
        return peer_telling.rows(self._service.statuses(), now=self._clock.now())

    def findings(self) -> list[errors.Finding]:
        """Say what is wrong with linked clusters and what they tell."""
        found = [finding for _, one in sorted(self._peers.items()) for finding in one.findings()]
        unheard = {peer for peer, one in self._peers.items() if not one.is_heard}
        refused = sorted(self._refused_snapshots.items())
        found += [finding for peer, finding in refused if peer in unheard]
        return found + self.keeper.findings()

    def followed(self) -> Mapping[ClusterId, peer_imports.Peer] | None:
        """Return the linked clusters; None while it is not known which there are."""
        return None if self._unready() else dict(self._peers)

    def waiting(self) -> list[ClusterId]:
        """Return the linked clusters that proxies should not be served without yet.

        For a while after the start, those that were not heard: an early answer would take from
        proxies what they have of them.
        """
        if self._is_settled or not self._began:
            return []
        is_ready = not self._unready()
        now = self._clock.monotonic()
        if is_ready and self._ready_at is None:
            self._ready_at = now
        waited_s = 0.0 if self._ready_at is None else now - self._ready_at
        found = [peer for peer in sorted(self._wanted()) if waited_s < self._patience_s(peer)]
        # Whoever is linked later keeps nobody waiting.
        self._is_settled = not found and is_ready
        if self._is_settled:
            self._recalled.clear()
        return found

    def _patience_s(self, peer: ClusterId) -> float:
        known = self._peers.get(peer)
        if known is None or not known.is_known:
            return PATIENCE_S
        return PATIENCE_KNOWN_S if known.is_recalled else 0.0

    # --- running --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Tell and follow linked clusters until cancelled."""
        self._began = True
        async with contextlib.AsyncExitStack() as stack:
            nursery = await stack.enter_async_context(tasks.Nursery(system_clock=self._clock))
            stack.callback(self._following.clear)
            _ = nursery.keep("tell linked clusters", self._serve)
            await self._look_back()
            while True:
                self._changed.clear()
                self._follow_all(nursery)
                await self._changed.wait()

    async def _look_back(self) -> None:
        """Learn what an earlier control plane knew, before anybody is asked."""
        kept = await self._place.recall(lambda: bool(self.waiting()) or not self._is_settled)
        found, self._refused_snapshots = peer_snapshots.recall(kept)
        self._recalled = {peer: one for peer, one in found.items() if peer not in self._peers}

    def _remember(self, peer: peer_imports.Peer) -> None:
        """Begin with what an earlier control plane knew of a linked cluster."""
        recalled = self._recalled.pop(peer.link.peer, None)
        if recalled is None or self._is_settled:
            return  # Nobody has anything of whoever is linked later.
        now = self._clock.now()
        why = peer_snapshots.objection(recalled, peer.link, now=now)
        if why:
            self._refused_snapshots[peer.link.peer] = peer_snapshots.refusal(peer.link.peer, why)
        else:
            peer.recall(recalled.records, age_s=(now - recalled.known_at).total_seconds())

    def _wanted(self) -> dict[ClusterId, peering.Link]:
        links = self._mesh.graph.items(self._mesh.model.peers.links)
        return {peer: link for peer, link in links.items() if link.discovery_port}

    def _published(self, batch: changes.Changes) -> None:
        if batch.of(self._mesh.model.peers.links):
            self._changed.set()

    def _follow_all(self, nursery: tasks.Nursery) -> None:
        wanted = self._wanted()
        for peer in [one for one in self._peers if one not in wanted]:
            self._stop_following(peer)
            self._peers.pop(peer).forget()
        for peer, link in wanted.items():
            known = self._peers.get(peer)
            if known is None:
                known = self._peers[peer] = peer_imports.Peer(
                    self._mesh, link, self._clock, self._counters, node_id=self._node_id()
                )
                self._remember(known)
            elif known.link == link and peer in self._following:
                continue
            known.link = link
            self._stop_following(peer)
            self._following[peer] = nursery.start(f"follow {peer}", self._follow(known))

    def _stop_following(self, peer: ClusterId) -> None:
        task = self._following.pop(peer, None)
        if task is not None:
            task.cancel()

    async def _follow(self, peer: peer_imports.Peer) -> None:
        turn = 0

        def target() -> peerclient.Target | None:
            nonlocal turn
            turn += 1
            return self._target(peer.link, turn)

        await peerclient.follow(
            peer.talk, target=target, system_clock=self._clock, pace=self._place.pace
        )

    def _target(self, link: peering.Link, turn: int) -> peerclient.Target | None:
        proof = self._proven()
        if proof is None:
            return None
        address = self._place.dialled(link.addresses[turn % len(link.addresses)])
        host = f"[{address}]" if ":" in address else address
        return peerclient.Target(
            address=f"{host}:{link.discovery_port}",
            server_name=link.server_name,
            roots_pem=trusting.roots_of(self._mesh, link.trust_domain) or proof.roots_pem,
            chain_pem=proof.chain_pem,
            key_pem=proof.key_pem,
            cluster=self._place.cluster,
        )

    def _proven(self) -> tls.Certificate | None:
        """Return the certificate that proves us to other clusters, made anew where it must be."""
        signer = self._authority()
        if signer is None:
            return None
        identity = SpiffeId(self._domain(), self._place.namespace, self._place.account)
        if self._proof is not None:
            old_signer, old_identity, proof = self._proof
            is_same = old_signer is signer and old_identity == identity
            if is_same and self._clock.now() < proof.renew_at:
                return proof
        now = self._clock.now()
        proof = tls.prove(signer, identity=identity, now=now, lifetime=LIFETIME)
        self._proof = (signer, identity, proof)
        return proof

    # --- telling --------------------------------------------------------------------------------

    async def _serve(self) -> None:
        while (signer := self._authority()) is None:
            await self._clock.sleep(LOOK_S / 10)
        serving = tls.Serving(self._issued(signer))
        server, self.port = await listening.listen_by_grpc(
            (self._service.handler(),),
            address=f"{self._place.address}:{self._place.port or self.port}",
            credentials=grpc_tls.server_credentials(serving, require_client_certificate=True),
        )
        _LOG.info("telling linked clusters", port=self.port)
        try:
            while True:
                await self._clock.sleep(LOOK_S)
                self._renew(serving)
        finally:
            await server.stop(DRAIN_S)

    def _renew(self, serving: tls.Serving) -> None:
        signer, current = self._authority(), serving.certificate
        if signer is None:
            return
        is_other = (self._name(),) != current.names or signer.roots_pem != current.roots_pem
        if is_other or self._clock.now() >= current.renew_at:
            serving.replace(self._issued(signer))

    def _issued(self, signer: authorities.Authority) -> tls.Certificate:
        return tls.issue(signer, names=(self._name(),), now=self._clock.now(), lifetime=LIFETIME)

    def _name(self) -> str:
        return peering.server_name(self._place.cluster, trust_domain=self._domain())

    def _house(self) -> peer_acceptance.House:
        return peer_acceptance.House(
            cluster=self._place.cluster,
            namespace=self._place.namespace,
            trust_domain=self._domain(),
            links=self._mesh.graph.items(self._mesh.model.peers.links).values(),
            accepted=self._mesh.graph.value(self._mesh.model.settings).peer_domains,
        )

    def _domain(self) -> TrustDomain:
        return self._mesh.graph.value(self._mesh.model.settings).trust_domain

    def _node_id(self) -> str:
        place = self._place
        name = f"{place.pod}.{place.namespace}"
        return f"istiod~0.0.0.0~{name}~{place.namespace}.svc.{self._mesh.seat.domain}"

    def _show_ages(self) -> None:
        for status in self.statuses():
            if status.age_s is not None:
                self._counters.age.set(round(status.age_s, 1), status.link.peer)


def rows(statuses: Iterable[peer_imports.Status]) -> list[dict[str, object]]:
    """Return linked clusters as the document behind `/debug/clusterz` lists clusters."""
    return [
        {
            "id": one.link.peer,
            "secretName": "",
            "link": f"{one.link.namespace}/{one.link.name}",
            "syncStatus": "linked" if one.is_connected else "not heard",
            "ageSeconds": 0.0 if one.is_connected else _rounded(one.age_s),
            "error": one.reason,
            "known": one.is_known,
            "fromSnapshot": one.is_recalled,
            "network": one.link.network,
            "trustDomain": one.link.trust_domain,
            "appliedVersion": one.version,
            "services": one.services,
            "refused": dict(one.refused),
        }
        for one in statuses
    ]


def _rounded(age_s: float | None) -> float | None:
    return None if age_s is None else round(age_s, 1)
