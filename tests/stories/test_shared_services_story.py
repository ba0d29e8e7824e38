"""Pods with sidecars call services by the names under which clusters share them."""

import pytest

from isthmus.resources import consistency, snapshot
from isthmus.testing import builders
from isthmus.testing.shapes import Shape

URL = "http://reviews.default.mesh.internal/"
CAPTURED = Shape(dns="captured")


@pytest.fixture
def mesh():
    mesh = builders.Mesh()
    for number, (name, network) in enumerate((("east", "n1"), ("west", "n2"))):
        mesh.cluster(name, network=network).gateway(external=f"172.30.0.1{number}")
    mesh.expose_services()
    mesh.clusters["east"].pod("caller", shape=CAPTURED)
    return mesh


def share(mesh, cluster, address, *, scope="global", is_ready=True, distribution=""):
    said = {"ready" if is_ready else "unready": [address]}
    shape = Shape(scope=scope, distribution=distribution)
    mesh.clusters[cluster].service("reviews", shape=shape, **said)


def call(mesh):
    """Return who answers, and through which gateways."""
    found = mesh.proxy("east/caller").calls(URL)
    assert all(one.is_encrypted for one in found.landings), found
    return sorted((one.address, one.via, one.share) for one in found.landings)


def test_calls_stay_near_while_somebody_there_is_ready(mesh):
    share(mesh, "east", "10.0.0.1")
    share(mesh, "west", "10.1.0.1")

    assert call(mesh) == [("10.0.0.1", (), 1)]
    share(mesh, "east", "10.0.0.1", is_ready=False)
    assert call(mesh) == [("10.1.0.1", ("istio-eastwestgateway-0",), 1)]
    share(mesh, "east", "10.0.0.1")
    assert call(mesh) == [("10.0.0.1", (), 1)]


def test_calls_go_everywhere_alike_where_somebody_says_so(mesh):
    share(mesh, "east", "10.0.0.1", distribution="Any")
    share(mesh, "west", "10.1.0.1", distribution="Any")

    assert [(address, share_) for address, _, share_ in call(mesh)] == [
        ("10.0.0.1", 0.5),
        ("10.1.0.1", 0.5),
    ]


def test_a_cluster_that_does_not_share_is_not_called_by_that_name(mesh):
    share(mesh, "east", "10.0.0.1", scope="")
    share(mesh, "west", "10.1.0.1")

    assert [address for address, _, _ in call(mesh)] == ["10.1.0.1"]


def test_a_gateway_that_exposes_the_service_exposes_that_name(mesh):
    share(mesh, "west", "10.1.0.1")
    assert [address for address, _, _ in call(mesh)] == ["10.1.0.1"]

    mesh.expose_services("other.default.svc.cluster.local")

    assert mesh.proxy("east/caller").calls(URL).refused == {"gateway does not listen on 15443"}


@pytest.mark.parametrize("dns", ["captured", "allocated"])
def test_a_name_that_only_another_cluster_has_is_answered(mesh, dns):
    share(mesh, "west", "10.1.0.1")
    pod = mesh.clusters["east"].pod("asking", shape=Shape(dns=dns))

    (table,) = mesh.snapshot_of(pod).of(snapshot.NAMES).values()
    entry = consistency.decoded(table).table["reviews.default.mesh.internal"]

    assert [one.rpartition(".")[0].rpartition(".")[0] for one in entry.ips] == ["240.240"]


def test_tcp_goes_by_the_address_that_is_answered(mesh):
    shape = Shape(scope="global")
    mesh.clusters["west"].service("db", ready=["10.1.0.9"], ports={"tcp": 9000}, shape=shape)
    caller = mesh.proxy("east/caller")
    (table,) = mesh.snapshot_of(caller.pod).of(snapshot.NAMES).values()
    (address,) = consistency.decoded(table).table["db.default.mesh.internal"].ips

    (landing,) = caller.calls(f"tcp://{address}:9000").landings

    assert (landing.address, landing.via) == ("10.1.0.9", ("istio-eastwestgateway-0",))
