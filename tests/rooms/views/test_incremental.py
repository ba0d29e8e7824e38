"""Whatever happened before: what proxies are told follows from what there is now."""

import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.mesh.proxies import Proxy, ProxyKind
from isthmus.resources import consistency
from isthmus.testing import builders, shapes

OUTLIER = {"consecutive5xxErrors": 1}
FAILOVER = {"failover": [{"from": "us", "to": "eu"}]}
BY_LABELS = {"failoverPriority": ["topology.istio.io/network", "tier", "kubernetes.io/hostname"]}
SHARES = {"distribute": [{"from": "us/*", "to": {"us/a": 80, "eu": 20}}]}
V1 = {"name": "v1", "labels": {"topology.istio.io/cluster": "west"}}

POLICIES = [
    {},
    {"outlierDetection": OUTLIER},
    {"outlierDetection": OUTLIER, "loadBalancer": {"localityLbSetting": {"enabled": False}}},
    {"outlierDetection": OUTLIER, "loadBalancer": {"localityLbSetting": FAILOVER}},
    {"outlierDetection": OUTLIER, "loadBalancer": {"localityLbSetting": BY_LABELS}},
    {"loadBalancer": {"localityLbSetting": SHARES}},
    {"loadBalancer": {"simple": "PASSTHROUGH"}, "outlierDetection": OUTLIER},
    {"loadBalancer": {"consistentHash": {"useSourceIp": True}}},
    {"portLevelSettings": [{"port": {"number": 80}, "outlierDetection": OUTLIER}]},
    {"tls": {"mode": "DISABLE"}},
]
PLACES = [("us", "a"), ("us", "b"), ("eu", "x")]

rules = st.tuples(
    st.just("rule"),
    st.sampled_from(["default", "other", "istio-system"]),
    st.sampled_from(POLICIES),
    st.booleans(),
)
gone = st.tuples(st.just("no rule"), st.sampled_from(["default", "other", "istio-system"]))
nodes = st.tuples(st.just("node"), st.sampled_from(["east", "west"]), st.sampled_from(PLACES))
ready = st.tuples(
    st.just("ready"), st.sampled_from(["east", "west"]), st.sets(st.integers(1, 3), max_size=3)
)
wishes = st.tuples(st.just("prefers"), st.sampled_from(["", "PreferClose", "PreferSameNode"]))
meshes = st.tuples(
    st.just("mesh"),
    st.sampled_from(
        [{}, {"localityLbSetting": FAILOVER}, {"localityLbSetting": {"enabled": False}}]
    ),
)
clients = st.tuples(st.just("client"), st.sampled_from(["gold", "silver"]))
events = st.one_of(rules, gone, nodes, ready, wishes, meshes, clients)


def start():
    """Return two clusters and proxies of two namespaces, a gateway among them."""
    mesh = builders.Mesh()
    east, west = mesh.cluster("east", network="n1"), mesh.cluster("west", network="n2")
    east.gateway(external="172.30.0.11")
    west.gateway(external="172.30.0.12")
    mesh.expose_services()
    for number, cluster in enumerate((east, west), start=1):
        cluster.node("node", region="us", zone="a")
        cluster.service("db", ready=[f"10.{number}.9.9"], ports={"tcp": 9000})
        for index in (1, 2, 3):
            shape = shapes.Shape(node="node" if index < 3 else "")
            cluster.pod(f"web-{index}", address=f"10.{number}.0.{index}", shape=shape)
        happen(mesh, "ready", cluster.name, {1, 2})
        for namespace in ("default", "other"):
            cluster.pod("client", namespace=namespace, shape=shapes.Shape(node="node"))
    return mesh


def happen(mesh, what, *said):
    """Make one of the events happen."""
    match what, *said:
        case "rule", namespace, policy, has_subset:
            subsets = [V1] if has_subset else []
            spec = {"host": "web.default.svc.cluster.local", "subsets": subsets}
            mesh.destination_rule("web", {**spec, "trafficPolicy": policy}, namespace=namespace)
        case "no rule", namespace:
            key = builders.ObjectKey(mesh.clusters["east"].id, namespace, "web")
            with mesh.graph.transaction() as transaction:
                transaction.replace(mesh.sources.destination_rules, lambda one: one == key, {})
        case "node", cluster, (region, zone):
            mesh.clusters[cluster].node("node", region=region, zone=zone)
        case "ready", cluster, numbers:
            second = 1 if cluster == "east" else 2
            addresses = [f"10.{second}.0.{number}" for number in sorted(numbers)]
            mesh.clusters[cluster].service("web", ready=addresses, ports={"http": 80, "tcp": 90})
        case "prefers", wish:
            key = builders.ObjectKey(mesh.clusters["east"].id, "default", "web")
            known = mesh.graph.get(mesh.sources.services, key)
            spec = {**{name: getattr(known.spec, name) for name in known.spec.__struct_fields__}}
            changed = type(known.spec)(**{**spec, "traffic_distribution": wish})
            mesh.put(mesh.sources.services, key, type(known)(known.metadata, spec=changed))
        case "mesh", options:
            mesh.configure(**options)
        case "client", tier:
            key = builders.ObjectKey(mesh.clusters["east"].id, "default", "client")
            pod = mesh.graph.get(mesh.sources.pods, key).whole()
            labels = {**pod.metadata.labels, "tier": tier}
            meta = shapes.metadata(pod.metadata.name, "default", labels)
            mesh.put(mesh.sources.pods, key, type(pod)(meta, spec=pod.spec, status=pod.status))


def connect(mesh, proxies):
    """Have all proxies connected, and the scopes computed that they see now."""
    with mesh.graph.transaction() as transaction:
        for key, proxy in proxies.items():
            transaction.put(mesh.views.proxies, key, proxy)
    wanted = {
        scope for seen in mesh.graph.items(mesh.views.proxy_scopes).values() for scope in seen
    }
    with mesh.graph.transaction() as transaction:
        transaction.replace(mesh.views.scopes, lambda _: True, dict.fromkeys(wanted, 1))


def proxies_of(mesh):
    return {
        pod.connection: Proxy(
            f"{pod.name}.{pod.namespace}",
            pod.proxy,
            pod.cluster,
            pod.network,
            pod.namespace,
            pod=pod.name,
        )
        for pod in mesh.pods
        if pod.name == "client" or pod.proxy is ProxyKind.ROUTER
    }


def afresh(mesh, proxies):
    """Return a mesh of the same objects that has never been otherwise."""
    other = builders.Mesh()
    for cluster in mesh.clusters.values():
        other.cluster(cluster.name, network=cluster.network)
    with other.graph.transaction() as transaction:
        for field in dataclasses.fields(mesh.sources):
            content = mesh.graph.items(getattr(mesh.sources, field.name))
            for key, value in content.items():
                transaction.put(getattr(other.sources, field.name), key, value)
    connect(other, proxies)
    return other


def told(mesh):
    return (
        dict(mesh.graph.items(mesh.views.slices)),
        dict(mesh.graph.items(mesh.views.proxy_scopes)),
        set(mesh.graph.items(mesh.views.findings).values()),
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(events, max_size=8))
def test_what_is_told_does_not_depend_on_how_it_came_about(happened):
    mesh = start()
    proxies = proxies_of(mesh)
    connect(mesh, proxies)

    for event in happened:
        happen(mesh, *event)
        connect(mesh, proxies)

    assert told(mesh) == told(afresh(mesh, proxies))
    assert mesh.graph.findings() == ()


@settings(max_examples=25, deadline=None)
@given(st.lists(events, max_size=6))
def test_every_cluster_that_a_proxy_is_told_of_has_its_endpoints(happened):
    mesh = start()
    for event in happened:
        happen(mesh, *event)

    for pod in mesh.pods:
        if pod.connection in proxies_of(mesh):
            assert consistency.missing(mesh.snapshot_of(pod)) == ()
