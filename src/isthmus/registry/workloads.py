"""Pods as the mesh sees them.

Source: spec sections 2.5, 3.1 and 7.6.
"""

import dataclasses
import functools
import sys
from collections.abc import Iterable, Mapping
from typing import Final

from isthmus.base import same
from isthmus.engine import collections, graph, reader
from isthmus.fleet import sources
from isthmus.kube import objects, packed
from isthmus.mesh.identities import NetworkId
from isthmus.mesh.workloads import Kind, Workload, WorkloadKey, spot
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
    """Declare the workloads of all clusters in `graph_`."""

    def workload(
        read: reader.Reader, key: sources.ObjectKey, kept: objects.AnyPod
    ) -> Iterable[tuple[WorkloadKey, Workload]]:
        pod = kept if isinstance(kept, packed.Pod) else packed.pod(kept.whole())
        if packed.shared_in(pod).status.phase not in ENDED:
            yield key, workload_of(read, key, pod, places=places)

    # Of the pods of one node all read the same: how that is placed, and their cluster's network.
    ways: graph.Ways[sources.ObjectKey, objects.AnyPod] = graph.Ways(
        alike=lambda key, pod: (key.cluster, pod.node_name)
    )
    return graph_.derive("workloads", sources_.pods, workload, ways=ways)


def workload_of(
    read: reader.Reader, key: sources.ObjectKey, pod: packed.Pod, *, places: topology.Nodes
) -> Workload:
    """Return what the mesh knows of one pod."""
    shared = packed.shared_in(pod)
    labels = shared.metadata.labels or NO_LABELS
    own = _addresses(pod.address, shared.status)
    locality = topology.locality_by_label(labels)
    if locality is None:
        locality = places.place_of(read, cluster=key.cluster, node=pod.node)
    network = places.network_of(
        read, cluster=key.cluster, labels=labels, address=own[0] if own else ""
    )
    kind = _kind(same.Same(shared), network)
    if not kind.name:
        kind = dataclasses.replace(kind, name=pod.name)
    return Workload(key, kind, own[0] if len(own) == 1 else own or "", spot(pod.node, locality))


@functools.lru_cache(maxsize=packed.KEPT)
def _kind(of: same.Same[objects.Pod], network: NetworkId) -> Kind:
    """Return the kind of all pods that share this: it is made once."""
    pod = of.it
    labels = pod.metadata.labels or NO_LABELS
    return _same(
        Kind(
            service_account=pod.spec.service_account_name or "default",
            own=topology.own_labels(labels),
            network=network,
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


def _addresses(first: str, status: objects.PodStatus) -> tuple[str, ...]:
    """Return the addresses that are some: whoever writes a status may write anything."""
    listed = [ip.ip for ip in status.pod_ips if ip.ip] or [first]
    return tuple([text for text in listed if addresses.is_one(text)])


def _container_ports(pod: objects.Pod) -> tuple[int, ...]:
    return _ports_of(pod.spec.containers)


@functools.lru_cache(maxsize=4096)
def _ports_of(containers: tuple[objects.Container, ...]) -> tuple[int, ...]:
    """Return the ports that containers declare; pods of one owner share them."""
    ports = (port for container in containers for port in container.ports)
    return tuple(sorted({port.container_port for port in ports if port.protocol == "TCP"}))
