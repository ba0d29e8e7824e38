"""Connections are routed by the address that they go to: YAML goes in, decisions come out."""

import pytest

from isthmus.testing import builders

SERVICES = {"10.1.0.1": "raw", "10.1.0.2": "other", "10.1.0.3": "secure"}


@pytest.fixture
def mesh():
    mesh = builders.Mesh()
    one = mesh.cluster("one", network="n1")
    one.service("raw", ready=["10.1.0.1"], ports={"tcp": 9000})
    one.service("other", ready=["10.1.0.2"], ports={"tcp": 9000})
    one.service("secure", ready=["10.1.0.3"], ports={"tls": 9000})
    one.pod("client")
    return mesh


def match_of(*subnets, **more):
    return {
        "match": [{"port": 9000, "destinationSubnets": list(subnets), **more}],
        "route": [{"destination": {"host": "other"}}],
    }


def answering(mesh, url):
    return {SERVICES[one.address] for one in mesh.proxy("one/client").calls(url).landings}


@pytest.mark.parametrize(
    ("subnets", "server"),
    [
        (["10.96.0.0/16"], "other"),
        (["10.96.0.1"], "other"),
        (["192.0.2.0/24", "10.96.0.1/16"], "other"),
        (["192.0.2.0/24"], "raw"),
        (["2001:db8::/32"], "raw"),
        ([], "other"),
    ],
)
def test_connections_are_told_apart_by_where_they_go(mesh, subnets, server):
    mesh.virtual_service("raw", {"hosts": ["raw"], "tcp": [match_of(*subnets)]})

    assert answering(mesh, "tcp://raw.default:9000") == {server}


@pytest.mark.parametrize(
    ("subnet", "server"), [("10.96.0.0/16", "other"), ("10.1.0.0/16", "secure")]
)
def test_so_is_tls_that_is_not_decrypted(mesh, subnet, server):
    name = "secure.default.svc.cluster.local"
    mesh.virtual_service("it", {"hosts": ["secure"], "tls": [match_of(subnet, sniHosts=[name])]})

    assert answering(mesh, "tls://secure.default.svc.cluster.local:9000") == {server}


@pytest.mark.parametrize("wrong", ["10.96.0.0/33", "here", "", "10.96.0.0-10.97.0.0"])
def test_a_range_that_is_none_widens_nothing(mesh, wrong):
    mesh.virtual_service("raw", {"hosts": ["raw"], "tcp": [match_of("10.96.0.0/16", wrong)]})

    assert answering(mesh, "tcp://raw.default:9000") == {"raw"}
    (found,) = mesh.graph.items(mesh.model.findings).values()
    assert "`spec.tcp[0].match[0].destinationSubnets`" in found.happened


def test_gateways_do_not_look_at_ranges_and_say_so(mesh):
    spec = {"hosts": ["raw"], "gateways": ["doors"], "tcp": [match_of("10.0.0.0/8")]}
    mesh.virtual_service("raw", spec)

    found = mesh.graph.items(mesh.model.findings).values()
    assert any("is not supported on gateways" in one.happened for one in found)
