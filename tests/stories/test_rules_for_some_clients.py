"""DestinationRules that hold for some clients only: YAML goes in, decisions come out."""

import pytest

from isthmus.testing import builders, shapes
from isthmus.views import view

CALLERS = {
    "gold": ("default", {"tier": "gold", "id": "1"}),
    "iron": ("default", {"tier": "iron", "id": "2"}),
    "gold-elsewhere": ("elsewhere", {"tier": "gold", "id": "3"}),
}
PODS = {"10.1.0.1": "v1", "10.1.0.2": "v2"}
TO_V2 = [{"name": "all", "labels": {"version": "v2"}}]
TO_ALL = [{"name": "all", "labels": {}}]
ROUTE = [{"route": [{"destination": {"host": "web", "subset": "all"}}]}]


@pytest.fixture
def mesh():
    mesh = builders.Mesh()
    one = mesh.cluster("one", network="n1")
    for address, version in PODS.items():
        shape = shapes.Shape(labels={"version": version})
        one.pod(f"web-{version}", address=address, labels={"app": "web"}, shape=shape)
    one.service("web", ready=list(PODS))
    for name, (namespace, labels) in CALLERS.items():
        one.pod(name, namespace=namespace, labels=labels)
    mesh.virtual_service("web", {"hosts": ["web"], "http": ROUTE})
    mesh.destination_rule("web", {"host": "web", "subsets": TO_ALL})
    return mesh


def select(mesh, labels, **rule):
    selector = {"matchLabels": labels}
    mesh.destination_rule("own", {"host": "web", "workloadSelector": selector, **rule})


def client(mesh, name):
    return builders.Client(mesh, next(pod for pod in mesh.pods if pod.name == name))


def answering(mesh, name):
    call = client(mesh, name).calls("http://web.default/")
    return sorted(PODS[landing.address] for landing in call.landings)


def scopes(mesh, kind):
    callers = [pod for pod in mesh.pods if pod.name in CALLERS and pod.namespace == "default"]
    return {scope for pod in callers for scope in mesh.scopes_of(pod) if isinstance(scope, kind)}


def test_a_rule_holds_for_the_clients_of_its_namespace_that_it_selects(mesh):
    select(mesh, {"tier": "gold"}, subsets=TO_V2)

    assert answering(mesh, "gold") == ["v2"]
    assert answering(mesh, "iron") == answering(mesh, "gold-elsewhere") == ["v1", "v2"]


def test_all_labels_of_a_selector_count_and_one_without_any_selects_its_whole_namespace(mesh):
    select(mesh, {"tier": "gold", "id": "7"}, subsets=TO_V2)
    assert answering(mesh, "gold") == ["v1", "v2"]

    select(mesh, {}, subsets=TO_V2)
    assert answering(mesh, "gold") == answering(mesh, "iron") == ["v2"]
    assert answering(mesh, "gold-elsewhere") == ["v1", "v2"]


def test_a_rule_that_selects_is_merged_with_no_other(mesh):
    select(mesh, {"tier": "gold"})

    (refused,) = client(mesh, "gold").calls("http://web.default/").landings
    assert not refused.address
    assert answering(mesh, "iron") == ["v1", "v2"]


def test_encryption_differs_for_selected_clients_alone(mesh):
    select(mesh, {"tier": "gold"}, trafficPolicy={"tls": {"mode": "DISABLE"}}, subsets=TO_ALL)

    gold = client(mesh, "gold").calls("http://web.default/")
    assert not any(one.is_encrypted for one in gold.landings)
    assert client(mesh, "iron").calls("http://web.default/").is_encrypted


def test_clients_share_what_they_are_told_unless_a_rule_of_theirs_tells_them_apart(mesh):
    elsewhere = {"host": "web", "workloadSelector": {"matchLabels": {"id": "2"}}}
    mesh.destination_rule("elsewhere", elsewhere, namespace="elsewhere")
    assert len(scopes(mesh, view.OutboundScope)) == 1
    before = scopes(mesh, view.HorizonScope)

    select(mesh, {"tier": "gold"})

    assert len(scopes(mesh, view.OutboundScope)) == 2
    added = scopes(mesh, view.HorizonScope) - before
    assert {one.selected for one in added} == {(("tier", "gold"),)}


def test_a_selector_that_is_not_understood_leaves_the_rule_out_for_all(mesh):
    for selector in ({"matchLabels": {"tier": 7}}, {"matchExpressions": []}, ["tier"]):
        rule = {"host": "web", "workloadSelector": selector, "subsets": TO_V2}
        mesh.destination_rule("own", rule)

        assert answering(mesh, "gold") == ["v1", "v2"]
        found = mesh.graph.items(mesh.model.findings).values()
        assert any("workloadSelector" in one.happened for one in found)
