"""What is wrong with one object is said, and the rest goes on."""

import pytest

from isthmus.kube import objects
from isthmus.resources import snapshot
from isthmus.testing import builders


@pytest.fixture
def mesh():
    mesh = builders.Mesh()
    mesh.cluster("east", network="n1").gateway(external="172.30.0.11")
    mesh.clusters["east"].service("web", ready=["10.0.0.1"])
    return mesh


def codes(mesh):
    return [found.code for found in mesh.graph.items(mesh.views.findings).values()]


def test_a_server_that_wants_what_gateways_cannot_do_is_named_and_its_neighbour_works(mesh):
    ends_tls = objects.GatewayServer(
        port=objects.GatewayPort(number=443, name="https", protocol="HTTPS"),
        hosts=("*",),
        tls=objects.GatewayTls(mode="ISTIO_MUTUAL"),
    )
    mesh.gateway_object("mixed", builders.passing(15443, "*.local"), ends_tls)

    gateway = mesh.pod_at("172.30.0.11", network="")

    assert codes(mesh) == ["ISM-VIEW-002"]
    assert set(mesh.snapshot_of(gateway).of(snapshot.LISTENERS)) == {"0.0.0.0_15443"}


def test_a_rule_that_wants_a_secret_for_tls_is_named(mesh):
    tls = {"mode": "SIMPLE", "credentialName": "shop"}
    rule = {"host": "web", "trafficPolicy": {"tls": tls}}

    mesh.destination_rule("web", rule)

    assert codes(mesh) == ["ISM-VIEW-003"]


def test_a_subset_that_no_rule_names_is_named(mesh):
    route = {"route": [{"destination": {"host": "web", "subset": "v9"}}]}

    mesh.virtual_service("web", {"hosts": ["web"], "http": [route]})

    (found,) = mesh.graph.items(mesh.views.findings).values()
    assert found.code == "ISM-VIEW-001"
    assert "v9" in found.happened


def test_a_service_at_a_port_of_the_sidecars_own_is_named_and_gets_no_listener(mesh):
    east = mesh.clusters["east"]
    ports = {"http": 80, "http-odd": 15021}
    east.service("odd", ready=["10.0.0.2"], ports=ports)
    client = east.pod("client", address="10.0.0.9")

    assert codes(mesh) == ["ISM-VIEW-004"]
    listeners = set(mesh.snapshot_of(client).of(snapshot.LISTENERS))
    assert "0.0.0.0_80" in listeners
    assert "0.0.0.0_15021" not in listeners


def test_a_mesh_without_mistakes_has_no_findings(mesh):
    assert codes(mesh) == []
    assert mesh.graph.findings() == ()


@pytest.mark.parametrize(
    ("policy", "found"),
    [
        ({"loadBalancer": {"localityLbSetting": {"failover": [{"from": "a", "to": "b"}]}}}, True),
        ({"loadBalancer": {"localityLbSetting": {"failoverPriority": ["version"]}}}, True),
        ({"loadBalancer": {"localityLbSetting": {}}}, False),
        (
            {
                "loadBalancer": {"localityLbSetting": {"failoverPriority": ["version"]}},
                "outlierDetection": {"interval": "1s"},
            },
            False,
        ),
    ],
)
def test_a_failover_that_nothing_sets_off_is_named(mesh, policy, found):
    mesh.destination_rule("web", {"host": "web", "trafficPolicy": policy})

    assert codes(mesh) == (["ISM-VIEW-006"] if found else [])
