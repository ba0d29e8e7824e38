"""Routes differ by who calls, told apart by labels: YAML goes in, decisions come out."""

import pytest
import yaml

from isthmus.testing import builders
from isthmus.views import view

ROUTES = """
- match: [{sourceLabels: {app: shop, tier: gold}}]
  route: [{destination: {host: fast}}]
- match: [{sourceLabels: {app: shop}}]
  route: [{destination: {host: slow}}]
- route: [{destination: {host: web}}]
"""
SERVICES = {"10.1.0.1": "web", "10.1.0.2": "fast", "10.1.0.3": "slow"}
CALLERS = {
    "gold": ({"app": "shop", "tier": "gold", "id": "1"}, "fast"),
    "plain": ({"app": "shop", "tier": "iron", "id": "2"}, "slow"),
    "other": ({"app": "other", "tier": "gold", "id": "3"}, "web"),
    "another": ({"app": "other", "id": "4"}, "web"),
    "last": ({"tier": "iron", "id": "5"}, "web"),
}


@pytest.fixture
def mesh():
    mesh = builders.Mesh()
    one = mesh.cluster("one", network="n1")
    for address, name in SERVICES.items():
        one.service(name, ready=[address], ports={"http": 80, "tcp": 9000})
    for name, (labels, _) in CALLERS.items():
        one.pod(name, labels=labels)
    return mesh


def route(mesh, http=ROUTES, **more):
    mesh.virtual_service("web", {"hosts": ["web"], "http": yaml.safe_load(http), **more})


def answering(mesh, client, url="http://web.default/"):
    landings = mesh.proxy(f"one/{client}").calls(url).landings
    return {SERVICES[landing.address] for landing in landings}


def outbound_scopes(mesh):
    return {
        scope
        for pod in mesh.pods
        for scope in mesh.scopes_of(pod)
        if pod.name in CALLERS and isinstance(scope, view.OutboundScope)
    }


@pytest.mark.parametrize("caller", CALLERS)
def test_each_caller_goes_where_its_labels_lead(mesh, caller):
    route(mesh)

    assert answering(mesh, caller) == {CALLERS[caller][1]}


def test_callers_that_no_route_tells_apart_share_all_that_they_are_told(mesh):
    assert len(outbound_scopes(mesh)) == 1

    route(mesh)

    # `app: shop` and `tier: gold` in all four combinations; values that nobody asks for do not count.
    assert len(outbound_scopes(mesh)) == 4
    mesh.virtual_service("web", {"hosts": ["web"], "http": yaml.safe_load(ROUTES)[2:]})
    assert len(outbound_scopes(mesh)) == 1


def test_connections_are_told_apart_as_well(mesh):
    to = {"route": [{"destination": {"host": "fast", "port": {"number": 9000}}}]}
    match = [{"port": 9000, "sourceLabels": {"tier": "gold"}}]
    mesh.virtual_service("web", {"hosts": ["web"], "tcp": [{"match": match, **to}]})

    assert answering(mesh, "gold", "tcp://web.default:9000") == {"fast"}
    assert answering(mesh, "plain", "tcp://web.default:9000") == {"web"}


def test_a_label_that_is_no_text_widens_nothing(mesh):
    route(mesh, ROUTES.replace("app: shop", "app: 7"))

    assert answering(mesh, "gold") == {"web"}
    found = mesh.graph.items(mesh.model.findings).values()
    assert any("sourceLabels.app" in each.happened for each in found)
