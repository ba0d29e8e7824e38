"""A client in east on network n1; helloworld runs in east and, behind a gateway, in west on n2."""

from fractions import Fraction

import pytest

from isthmus.testing import builders

URL = "http://helloworld:5000/hello"
SNI = "outbound_.5000_._.helloworld.default.svc.cluster.local"
PORTS = {"http": 5000}


@pytest.fixture
def mesh():
    mesh = builders.Mesh()
    east = mesh.cluster("east", network="n1")
    west = mesh.cluster("west", network="n2")
    east.service("helloworld", ready=["10.1.0.1", "10.1.0.2"], ports=PORTS)
    west.service("helloworld", ready=["10.2.0.1", "10.2.0.2", "10.2.0.3"], ports=PORTS)
    east.gateway(external="172.30.0.11")
    west.gateway(external="172.30.0.12")
    mesh.expose_services()
    return mesh


@pytest.mark.parametrize("client", ["east/sleep", "west/sleep"])
def test_every_pod_near_or_far_gets_the_same_share(mesh, client):
    call = mesh.proxy(client).calls(URL)

    assert set(call.shares.values()) == {Fraction(1, 5)}
    assert len(call.shares) == 5
