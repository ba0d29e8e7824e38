"""What waypoints must have for calls to pods' own addresses: a listener inside for each pod.

What is spoken there nobody has declared, so it is found out; policies that name the waypoint hold.

Source: spec sections 7.4 and 7.6.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from isthmus.engine import collections, graph, reader
from isthmus.mesh.identities import SpiffeId
from isthmus.mesh.services import Protocol, ServiceKey
from isthmus.mesh.workloads import Workload, WorkloadKey
from isthmus.registry import model
from isthmus.views import authorization, facts, names, routing, tokens, view

Slices = collections.Collection[view.SliceKey, view.Slice]
Seen = tuple[view.WaypointScope, WorkloadKey]
Places = collections.Collection[view.WaypointScope, None]
Sliced = Iterator[tuple[view.SliceKey, view.Slice]]
NOT_FOUND = 404


@dataclass(frozen=True, slots=True)
class Nodes:
    """What this module declares.

    Attributes:
        by_scope: Pods that want each waypoint.
    """

    slices: Slices
    by_scope: collections.Index[view.WaypointScope, Seen, Workload]


def declare(graph_: graph.Graph, known: facts.Facts, places: Places, *, pods: model.Pods) -> Nodes:
    """Declare the slices for pods; without waypoints nothing is computed."""
    served = graph_.derive(
        "views/pods of waypoints",
        known.model.workloads,
        _served(known, pods, places),
        while_any=places,
    )
    return Nodes(
        graph_.derive("views/pods at waypoints", served, _sliced(known)),
        graph_.index_by_key("views/pods of waypoints by scope", served, lambda key: (key[0],)),
    )


def _served(
    known: facts.Facts, pods: model.Pods, places: Places
) -> Callable[[reader.Reader, WorkloadKey, Workload], Iterator[tuple[Seen, Workload]]]:
    def seen(
        read: reader.Reader, key: WorkloadKey, workload: Workload
    ) -> Iterator[tuple[Seen, Workload]]:
        scopes = [one for one in read.items(places) if one.cluster == key.cluster]
        traits = read.get(pods.traits, key) if scopes else None
        if traits is None or traits.uses_host_network:
            return
        waypoint = known.model.for_nodes.waypoints.before(
            read, traits.waypoint, (key.cluster, key.namespace), is_for_services=False
        )
        for scope in scopes:
            if waypoint == ServiceKey(scope.namespace, scope.gateway):
                yield (scope, key), workload

    return seen


def _sliced(known: facts.Facts) -> Callable[[reader.Reader, Seen, Workload], Sliced]:
    def sliced(read: reader.Reader, key: Seen, workload: Workload) -> Sliced:
        scope, _ = key
        settings = read.value(known.model.settings)
        held = authorization.at_waypoint(
            facts.authorizations_for(
                read, known, namespace=scope.namespace, root=settings.root_namespace
            ),
            gateway=(scope.namespace, scope.gateway),
            service=None,
            settings=settings,
        )
        believed = tokens.at_waypoint(
            tokens.near(read, known, (scope.namespace,)),
            gateway=(scope.namespace, scope.gateway),
            service=None,
        )
        end = _identity(read, known, workload) if workload.accepts_tunnels else ""
        for address in workload.addresses:
            name, cluster = names.pod_at_waypoint(address), names.pod(address)
            yield view.keyed(scope, view.waypoints.Door(name))
            yield view.keyed(scope, view.waypoints.PodCluster(cluster, end))
            yield view.keyed(
                scope,
                view.waypoints.ServicePort(
                    name,
                    0,
                    Protocol.AUTO,
                    name,
                    ((cluster, 1),),
                    held,
                    settings.access_log_path,
                    believed,
                ),
            )
            yield view.keyed(scope, _routes(name, cluster))

    return sliced


def _identity(read: reader.Reader, known: facts.Facts, workload: Workload) -> str:
    own = read.get(known.model.trust.domains, workload.key.cluster)
    domain = own or read.value(known.model.settings).trust_domain
    return str(SpiffeId(domain, workload.key.namespace, workload.service_account or "default"))


def _routes(name: str, cluster: str) -> view.RouteSlice:
    host = view.VirtualHost(name, ("*",), routing.plain(name, port=0, cluster_name=cluster))
    return view.RouteSlice(
        name, (host,), fallback_cluster="", fallback_status=NOT_FOUND, names_caller=True
    )


def asked(workload: Workload) -> Iterator[tuple[str, str]]:
    """Yield what may be asked for to reach a pod, and the way's name."""
    for address in workload.addresses:
        host = f"[{address}]" if ":" in address else address
        yield f"{host}:*", names.pod_at_waypoint(address)
