"""A mesh of two clusters, learnt in an order that follows from a seed: what its proxies are told."""

import dataclasses
import json
import random
import sys

from isthmus.engine import collections
from isthmus.mesh.identities import ClusterId
from isthmus.mesh.proxies import Proxy, ProxyKind
from isthmus.runtime import assembly
from isthmus.testing import builders
from isthmus.testing.shapes import Shape

POLICY = {
    "host": "web",
    "trafficPolicy": {
        "outlierDetection": {"consecutive5xxErrors": 5},
        "loadBalancer": {"localityLbSetting": {"enabled": True}},
    },
    "subsets": [{"name": one, "labels": {"version": one}} for one in ("v1", "v2")],
}
ROUTES = {
    "hosts": ["web"],
    "http": [
        {"match": [{"headers": {"x-b": {"exact": "1"}, "x-a": {"exact": "2"}}}], "route": []},
        {"route": [{"destination": {"host": "web", "subset": "v1"}}]},
    ],
}
RULES = [
    {
        "from": [{"source": {"principals": ["b", "a"], "namespaces": ["y", "x"]}}],
        "to": [{"operation": {"methods": ["POST", "GET"], "paths": ["/b", "/a"]}}],
    }
]


def described():
    mesh = builders.Mesh()
    mesh.cluster("east", network="n1")
    mesh.cluster("west", network="n2")
    for number, cluster in enumerate(mesh.clusters.values()):
        for zone in ("a", "b"):
            cluster.node(f"node-{zone}", region=cluster.name, zone=zone)
        cluster.gateway(external=f"10.9.0.{number}")
        for name in ("web", "api", "plain"):
            for version in ("v1", "v2"):
                shape = Shape(node="node-a", labels={"version": version})
                near = [f"10.{number}.{len(name)}.{one}" for one in range(1, 5)]
                cluster.service(name, ready=near, shape=shape, ports={"http": 80, "tcp": 90})
        cluster.pod("caller", address=f"10.{number}.9.9", shape=Shape(node="node-a"))
    mesh.expose_services()
    mesh.destination_rule("web", POLICY)
    mesh.virtual_service("web", ROUTES)
    for name in ("one", "two"):
        mesh.authorization_policy(name, {"rules": RULES})
    mesh.peer_authentication("istio-system", "STRICT")
    for name in ("first", "second"):
        entry = {
            "hosts": ["out.example"],
            "ports": [{"number": 443, "name": "tls", "protocol": "TLS"}],
        }
        mesh.service_entry(name, {**entry, "resolution": "DNS"})
    return mesh


def learnt(mesh, seed, seen=()):
    """Return a compiler that has learnt of a mesh object by object, while somebody looks on."""
    said = random.Random(seed)
    fresh = assembly.assemble(
        config_cluster=ClusterId("east"),
        revision="default",
        system_namespace="istio-system",
        domain="cluster.local",
    )
    acts = []
    for field in dataclasses.fields(mesh.sources):
        source, into = getattr(mesh.sources, field.name), getattr(fresh.sources, field.name)
        if isinstance(source, collections.Source):
            acts += [(into, *item) for item in mesh.graph.items(source).items()]
    for cluster, kind in ((one, two) for one in mesh.clusters for two in ("caller", "gateway")):
        name = "caller" if kind == "caller" else "istio-eastwestgateway-0"
        proxy = Proxy(
            id=f"{name}.default",
            kind=ProxyKind.SIDECAR if kind == "caller" else ProxyKind.ROUTER,
            cluster=ClusterId(cluster),
            network=mesh.clusters[cluster].network,
            namespace="default" if kind == "caller" else "istio-system",
            service_account="default",
            pod=name,
        )
        acts.append((fresh.views.proxies, f"{cluster}/{name}", proxy))
    said.shuffle(acts)
    with fresh.graph.transaction() as change:
        for scope in seen:
            change.put(fresh.views.scopes, scope, 1)
    while acts:
        with fresh.graph.transaction() as change:
            for _ in range(said.choice((1, 3, 20))):
                if acts:
                    change.put(*acts.pop())
    return fresh


def told(mesh, seed):
    """Return the version of each resource, by its scope and name."""
    first = learnt(mesh, seed)
    scopes = first.graph.items(first.views.proxy_scopes).values()
    fresh = learnt(mesh, seed, {scope for some in scopes for scope in some})
    items = fresh.graph.items(fresh.resources).items()
    return {f"{key.scope} {key.kind} {key.name}": one.version for key, one in items}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(told(described(), int(sys.argv[1]))))
