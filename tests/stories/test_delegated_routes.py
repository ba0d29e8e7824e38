"""A root hands requests on to VirtualServices of other teams: YAML goes in, decisions come out."""

import pytest

from isthmus.testing import builders

SERVICES = {"10.1.0.1": "web", "10.1.0.2": "cart", "10.1.0.3": "beta"}


@pytest.fixture
def mesh():
    mesh = builders.Mesh()
    one = mesh.cluster("one", network="n1")
    for address, name in SERVICES.items():
        one.service(name, ready=[address])
    one.pod("client")
    root = {"match": [{"uri": {"prefix": "/cart"}}], "delegate": {"name": "cart"}}
    mesh.virtual_service("web", {"hosts": ["web"], "http": [root, to("web")]})
    return mesh


def to(name, **more):
    return {"route": [{"destination": {"host": name}}], **more}


def answering(mesh, path, **headers):
    landings = mesh.proxy("one/client").calls(f"http://web.default{path}", headers=headers).landings
    return {SERVICES[landing.address] for landing in landings}


def test_a_delegate_says_what_becomes_of_what_it_is_handed(mesh):
    assert answering(mesh, "/cart") == {"web"}

    beta = {"match": [{"headers": {"role": {"exact": "tester"}}}]}
    mesh.virtual_service("cart", {"http": [to("beta", **beta), to("cart")]})

    assert answering(mesh, "/cart/1") == {"cart"}
    assert answering(mesh, "/cart/1", role="tester") == {"beta"}
    assert answering(mesh, "/", role="tester") == {"web"}


def test_no_delegate_takes_requests_that_it_was_not_handed(mesh):
    everything = {"match": [{"uri": {"prefix": "/"}}]}
    mesh.virtual_service("cart", {"http": [to("cart", **everything)]})

    assert answering(mesh, "/") == answering(mesh, "/cart") == {"web"}
    found = mesh.graph.items(mesh.model.findings).values()
    assert [one.subject for one in found] == ["VirtualService default/web"]
