"""Which endpoints a client calls: one table, for node proxies of both kinds and for sidecars."""

import pathlib

import pytest

from isthmus.fleet.sources import ObjectKey
from isthmus.kube import objects
from isthmus.mesh.identities import ClusterId, NetworkId
from isthmus.mesh.localities import Locality
from isthmus.mesh.proxies import ProxyKind
from isthmus.resources import consistency, snapshot
from isthmus.resources.ztunnel import reading
from isthmus.testing import builders, shapes
from isthmus.testing.shapes import Shape
from isthmus.views import nodeproxy, nodeslices
from isthmus_proto.istio.workload import workload_pb2 as wire

HOST = "reviews.default.mesh.internal"
SERVICE = f"default/{HOST}"
PAGE = pathlib.Path(__file__).parents[3] / "docs/reference/traffic-distribution.md"

# Each node has one endpoint; they are called by the names of their nodes.
NODES = {
    "one": ("east", Locality("r1", "z1")),
    "two": ("east", Locality("r1", "z1")),
    "zone": ("east", Locality("r1", "z2")),
    "region": ("east", Locality("r2", "z1")),
    "near": ("west", Locality("r1", "z1")),
    "far": ("north", Locality("r3", "z1")),
}
NETWORKS = {"east": "n1", "west": "n2", "north": "n3"}
ALL = "one two zone region near far"
ELSEWHERE = "near far"

# What the Service says, where the client is, who is ready, who is called.
TABLE = [
    ("", "one", ALL, "one two zone region"),
    ("", "one", "region near far", "region"),
    ("", "one", ELSEWHERE, ELSEWHERE),
    ("PreferNetwork", "region", ALL, "one two zone region"),
    ("prefernetwork", "one", ELSEWHERE, ELSEWHERE),
    ("PreferRegion", "one", ALL, "one two zone"),
    ("PreferRegion", "one", "region near far", "region"),
    ("PreferRegion", "one", ELSEWHERE, "near"),
    ("PreferRegion", "region", ELSEWHERE, ELSEWHERE),
    ("PreferClose", "one", ALL, "one two"),
    ("PreferClose", "one", "zone region near far", "zone"),
    ("PreferClose", "one", "region near far", "region"),
    ("PreferClose", "one", ELSEWHERE, "near"),
    ("PreferClose", "region", ALL, "region"),
    ("PreferClose", "region", "one two zone near far", "one two zone"),
    ("preferCLOSE", "zone", ALL, "zone"),
    ("PreferSameZone", "one", ALL, "one two"),
    ("PreferSameZone", "zone", "one two region near far", "one two"),
    ("PreferSameNode", "one", ALL, "one"),
    ("PreferSameNode", "one", "two zone region near far", "two"),
    ("PreferSameNode", "one", ELSEWHERE, "near"),
    ("Any", "one", ALL, ALL),
    ("ANY", "region", "one far", "one far"),
    ("PreferTheMoon", "one", ALL, ALL),
]
ROWS = pytest.mark.parametrize(("value", "client", "ready", "expected"), TABLE)
ZTUNNEL = Shape(proxy=ProxyKind.ZTUNNEL, account="ztunnel")


def built(value, ready, *, pods):
    """Return three clusters on three networks with a service on some of their nodes."""
    mesh = builders.Mesh()
    for number, (name, network) in enumerate(NETWORKS.items()):
        cluster = mesh.cluster(name, network=network)
        cluster.gateway(external=f"172.30.0.{number}", ports={"tls": 15443, "hbone": 15008})
    for name, (cluster, place) in NODES.items():
        mesh.clusters[cluster].node(name, region=place.region, zone=place.zone)
    for cluster in NETWORKS:
        here = [one for one in ready.split() if NODES[one][0] == cluster]
        for one in here:
            shape = Shape(proxy=pods.proxy, is_captured=pods.is_captured, node=one)
            mesh.clusters[cluster].pod(f"on-{one}", address=address(one), shape=shape)
        said = Shape(proxy=None, scope="global", distribution=value)
        mesh.clusters[cluster].service("reviews", ready=list(map(address, here)), shape=said)
    return mesh


def address(node):
    return f"10.0.0.{1 + list(NODES).index(node)}"


def by_address(found):
    """Return the node on which an address is; gateways stand for the node behind them."""
    behind = {"172.30.0.1": "near", "172.30.0.2": "far"}
    return behind.get(found) or list(NODES)[int(found.rpartition(".")[2]) - 1]


def told(mesh):
    proxy = mesh.clusters["east"].pod("ztunnel-1", namespace="istio-system", shape=ZTUNNEL)
    return mesh.snapshot_of(proxy).of(snapshot.ADDRESSES).values()


def name_of(uid):
    """Return the node of a workload."""
    if "SplitHorizon" in uid:
        return {"n2": "near", "n3": "far"}[uid.partition("/")[0]]
    return uid.rpartition("/on-")[2]


# --- a node proxy of Istio's, as its documentation says


def ztunnel_calls(said, client):
    """Return whom a node proxy on a node calls, by what it is told."""
    (service,) = [one.service for one in said if one.service.hostname == HOST]
    balancing, place = service.load_balancing, NODES[client][1]
    able = [one.workload for one in said if SERVICE in one.workload.services]

    def rank(workload):
        shares = {
            wire.LoadBalancing.NETWORK: workload.network == "n1",
            wire.LoadBalancing.REGION: workload.locality.region == place.region,
            wire.LoadBalancing.ZONE: workload.locality.zone == place.zone,
            wire.LoadBalancing.SUBZONE: workload.locality.subzone == place.subzone,
            wire.LoadBalancing.NODE: workload.node == client,
        }
        wanted = list(balancing.routing_preference)
        first = wanted[:1] == [wire.LoadBalancing.NETWORK]
        bonus = len(wanted) - 1 if first and shares[wanted[0]] else 0
        if first and not bonus and not shares[wanted[0]]:
            wanted = wanted[1:]
        leading = 0
        while leading < len(wanted) and shares[wanted[leading]]:
            leading += 1
        return leading + bonus

    best = max(map(rank, able))
    return {name_of(one.uid) for one in able if rank(one) == best}


@ROWS
def test_a_node_proxy_of_istios_calls_the_nearest(value, client, ready, expected):
    mesh = built(value, ready, pods=shapes.CAPTURED)

    said = [consistency.decoded(one) for one in told(mesh)]

    assert ztunnel_calls(said, client) == set(expected.split())


# --- ours


@ROWS
def test_our_node_proxy_calls_the_nearest(value, client, ready, expected):
    mesh = built(value, ready, pods=shapes.CAPTURED)
    read = [reading.read(one.type_url, one.body) for one in told(mesh)]
    (service,) = [one for one in read if one.resource_name == SERVICE]
    able = [one for one in read if SERVICE in dict(getattr(one, "services", ()))]
    node = nodeslices.Node(
        client, ClusterId("east"), NetworkId("n1"), (), locality=NODES[client][1]
    )

    chosen = nodeproxy.nearest(able, service=service, node=node)

    assert {name_of(one.uid) for one in chosen} == set(expected.split())


# --- sidecars


@ROWS
def test_a_sidecar_calls_the_nearest(value, client, ready, expected):
    mesh = built(value, ready, pods=shapes.USUAL)
    caller = mesh.clusters["east"].pod("caller", shape=Shape(node=client, dns="captured"))

    found = mesh.snapshot_of(caller).of(snapshot.ENDPOINTS)[f"outbound|80||{HOST}"]

    first = [one for one in consistency.decoded(found).endpoints if one.priority == 0]
    addresses = [
        each.endpoint.address.socket_address.address for one in first for each in one.lb_endpoints
    ]
    assert {by_address(one) for one in addresses} == set(expected.split())


# --- only the own node


def kept_to_its_node(ready, *, pods):
    mesh = built("Any", ready, pods=pods)
    for cluster in mesh.clusters.values():
        place = ObjectKey(cluster.id, "default", "reviews")
        old = mesh.graph.get(mesh.sources.services, place)
        spec = objects.ServiceSpec(
            cluster_ip=old.spec.cluster_ip, ports=old.spec.ports, internal_traffic_policy="Local"
        )
        mesh.put(mesh.sources.services, place, objects.Service(old.metadata, spec=spec))
    return mesh


@pytest.mark.parametrize(("ready", "expected"), [(ALL, {"one"}), ("two zone near", set())])
def test_a_service_may_keep_to_the_clients_node(ready, expected):
    host = "reviews.default.svc.cluster.local"
    mesh = kept_to_its_node(ready, pods=shapes.CAPTURED)
    read = {
        one.resource_name: one
        for one in (reading.read(found.type_url, found.body) for found in told(mesh))
    }
    able = [one for one in read.values() if f"default/{host}" in dict(getattr(one, "services", ()))]
    node = nodeslices.Node("one", ClusterId("east"), NetworkId("n1"), (), locality=NODES["one"][1])

    chosen = nodeproxy.nearest(able, service=read[f"default/{host}"], node=node)

    assert {name_of(one.uid) for one in chosen} == expected


@pytest.mark.parametrize(("ready", "expected"), [(ALL, ["one"]), ("two zone near", [])])
def test_a_sidecar_keeps_to_the_clients_node_where_the_service_does(ready, expected):
    mesh = kept_to_its_node(ready, pods=shapes.USUAL)
    mesh.destination_rule(
        "near",
        {
            "host": "reviews.default.svc.cluster.local",
            "trafficPolicy": {"loadBalancer": {"localityLbSetting": {"enabled": False}}},
        },
    )
    caller = mesh.clusters["east"].pod("caller", shape=Shape(node="one"))

    found = mesh.snapshot_of(caller).of(snapshot.ENDPOINTS)
    groups = consistency.decoded(found["outbound|80||reviews.default.svc.cluster.local"]).endpoints

    assert [
        by_address(each.endpoint.address.socket_address.address)
        for one in groups
        for each in one.lb_endpoints
    ] == expected


# --- what says it


def said_by(mesh):
    (service,) = [one.service for one in map(consistency.decoded, told(mesh))
                  if one.service.hostname == HOST]  # fmt: skip
    return [wire.LoadBalancing.Scope.Name(one) for one in service.load_balancing.routing_preference]


@pytest.mark.parametrize(
    ("field", "annotation", "namespace", "expected"),
    [
        ("PreferClose", "Any", "Any", ["NETWORK", "REGION", "ZONE"]),
        ("", "PreferRegion", "Any", ["NETWORK", "REGION"]),
        ("", "", "PreferRegion", ["NETWORK", "REGION"]),
        ("", "", "", ["NETWORK"]),
        ("", "Any", "PreferRegion", []),
    ],
)
def test_the_field_counts_before_annotations(field, annotation, namespace, expected):
    mesh = built(annotation, "one", pods=shapes.CAPTURED)
    key = "networking.istio.io/traffic-distribution"
    for cluster in mesh.clusters.values():
        meta = shapes.metadata("default", "", {}, {key: namespace} if namespace else None)
        mesh.put(
            mesh.sources.namespaces, ObjectKey(cluster.id, "", "default"), objects.Namespace(meta)
        )
        place = ObjectKey(cluster.id, "default", "reviews")
        old = mesh.graph.get(mesh.sources.services, place)
        spec = objects.ServiceSpec(
            cluster_ip=old.spec.cluster_ip, ports=old.spec.ports, traffic_distribution=field
        )
        mesh.put(mesh.sources.services, place, objects.Service(old.metadata, spec=spec))

    assert said_by(mesh) == expected


def test_a_value_that_nobody_knows_is_named():
    mesh = built("PreferTheMoon", "one", pods=shapes.CAPTURED)

    found = mesh.graph.items(mesh.model.findings).values()

    (finding,) = [one for one in found if one.code == "ISM-REG-021"]
    assert finding.subject == "Service default/reviews in cluster `east`"
    assert "PreferTheMoon" in finding.happened


@pytest.mark.parametrize(("value", "client", "ready", "expected"), TABLE)
def test_the_page_says_the_same(value, client, ready, expected):
    rows = [[cell.strip(" `") for cell in row.split("|")[1:-1]]
            for row in PAGE.read_text().splitlines()]  # fmt: skip

    assert [value or "nothing", client, ready, expected] in rows
