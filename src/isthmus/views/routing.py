"""Which cluster a request goes to: a service's own, or as a VirtualService says.

What leads to a service or subset that is not there goes to a cluster without endpoints, which
answers 503; it never falls through to another.

Source: spec sections 4.7, 4.11 and 8.2.
"""

import dataclasses
import functools
import ipaddress
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from isthmus.mesh import policies
from isthmus.mesh.identities import ClusterId, NetworkId
from isthmus.mesh.services import Service
from isthmus.mesh.traffic import HashKey
from isthmus.views import names, preferences, view, visibility

MOST_SHARED: Final = 65536
"""Values that views share, of one kind."""

MESH: Final = "mesh"
"""Stands for all sidecars where gateways are named."""

Resolve = Callable[[policies.Destination], str]
"""Returns the name of the cluster that a destination stands for."""


Keys = Callable[[policies.Destination], HashKey | None]
"""Returns what binds the requests to a destination to one of its endpoints."""


@functools.lru_cache(maxsize=MOST_SHARED)
def plain(
    host: str, *, port: int, cluster_name: str, key: HashKey | None = None
) -> tuple[view.Route, ...]:
    """Return the one route of a service for which no VirtualService says anything.

    Sidecars of all namespaces and clusters share it.
    """
    target = view.RouteTarget(cluster_name)
    return (view.Route(targets=(target,), operation=f"{host}:{port}/*", key=key),)


@functools.lru_cache(maxsize=MOST_SHARED)
def plain_host(
    name: str,
    *,
    domains: tuple[str, ...],
    host: str,
    port: int,
    cluster_name: str,
    key: HashKey | None = None,
) -> view.VirtualHost:
    """Return the same as a virtual host; sidecars of which it has the same names share it."""
    return view.VirtualHost(
        name, domains, plain(host, port=port, cluster_name=cluster_name, key=key)
    )


def chosen(
    candidates: Sequence[policies.VirtualService], *, place: "Place", owner: str
) -> policies.VirtualService | None:
    """Return what says where requests go that clients at a place send to a service of `owner`.

    Routes of the Gateway API come before VirtualServices, where they say anything of the port;
    those of the client's own namespace before those of the service's, and others hold for nobody.
    """
    for namespace in (place.namespace, owner):
        for virtual in candidates:
            if virtual.is_kubernetes and virtual.namespace == namespace and place.concerns(virtual):
                return virtual
    for virtual in candidates:
        if not virtual.is_kubernetes and visibility.is_exported(
            virtual.export_to, owner=virtual.namespace, client=place.namespace
        ):
            return virtual
    return None


def together(
    candidates: Sequence[policies.VirtualService], *, place: "Place", owner: str
) -> tuple[policies.VirtualService, ...]:
    """Return all that says where requests go at the waypoint of a service of `owner`, in order.

    Routes of the Gateway API in the waypoint's own namespace come first and leave what they do not
    match to those of the service's; with any of them, VirtualServices say nothing.
    """
    ordered = tuple(
        virtual
        for namespace in dict.fromkeys((place.namespace, owner))
        for virtual in candidates
        if virtual.is_kubernetes and virtual.namespace == namespace and place.concerns(virtual)
    )
    return ordered or tuple([one for one in candidates if one.http and not one.is_kubernetes][:1])


@dataclass(frozen=True, slots=True)
class Place:
    """Where routes are followed.

    Attributes:
        gateway: `<namespace>/<name>` of the Gateway object, `mesh` for sidecars.
        namespace: Of the client, or of the gateway.
        cluster: That it stands in.
        network: Likewise.
        port: 0 stands for any port.
        labels: Of the client, those at least that any route asks for.
        address: Where connections are going; empty where that is not known beforehand.
    """

    gateway: str
    namespace: str
    cluster: ClusterId
    network: NetworkId
    port: int = 0
    labels: tuple[tuple[str, str], ...] = ()
    address: str = ""

    def is_meant(self, match: policies.HttpMatch | policies.SniRoute | policies.TcpRoute) -> bool:
        """Say whether a match holds here, as far as it is not about requests or names."""
        places = {preferences.CLUSTER: self.cluster, preferences.NETWORK: self.network}
        own = dict(self.labels) | places
        return (
            match.port in {0, self.port}
            and (not match.gateways or self.gateway in match.gateways)
            and match.source_namespace in {"", self.namespace}
            and all(own.get(key) == value for key, value in match.source)
            and (isinstance(match, policies.HttpMatch) or self._is_within(match.subnets))
        )

    def concerns(self, virtual: policies.VirtualService) -> bool:
        """Say whether anything is said of requests here."""
        return any(
            self.is_meant(match)
            for route in virtual.http
            for match in route.matches or (policies.HttpMatch(),)
        )

    def _is_within(self, subnets: Sequence[str]) -> bool:
        """Say whether connections are going into one of some ranges, if any are given."""
        if not subnets or not self.address:
            return not subnets
        address = ipaddress.ip_address(self.address)
        return any(address in ipaddress.ip_network(subnet) for subnet in subnets)


def labels_asked_for(virtual: policies.VirtualService) -> frozenset[tuple[str, str]]:
    """Return the labels of clients by which routes differ, but for those that say where they are.

    Proxies that differ in others share routes.
    """
    matches: tuple[policies.HttpMatch | policies.SniRoute | policies.TcpRoute, ...] = (
        *(match for route in virtual.http for match in route.matches),
        *virtual.tls,
        *virtual.tcp,
    )
    return frozenset(
        (key, value)
        for match in matches
        if MESH in match.gateways or not match.gateways
        for key, value in match.source
        if key not in {preferences.CLUSTER, preferences.NETWORK}
    )


def names_ranges(virtual: policies.VirtualService) -> bool:
    """Say whether it matters to which address a connection goes."""
    return any(one.subnets for one in virtual.tcp) or any(one.subnets for one in virtual.tls)


def routes_of(
    virtual: policies.VirtualService, *, place: Place, resolve: Resolve, key_of: Keys
) -> tuple[view.Route, ...]:
    """Return the routes that a VirtualService describes for a place."""
    named = (virtual.namespace, virtual.name)
    return tuple(
        dataclasses.replace(
            _route(route, match=match, resolve=resolve, key_of=key_of), virtual=named
        )
        for route in virtual.http
        for match in (route.matches or (policies.HttpMatch(),))
        if place.is_meant(match)
    )


def split(
    destinations: Sequence[policies.Destination], *, resolve: Resolve
) -> tuple[view.RouteTarget, ...]:
    """Return how connections are split among clusters."""
    return tuple(view.RouteTarget(resolve(one), one.weight) for one in destinations)


def split_of(
    virtuals: Sequence[policies.VirtualService], *, place: Place, resolve: Resolve
) -> tuple[view.RouteTarget, ...]:
    """Return where a place's connections go; nothing where no VirtualService says it."""
    for route in (route for virtual in virtuals for route in virtual.tcp):
        if place.is_meant(route):
            return split(route.destinations, resolve=resolve)
    return ()


def named_of(
    virtuals: Sequence[policies.VirtualService], *, place: Place, resolve: Resolve
) -> Iterator[view.NamedShares]:
    """Yield where a place's TLS goes by name; of equal names the first counts, as Envoy demands."""
    taken = set[str]()
    for route in (route for virtual in virtuals for route in virtual.tls):
        fresh = tuple(name for name in route.sni_hosts if name not in taken and name != "*")
        if fresh and place.is_meant(route):
            taken.update(fresh)
            yield view.NamedShares(fresh, split(route.destinations, resolve=resolve))


def distinct_names(
    found: Iterable[Sequence[view.NamedShares]],
) -> tuple[view.NamedShares, ...]:
    """Return where TLS goes by name; of equal names the first one counts, as Envoy demands."""
    taken = set[str]()
    distinct = []
    for shares in found:
        for one in shares:
            fresh = tuple(name for name in one.server_names if name not in taken)
            if fresh:
                taken.update(fresh)
                distinct.append(view.NamedShares(fresh, one.shares))
    return tuple(distinct)


def cluster_for(
    destination: policies.Destination,
    service: Service | None,
    *,
    subsets: Sequence[str],
    port: int,
) -> str:
    """Return the cluster of a destination, or the one without endpoints.

    The destination names `service`, whose rule knows `subsets`. Where it names none of several
    ports, it means that of the route.
    """
    if service is None or destination.subset not in subsets:
        return names.BLACK_HOLE
    numbers = [declared.number for declared in service.ports]
    number = destination.port or (numbers[0] if len(numbers) == 1 else port)
    if number not in numbers:
        return names.BLACK_HOLE
    return names.outbound(service.hostname, port=number, subset=destination.subset)


def assembled(
    name: str, hosts: tuple[view.VirtualHost, ...], *, fallback_cluster: str
) -> view.RouteSlice:
    """Return one set of routes; of equal domains the first host's wins, as Envoy demands."""
    told = tuple(_distinct(hosts))
    # Nearly always these are the hosts as they were given: then nothing is kept twice.
    return view.RouteSlice(name, hosts if told == hosts else told, fallback_cluster)


def _distinct(hosts: Sequence[view.VirtualHost]) -> Iterator[view.VirtualHost]:
    taken = set[str]()
    for host in sorted(hosts, key=lambda one: one.name):
        domains = tuple(domain for domain in host.domains if domain not in taken)
        taken.update(domains)
        if len(domains) == len(host.domains):
            yield host  # as nearly always: nothing is kept twice
        elif domains:
            yield view.VirtualHost(host.name, domains, host.routes)


def _route(
    route: policies.HttpRoute, *, match: policies.HttpMatch, resolve: Resolve, key_of: Keys
) -> view.Route:
    weighted = [one for one in route.destinations if one.weight] or route.destinations[:1]
    targets = tuple(
        view.RouteTarget(resolve(destination), destination.weight or 1, destination.headers)
        for destination in weighted
    )
    copies = tuple(view.RouteTarget(resolve(one.destination), one.share) for one in route.mirrors)
    return view.Route(
        targets=targets,
        path=match.path,
        method=match.method,
        headers=match.headers,
        timeout_s=route.timeout_s,
        # One key for all that a route leads to: of several the first one's.
        key=next((key for key in map(key_of, weighted) if key is not None), None),
        scheme=match.scheme,
        authority=match.authority,
        without_headers=match.without_headers,
        query=match.query,
        ignores_case=match.ignores_case,
        treatment=route.treatment,
        copies=tuple(one for one in copies if one.cluster_name != names.BLACK_HOLE),
    )
