"""Which pods answer for which services, and which addresses that are no pods'.

One EndpointSlice is read at a time; of its members only those that differ from before go on to
whoever asks by pod. Members that are not ready, or leave, stay: a node's proxy must know the
ports of a pod as long as there is one.

Source: spec sections 7.1 and 7.3.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from isthmus.engine import collections, graph, reader
from isthmus.fleet import sources
from isthmus.kube import objects
from isthmus.mesh.ambient import LooseEndpoint, Membership
from isthmus.mesh.services import ServiceKey
from isthmus.mesh.workloads import WorkloadKey
from isthmus.registry import addresses, endpoints, topology

K = TypeVar("K")
V = TypeVar("V")
MemberKey = tuple[sources.ObjectKey, str]
"""A slice and the name of a pod in it."""

ByPod = collections.Index[WorkloadKey, MemberKey, Membership]


@dataclass(frozen=True, slots=True)
class Nodes:
    """What this module declares."""

    by_pod: ByPod
    loose: collections.Collection[str, LooseEndpoint]


def declare(
    graph_: graph.Graph,
    sources_: sources.Sources,
    *,
    places: topology.Nodes,
    asking: collections.Collection[K, V],
) -> Nodes:
    """Declare the memberships of all clusters in `graph_`, as long as there are any `asking`."""

    def loose(
        read: reader.Reader, key: sources.ObjectKey, slice_: objects.EndpointSlice
    ) -> Iterable[tuple[str, LooseEndpoint]]:
        for member in _members(slice_):
            if _pod_of(member) or addresses.fault_of(member.addresses[0]):
                continue
            one = _loose(read, key, slice_, member, places)
            yield one.uid, one

    slices = sources_.endpoint_slices
    members = graph_.derive("memberships", slices, _memberships, while_any=asking)
    return Nodes(
        by_pod=graph_.index("memberships.by_pod", members, lambda _, one: (one.pod,)),
        loose=graph_.derive("loose_endpoints", slices, loose, while_any=asking),
    )


def _memberships(
    _: reader.Reader, key: sources.ObjectKey, slice_: objects.EndpointSlice
) -> Iterable[tuple[MemberKey, Membership]]:
    found = dict[str, Membership]()
    ports = _ports(slice_)
    for member in _members(slice_):
        name = _pod_of(member)
        if name:
            found[name] = Membership(
                _service(key, slice_),
                WorkloadKey(key.cluster, key.namespace, name),
                member.addresses,
                ports,
                _is_ready(member.conditions),
            )
    return [((key, name), one) for name, one in found.items()]


def _loose(
    read: reader.Reader,
    key: sources.ObjectKey,
    slice_: objects.EndpointSlice,
    member: objects.SliceEndpoint,
    places: topology.Nodes,
) -> LooseEndpoint:
    address = member.addresses[0]
    return LooseEndpoint(
        f"{key.cluster}/discovery.k8s.io/EndpointSlice/{key.namespace}/{key.name}/{address}",
        _service(key, slice_),
        key.cluster,
        address,
        places.network_of(read, cluster=key.cluster, labels={}, address=address),
        _ports(slice_),
        _is_ready(member.conditions),
        places.place_of(read, cluster=key.cluster, node=member.node_name),
        member.node_name,
    )


def _members(slice_: objects.EndpointSlice) -> Iterable[objects.SliceEndpoint]:
    if not slice_.metadata.label(endpoints.SERVICE_LABEL) or slice_.address_type == "FQDN":
        return ()
    return (member for member in slice_.endpoints or () if member.addresses)


def _service(key: sources.ObjectKey, slice_: objects.EndpointSlice) -> ServiceKey:
    return ServiceKey(key.namespace, slice_.metadata.label(endpoints.SERVICE_LABEL))


def _pod_of(member: objects.SliceEndpoint) -> str:
    reference = member.target_ref
    return reference.name if reference is not None and reference.kind == "Pod" else ""


def _ports(slice_: objects.EndpointSlice) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(set(endpoints.tcp_ports(slice_.ports or ()))))


def _is_ready(conditions: objects.EndpointConditions) -> bool:
    leaves = bool(conditions.terminating) and conditions.ready is not True
    return conditions.ready is not False and not leaves
