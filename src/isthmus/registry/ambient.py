"""What pods and services say of themselves for node proxies.

Source: spec sections 7.1 and 7.3.
"""

import functools
import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from isthmus.engine import collections, graph, reader
from isthmus.fleet import sources
from isthmus.kube import objects
from isthmus.mesh import peering
from isthmus.mesh.ambient import LooseEndpoint, OwnerKind, PlacedAddress, Scope, Sharing, Traits
from isthmus.mesh.identities import ClusterId, TrustDomain
from isthmus.mesh.services import Service, ServiceKey
from isthmus.mesh.workloads import Workload, WorkloadKey
from isthmus.registry import memberships, settings, topology, waypoints, workloads

NAME_LABELS: Final = ("service.istio.io/canonical-name", "app.kubernetes.io/name", "app")
REVISION_LABELS: Final = (
    "service.istio.io/canonical-revision",
    "app.kubernetes.io/version",
    "version",
)
CRONJOB: Final = re.compile(r"(.+)-\d{8,10}")
"""How a CronJob names its Jobs."""

Asking = collections.Collection[Hashable, object]
"""Who asks for what is kept of pods: if nobody does, it is not kept."""


@dataclass(frozen=True, slots=True)
class Pods:
    """What is kept of each pod for node proxies and waypoints.

    Attributes:
        traits: Of pods that may have traffic.
        memberships: Of pods in services, by pod; also of those that are not ready.
        loose_endpoints: Of services, as far as they are no pods; by uid.
    """

    traits: collections.Collection[WorkloadKey, Traits]
    memberships: memberships.ByPod
    loose_endpoints: collections.Collection[str, LooseEndpoint]


@dataclass(frozen=True, slots=True)
class Nodes:
    """What this module declares.

    Attributes:
        addresses_of: Returns those of a service in all clusters, sorted; kept by whoever asks.
        sharing: Where there is a Service of a name, and who shares it.
        judging: Whether anybody asks which pods a node has; filled from outside.
        by_node: Pods that may have traffic, by cluster and node, if somebody does.
        declare_pods: Declares what is kept of each pod while a collection is not empty.
    """

    addresses_of: Callable[[reader.Reader, Service], tuple[PlacedAddress, ...]]
    sharing: collections.Collection[ServiceKey, Sharing]
    judging: collections.Source[str, bool]
    by_node: collections.Index[tuple[ClusterId, str], WorkloadKey, Workload]
    waypoints: waypoints.Nodes
    declare_pods: Callable[[graph.Graph, Asking], Pods]


@dataclass(frozen=True, slots=True)
class Known:
    """What it is made of, besides the objects themselves."""

    services: collections.Collection[ServiceKey, Service]
    pods: collections.Collection[WorkloadKey, Workload]
    scopes: collections.Index[ServiceKey, sources.ObjectKey, Scope]
    imports: collections.Index[ServiceKey, peering.ImportKey, peering.Import]
    places: topology.Nodes
    settings: settings.Nodes


def declare(graph_: graph.Graph, sources_: sources.Sources, known: Known) -> Nodes:
    """Declare what node proxies must know in `graph_`."""
    places = known.places

    def placed(read: reader.Reader, service: Service) -> tuple[PlacedAddress, ...]:
        found = [
            PlacedAddress(
                places.network_of(read, cluster=cluster, labels={}, address=vip), vip, cluster
            )
            for cluster, vips in service.vips
            for vip in vips
        ]
        return tuple(sorted(found))

    judging: collections.Source[str, bool] = graph_.source("ambient.judging")
    return Nodes(
        addresses_of=placed,
        sharing=_sharing(graph_, known),
        judging=judging,
        by_node=graph_.index(
            "ambient.by_node",
            known.pods,
            lambda key, pod: ((key.cluster, pod.node),) if pod.node else (),
            while_any=judging,
        ),
        waypoints=waypoints.declare(graph_, sources_),
        declare_pods=lambda graph_, asking: _pods(graph_, sources_, known, asking),
    )


def _pods(graph_: graph.Graph, sources_: sources.Sources, known: Known, asking: Asking) -> Pods:
    def traits(
        read: reader.Reader, key: sources.ObjectKey, kept: objects.AnyPod
    ) -> Iterable[tuple[WorkloadKey, Traits]]:
        pod = kept.whole()
        if pod.status.phase in workloads.ENDED:
            return
        found = traits_of(key, pod, trust_domain=known.settings.domain_of(read, key.cluster))
        yield found.key, found

    members = memberships.declare(graph_, sources_, places=known.places, asking=asking)
    return Pods(
        traits=graph_.derive("ambient.traits", sources_.pods, traits, while_any=asking),
        memberships=members.by_pod,
        loose_endpoints=members.loose,
    )


def traits_of(key: sources.ObjectKey, pod: objects.Pod, *, trust_domain: TrustDomain) -> Traits:
    """Return what a pod says of itself for its node's proxy."""
    labels = pod.metadata.labels or {}
    owner, name = _owner(pod)
    return Traits(
        key=key,
        is_tunnel_end=workloads.ends_tunnels(pod),
        owner=owner,
        workload=name,
        canonical_name=_first(labels, NAME_LABELS) or name,
        canonical_revision=_first(labels, REVISION_LABELS) or "latest",
        trust_domain=trust_domain,
        uses_host_network=pod.spec.host_network,
        waypoint=waypoints.use_of(labels, namespace=key.namespace),
    )


def _owner(pod: objects.Pod) -> tuple[OwnerKind, str]:
    name = workloads.owner_name(pod)
    owner = next((one for one in pod.metadata.owner_references if one.controller), None)
    if owner is None:
        return OwnerKind.POD, name
    if owner.kind == "ReplicaSet" and name != owner.name:
        return OwnerKind.DEPLOYMENT, name
    if owner.kind == "Job":
        scheduled = CRONJOB.fullmatch(name)
        return (OwnerKind.CRONJOB, scheduled[1]) if scheduled else (OwnerKind.JOB, name)
    return OwnerKind.POD, name


def _first(labels: Mapping[str, str], names: Iterable[str]) -> str:
    return next((labels[name] for name in names if labels.get(name)), "")


@functools.lru_cache(maxsize=256)
def _same(clusters: frozenset[ClusterId]) -> frozenset[ClusterId]:
    """Return one object for equal sets: those of most services are."""
    return clusters


def _sharing(graph_: graph.Graph, known: Known) -> collections.Collection[ServiceKey, Sharing]:
    def sharing(
        read: reader.Reader, key: ServiceKey, service: Service
    ) -> Iterable[tuple[ServiceKey, Sharing]]:
        if service.derived is not None:
            exporters = service.derived.exporters
            yield key, Sharing(exporters, exporters, exporters)
            return
        same = {one.cluster: scope for one, scope in read.lookup(known.scopes, key).items()}
        told = read.lookup(known.imports, key)
        same |= {one.peer: said.export.scope for one, said in told.items()}
        yield (
            key,
            Sharing(
                _same(frozenset(same)),
                _same(frozenset(one for one, scope in same.items() if scope.takes_over)),
                _same(frozenset(one for one, scope in same.items() if scope.gives)),
            ),
        )

    return graph_.derive("ambient.sharing", known.services, sharing)
