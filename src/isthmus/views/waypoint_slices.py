"""What waypoints must have: a listener inside for each port of their services, and ways onward.

A tunnel leads where the table says, which holds the addresses and the host of each service that
wants this waypoint, never where the caller says. What comes out of it is judged by the policies
that name the waypoint or the service, with the identity of who began the tunnel, and routed like
a sidecar's calls; then it goes on to pods of the waypoint's own network, by a tunnel of the
waypoint's own where a pod takes tunnels, and to those of others where none of these is left.

Source: spec sections 4.7, 4.13, 7.4 and 8.2.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from isthmus.engine import collections, graph, reader
from isthmus.mesh import policies
from isthmus.mesh.ambient import Sharing
from isthmus.mesh.identities import SpiffeId
from isthmus.mesh.networks import HBONE_PORT
from isthmus.mesh.services import Protocol, Service, ServiceKey, ServicePort
from isthmus.mesh.workloads import Endpoint, Workload, WorkloadKey
from isthmus.registry import model
from isthmus.views import (
    addressing,
    assignments,
    authorization,
    bunches,
    facts,
    names,
    outbound,
    outbound_slices,
    routing,
    tokens,
    view,
    visibility,
    waypoint_pods,
    waypoint_uses,
    waypoint_ways,
)

Slices = collections.Collection[view.SliceKey, view.Slice]
Seen = tuple[view.WaypointScope, ServiceKey]
Sliced = Iterator[tuple[view.SliceKey, view.Slice]]
Served = collections.Index[view.WaypointScope, Seen, Service]

NOBODY = Sharing(frozenset())
"""Gateways to other networks are no way for a waypoint."""

NOT_FOUND = 404


@dataclass(frozen=True, slots=True)
class _Scoped:
    """What is known of the services of waypoints."""

    places: collections.Collection[view.WaypointScope, None]
    served: collections.Collection[Seen, Service]
    by_scope: Served


def declare(
    graph_: graph.Graph,
    known: facts.Facts,
    scopes: collections.Collection[view.Scope, int],
    *,
    pods: model.Pods,
) -> tuple[Slices, ...]:
    """Declare the slices of waypoints; without these nothing is computed."""
    places = graph_.derive("views/waypoints", scopes, _waypoints_only)
    served = graph_.derive(
        "views/services of waypoints",
        known.model.services,
        _served(known, places),
        while_any=places,
    )
    by_scope = graph_.index_by_key(
        "views/services of waypoints by scope", served, lambda key: (key[0],)
    )
    doors = waypoint_pods.declare(graph_, known, places, pods=pods)
    wanted = graph_.derive("views/targets of waypoints", places, _targets(known, by_scope))
    targets = graph_.derive("views/each target of waypoints", wanted, _each)
    return (
        graph_.derive("views/ports at waypoints", served, _ports(known)),
        graph_.derive("views/clusters of waypoints", targets, _clusters(known)),
        graph_.derive("views/endpoints of waypoints", targets, _endpoints(known)),
        doors.slices,
        graph_.derive("views/tunnels of waypoints", places, _tunnels(known, by_scope, doors)),
    )


def _waypoints_only(
    _: reader.Reader, scope: view.Scope, __: int
) -> Iterator[tuple[view.WaypointScope, None]]:
    if isinstance(scope, view.WaypointScope):
        yield scope, None


# --- which services


def _served(
    known: facts.Facts, places: collections.Collection[view.WaypointScope, None]
) -> Callable[[reader.Reader, ServiceKey, Service], Iterator[tuple[Seen, Service]]]:
    def seen(
        read: reader.Reader, key: ServiceKey, service: Service
    ) -> Iterator[tuple[Seen, Service]]:
        for scope in read.items(places):
            own = ServiceKey(scope.namespace, scope.gateway)
            waypoint = waypoint_uses.of_service(read, known, service, cluster=scope.cluster)
            if waypoint == own and service.is_told_of and "*" not in service.hostname:
                yield (scope, key), service

    return seen


def _targets(
    known: facts.Facts, by_scope: Served
) -> Callable[
    [reader.Reader, view.WaypointScope, None],
    Iterator[tuple[view.WaypointScope, frozenset[ServiceKey]]],
]:
    def wanted(
        read: reader.Reader, scope: view.WaypointScope, _: None
    ) -> Iterator[tuple[view.WaypointScope, frozenset[ServiceKey]]]:
        found = set[ServiceKey]()
        for (_scope, key), service in read.lookup(by_scope, scope).items():
            found.add(key)
            for virtual in _virtuals(read, known, scope, service):
                for host in _hosts(virtual):
                    target = outbound_slices.service_named(read, known, host)
                    if target is not None and target.is_told_of:
                        found.add(target.key)
        yield scope, frozenset(found)

    return wanted


def _each(
    _: reader.Reader, scope: view.WaypointScope, wanted: frozenset[ServiceKey]
) -> Iterator[tuple[Seen, None]]:
    for key in sorted(wanted):
        yield (scope, key), None


def _virtuals(
    read: reader.Reader, known: facts.Facts, scope: view.WaypointScope, service: Service
) -> list[policies.VirtualService]:
    """Return what is said of a service's requests by those who offer it or run the waypoint.

    What others have said holds for their own calls, and whose these are is not known here. What is
    shared under a name of its own is routed like the Service that it is made of.
    """
    keys = dict.fromkeys((service.key, waypoint_uses.origin_of(service)))
    return [
        one
        for key in keys
        for one in known.virtuals_of(read, key)
        if one.namespace in {key.namespace, scope.namespace}
        and visibility.is_exported(one.export_to, owner=one.namespace, client=key.namespace)
    ]


def _hosts(virtual: policies.VirtualService) -> Iterator[str]:
    for route in virtual.http:
        yield from (one.host for one in route.destinations)
        yield from (one.destination.host for one in route.mirrors)
    for passed in virtual.tcp:
        yield from (one.host for one in passed.destinations)


# --- what comes out of tunnels


def _ports(known: facts.Facts) -> Callable[[reader.Reader, Seen, Service], Sliced]:
    def sliced(read: reader.Reader, key: Seen, service: Service) -> Sliced:
        scope, _ = key
        settings = read.value(known.model.settings)
        virtuals = _virtuals(read, known, scope, service)
        near = {service.key.namespace, scope.namespace}
        held = authorization.at_waypoint(
            [
                policy
                for namespace in sorted(near)
                for policy in facts.authorizations_for(
                    read, known, namespace=namespace, root=settings.root_namespace
                )
            ],
            gateway=(scope.namespace, scope.gateway),
            service=waypoint_uses.origin_of(service),
            settings=settings,
        )
        believed = tokens.at_waypoint(
            tokens.near(read, known, sorted(near)),
            gateway=(scope.namespace, scope.gateway),
            service=waypoint_uses.origin_of(service),
        )
        for port in outbound.ports_of(service):
            name = names.at_waypoint(service.hostname, port=port.number)
            yield view.keyed(scope, view.waypoints.Door(name))
            has_requests = not facts.is_tcp_like(port.protocol)
            shares = _shares(read, known, scope, service, port=port, virtuals=virtuals)
            yield view.keyed(
                scope,
                view.waypoints.ServicePort(
                    name,
                    port.number,
                    port.protocol,
                    name if has_requests else "",
                    shares,
                    held,
                    settings.access_log_path,
                    believed,
                ),
            )
            if has_requests:
                routes = _routes(read, known, scope, service, port=port, virtuals=virtuals)
                yield view.keyed(scope, routes)

    return sliced


def _place(scope: view.WaypointScope, port: ServicePort) -> routing.Place:
    return routing.Place(routing.MESH, scope.namespace, scope.cluster, scope.network, port.number)


def _shares(
    read: reader.Reader,
    known: facts.Facts,
    scope: view.WaypointScope,
    service: Service,
    *,
    port: ServicePort,
    virtuals: list[policies.VirtualService],
) -> tuple[tuple[str, int], ...]:
    resolve = outbound_slices.resolver(read, known, client=scope.namespace, port=port.number)
    split = routing.split_of(virtuals, place=_place(scope, port), resolve=resolve)
    own = ((names.outbound(service.hostname, port=port.number), 1),)
    return tuple((one.cluster_name, one.weight) for one in split) or own


def _routes(
    read: reader.Reader,
    known: facts.Facts,
    scope: view.WaypointScope,
    service: Service,
    *,
    port: ServicePort,
    virtuals: list[policies.VirtualService],
) -> view.RouteSlice:
    key_of = outbound_slices.keys_for(read, known, client=scope.namespace, port=port.number)
    place = _place(scope, port)
    said = routing.together(virtuals, place=place, owner=service.key.namespace)
    if not said:
        routes = routing.plain(
            service.hostname,
            port=port.number,
            cluster_name=names.outbound(service.hostname, port=port.number),
            key=key_of(policies.Destination(service.hostname, port.number)),
        )
    else:
        resolve = outbound_slices.resolver(read, known, client=scope.namespace, port=port.number)
        routes = tuple(
            route
            for virtual in said
            for route in routing.routes_of(virtual, place=place, resolve=resolve, key_of=key_of)
        )
    name = names.at_waypoint(service.hostname, port=port.number)
    host = view.VirtualHost(f"{service.hostname}:{port.number}", ("*",), routes)
    return view.RouteSlice(
        name, (host,), fallback_cluster="", fallback_status=NOT_FOUND, names_caller=True
    )


# --- ways onward


def _clusters(known: facts.Facts) -> Callable[[reader.Reader, Seen, None], Sliced]:
    def sliced(read: reader.Reader, key: Seen, _: None) -> Sliced:
        scope, named = key
        service = read.get(known.model.services, named)
        if service is None:
            return
        rule = outbound_slices.rule_for(read, known, service, client=scope.namespace)
        for cluster in outbound.clusters_of(
            service,
            rule=rule,
            accounts=known.accounts_of(read, named),
            settings=read.value(known.model.settings),
        ):
            yield view.keyed(scope, dataclasses.replace(cluster, begins_tunnels=True))
        yield from waypoint_ways.onward(read, known, scope, service)

    return sliced


def _endpoints(known: facts.Facts) -> Callable[[reader.Reader, Seen, None], Sliced]:
    def sliced(read: reader.Reader, key: Seen, _: None) -> Sliced:
        scope, named = key
        service = read.get(known.model.services, named)
        if service is None:
            return
        sharing = read.get(known.model.for_nodes.sharing, named) or NOBODY
        near = {
            port_name: tuple(
                one
                for one in bunches_
                if one.like.network in {"", scope.network}
                and (
                    service.entry is not None
                    or sharing.reaches(scope.cluster, owner=one.like.cluster)
                )
            )
            for port_name, bunches_ in known.bunches_of(read, named).items()
        }
        ends = {
            endpoint.address: str(_identity(read, known, endpoint))
            for bunches_ in near.values()
            for bunch in bunches_
            for endpoint in bunch.unpacked()
            if endpoint.accepts_tunnels
        }
        weight = sum(one.weight for one in waypoint_ways.beyond(read, known, scope, service))
        for slice_ in assignments.outbound(
            service,
            bunches.Bunches(near),
            rule=outbound_slices.rule_for(read, known, service, client=scope.namespace),
            horizon=view.HorizonScope(scope.cluster, scope.network),
            settings=read.value(known.model.settings),
        ):
            told = _tunnelled(slice_, ends)
            if weight:
                told = waypoint_ways.with_others(told, service, weight=weight)
            yield view.keyed(scope, told)

    return sliced


def _identity(read: reader.Reader, known: facts.Facts, endpoint: Endpoint) -> SpiffeId:
    own = read.get(known.model.trust.domains, endpoint.cluster)
    domain = own or read.value(known.model.settings).trust_domain
    return SpiffeId(domain, endpoint.namespace, endpoint.service_account or "default")


def _tunnelled(slice_: view.EndpointsSlice, ends: Mapping[str, str]) -> view.EndpointsSlice:
    """Return endpoints with who stands at the end of the tunnels to them."""
    groups = tuple(
        view.LocalityGroup(
            group.locality,
            group.weight,
            tuple(
                dataclasses.replace(one, tunnel_end=ends.get(one.address, ""))
                for one in group.endpoints
            ),
            group.priority,
        )
        for group in slice_.groups
    )
    return dataclasses.replace(slice_, groups=groups)


# --- tunnels


def _tunnels(
    known: facts.Facts, by_scope: Served, pods: waypoint_pods.Nodes
) -> Callable[[reader.Reader, view.WaypointScope, None], Sliced]:
    def sliced(read: reader.Reader, scope: view.WaypointScope, _: None) -> Sliced:
        settings = read.value(known.model.settings)
        domains = authorization.domains_of(settings)
        log = settings.access_log_path
        hosts = dict[str, view.tunnels.TunnelHost]()
        for (_scope, key), service in sorted(read.lookup(by_scope, scope).items(), key=_in_order):
            for asked, name in _asked(read, known, scope, key, service):
                # Two that ask alike would make Envoy refuse all.
                hosts.setdefault(asked, view.tunnels.TunnelHost(asked, name))
        for _pod, workload in sorted(read.lookup(pods.by_scope, scope).items(), key=_by_pod):
            for asked, name in waypoint_pods.asked(workload):
                hosts.setdefault(asked, view.tunnels.TunnelHost(asked, name))
        routes = names.tunnel_routes(HBONE_PORT)
        told = tuple(hosts[asked] for asked in sorted(hosts))
        yield view.keyed(scope, view.tunnels.TunnelRoutes(routes, told))
        by_domain = settings.lists_domains
        end = view.tunnels.GatewayTunnels(
            HBONE_PORT, routes, domains, log, notes_callers=True, by_domain=by_domain
        )
        yield view.keyed(scope, end)
        baggage = waypoint_ways.baggage_of(scope)
        leads_out = bool(waypoint_ways.gateways_of(read, known, scope))
        for to_gateways in (False, True) if leads_out else (False,):
            start = view.waypoints.TunnelStart(log, baggage, to_gateways)
            yield view.keyed(scope, start)
            ends = view.waypoints.TunnelCluster(domains, by_domain, to_gateways)
            yield view.keyed(scope, ends)
        yield view.keyed(scope, outbound.black_hole(settings))

    return sliced


def _asked(
    read: reader.Reader,
    known: facts.Facts,
    scope: view.WaypointScope,
    key: ServiceKey,
    service: Service,
) -> Iterator[tuple[str, str]]:
    """Yield what may be asked for to reach each port of a service, and the way's name."""
    sharing = read.get(known.model.for_nodes.sharing, key) or NOBODY
    addresses = [
        one.address
        for one in known.model.for_nodes.addresses_of(read, service)
        if one.network in {"", scope.network}
        and (service.entry is not None or sharing.reaches(scope.cluster, owner=one.cluster))
    ]
    if service.derived is not None:
        addresses += addressing.addresses_of(
            read, known, service, cluster=scope.cluster, naming=view.Naming.ALLOCATED
        )
    for port in service.ports:
        if port.protocol is Protocol.UDP:
            continue
        name = names.at_waypoint(service.hostname, port=port.number)
        for host in (str(service.hostname), *addresses):
            yield f"[{host}]:{port.number}" if ":" in host else f"{host}:{port.number}", name


def _by_pod(item: tuple[waypoint_pods.Seen, Workload]) -> WorkloadKey:
    return item[0][1]


def _in_order(item: tuple[Seen, Service]) -> ServiceKey:
    return item[0][1]
