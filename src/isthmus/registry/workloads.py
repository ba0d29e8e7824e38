"""Pods as the mesh sees them.

Source: spec sections 2.5, 3.1 and 7.6.
"""

import functools
import sys
from collections.abc import Iterable
from typing import Final

from isthmus.engine import collections, graph, reader
from isthmus.fleet import sources
from isthmus.kube import objects
from isthmus.mesh.workloads import Kind, Workload, WorkloadKey
from isthmus.registry import addresses, topology

TLS_MODE_LABEL: Final = "security.istio.io/tlsMode"
TEMPLATE_HASH_LABEL: Final = "pod-template-hash"
REDIRECTION_ANNOTATION: Final = "ambient.istio.io/redirection"
TUNNEL_LABEL: Final = "networking.istio.io/tunnel"
ENDED: Final = frozenset({"Succeeded", "Failed"})


def declare(
    graph_: graph.Graph, sources_: sources.Sources, *, places: topology.Nodes
) -> collections.Collection[WorkloadKey, Workload]:
    """Declare the workloads of all clusters in `graph_`."""

    def workload(
        read: reader.Reader, key: sources.ObjectKey, kept: objects.Pod
    ) -> Iterable[tuple[WorkloadKey, Workload]]:
        pod = kept.whole()
        if pod.status.phase not in ENDED:
            found = workload_of(read, key, pod, places=places)
            yield found.key, found

    return graph_.derive("workloads", sources_.pods, workload)


def workload_of(
    read: reader.Reader, key: sources.ObjectKey, pod: objects.Pod, *, places: topology.Nodes
) -> Workload:
    """Return what the mesh knows of one pod."""
    labels = pod.metadata.labels or {}
    own = _addresses(pod)
    node = pod.spec.node_name
    locality = topology.locality_by_label(labels)
    if locality is None:
        locality = places.place_of(read, cluster=key.cluster, node=node)
    network = places.network_of(
        read, cluster=key.cluster, labels=labels, address=own[0] if own else ""
    )
    kind = Kind(
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
    return Workload(
        key,
        _same(kind),
        address=own[0] if own else "",
        more=own[1:],
        node=node,
        locality=locality,
    )


@functools.lru_cache(maxsize=4096)
def _same(kind: Kind) -> Kind:
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
    owners = pod.metadata.owner_references
    owner = next((owner for owner in owners if owner.controller), None)
    if owner is None:
        return pod.metadata.name
    template_hash = pod.metadata.label(TEMPLATE_HASH_LABEL)
    if owner.kind == "ReplicaSet" and template_hash:
        return sys.intern(owner.name.removesuffix(f"-{template_hash}"))
    return owner.name


def _addresses(pod: objects.Pod) -> tuple[str, ...]:
    """Return the addresses that are some: whoever writes a status may write anything."""
    listed = tuple(ip.ip for ip in pod.status.pod_ips if ip.ip) or (pod.status.pod_ip,)
    return tuple(text for text in listed if addresses.is_one(text))


def _container_ports(pod: objects.Pod) -> tuple[int, ...]:
    return _ports_of(pod.spec.containers)


@functools.lru_cache(maxsize=4096)
def _ports_of(containers: tuple[objects.Container, ...]) -> tuple[int, ...]:
    """Return the ports that containers declare; pods of one owner share them."""
    ports = (port for container in containers for port in container.ports)
    return tuple(sorted({port.container_port for port in ports if port.protocol == "TCP"}))
