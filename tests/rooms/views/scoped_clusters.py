"""Clusters whose Services have scopes, and what a shared name leads to in each."""

import pathlib

from isthmus.mesh.proxies import ProxyKind
from isthmus.resources import consistency, snapshot
from isthmus.testing import builders
from isthmus.testing.shapes import Shape

OWN = "default/reviews.default.svc.cluster.local"
SHARED = "default/reviews.default.mesh.internal"
ABSENT, UNSAID = "no Service", "no scope"
NOTHING = "nothing"
EVERYWHERE = "local and remote"

# Scope here, scope there: what the shared name leads to, and what the Service's own name leads to.
SEED = [
    (UNSAID, UNSAID, NOTHING, "local"),
    (ABSENT, "global", "remote", NOTHING),
    (UNSAID, "global", "remote", "local"),
    ("global", "global", EVERYWHERE, "local"),
    ("global", ABSENT, "local", "local"),
    ("global", UNSAID, "local", "local"),
]
GLOBAL_ONLY = [
    (ABSENT, "global-only", "remote", "remote"),
    (UNSAID, "global-only", "remote", "local"),
    ("global", "global-only", EVERYWHERE, "local"),
    ("global-only", ABSENT, "local", "local"),
    ("global-only", UNSAID, "local", "local"),
    ("global-only", "global", EVERYWHERE, EVERYWHERE),
    ("global-only", "global-only", EVERYWHERE, EVERYWHERE),
]
PAGE = pathlib.Path(__file__).parents[3] / "docs/reference/scopes.md"
TABLE = [*SEED, *GLOBAL_ONLY]
ZTUNNEL = Shape(proxy=ProxyKind.ZTUNNEL, account="ztunnel")


def shaped(scope, **more):
    said = "" if scope in {ABSENT, UNSAID} else scope
    return Shape(proxy=None, is_captured=True, scope=said, **more)


def two_clusters(here, there, *, networks=("n1", "n2")):
    """Return two clusters whose Services `reviews` have these scopes."""
    mesh = builders.Mesh()
    east, west = (
        mesh.cluster(name, network=network)
        for name, network in zip(("east", "west"), networks, strict=True)
    )
    west.gateway(external="172.30.0.2", ports={"hbone": 15008})
    for number, (cluster, scope) in enumerate(((east, here), (west, there))):
        if scope != ABSENT:
            cluster.service("reviews", ready=[f"10.{number}.0.1"], shape=shaped(scope))
    return mesh, east, west


def node_proxy(cluster):
    for pod in cluster.mesh.pods:
        if (pod.cluster, pod.name) == (cluster.name, "ztunnel-1"):
            return pod
    return cluster.pod("ztunnel-1", namespace="istio-system", shape=ZTUNNEL)


def told(cluster):
    """Return what the node proxies of a cluster are told, by name."""
    found = cluster.mesh.snapshot_of(node_proxy(cluster)).of(snapshot.ADDRESSES)
    return {name: consistency.decoded(one) for name, one in found.items()}


def findings(mesh, code):
    """Return what is found wrong with objects in one way."""
    found = mesh.graph.items(mesh.model.findings).values()
    return [one for one in found if one.code == code]


def leads(found, host):
    """Say where a host leads to, by what the node proxies of `east` are told."""
    if host not in found:
        return NOTHING
    answering = [one.workload for one in found.values() if host in one.workload.services]
    places = sorted({"local" if one.cluster_id == "east" else "remote" for one in answering})
    return " and ".join(places)
