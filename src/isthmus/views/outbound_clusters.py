"""Clusters of sidecars: those that namespaces have in common, and those that one has of its own.

Nearly all services look the same from all namespaces and clusters of a network, which share their
clusters of Envoy. A namespace has of its own what only few may know or what depends on the cluster,
and what a rule that holds there alone says otherwise; of equal names these count. What is common stays as it is, so that a proxy whose
namespace loses its rule always finds something.
"""

import dataclasses
import functools
import operator
from collections import Counter
from collections.abc import Iterator
from typing import Final

from isthmus.engine import collections, graph, reader
from isthmus.mesh import policies
from isthmus.mesh.services import Resolution, Service, ServiceKey
from isthmus.mesh.settings import MeshSettings
from isthmus.views import (
    assignments,
    facts,
    horizon_slices,
    outbound,
    outbound_slices,
    rules,
    spreading,
    view,
    visibility,
)

Slices = collections.Collection[view.SliceKey, view.Slice]
Seeing = view.CommonScope | view.OutboundScope
Seen = tuple[Seeing, ServiceKey]
Sliced = Iterator[tuple[view.SliceKey, view.Slice]]
Rules = tuple[policies.DestinationRule, ...]
Audiences = tuple[tuple[str, ...], ...]

SHARED: Final = 4096
"""So many clusters are remembered."""

MANY: Final = 32
"""Services that are exported to the same few namespaces: from so many on these share a view."""


def declare_audiences(graph_: graph.Graph, known: facts.Facts) -> collections.Single[Audiences]:
    """Declare the lists of namespaces to which many services are exported."""

    def listed(
        _: reader.Reader, key: ServiceKey, service: Service
    ) -> Iterator[tuple[ServiceKey, tuple[str, ...]]]:
        said = service.export_to
        if len(said) > 1 and not _is_for_all(service) and visibility.OWN_NAMESPACE not in said:
            yield key, said

    lists = graph_.derive("views/services shown to some", known.model.services, listed)

    def often(read: reader.Reader) -> Audiences:
        counted = Counter(read.items(lists).values())
        return tuple(sorted(said for said, count in counted.items() if count >= MANY))

    return graph_.single("views/audiences", often)


def declare(
    graph_: graph.Graph,
    known: facts.Facts,
    scopes: collections.Collection[view.Scope, int],
    *,
    behind: spreading.Standing,
) -> tuple[Slices, ...]:
    """Declare the clusters of services, for sidecars."""
    services = known.model.services
    common = graph_.derive("views/common scopes", scopes, _common_only)
    own = graph_.derive("views/scopes of namespaces", scopes, outbound_slices.outbound_only)
    shared = graph_.product("views/services in common", services, common, _is_common)
    alone = graph_.product("views/services of some namespaces", services, own, _is_own)
    ruled = graph_.product("views/services that rules may concern", known.rules, own, _may_concern)
    made = _Made(known, behind)
    return (
        graph_.derive("views/clusters in common", shared, made.sliced),
        graph_.derive("views/clusters of some namespaces", alone, made.sliced),
        graph_.derive("views/clusters by rules of a namespace", ruled, made.ruled),
    )


def _common_only(
    _: reader.Reader, scope: view.Scope, __: int
) -> Iterator[tuple[view.CommonScope, None]]:
    if isinstance(scope, view.CommonScope):
        yield scope, None


def _is_for_all(service: Service) -> bool:
    return not service.export_to or visibility.EVERYWHERE in service.export_to


def _is_common(scope: Seeing, service: Service) -> bool:
    if service.is_cluster_local:
        return False
    return _is_for_all(service) or service.export_to in scope.audiences


def _is_own(scope: view.OutboundScope, service: Service) -> bool:
    is_seen = visibility.is_visible(service, client=scope.namespace)
    return is_seen and not _is_common(scope, service)


def _may_concern(scope: view.OutboundScope, found: Rules) -> bool:
    """Say whether clients in a namespace may have another rule than all others have."""
    return any(rule.namespace == scope.namespace or not rules.is_for_all(rule) for rule in found)


class _Made:
    """Makes clusters, and remembers which each service had last, and of what they were made.

    A place that comes goes through all services, and what it finds of them is, as a rule, what the
    places before it have found: the very same objects.
    """

    def __init__(self, known: facts.Facts, behind: spreading.Standing) -> None:
        self._known = known
        self._behind = behind
        self._last: dict[ServiceKey, tuple[tuple[object, ...], tuple[view.ClusterSlice, ...]]] = {}

    def ruled(self, read: reader.Reader, key: Seen, _: Rules) -> Sliced:
        """Yield the clusters of a service, if those of a scope have another rule than others."""
        scope, name = key
        service = read.get(self._known.model.services, name)
        if service is None or not _is_common(scope, service):
            return
        usual = outbound_slices.rule_for(read, self._known, service, client=None)
        if self._rule(read, service, scope) != usual:
            yield from self.sliced(read, key, service)

    def sliced(self, read: reader.Reader, key: Seen, service: Service) -> Sliced:
        """Yield the clusters of a service for a scope."""
        scope, name = key
        known, rule = self._known, self._rule(read, service, scope)
        for cluster in self._clusters(
            service,
            rule=rule,
            accounts=known.accounts_of(read, name),
            settings=read.value(known.model.settings),
            speaks_mtls=_speaks(read, known, service, rule),
            behind=spreading.seen_from(read, self._behind, name, horizon_slices.horizon_of(scope)),
        ):
            told = completed(read, known, cluster, service, scope=scope)
            marked = spreading.marked(told, marks_sockets=scope.marks_sockets)
            yield view.keyed(scope, marked if marked is cluster else _same(marked))

    def _rule(
        self, read: reader.Reader, service: Service, scope: Seeing
    ) -> policies.DestinationRule | None:
        return outbound_slices.rule_for(
            read, self._known, service, client=scope.namespace, labels=scope.labels
        )

    def _clusters(
        self,
        service: Service,
        *,
        rule: policies.DestinationRule | None,
        accounts: tuple[str, ...],
        settings: MeshSettings,
        speaks_mtls: bool | None,
        behind: spreading.Behind,
    ) -> tuple[view.ClusterSlice, ...]:
        """Return the clusters of a service."""
        parts = (service, rule, accounts, settings, speaks_mtls, behind)
        last = self._last.get(service.key)
        if last is not None and all(map(operator.is_, last[0], parts)):
            return last[1]
        found = tuple(
            _same(cluster)
            for cluster in outbound.clusters_of(
                service,
                rule=rule,
                accounts=accounts,
                settings=settings,
                speaks_mtls=speaks_mtls,
                behind=behind,
            )
        )
        if len(self._last) >= SHARED:
            del self._last[next(iter(self._last))]
        self._last[service.key] = parts, found
        return found


@functools.lru_cache(maxsize=SHARED)
def _same(cluster: view.ClusterSlice) -> view.ClusterSlice:
    """Return a cluster as the object that it is for others too: most namespaces see the same."""
    return cluster


def completed(
    read: reader.Reader,
    known: facts.Facts,
    cluster: view.ClusterSlice,
    service: Service,
    *,
    scope: Seeing | view.GatewayScope,
) -> view.ClusterSlice:
    """Return a cluster with what depends on where its clients are.

    That is whether they may begin tunnels to its endpoints, and the endpoints themselves, if
    proxies look those up by name.
    """
    if service.resolution not in {Resolution.DNS, Resolution.ONE_BY_DNS}:
        is_balanced = cluster.discovery is view.Discovery.EDS
        if not (is_balanced and scope.begins_tunnels):
            return cluster
        return dataclasses.replace(cluster, begins_tunnels=True)
    seen = assignments.outbound(
        service,
        known.bunches_of(read, service.key),
        rule=outbound_slices.rule_for(
            read, known, service, client=scope.namespace, labels=scope.labels
        ),
        horizon=horizon_slices.horizon_of(scope),
        settings=read.value(known.model.settings),
    )
    groups = next((one.groups for one in seen if one.cluster_name == cluster.name), ())
    is_one = sum(len(group.endpoints) for group in groups) == 1
    discovery = cluster.discovery
    if discovery is view.Discovery.LOGICAL_DNS and not is_one:
        # Envoy takes no cluster of that kind that has no endpoint.
        discovery = view.Discovery.STRICT_DNS
    return dataclasses.replace(cluster, looked_up=groups, discovery=discovery)


def _speaks(
    read: reader.Reader,
    known: facts.Facts,
    service: Service,
    rule: policies.DestinationRule | None,
) -> bool | None:
    """Say whether all endpoints of a service speak mutual TLS; None where proxies balance."""
    settings = read.value(known.model.settings)
    if not outbound.may_be_left_to_client(service, rule, settings=settings):
        return None
    speaks = read.get(known.speaking, service.key)
    return speaks or False
