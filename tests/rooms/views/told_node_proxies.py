"""Clusters with a node proxy each, and what those are told."""

from isthmus.mesh.proxies import ProxyKind
from isthmus.resources import consistency, snapshot
from isthmus.testing import builders
from isthmus.testing.shapes import Shape

ZTUNNEL = Shape(proxy=ProxyKind.ZTUNNEL, account="ztunnel")
GLOBAL = Shape(proxy=None, is_captured=True, is_global=True)


def two_clusters(*networks):
    mesh = builders.Mesh()
    return mesh, *(
        mesh.cluster(name, network=network)
        for name, network in zip(("east", "west"), networks, strict=False)
    )


def node_proxy(cluster):
    for pod in cluster.mesh.pods:
        if (pod.cluster, pod.name) == (cluster.name, "ztunnel-1"):
            return pod
    return cluster.pod("ztunnel-1", namespace="istio-system", shape=ZTUNNEL)


def told(cluster, kind=snapshot.ADDRESSES):
    """Return what the node proxies of a cluster are told, by name."""
    found = cluster.mesh.snapshot_of(node_proxy(cluster)).of(kind)
    return {name: consistency.decoded(one) for name, one in found.items()}


def workload(cluster, uid):
    return told(cluster)[uid].workload


def service(cluster, name="reviews"):
    return told(cluster)[f"default/{name}.default.svc.cluster.local"].service
