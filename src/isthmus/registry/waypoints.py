"""Waypoints: which there are, and who wants to be reached through one.

A waypoint is known by the Service that its Gateway's controller makes. One that is wanted and not
there is no waypoint: what wants it is reached directly, as with Istio.

Source: spec section 7.6.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from isthmus.engine import collections, graph, reader
from isthmus.fleet import sources
from isthmus.kube import objects
from isthmus.mesh import gateway_classes
from isthmus.mesh.ambient import Waypoint, WaypointUse
from isthmus.mesh.identities import ClusterId
from isthmus.mesh.services import ServiceKey

USE_LABEL: Final = "istio.io/use-waypoint"
NAMESPACE_LABEL: Final = "istio.io/use-waypoint-namespace"
FOR_LABEL: Final = "istio.io/waypoint-for"
NONE: Final = "none"

Placed = tuple[ClusterId, ServiceKey]
"""A cluster, and the name of a Service there."""


@dataclass(frozen=True, slots=True)
class Nodes:
    """What this module declares.

    Attributes:
        waypoints: By cluster and name.
        of_services: What Services want, by cluster and name.
        of_namespaces: What namespaces want, by cluster and name.
    """

    waypoints: collections.Collection[Placed, Waypoint]
    of_services: collections.Collection[Placed, WaypointUse]
    of_namespaces: collections.Collection[tuple[ClusterId, str], WaypointUse]

    def before(
        self,
        read: reader.Reader,
        use: WaypointUse | None,
        place: tuple[ClusterId, str],
        *,
        is_for_services: bool,
    ) -> ServiceKey | None:
        """Return the waypoint of what wants `use` in a namespace of a cluster, if it is there."""
        use = use or read.get(self.of_namespaces, place)
        if use is None or use.waypoint is None:
            return None
        there = read.get(self.waypoints, (place[0], use.waypoint))
        if there is None:
            return None
        serves = there.for_services if is_for_services else there.for_workloads
        return use.waypoint if serves else None

    def before_service(
        self, read: reader.Reader, key: ServiceKey, *, cluster: ClusterId
    ) -> ServiceKey | None:
        """Return the waypoint of the Service of a name in a cluster; None where there is none."""
        use = read.get(self.of_services, (cluster, key))
        return self.before(read, use, (cluster, key.namespace), is_for_services=True)


def declare(graph_: graph.Graph, sources_: sources.Sources) -> Nodes:
    """Declare the waypoints of all clusters in `graph_`."""
    return Nodes(
        graph_.derive("waypoints", sources_.services, _waypoint),
        graph_.derive("waypoints.of_services", sources_.services, _of_service),
        graph_.derive("waypoints.of_namespaces", sources_.namespaces, _of_namespace),
    )


def use_of(labels: Mapping[str, str], *, namespace: str) -> WaypointUse | None:
    """Return what labels say of a waypoint; None where they say nothing."""
    if is_waypoint(labels):
        return WaypointUse(None)
    name = labels.get(USE_LABEL, "")
    if not name:
        return None
    if name == NONE:
        return WaypointUse(None)
    return WaypointUse(ServiceKey(labels.get(NAMESPACE_LABEL) or namespace, name))


def is_waypoint(labels: Mapping[str, str]) -> bool:
    """Say whether something belongs to a waypoint, which has none before it."""
    return labels.get(gateway_classes.MANAGED_LABEL) == gateway_classes.WAYPOINT.managed


def _waypoint(
    _: reader.Reader, key: sources.ObjectKey, service: objects.Service
) -> Iterable[tuple[Placed, Waypoint]]:
    labels = service.metadata.labels or {}
    if is_waypoint(labels):
        serves = labels.get(FOR_LABEL) or "service"
        yield (
            (key.cluster, ServiceKey(key.namespace, key.name)),
            Waypoint(
                for_services=serves in {"service", "all"},
                for_workloads=serves in {"workload", "all"},
            ),
        )


def _of_service(
    _: reader.Reader, key: sources.ObjectKey, service: objects.Service
) -> Iterable[tuple[Placed, WaypointUse]]:
    use = use_of(service.metadata.labels or {}, namespace=key.namespace)
    if use is not None:
        yield (key.cluster, ServiceKey(key.namespace, key.name)), use


def _of_namespace(
    _: reader.Reader, key: sources.ObjectKey, namespace: objects.Namespace
) -> Iterable[tuple[tuple[ClusterId, str], WaypointUse]]:
    use = use_of(namespace.metadata.labels or {}, namespace=key.name)
    if use is not None:
        yield (key.cluster, key.name), use
