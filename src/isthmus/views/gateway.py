"""What a gateway passes on: by server name, by port, or request by request.

A Gateway object holds for every gateway whose labels it selects, whatever cluster that stands in.
Its ports are those of the gateway's own Service; a gateway listens on what they stand for.

Source: spec sections 3.5, 4.11 and 6.4.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from isthmus.mesh import policies
from isthmus.mesh.services import Service
from isthmus.mesh.settings import MeshSettings
from isthmus.mesh.traffic import LoadBalancer, TrafficPolicy
from isthmus.views import names, outbound, routing, view, visibility

OWN: Final = "."
HBONE: Final = "HBONE"

NETWORK_LABEL: Final = "topology.istio.io/network"
"""On a Service: it stands for the gateways that lead into a network."""


@dataclass(frozen=True, slots=True)
class HostPattern:
    """Hosts that a server serves; `namespace` is `*` for services of all namespaces."""

    namespace: str
    pattern: str

    def covers(self, service: Service) -> bool:
        """Say whether a service is among them; one that is derived is wherever its origin is."""
        return self.namespace in {"*", service.key.namespace} and any(
            visibility.matches_host(self.pattern, host=host) for host in service.hosts
        )


@dataclass(frozen=True, slots=True)
class SniTarget:
    """Where TLS that asks for one of some names goes; no names stand for any."""

    server_names: tuple[str, ...]
    destinations: tuple[policies.Destination, ...]


@dataclass(frozen=True, slots=True)
class HttpHost:
    """A host that a gateway serves, with the object that says where its requests go.

    Attributes:
        virtual: None for a host whose requests go nowhere, unless to https.
        gateway: `<namespace>/<name>` of the Gateway object.
        redirects: Whether whoever asks in plain text is sent to https.
    """

    host: str
    virtual: policies.VirtualService | None
    gateway: str
    redirects: bool = False


@dataclass(frozen=True, slots=True)
class EndedTls:
    """TLS that ends at a gateway, and the hosts for which requests in it may ask.

    Attributes:
        port: Of the gateway's Service.
        server_names: Empty stands for any.
    """

    port: int
    port_name: str
    gateway: str
    server_names: tuple[str, ...]
    hosts: tuple[HttpHost, ...]
    server: policies.GatewayServer

    @property
    def route_name(self) -> str:
        """How its routes are called."""
        return names.ended_route(self.port, port_name=self.port_name, gateway=self.gateway)


@dataclass(frozen=True, slots=True)
class PortPlan:
    """What happens on one port of a gateway.

    Attributes:
        port: On which the gateway listens.
        exposed: Services whose mutual TLS is passed on.
        tls: TLS that is passed on by name.
        tcp: Where everything goes, for a port of plain TCP.
        http: For a port of plain HTTP; None for any other.
        ended: TLS that ends here.
        ends_tunnels: Whether outer tunnels end here.
    """

    port: int
    exposed: tuple[HostPattern, ...] = ()
    tls: tuple[SniTarget, ...] = ()
    tcp: tuple[policies.Destination, ...] = ()
    http: tuple[HttpHost, ...] | None = None
    ended: tuple[EndedTls, ...] = ()
    ends_tunnels: bool = False

    def hosts(self) -> Iterator[HttpHost]:
        """Yield all hosts for which requests may ask."""
        yield from self.http or ()
        for ended in self.ended:
            yield from ended.hosts


@dataclass(frozen=True, slots=True)
class Plan:
    """What one kind of gateway does, port by port."""

    ports: tuple[PortPlan, ...]

    def exposes(self, service: Service, *, namespace: str) -> bool:
        """Say whether mutual TLS to a service is passed on.

        What each cluster keeps to itself is never asked for from outside, so it has no door; nor
        have gateways, which would lead to themselves.
        """
        return (
            not service.is_cluster_local
            and service.is_told_of
            and not service.is_external
            # Envoy takes no server name with a star amid it, and would refuse all of the others.
            and "*" not in service.hostname
            and not dict(service.labels).get(NETWORK_LABEL)
            and visibility.is_visible(service, client=namespace)
            and any(host.covers(service) for port in self.ports for host in port.exposed)
        )

    def destinations(self) -> Iterator[tuple[policies.Destination, int]]:
        """Yield where anything but the mesh's own mutual TLS goes, and from which port."""
        for port in self.ports:
            for target in port.tls:
                yield from ((destination, port.port) for destination in target.destinations)
            yield from ((destination, port.port) for destination in port.tcp)
            for host in port.hosts():
                for route in host.virtual.http if host.virtual is not None else ():
                    yield from ((destination, port.port) for destination in route.destinations)
                    yield from ((mirror.destination, port.port) for mirror in route.mirrors)

    def credentials(self) -> frozenset[tuple[str, policies.ServerTls]]:
        """Return the names of the Secrets that it needs, and for what."""
        return frozenset(
            (ended.server.credential, ended.server.tls)
            for port in self.ports
            for ended in port.ended
        )


def plan_of(
    scope: view.GatewayScope,
    *,
    gateways: Sequence[policies.Gateway],
    virtuals: Sequence[policies.VirtualService],
) -> Plan:
    """Return what gateways of a scope do; of servers that contradict each other the first wins.

    All Gateway objects and VirtualServices are given, in order.
    """
    labels, targets = dict(scope.labels), dict(scope.ports)
    plans = dict[int, PortPlan]()
    for gateway in gateways:
        if not selects(gateway, labels=labels, namespace=scope.namespace):
            continue
        bound = [one for one in virtuals if is_bound(one, gateway)]
        for server in gateway.servers:
            port = targets.get(server.port, server.port)
            plan = _planned(gateway, server, port=port, virtuals=bound, scope=scope)
            if plan is not None:
                plans[port] = _merged(plans.get(port), plan)
    return Plan(tuple(plans[port] for port in sorted(plans)))


def selects(gateway: policies.Gateway, *, labels: Mapping[str, str], namespace: str) -> bool:
    """Say whether a Gateway object holds for a gateway with these labels in a namespace."""
    if gateway.is_kubernetes and gateway.namespace != namespace:
        return False
    return all(labels.get(key) == value for key, value in gateway.selector)


def is_bound(virtual: policies.VirtualService, gateway: policies.Gateway) -> bool:
    """Say whether a VirtualService is meant for a Gateway object."""
    if virtual.is_kubernetes is not gateway.is_kubernetes:
        return False
    if f"{gateway.namespace}/{gateway.name}" in virtual.gateways:
        return True
    return virtual.namespace == gateway.namespace and gateway.name in virtual.gateways


def is_passable(server: policies.GatewayServer) -> bool:
    """Say whether a gateway can do what a server wants; it ends TLS for requests only."""
    kept = {policies.ServerTls.AUTO_PASSTHROUGH, policies.ServerTls.PASSTHROUGH}
    protocol = server.protocol.upper()
    if protocol == HBONE:
        return server.tls is policies.ServerTls.ISTIO_MUTUAL
    if server.tls in kept:
        return True
    if server.tls.is_ended:
        return protocol == "HTTPS" and bool(server.credential)
    return server.tls is policies.ServerTls.NONE and protocol in {"HTTP", "HTTP2", "GRPC", "TCP"}


def _planned(
    gateway: policies.Gateway,
    server: policies.GatewayServer,
    *,
    port: int,
    virtuals: Sequence[policies.VirtualService],
    scope: view.GatewayScope,
) -> PortPlan | None:
    hosts = tuple(_pattern(host, gateway=gateway) for host in server.hosts)
    if not is_passable(server) or server.protocol == HBONE:
        return PortPlan(port, ends_tunnels=True) if is_passable(server) else None
    place = routing.Place(
        f"{gateway.namespace}/{gateway.name}",
        scope.namespace,
        scope.cluster,
        scope.network,
        server.port,
        scope.labels,
    )
    if server.tls is policies.ServerTls.AUTO_PASSTHROUGH:
        return PortPlan(port, exposed=hosts)
    if server.tls is policies.ServerTls.PASSTHROUGH:
        return PortPlan(port, tls=tuple(_sni_targets(virtuals, place=place)))
    if server.protocol.upper() == "TCP":
        target = next(_tcp_targets(virtuals, place=place), ())
        return PortPlan(port, tcp=target) if target else None
    routed = tuple(_http_hosts(virtuals, hosts=hosts, gateway=place.gateway))
    if server.tls.is_ended:
        named = tuple(dict.fromkeys(one.pattern for one in hosts))
        asked = () if "*" in named else named
        ended = EndedTls(server.port, server.port_name, place.gateway, asked, routed, server)
        return PortPlan(port, ended=(ended,))
    if server.redirects:
        routed = tuple(_redirected(routed, hosts=hosts, gateway=place.gateway))
    return PortPlan(port, http=routed)


def _redirected(
    routed: Iterable[HttpHost], *, hosts: Sequence[HostPattern], gateway: str
) -> Iterator[HttpHost]:
    """Yield the same hosts, and all else that a server is for, which nothing but https serves."""
    known = set[str]()
    for host in routed:
        known.add(host.host)
        yield dataclasses.replace(host, redirects=True)
    for pattern in dict.fromkeys(one.pattern for one in hosts):
        if pattern not in known:
            yield HttpHost(pattern, None, gateway, redirects=True)


def _pattern(text: str, *, gateway: policies.Gateway) -> HostPattern:
    namespace, separator, pattern = text.rpartition("/")
    if not separator:
        return HostPattern("*", text)
    return HostPattern(gateway.namespace if namespace == OWN else namespace, pattern)


def _sni_targets(
    virtuals: Iterable[policies.VirtualService], *, place: routing.Place
) -> Iterator[SniTarget]:
    for virtual in virtuals:
        for route in virtual.tls:
            if place.is_meant(route) and route.destinations:
                hosts = () if "*" in route.sni_hosts else route.sni_hosts
                yield SniTarget(hosts, route.destinations)


def _tcp_targets(
    virtuals: Iterable[policies.VirtualService], *, place: routing.Place
) -> Iterator[tuple[policies.Destination, ...]]:
    for virtual in virtuals:
        for route in virtual.tcp:
            if place.is_meant(route) and route.destinations:
                yield route.destinations


def _http_hosts(
    virtuals: Iterable[policies.VirtualService], *, hosts: Sequence[HostPattern], gateway: str
) -> Iterator[HttpHost]:
    taken = set[str]()
    for virtual in virtuals:
        for host in virtual.hosts:
            allowed = any(visibility.matches_host(one.pattern, host=host) for one in hosts)
            if virtual.http and allowed and host not in taken:
                taken.add(host)
                yield HttpHost(host, virtual, gateway)


def _merged(old: PortPlan | None, new: PortPlan) -> PortPlan:
    if old is None:
        return new
    if old.ends_tunnels or new.ends_tunnels:
        return old
    is_tls = all(not plan.tcp and plan.http is None for plan in (old, new))
    if is_tls:
        ended = (*old.ended, *(one for one in new.ended if _is_new(one, old.ended)))
        return PortPlan(old.port, (*old.exposed, *new.exposed), (*old.tls, *new.tls), ended=ended)
    if old.http is not None and new.http is not None:
        known = {host.host for host in old.http}
        more = tuple(host for host in new.http if host.host not in known)
        return PortPlan(old.port, http=(*old.http, *more))
    return old


def _is_new(one: EndedTls, known: Iterable[EndedTls]) -> bool:
    # Ports of a Gateway have names of their own; of two that have not, the first counts.
    return all(one.route_name != other.route_name for other in known)


def passing(
    cluster: view.ClusterSlice, policy: TrafficPolicy, *, service: Service, settings: MeshSettings
) -> view.ClusterSlice:
    """Return a cluster of connections that are passed on undecrypted, limited by a policy.

    What asks to look into requests, or to leave the choice to the application, does not apply.
    """
    ruled = outbound.ruled(cluster, policy, service=service, settings=settings)
    is_choice = ruled.balancer in {LoadBalancer.ROUND_ROBIN, LoadBalancer.RANDOM}
    return dataclasses.replace(
        ruled,
        protocol=cluster.protocol,
        balancer=ruled.balancer if is_choice else LoadBalancer.LEAST_REQUEST,
        ring_size=0,
        weighs_places=False,
    )


def chains_of(
    plan: PortPlan,
    *,
    passed: Sequence[str],
    clusters: Mapping[SniTarget, tuple[view.RouteTarget, ...]],
) -> tuple[view.SniChain, ...]:
    """Return the chains of a port of TLS; of equal names the first one's counts.

    Two chains that match alike would make Envoy refuse the whole listener. Mutual TLS that asks for
    a name of `passed` goes to the cluster of that name, and each target to its own of `clusters`.
    """
    chains = [view.SniChain((name,), name, needs_mesh_alpn=True) for name in passed]
    taken, is_open = set(passed), False
    for target in plan.tls:
        fresh = tuple(name for name in target.server_names if name not in taken)
        taken.update(fresh)
        if fresh or (not target.server_names and not is_open):
            is_open = is_open or not target.server_names
            shares = clusters[target]
            first = shares[0].cluster_name
            split = shares if len(shares) > 1 else ()
            chains.append(view.SniChain(fresh, first, needs_mesh_alpn=False, shares=split))
    return tuple(chains)


def ended_of(plan: PortPlan) -> tuple[view.EndedChain, ...]:
    """Return the chains of TLS that ends at a port; a name that is passed on is not ended."""
    taken = {name for target in plan.tls for name in target.server_names}
    is_open = any(not target.server_names for target in plan.tls)
    chains = []
    for ended in plan.ended:
        fresh = tuple(name for name in ended.server_names if name not in taken)
        taken.update(fresh)
        if not fresh and (ended.server_names or is_open):
            continue
        is_open = is_open or not ended.server_names
        server = ended.server
        chains.append(
            view.EndedChain(fresh, ended.route_name, server.credential, server.tls, server.limits)
        )
    return tuple(chains)
