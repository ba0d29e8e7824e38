"""From the mesh model to the slices of each scope: what depends on what.

Only wiring: what a slice says is decided in the other modules. Each collection is keyed so that a
change touches what it must. An endpoint's change computes the endpoints of its service again, once
for each place from which proxies look; clusters, listeners and routes only follow when
identities, ports, addresses or rules have changed.
"""

import dataclasses
import functools
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from isthmus.base import errors
from isthmus.engine import collections, graph, reader
from isthmus.mesh.proxies import Proxy
from isthmus.mesh.services import derived_key
from isthmus.mesh.workloads import WorkloadKey
from isthmus.registry import model
from isthmus.views import (
    ambient,
    credentials,
    entry_statuses,
    facts,
    findings,
    gateway_slices,
    horizon_slices,
    inbound,
    name_slices,
    outbound_clusters,
    outbound_slices,
    sidecar,
    spreading,
    tokens,
    tunnel_slices,
    unread,
    view,
    waypoint_slices,
)

Slices = collections.Collection[view.SliceKey, view.Slice]

SHARED: Final = 16384
"""So many scopes are remembered, and as many lists of them."""


@dataclass(frozen=True, slots=True)
class Views:
    """What proxies may know.

    Attributes:
        scopes: How many connected proxies see each scope; filled from outside.
        proxies: Connected proxies by an id of the outside's choice; filled from outside.
        proxy_scopes: The scopes that each of them sees; of equal names in several scopes
            the later scope's slice counts.
        slices: What proxies of a scope are told.
        facts: What they were made from, for whoever explains them.
        credentials: The Secrets that each gateway needs.
        written: What is to be written down of addresses of our making.
    """

    scopes: collections.Source[view.Scope, int]
    proxies: collections.Source[str, Proxy]
    proxy_scopes: collections.Collection[str, tuple[view.Scope, ...]]
    slices: Slices
    findings: collections.Collection[Hashable, errors.Finding]
    facts: facts.Facts
    credentials: credentials.Wanted
    written: entry_statuses.Nodes


def build(graph_: graph.Graph, mesh: model.Model) -> Views:
    """Declare the views of `mesh` in `graph_`."""
    known = facts.declare(graph_, mesh)
    preferring = horizon_slices.declare_preferring(graph_, known)
    labels = horizon_slices.declare_labels(graph_, preferring)
    scopes: collections.Source[view.Scope, int] = graph_.source("views/scopes")
    proxies: collections.Source[str, Proxy] = graph_.source("views/proxies")
    behind = spreading.declare(graph_, known, scopes)
    plans = gateway_slices.declare_plans(graph_, known, scopes)
    seen = graph_.derive(
        "views/scopes of proxies",
        proxies,
        _scopes_of(
            known,
            near=labels,
            routed=known.labels_asked_for,
            audiences=outbound_clusters.declare_audiences(graph_, known),
        ),
    )
    asking = graph_.derive("views/who asks for pods", scopes, _asking_for_pods)
    pods = mesh.for_nodes.declare_pods(graph_, asking)
    nodes = ambient.declare(graph_, known, scopes, pods=pods)
    slices = graph_.join(
        "views/slices",
        *outbound_slices.declare(graph_, known, scopes),
        *outbound_clusters.declare(graph_, known, scopes, behind=behind),
        *horizon_slices.declare(graph_, known, scopes, preferring=preferring),
        *gateway_slices.declare(graph_, known, plans, behind=behind),
        *tunnel_slices.declare(graph_, known, plans),
        *waypoint_slices.declare(graph_, known, scopes, pods=pods),
        name_slices.declare(graph_, known, scopes),
        *nodes.slices,
        graph_.derive("views/inbound", scopes, _inbound(known)),
        graph_.derive("views/trust", scopes, _trusted(known)),
        graph_.derive("views/tunnels to workloads", scopes, _to_workloads(known)),
    )
    return Views(
        scopes,
        proxies,
        seen,
        slices,
        graph_.join(
            "views/all findings",
            findings.declare(graph_, known),
            graph_.derive("views/unread requests", scopes, unread.findings(known)),
            nodes.findings,
        ),
        known,
        credentials.declare(graph_, seen, plans),
        entry_statuses.declare(graph_, known, ranges=mesh.ranges),
    )


def told(
    graph_: graph.Graph, views: Views, scopes: Iterable[view.Scope]
) -> Mapping[view.SliceKey, view.Slice]:
    """Return what whoever sees some scopes is told, the later ones last.

    For people: all slices are gone through. To keep them by scope would cost more for each of them.
    """
    found = dict[view.Scope, dict[view.SliceKey, view.Slice]]((scope, {}) for scope in scopes)
    for key, slice_ in graph_.items(views.slices).items():
        if (own := found.get(key.scope)) is not None:
            own[key] = slice_
    return {key: slice_ for own in found.values() for key, slice_ in own.items()}


def _asking_for_pods(
    _: reader.Reader, scope: view.Scope, __: int
) -> Iterator[tuple[Hashable, object]]:
    if isinstance(scope, view.NodesScope | view.WaypointScope):
        yield scope, None


def _scopes_of(
    known: facts.Facts,
    *,
    near: collections.Single[frozenset[str]],
    routed: collections.Single[frozenset[tuple[str, str]]],
    audiences: collections.Single[outbound_clusters.Audiences],
) -> Callable[[reader.Reader, str, Proxy], Iterator[tuple[str, tuple[view.Scope, ...]]]]:
    def found(
        read: reader.Reader, key: str, proxy: Proxy
    ) -> Iterator[tuple[str, tuple[view.Scope, ...]]]:
        pod = WorkloadKey(proxy.cluster, proxy.namespace, proxy.pod)
        workload = read.get(known.model.workloads, pod) if proxy.pod else None
        addresses = workload.addresses if workload is not None else (proxy.address,)
        served = {
            name: one
            for address in addresses
            for name, one in known.served_at(read, proxy.cluster, address).items()
        }
        scopes = sidecar.scopes_of(
            proxy,
            workload=workload,
            served=served,
            by=sidecar.Distinctions(
                read.value(near),
                read.value(routed),
                known.labels_selected(read, proxy.namespace),
                read.value(audiences),
            ),
        )
        yield key, _same_scopes(tuple(map(_same_scope, scopes)))

    return found


@functools.lru_cache(maxsize=SHARED)
def _same_scope(scope: view.Scope) -> view.Scope:
    """Return a scope as the object that it is for the other proxies that see it."""
    return scope


@functools.lru_cache(maxsize=SHARED)
def _same_scopes(scopes: tuple[view.Scope, ...]) -> tuple[view.Scope, ...]:
    """Return scopes as the object that they are for the other proxies that see just these."""
    return scopes


def _trusted(
    known: facts.Facts,
) -> Callable[[reader.Reader, view.Scope, int], Iterator[tuple[view.SliceKey, view.Slice]]]:
    def sliced(
        read: reader.Reader, scope: view.Scope, _: int
    ) -> Iterator[tuple[view.SliceKey, view.Slice]]:
        if not isinstance(scope, view.TrustScope):
            return
        bundles = read.value(known.model.trust.trusted).bundles
        if bundles:
            yield view.keyed(scope, view.TrustSlice(bundles))

    return sliced


def _inbound(
    known: facts.Facts,
) -> Callable[[reader.Reader, view.Scope, int], Iterator[tuple[view.SliceKey, view.Slice]]]:
    def sliced(
        read: reader.Reader, scope: view.Scope, _: int
    ) -> Iterator[tuple[view.SliceKey, view.Slice]]:
        if not isinstance(scope, view.InboundScope):
            return
        settings = read.value(known.model.settings)
        policies = facts.policies_for(
            read,
            known.policies_by_namespace,
            namespace=scope.namespace,
            root=settings.root_namespace,
        )
        usual = inbound.listener_of(
            scope,
            policies=policies,
            authorizations=facts.authorizations_for(
                read, known, namespace=scope.namespace, root=settings.root_namespace
            ),
            settings=settings,
        )
        near = tokens.near(read, known, {scope.namespace, settings.root_namespace})
        believed = tokens.of_workload(near, labels=dict(scope.labels))
        usual = dataclasses.replace(usual, tokens=believed)
        yield view.keyed(scope, usual)
        for slice_ in inbound.tunnels_of(scope, usual):
            yield view.keyed(scope, slice_)
        for cluster in inbound.clusters_of(scope, settings=settings):
            yield view.keyed(scope, cluster)

    return sliced


def _to_workloads(
    known: facts.Facts,
) -> Callable[[reader.Reader, view.Scope, int], Iterator[tuple[view.SliceKey, view.Slice]]]:
    def sliced(
        read: reader.Reader, scope: view.Scope, _: int
    ) -> Iterator[tuple[view.SliceKey, view.Slice]]:
        if not isinstance(scope, view.TunnelScope):
            return
        served = [
            (service, one)
            for address in scope.addresses
            for key, one in sorted(known.served_at(read, scope.cluster, address).items())
            for named in (key.service, derived_key(key.service))
            if (service := read.get(known.model.services, named)) is not None
        ]
        yield view.keyed(scope, inbound.routes_of(scope, served))

    return sliced
