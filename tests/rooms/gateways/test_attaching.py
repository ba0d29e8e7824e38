"""Which listeners a route attaches to, and for which hosts."""

import msgspec
import pytest

from isthmus.gateways import attaching
from isthmus.kube import gateway_api
from isthmus.mesh import gateway_classes

LISTENER = {"name": "http", "port": 80, "protocol": "HTTP"}


def attached(listener, *, labels=None, hosts=(), namespace="apps", **reference):
    gateway = msgspec.convert(
        {
            "metadata": {"name": "door", "namespace": "apps"},
            "spec": {"gatewayClassName": "istio", "listeners": [{**LISTENER, **listener}]},
        },
        gateway_api.Gateway,
    )
    route = msgspec.convert(
        {
            "metadata": {"name": "r", "namespace": namespace},
            "spec": {"parentRefs": [{"name": "door", **reference}], "hostnames": hosts},
        },
        gateway_api.HttpRoute,
    )
    return attaching.attached(
        route,
        route.spec.parent_refs[0],
        gateway,
        gateway_classes.INGRESS,
        labels=labels or {},
    )


def allowed(**namespaces):
    return {"allowedRoutes": {"namespaces": namespaces}}


@pytest.mark.parametrize(
    ("listener", "namespace", "reason"),
    [
        ({}, "apps", ""),
        ({}, "other", "NotAllowedByListeners"),
        (allowed(**{"from": "All"}), "other", ""),
        (allowed(**{"from": "None"}), "apps", "NotAllowedByListeners"),
        (allowed(**{"from": "Selector"}), "apps", "NotAllowedByListeners"),
        ({"allowedRoutes": {"kinds": [{"kind": "GRPCRoute"}]}}, "apps", "NotAllowedByListeners"),
        ({"allowedRoutes": {"kinds": [{"kind": "HTTPRoute"}]}}, "apps", ""),
        ({"protocol": "TCP"}, "apps", "NoMatchingParent"),
    ],
)
def test_a_listener_lets_in_whom_it_says(listener, namespace, reason):
    assert attached(listener, namespace=namespace).reason == reason


@pytest.mark.parametrize(
    ("labels", "is_in"),
    [({"team": "a", "env": "x"}, True), ({"team": "b", "env": "x"}, False), ({"team": "a"}, False)],
)
def test_a_listener_may_select_namespaces(labels, is_in):
    selector = {
        "matchLabels": {"team": "a"},
        "matchExpressions": [
            {"key": "env", "operator": "Exists"},
            {"key": "env", "operator": "NotIn", "values": ["y"]},
        ],
    }
    found = attached(
        allowed(**{"from": "Selector", "selector": selector}), labels=labels, namespace="other"
    )

    assert bool(found.listeners) is is_in


def test_a_selector_that_is_not_understood_lets_nobody_in():
    expression = {"key": "env", "operator": "Gt", "values": ["1"]}
    said = {"from": "Selector", "selector": {"matchExpressions": [expression]}}

    assert attached(allowed(**said), labels={"env": "2"}).reason == "NotAllowedByListeners"


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ({"sectionName": "http"}, ""),
        ({"sectionName": "other"}, "NoMatchingParent"),
        ({"port": 80}, ""),
        ({"port": 81}, "NoMatchingParent"),
    ],
)
def test_a_route_names_the_listener_that_it_means(reference, reason):
    assert attached({}, **reference).reason == reason


@pytest.mark.parametrize(
    ("listener", "hosts", "served"),
    [
        (None, [], ["*"]),
        (None, ["A.example"], ["a.example"]),
        ("*.example", [], ["*.example"]),
        ("*.example", ["a.example", "b.a.example", "example", "a.other"], ["a.example", "b.a.example"]),
        ("a.example", ["*.example"], ["a.example"]),
        ("*.a.example", ["*.example"], ["*.a.example"]),
        ("a.example", ["b.example"], None),
        ("*.example", ["*.ample"], None),
    ],
)  # fmt: skip
def test_the_narrower_host_counts(listener, hosts, served):
    found = attached({"hostname": listener}, hosts=hosts)

    assert found.listeners == ((("http", tuple(served)),) if served else ())
    assert found.reason == ("" if served else "NoMatchingListenerHostname")
