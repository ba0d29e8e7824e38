"""Pods as the mesh sees them.

Source: spec sections 2.5, 3.1 and 7.6.
"""

import dataclasses
import functools
import sys
from collections.abc import Mapping
from typing import Final, NamedTuple

from isthmus.base import same
from isthmus.engine import collections, graph, reader
from isthmus.fleet import sources
from isthmus.kube import objects, packed
from isthmus.mesh.identities import ClusterId, NetworkId
from isthmus.mesh.localities import Locality
from isthmus.mesh.workloads import Kind, Spot, Workload, WorkloadKey, spot
from isthmus.registry import addresses, topology

TLS_MODE_LABEL: Final = "security.istio.io/tlsMode"
TEMPLATE_HASH_LABEL: Final = "pod-template-hash"
REDIRECTION_ANNOTATION: Final = "ambient.istio.io/redirection"
TUNNEL_LABEL: Final = "networking.istio.io/tunnel"
ENDED: Final = frozenset({"Succeeded", "Failed"})
NO_LABELS: Final[Mapping[str, str]] = {}


def declare(
    graph_: graph.Graph, sources_: sources.Sources, *, places: topology.Nodes
) -> collections.Collection[WorkloadKey, Workload]:
    """Declare the workloads of all clusters in `graph_`: each is made when somebody looks at it."""

    def surroundings(read: reader.Reader, at: tuple[ClusterId, str]) -> Surroundings:
        cluster, node = at
        place = places.place_of(read, cluster=cluster, node=node)
        return Surroundings(spot(node, place), places.around(read, cluster))

    return graph_.sight(
        "workloads",
        sources_.pods,
        workload_of,
        alike=lambda key, pod: (key.cluster, pod.node_name),
        given=surroundings,
        find=sources.finding_pods(sources_),
    )


class Surroundings(NamedTuple):
    """What pods of one node have around them, and need not say themselves."""

    spot: Spot
    networks: topology.Around


def workload_of(
    key: sources.ObjectKey, kept: objects.AnyPod, around: Surroundings
) -> Workload | None:
    """Return what the mesh knows of one pod; nothing of one that has ended."""
    pod = kept if isinstance(kept, packed.Pod) else packed.pod(kept.whole())
    shared, networks = same.Same(packed.shared_in(pod)), around.networks
    common = _common(shared, networks.network)
    if common is None:
        return None
    at = common.listed
    if at is None:
        at = pod.address if addresses.is_one(pod.address) else ""
    kind = common.kind
    if networks.ranges:
        kind = _kind(shared, networks.network_of(at if isinstance(at, str) else at[0]))
    if not kind.name:
        kind = dataclasses.replace(kind, name=pod.name)
    locality = common.locality
    return Workload(key, kind, at, around.spot if locality is None else spot(pod.node, locality))


class Common(NamedTuple):
    """What pods that share all but name, address and node have in common.

    Attributes:
        kind: Of those in a network.
        listed: Their addresses, if they list them besides having one.
        locality: Where they are, if they say so themselves.
    """

    kind: Kind
    listed: str | tuple[str, ...] | None
    locality: Locality | None


@functools.lru_cache(maxsize=packed.KEPT)
def _common(of: same.Same[objects.Pod], network: NetworkId) -> Common | None:
    """Return what is made once of what pods share; nothing of those that have ended."""
    if of.it.status.phase in ENDED:
        return None
    labels = of.it.metadata.labels or NO_LABELS
    return Common(_kind(of, network), _listed(of.it.status), topology.locality_by_label(labels))


@functools.lru_cache(maxsize=packed.KEPT)
def _kind(of: same.Same[objects.Pod], network: NetworkId) -> Kind:
    """Return the kind of pods that share this, and are in a network unless they name another."""
    pod = of.it
    labels = pod.metadata.labels or NO_LABELS
    return _same(
        Kind(
            service_account=pod.spec.service_account_name or "default",
            own=topology.own_labels(labels),
            network=topology.network_by_label(labels) or network,
            has_proxy=labels.get(TLS_MODE_LABEL) == "istio",
            name=owner_name(pod),
            is_terminating=pod.metadata.deletion_timestamp is not None,
            container_ports=_container_ports(pod),
            accepts_tunnels=accepts_tunnels(pod),
            awaits_proxy=pod.metadata.annotation(REDIRECTION_ANNOTATION) == "pending",
        )
    )


@functools.lru_cache(maxsize=packed.KEPT)
def _same(kind: Kind) -> Kind:
    """Return one object for pods that differ in what their workloads do not say."""
    return kind


def accepts_tunnels(pod: objects.Pod) -> bool:
    """Say whether HBONE is accepted for a pod.

    It is when its node's agent has said that it captures the pod's traffic, not when somebody
    wishes it: what is sent into a tunnel that nobody ends would be lost.
    """
    is_captured = pod.metadata.annotation(REDIRECTION_ANNOTATION) == "enabled"
    return (is_captured or ends_tunnels(pod)) and not pod.spec.host_network


def ends_tunnels(pod: objects.Pod) -> bool:
    """Say whether a pod ends HBONE itself."""
    return pod.metadata.label(TUNNEL_LABEL) == "http"


def owner_name(pod: objects.Pod) -> str:
    """Return the name of what runs a pod: for a ReplicaSet of a Deployment, the Deployment's."""
    for owner in pod.metadata.owner_references:
        if owner.controller:
            template_hash = pod.metadata.label(TEMPLATE_HASH_LABEL)
            if owner.kind == "ReplicaSet" and template_hash:
                return sys.intern(owner.name.removesuffix(f"-{template_hash}"))
            return owner.name
    return pod.metadata.name


def _listed(status: objects.PodStatus) -> str | tuple[str, ...] | None:
    """Return the addresses that are listed and are some, the only one by itself.

    Whoever writes a status may write anything.
    """
    listed = [ip.ip for ip in status.pod_ips if ip.ip]
    found = tuple([text for text in listed if addresses.is_one(text)])
    return (found[0] if len(found) == 1 else found or "") if listed else None


def _container_ports(pod: objects.Pod) -> tuple[int, ...]:
    return _ports_of(pod.spec.containers)


@functools.lru_cache(maxsize=4096)
def _ports_of(containers: tuple[objects.Container, ...]) -> tuple[int, ...]:
    """Return the ports that containers declare; pods of one owner share them."""
    ports = (port for container in containers for port in container.ports)
    return tuple(sorted({port.container_port for port in ports if port.protocol == "TCP"}))
