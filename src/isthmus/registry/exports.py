"""What this cluster lets linked clusters use: its own services that say so, in sum.

Only pods that are ready and take tunnels count, and only in the cluster's own network, into which
its gateway leads. Who shares nothing tells nothing: a service without the label is never named.

Source: spec sections 7.3 and 7.7; security rule GW-1.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from isthmus.engine import collections, graph, reader
from isthmus.fleet import sources
from isthmus.kube import objects
from isthmus.mesh import peering
from isthmus.mesh.ambient import Scope
from isthmus.mesh.identities import Hostname, NetworkId, SpiffeId, TrustDomain
from isthmus.mesh.localities import Locality
from isthmus.mesh.services import (
    Protocol,
    Resolution,
    Service,
    ServiceKey,
    ServicePort,
    derived_host,
    key_of,
)
from isthmus.mesh.workloads import Endpoint, Health
from isthmus.registry import (
    ambient,
    distributions,
    endpoints,
    naming,
    scopes,
    services,
    settings,
    topology,
)

WAY_IN: Final = topology.NETWORK_LABEL
"""Whoever bears it leads into a network: shared, it would lead to itself."""

Exports = collections.Collection[ServiceKey, peering.Export]


@dataclass(frozen=True, slots=True)
class Known:
    """What it is made of, besides the Services themselves.

    Attributes:
        services: Merged from all clusters.
        scopes: How far each cluster's own Service reaches.
    """

    services: collections.Collection[ServiceKey, Service]
    scopes: scopes.Nodes
    shards: endpoints.Shards
    places: topology.Nodes
    settings: settings.Nodes
    nodes: ambient.Nodes


def declare(
    graph_: graph.Graph, sources_: sources.Sources, *, seat: settings.Seat, known: Known
) -> Exports:
    """Declare in `graph_` what linked clusters are told."""

    def exported(
        read: reader.Reader, key: sources.ObjectKey, scope: Scope
    ) -> Iterable[tuple[ServiceKey, peering.Export]]:
        is_told = scope.gives and key.cluster == seat.cluster
        found = read.get(sources_.services, key) if is_told else None
        if found is None or found.metadata.label(WAY_IN):
            return
        name = key_of(key.namespace, key.name)
        whole = read.get(known.services, name)
        is_alias = services.resolution_of(found) is Resolution.ALIAS
        if is_alias or whole is None or whole.is_cluster_local:
            return
        own = [
            one
            for shard in read.lookup(known.shards, name).values()
            for one in shard.endpoints
            if one.cluster == seat.cluster
        ]
        network = read.get(known.places.networks, seat.cluster) or NetworkId("")
        namespace = read.get(sources_.namespaces, sources.ObjectKey(key.cluster, "", key.namespace))
        yield (
            name,
            peering.Export(
                service=name,
                scope=scope,
                hosts=hosts_of(name, scope, domain=seat.domain),
                ports=ports_of(found),
                capacity=capacity_of(own, network=network),
                identities=identities_of(
                    (*own, *_waypoint_pods(read, known, name, seat=seat)),
                    domain=read.value(known.settings.trust_domain),
                ),
                distribution=distributions.said_of(found, namespace),
            ),
        )

    return graph_.derive("exports", known.scopes.of_services, exported)


def _waypoint_pods(
    read: reader.Reader, known: Known, name: ServiceKey, *, seat: settings.Seat
) -> list[Endpoint]:
    """Return the pods of a service's waypoint, at which tunnels for it end."""
    waypoint = known.nodes.waypoints.before_service(read, name, cluster=seat.cluster)
    shards = read.lookup(known.shards, waypoint) if waypoint is not None else {}
    return [
        one for shard in shards.values() for one in shard.endpoints if one.cluster == seat.cluster
    ]


def hosts_of(service: ServiceKey, scope: Scope, *, domain: str) -> tuple[Hostname, ...]:
    """Return the hosts that a shared service stands for where it is, sorted."""
    own = naming.service_host(service.name, service.namespace, domain)
    return tuple(
        sorted(
            host
            for host, is_meant in ((derived_host(service), scope.derives), (own, scope.takes_over))
            if is_meant
        )
    )


def ports_of(service: objects.Service) -> tuple[ServicePort, ...]:
    """Return the ports of a Service that tunnels can lead to."""
    ports = (
        services.port_of(one) for one in service.spec.ports if 0 < one.port <= services.MOST_PORT
    )
    return tuple(one for one in ports if one.protocol is not Protocol.UDP)


def capacity_of(own: Iterable[Endpoint], *, network: NetworkId) -> tuple[peering.Capacity, ...]:
    """Return how many ready pods that take tunnels are in each place of a network."""
    usable = {
        (one.address, one.locality)
        for one in own
        if one.health is Health.HEALTHY and one.accepts_tunnels and one.network == network
    }
    counted = Counter(Locality(place.region, place.zone) for _, place in usable)
    return tuple(peering.Capacity(network, place, pods) for place, pods in sorted(counted.items()))


def identities_of(own: Iterable[Endpoint], *, domain: TrustDomain) -> tuple[str, ...]:
    """Return who may answer, ready or not."""
    found = {(one.namespace, one.service_account) for one in own if one.service_account}
    return tuple(sorted(str(SpiffeId(domain, *one)) for one in found))
