"""How requests are spread over pods that stand behind another network's gateways.

A gateway passes bytes on that it cannot read: it balances connections, and only the client balances
requests. A client that keeps its connections would therefore stay with the pods that these once
led to. So where gateways stand among a service's endpoints, clients use each connection for a
number of requests, fewer where many pods are behind, and then open another, for which the gateway
takes the next pod; what is on its way is finished first. Of HTTP/2 only a few streams share a
connection.

Endpoints of unequal weight are taken in turn there: a choice by the fewest requests would compare
a gateway, behind which many pods work, with a single pod.

A cluster of Envoy changes only when the first pod behind gateways appears, the last one goes, or
few become many: not with each pod, and not while a few are replaced one by one.
What a DestinationRule says counts more.

Source: docs/decisions/0010-connections-through-gateways-take-turns.md.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from isthmus.engine import collections, graph, reader
from isthmus.mesh.services import Protocol, Service, ServiceKey
from isthmus.mesh.traffic import LoadBalancer, TrafficPolicy
from isthmus.views import bunches, facts, splithorizon, view

Labels = tuple[tuple[str, str], ...]
Part = tuple[int, Labels]
"""A service's port, and the labels of one of its subsets."""

Behind = Mapping[Part, int]
"""The parts that have pods behind gateways: for how many requests a connection is used."""

Standing = collections.Collection[ServiceKey, Mapping[view.HorizonScope, Behind]]
"""What each place sees of a service: together, so that all places that look at it read the same."""

NOTHING: Final[Behind] = {}
NOWHERE: Final[Mapping[view.HorizonScope, Behind]] = {}
FEW_PODS: Final = 5
"""So many are few; four that are replaced one by one are never more."""

REQUESTS_TO_FEW: Final = 50
REQUESTS_TO_MANY: Final = 20
STREAMS: Final = 4
"""So many requests share a connection of HTTP/2 at a time."""


def declare(
    graph_: graph.Graph, known: facts.Facts, scopes: collections.Collection[view.Scope, int]
) -> Standing:
    """Declare what stands behind gateways, seen from each place where proxies are."""

    def place(
        _: reader.Reader, scope: view.Scope, __: int
    ) -> Iterator[tuple[view.HorizonScope, None]]:
        if isinstance(scope, view.HorizonScope) and scope == _widest(scope):
            yield scope, None

    horizons = graph_.derive("views/places of clients", scopes, place)

    def counted(
        read: reader.Reader, key: ServiceKey, endpoints: bunches.Bunches
    ) -> Iterator[tuple[ServiceKey, Mapping[view.HorizonScope, Behind]]]:
        table = read.value(known.gateways)
        service = read.get(known.model.services, key)
        if service is None or not table.gateways:
            return
        subsets = {
            subset.labels for rule in known.rules_of(read, key) for subset in rule.subsets
        } | {()}
        # How endpoints are told makes no difference to what stands where.
        alike = {msgspec.structs.replace(one, is_apart=False): None for one in read.items(horizons)}
        seen = {
            horizon: behind_gateways(service, endpoints, subsets=sorted(subsets), horizon=horizon)
            for horizon in alike
        }
        if any(seen.values()):
            yield key, {horizon: found for horizon, found in seen.items() if found}

    return graph_.derive("views/pods behind gateways", known.in_bunches, counted)


def seen_from(
    read: reader.Reader, standing: Standing, key: ServiceKey, horizon: view.HorizonScope
) -> Behind:
    """Return what stands behind gateways of a service, seen from a place."""
    return (read.get(standing, key) or NOWHERE).get(horizon, NOTHING)


def _widest(scope: view.HorizonScope) -> view.HorizonScope:
    """Return the place without what makes endpoints near: gateways stand before far and near."""
    return view.HorizonScope(
        scope.cluster,
        scope.network,
        scope.requested_networks,
        begins_tunnels=scope.begins_tunnels,
        is_apart=scope.is_apart,
    )


def behind_gateways(
    service: Service,
    endpoints: bunches.Bunches,
    *,
    subsets: Sequence[Labels],
    horizon: view.HorizonScope,
) -> Behind:
    """Say which parts of a service a client reaches through gateways."""
    found = dict[Part, int]()
    for port in service.ports:
        hidden = [
            one
            for one in endpoints.get(port.name, ())
            if one.speaks_mtls
            and splithorizon.stands_behind(one, horizon)
            and splithorizon.is_in_view(
                one.like, horizon=horizon, is_cluster_local=service.is_cluster_local
            )
        ]
        for labels in subsets if hidden else ():
            count = sum(_count(one, frozenset(labels)) for one in hidden)
            if count:
                few = count <= FEW_PODS
                found[port.number, labels] = REQUESTS_TO_FEW if few else REQUESTS_TO_MANY
    return found


def _count(bunch: bunches.Bunch, labels: frozenset[tuple[str, str]]) -> int:
    if not labels:
        return len(bunch)
    return sum(labels.issubset(one.labels) for one in bunch.unpacked())


def over_gateways(
    cluster: view.ClusterSlice, policy: TrafficPolicy, *, turns: int
) -> view.ClusterSlice:
    """Return a client's cluster of which a part has its `turns`, as far as no policy says else."""
    if not turns or cluster.discovery is not view.Discovery.EDS:
        return cluster
    pool = cluster.pool
    if _has_requests(cluster.protocol):
        requests, streams = pool.max_requests_per_connection, pool.max_streams
        pool = dataclasses.replace(
            pool,
            max_requests_per_connection=turns if requests is None else requests,
            max_streams=STREAMS if streams is None else streams,
        )
    return dataclasses.replace(
        cluster,
        balancer=_said(policy) or LoadBalancer.ROUND_ROBIN,
        pool=pool,
        leads_through_gateways=True,
    )


def marked(cluster: view.ClusterSlice, *, marks_sockets: bool) -> view.ClusterSlice:
    """Return a client's cluster for proxies whose connections are known by their mark, or not."""
    if not (marks_sockets and cluster.leads_through_gateways):
        return cluster
    return dataclasses.replace(cluster, marks_sockets=True)


def within_network(
    cluster: view.ClusterSlice, policy: TrafficPolicy, *, spoken: Protocol
) -> view.ClusterSlice:
    """Return a gateway's cluster, for the connections that it passes on.

    Clients give up connections for requests after a while, so that taking turns makes pods even.
    Others last: the pod with the fewest of them is next.
    """
    if _said(policy) is not None or not _has_requests(spoken):
        return cluster
    return dataclasses.replace(cluster, balancer=LoadBalancer.ROUND_ROBIN)


def _said(policy: TrafficPolicy) -> LoadBalancer | None:
    return None if policy.balancing is None else policy.balancing.balancer


def _has_requests(protocol: Protocol) -> bool:
    return protocol.is_http or protocol is Protocol.AUTO
