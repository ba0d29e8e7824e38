"""Ways to other clusters, climbed from this control plane's own place when somebody asks.

Where to climb is what the mesh's table says: gateways of other networks, and links. Nobody who asks
can name a place, and those who ask often get what was found last. A control plane proves itself as
it does towards linked clusters.

Source: spec sections 7.4 and 7.7.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from isthmus.base import clock, logs
from isthmus.engine import graph
from isthmus.mesh.identities import ClusterId, NetworkId, SpiffeId
from isthmus.mesh.networks import NetworkGateway
from isthmus.mesh.probing import Goal, Shared, Step, Way
from isthmus.mesh.services import Protocol, Service, ServiceKey
from isthmus.mesh.workloads import Endpoint, Health
from isthmus.runtime import assembly
from isthmus.wire import ladders, tls

_LOG = logs.Log("isthmus.probing")

FRESH_S: Final = 2.0
"""So long what was found counts for whoever asks."""

MOST_GOALS: Final = 200


@dataclass(slots=True)
class _Round:
    """What was found once.

    Attributes:
        ended: When, by the clock that never goes backwards.
    """

    found: list[tuple[Goal, tuple[Step, ...]]]
    ended: float


class Prober:
    """Climbs to other clusters when it is asked."""

    def __init__(
        self,
        mesh: assembly.Mesh,
        *,
        proof: Callable[[], tls.Certificate | None],
        system_clock: clock.Clock,
    ) -> None:
        self._mesh = mesh
        self._proof = proof
        self._clock = system_clock
        self._wanted = asyncio.Event()
        self._is_running = False
        self._last: _Round | None = None

    def page(self) -> dict[str, object]:
        """Return what was found last, and look anew if that was long ago."""
        age_s = None if self._last is None else self._clock.monotonic() - self._last.ended
        if not self._is_running and (age_s is None or age_s > FRESH_S):
            self._wanted.set()
            self._is_running = True
        return {
            "cluster": self._mesh.seat.cluster,
            "now": self._clock.now().isoformat(),
            "isRunning": self._is_running,
            "ageSeconds": None if age_s is None else round(age_s, 1),
            "ways": [] if self._last is None else [_row(*one) for one in self._last.found],
        }

    async def run(self) -> None:
        """Climb whenever somebody asks, until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                await self._look()
            finally:
                self._is_running = False

    async def _look(self) -> None:
        proof = self._proof()
        goals = list(goals_of(self._mesh))[:MOST_GOALS]
        found = [] if proof is None else await ladders.climbed(goals, proof)
        self._last = _Round(found, self._clock.monotonic())
        _LOG.info("looked for ways to other clusters", ways=len(found))


def _row(goal: Goal, steps: tuple[Step, ...]) -> dict[str, object]:
    return {
        "peer": goal.peer,
        "network": goal.network,
        "way": goal.way.value,
        "address": goal.address,
        "port": goal.port,
        "rungs": [
            {
                "rung": step.rung.value,
                "outcome": step.outcome.value,
                "found": step.found,
                "fix": step.fix,
            }
            for step in steps
        ],
    }


# --- where to


def goals_of(mesh: assembly.Mesh) -> Iterator[Goal]:
    """Yield the ways to other clusters that this mesh's table knows, in order."""
    held, model = mesh.graph, mesh.model
    own = held.value(model.peers.network)
    links = held.items(model.peers.links)
    for peer, link in sorted(links.items()):
        for address in link.addresses:
            if link.discovery_port:
                name = link.server_name
                yield Goal(
                    Way.DISCOVERY, peer, link.network, address, link.discovery_port, expected=name
                )
            if link.tunnel_port:
                expected = str(link.gateway_identity)
                shared = _told_by(mesh, peer)
                yield Goal(
                    Way.TUNNELS, peer, link.network, address, link.tunnel_port, expected, shared
                )
    linked = {(address, link.tunnel_port) for link in links.values() for address in link.addresses}
    for gateway in held.value(model.network_gateways):
        if gateway.network != own and (gateway.address, gateway.hbone_port) not in linked:
            yield from _of_gateway(mesh, gateway)


def _of_gateway(mesh: assembly.Mesh, gateway: NetworkGateway) -> Iterator[Goal]:
    place = (gateway.cluster, gateway.network, gateway.address)
    if gateway.hbone_port:
        shared = _behind(mesh, gateway.network, takes=_takes_tunnels)
        yield Goal(Way.TUNNELS, *place, gateway.hbone_port, _identity(mesh, gateway), shared)
    if gateway.port:
        shared = _behind(mesh, gateway.network, takes=_takes_mtls)
        yield Goal(Way.MUTUAL_TLS, *place, gateway.port, shared=shared)


def _identity(mesh: assembly.Mesh, gateway: NetworkGateway) -> str:
    if not gateway.service_account:
        return ""
    domain = (
        gateway.trust_domain
        or mesh.graph.get(mesh.model.trust.domains, gateway.cluster)
        or mesh.graph.value(mesh.model.settings).trust_domain
    )
    return str(SpiffeId(domain, gateway.namespace, gateway.service_account))


def _told_by(mesh: assembly.Mesh, peer: ClusterId) -> Shared | None:
    """Return what a linked cluster shares of which a pod is ready."""
    for _, one in sorted(mesh.graph.items(mesh.model.peers.imports).items()):
        told = one.export
        ports = [port for port in told.ports if port.protocol is not Protocol.UDP]
        if one.peer == peer and one.pods and told.hosts and ports:
            is_http = ports[0].protocol.is_http
            return Shared(str(told.hosts[0]), ports[0].number, told.identities, is_http)
    return None


def _takes_tunnels(mesh: assembly.Mesh, service: ServiceKey, endpoint: Endpoint) -> bool:
    sharing = mesh.graph.get(mesh.model.for_nodes.sharing, service)
    return endpoint.accepts_tunnels and sharing is not None and endpoint.cluster in sharing.sharing


def _takes_mtls(_: assembly.Mesh, __: ServiceKey, endpoint: Endpoint) -> bool:
    return endpoint.accepts_mtls


def _behind(
    mesh: assembly.Mesh,
    network: NetworkId,
    *,
    takes: Callable[[assembly.Mesh, ServiceKey, Endpoint], bool],
) -> Shared | None:
    """Return a service with a ready pod in a network that can be called as wanted."""
    held, model = mesh.graph, mesh.model
    for key, endpoints in sorted(held.items(model.endpoints).items()):
        service = held.get(model.services, key)
        if service is None or not service.is_told_of or service.is_external:
            continue
        named = {
            one.port_name
            for one in endpoints
            if one.network == network and one.health is Health.HEALTHY and takes(mesh, key, one)
        }
        found = _port(held, mesh, service, named)
        if found is not None:
            return found
    return None


def _port(
    held: graph.Graph, mesh: assembly.Mesh, service: Service, named: set[str]
) -> Shared | None:
    for port in service.ports:
        if port.name in named and port.protocol is not Protocol.UDP:
            accounts = held.get(mesh.model.accounts, service.key) or ()
            return Shared(str(service.hostname), port.number, accounts, port.protocol.is_http)
    return None
