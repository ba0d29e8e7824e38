"""What node proxies are told of ServiceEntries."""

import ipaddress

import pytest

from isthmus.mesh import allocations
from isthmus.mesh.proxies import ProxyKind
from isthmus.resources import consistency, snapshot
from isthmus.testing import builders, shapes
from isthmus.testing.shapes import Shape
from isthmus_proto.istio.workload import workload_pb2

ZTUNNEL = Shape(proxy=ProxyKind.ZTUNNEL, account="ztunnel")
HTTPS = {"number": 443, "name": "https", "protocol": "HTTPS"}
HOST = "db.example.com"


@pytest.fixture
def east():
    return builders.Mesh().cluster("east", network="n1")


def entry(cluster, **spec):
    full = {"hosts": [HOST], "ports": [HTTPS], "resolution": "STATIC", **spec}
    cluster.mesh.service_entry("db", full)


def told(cluster):
    name = f"{cluster.name}-ztunnel"
    known = [pod for pod in cluster.mesh.pods if pod.name == name]
    pod = known[0] if known else cluster.pod(name, namespace="istio-system", shape=ZTUNNEL)
    found = cluster.mesh.snapshot_of(pod).of(snapshot.ADDRESSES)
    return {name: consistency.decoded(one) for name, one in found.items()}


def service(cluster, host=HOST):
    return told(cluster)[f"default/{host}"].service


def workload(cluster, address):
    name = f"east/networking.istio.io/ServiceEntry/default/db/{HOST}/{address}"
    return told(cluster)[name].workload


def addresses(cluster):
    return [str(ipaddress.ip_address(one.address)) for one in service(cluster).addresses]


def test_an_entry_is_a_service_with_its_own_addresses_and_endpoints(east):
    endpoint = {"address": "192.0.2.7", "ports": {"https": 8443}}
    entry(east, addresses=["198.51.100.1"], endpoints=[endpoint], subjectAltNames=[])

    said = workload(east, "192.0.2.7")

    assert addresses(east) == ["198.51.100.1"]
    assert service(east).addresses[0].network == "n1"
    (port,) = said.services[f"default/{HOST}"].ports
    assert (port.service_port, port.target_port) == (443, 8443)
    assert said.tunnel_protocol == workload_pb2.NONE


def test_an_entry_without_an_address_gets_one_of_our_making(east):
    entry(east, endpoints=[{"address": "192.0.2.7"}])

    given, twin = sorted(addresses(east), key=lambda one: ":" in one)

    assert ipaddress.ip_address(given) in allocations.USUAL.ipv4
    assert twin == allocations.USUAL.twin_of(given)


def test_names_are_looked_up_by_node_proxies(east):
    entry(east, resolution="DNS", endpoints=[{"address": "db.internal.example.com"}])

    said = workload(east, "db.internal.example.com")

    assert said.hostname == "db.internal.example.com"
    assert not said.addresses


def test_where_clients_go_anyway_connections_are_passed_through(east):
    entry(east, resolution="NONE", addresses=["198.51.100.1"])

    assert service(east).load_balancing.mode == workload_pb2.LoadBalancing.PASSTHROUGH


def test_pods_that_an_entry_selects_answer_for_it_in_all_clusters(east):
    west = east.mesh.cluster("west", network="n1")
    for cluster, address in ((east, "10.0.0.1"), (west, "10.1.0.1")):
        cluster.pod("db", address=address, labels={"app": "db"}, shape=shapes.CAPTURED)
    entry(
        east,
        location="MESH_INTERNAL",
        ports=[{"number": 443, "name": "https", "protocol": "HTTPS", "targetPort": 8443}],
        workloadSelector={"labels": {"app": "db"}},
    )

    for uid in ("east//Pod/default/db", "west//Pod/default/db"):
        (port,) = told(east)[uid].workload.services[f"default/{HOST}"].ports
        assert (port.service_port, port.target_port) == (443, 8443)
    assert not [name for name in told(east) if "ServiceEntry" in name]


@pytest.mark.parametrize("spec", [{"hosts": ["*.example.com"]}, {"exportTo": ["~"]}])
def test_patterns_and_what_is_hidden_are_not_told(east, spec):
    entry(east, addresses=["198.51.100.1"], endpoints=[{"address": "192.0.2.7"}], **spec)

    assert not [name for name in told(east) if "example.com" in name]


def test_what_a_namespace_keeps_to_itself_says_so(east):
    entry(east, endpoints=[{"address": "192.0.2.7"}], exportTo=["."])

    assert service(east).visibility == workload_pb2.Service.NAMESPACE


def test_a_service_that_only_others_have_gets_an_address_of_our_making(east):
    west = east.mesh.cluster("west", network="n2")
    west.service(
        "db", ready=["10.1.0.1"], shape=Shape(proxy=None, is_captured=True, is_global=True)
    )

    found = service(east, "db.default.svc.cluster.local")

    by_network = {
        one.network: ipaddress.ip_address(one.address)
        for one in found.addresses
        if len(one.address) == 4
    }
    assert by_network["n1"] in allocations.USUAL.ipv4
    assert str(by_network["n2"]) == "10.96.0.1"
