"""What comes through a gateway in two tunnels: which services, and which pods stand behind them.

A gateway of a network ends the outer tunnel only. What may be asked for is the name and port of a
service that some cluster shares; where that leads is decided here, never by the caller: to the pods
of the gateway's own network, in clusters whose own Service says that it is shared, and that accept
tunnels. There the inner tunnel ends, so the gateway reads nothing of what it passes on.

Source: spec sections 7.3, 7.4 and 7.7.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec

from isthmus.engine import collections, graph, reader
from isthmus.mesh.ambient import Sharing
from isthmus.mesh.authorization import AuthorizationPolicy
from isthmus.mesh.networks import HBONE_PORT
from isthmus.mesh.services import Protocol, Service, ServiceKey
from isthmus.mesh.settings import MeshSettings
from isthmus.mesh.workloads import Endpoint, Health
from isthmus.views import (
    authorization,
    facts,
    gateway,
    locality,
    names,
    view,
    visibility,
    waypoint_uses,
)

Slices = collections.Collection[view.SliceKey, view.Slice]
Plans = collections.Collection[view.GatewayScope, gateway.Plan]
Seen = tuple[view.GatewayScope, ServiceKey]
Sliced = Iterator[tuple[view.SliceKey, view.Slice]]
NOBODY: Final = Sharing(frozenset())


def declare(graph_: graph.Graph, known: facts.Facts, plans: Plans) -> tuple[Slices, ...]:
    """Declare the slices of gateways that end tunnels; without these nothing is computed."""

    def seen(
        read: reader.Reader, key: ServiceKey, service: Service
    ) -> Iterator[tuple[Seen, Service]]:
        ending = [scope for scope, plan in read.items(plans).items() if _tunnel_ports(plan)]
        sharing = _given_here(read, known, service) if ending else None
        for scope in ending:
            if sharing is not None and is_exposed(service, sharing, namespace=scope.namespace):
                yield (scope, key), service

    exposed = graph_.derive("views/services behind tunnels", known.model.services, seen)
    by_scope = graph_.index_by_key("views/services by tunnels", exposed, lambda key: (key[0],))
    return (
        graph_.derive("views/clusters behind tunnels", exposed, _clusters(known)),
        graph_.derive("views/endpoints behind tunnels", exposed, _endpoints(known)),
        graph_.derive("views/tunnels", plans, _listeners(known, by_scope)),
    )


def _given_here(read: reader.Reader, known: facts.Facts, service: Service) -> Sharing | None:
    """Return who shares a service, but for linked clusters: what is theirs is not behind us."""
    sharing = read.get(known.model.for_nodes.sharing, service.key)
    origin = service.key if service.derived is None else service.derived.origin
    told = read.lookup(known.model.peers.imports_by_service, origin)
    if sharing is None or not told:
        return sharing
    return dataclasses.replace(sharing, givers=sharing.givers - {key.peer for key in told})


def is_exposed(service: Service, sharing: Sharing, *, namespace: str) -> bool:
    """Say whether clients of other networks may ask gateways in `namespace` for a service."""
    return (
        bool(sharing.givers)
        and not service.is_cluster_local
        and not service.is_external
        and service.is_told_of
        # A star would stand for any name.
        and "*" not in service.hostname
        # A gateway would lead to itself.
        and not dict(service.labels).get(gateway.NETWORK_LABEL)
        and visibility.is_visible(service, client=namespace)
    )


def behind(
    endpoints: Iterable[Endpoint], sharing: Sharing, *, scope: view.GatewayScope, port_name: str
) -> tuple[view.Group, ...]:
    """Return the pods to which the inner tunnels to one port of a service go."""
    found = {
        one.address: one
        for one in endpoints
        if one.port_name == port_name
        and one.cluster in sharing.givers
        and one.network == scope.network
        and one.accepts_tunnels
        and one.health is Health.HEALTHY
    }
    return locality.grouped(
        locality.Part(view.LbEndpoint(address, HBONE_PORT, weight=1), {(0, one.locality): weight})
        for address, one in sorted(found.items())
        for weight in (min(one.weight or 1, locality.MOST),)
    )


def _tunnel_ports(plan: gateway.Plan) -> list[int]:
    return [port.port for port in plan.ports if port.ends_tunnels]


def _passed(service: Service) -> Iterator[tuple[int, str, str]]:
    """Yield the ports of a service that go through tunnels, their names and clusters."""
    for port in service.ports:
        if port.protocol is not Protocol.UDP:
            name = names.behind_tunnels(service.hostname, port=port.number)
            yield port.number, port.name, name


def _clusters(known: facts.Facts) -> Callable[[reader.Reader, Seen, Service], Sliced]:
    def sliced(read: reader.Reader, key: Seen, service: Service) -> Sliced:
        settings = read.value(known.model.settings)
        for _, _, name in _passed(service):
            cluster = view.ClusterSlice(
                name,
                view.Discovery.EDS,
                connect_timeout_s=settings.connect_timeout_s,
                service=(service.hostname, service.key.name, service.key.namespace),
            )
            yield view.keyed(key[0], cluster)

    return sliced


def _endpoints(known: facts.Facts) -> Callable[[reader.Reader, Seen, Service], Sliced]:
    def sliced(read: reader.Reader, key: Seen, service: Service) -> Sliced:
        scope, named = key
        sharing = read.get(known.model.for_nodes.sharing, named) or NOBODY
        endpoints = read.get(known.model.endpoints, named) or ()
        waypoints = _waypoints(read, known, service, sharing)
        passed = {one.cluster for one in waypoints}
        direct = [one for one in endpoints if one.cluster not in passed]
        for _, port_name, name in _passed(service):
            ends = [
                msgspec.structs.replace(
                    one, like=msgspec.structs.replace(one.like, port_name=port_name)
                )
                for one in waypoints
            ]
            groups = behind((*direct, *ends), sharing, scope=scope, port_name=port_name)
            yield view.keyed(scope, view.EndpointsSlice(name, groups))

    return sliced


def _waypoints(
    read: reader.Reader, known: facts.Facts, service: Service, sharing: Sharing
) -> list[Endpoint]:
    """Return the pods of a service's waypoints, in each cluster that has one before it.

    There the inner tunnel ends, as if it had begun in the same network.
    """
    found = []
    for cluster in sorted(sharing.givers):
        waypoint = waypoint_uses.of_service(read, known, service, cluster=cluster)
        if waypoint is not None:
            ends = read.get(known.model.endpoints, waypoint) or ()
            found += [one for one in ends if one.cluster == cluster and one.port == HBONE_PORT]
    return found


def _listeners(
    known: facts.Facts, by_scope: collections.Index[view.GatewayScope, Seen, Service]
) -> Callable[[reader.Reader, view.GatewayScope, gateway.Plan], Sliced]:
    def sliced(read: reader.Reader, scope: view.GatewayScope, plan: gateway.Plan) -> Sliced:
        ports = _tunnel_ports(plan)
        if not ports:
            return
        settings = read.value(known.model.settings)
        hosts = dict[str, view.tunnels.TunnelHost]()
        for _, service in sorted(read.lookup(by_scope, scope).items(), key=_in_order):
            for number, _, cluster in _passed(service):
                asked = f"{service.hostname}:{number}"
                # Two that ask alike would make Envoy refuse all.
                hosts.setdefault(asked, view.tunnels.TunnelHost(asked, cluster))
        told = tuple(hosts[asked] for asked in sorted(hosts))
        domains = authorization.domains_of(settings)
        for port in ports:
            name = names.tunnel_routes(port)
            yield view.keyed(scope, view.tunnels.TunnelRoutes(name, told))
            yield view.keyed(
                scope,
                view.tunnels.GatewayTunnels(
                    port,
                    name,
                    domains,
                    settings.access_log_path,
                    by_domain=settings.lists_domains,
                    policies=_judges(read, known, scope, settings),
                    most_each=settings.most_tunnels,
                ),
            )

    return sliced


def _judges(
    read: reader.Reader, known: facts.Facts, scope: view.GatewayScope, settings: MeshSettings
) -> tuple[AuthorizationPolicy, ...]:
    """Return the policies that say of this very gateway who may ask for which tunnel.

    What holds for a whole namespace or mesh is about workloads: they judge the inner tunnel.
    """
    found = facts.authorizations_for(
        read, known, namespace=scope.namespace, root=settings.root_namespace
    )
    return authorization.policies_of(
        [policy for policy in found if policy.selector or policy.targets],
        namespace=scope.namespace,
        labels=dict(scope.labels),
        settings=settings,
    )


def _in_order(item: tuple[Seen, Service]) -> ServiceKey:
    return item[0][1]
