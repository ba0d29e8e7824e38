"""HTTPRoutes whose parent is a Service or a ServiceEntry: whose calls they lead, and where.

east: `web` and `next` of namespace apps, `theirs` of namespace shop; clients in both.
"""

import msgspec
import pytest

from isthmus.fleet.sources import ObjectKey
from isthmus.kube import gateway_api
from isthmus.testing import builders

APPS, SHOP = "apps", "shop"
SERVERS = {"10.1.0.1": "web", "10.1.0.2": "next", "10.1.0.3": "theirs"}
URL = "http://web.apps:80/"
NOWHERE = {"unknown host"}
PARENT = {"kind": "Service", "group": "", "name": "web"}
THEIRS = {**PARENT, "namespace": APPS}


@pytest.fixture
def mesh():
    mesh = builders.Mesh()
    east = mesh.cluster("east", network="n1")
    for address, name in SERVERS.items():
        namespace = SHOP if name == "theirs" else APPS
        ports = {"http": 80, "http-more": 81}
        east.service(name, namespace=namespace, ready=[address], ports=ports)
    for namespace in (APPS, SHOP):
        east.pod("client", namespace=namespace)
    return mesh


def route(mesh, name, *rules, parents=(PARENT,), namespace=APPS, **metadata):
    spec = {"parentRefs": list(parents), "rules": list(rules)}
    written = {"metadata": {"name": name, "namespace": namespace, **metadata}, "spec": spec}
    key = ObjectKey(mesh.clusters["east"].id, namespace, name)
    mesh.put(mesh.sources.http_routes, key, msgspec.convert(written, gateway_api.HttpRoute))


def to(name, **more):
    return {"backendRefs": [{"name": name, "port": 80, **more}]}


def at(path, **rule):
    return {"matches": [{"path": {"type": "PathPrefix", "value": path}}], **rule}


def asked(mesh, url=URL, *, client=f"east/{APPS}/client", **headers):
    """Return which server answers, or the status."""
    call = mesh.proxy(client).calls(url, headers=headers)
    return {SERVERS[one.address] if one.address else one.refused for one in call.landings}


def test_routes_of_who_offers_a_service_lead_all_calls_to_it(mesh):
    route(mesh, "a", to("next"))

    assert asked(mesh) == {"next"}
    assert asked(mesh, client=f"east/{SHOP}/client") == {"next"}
    assert asked(mesh, "http://next.apps:80/") == {"next"}


def test_routes_of_a_client_lead_the_calls_of_its_own_namespace_alone_and_come_first(mesh):
    route(mesh, "a", to("web"))
    route(mesh, "mine", to("theirs"), parents=[THEIRS], namespace=SHOP)

    assert asked(mesh, client=f"east/{SHOP}/client") == {"theirs"}
    assert asked(mesh) == {"web"}


def test_all_routes_of_a_namespace_are_followed_in_one_order(mesh):
    route(mesh, "a", to("web"))
    route(mesh, "b", at("/x", **to("next")))

    assert (asked(mesh), asked(mesh, f"{URL}x/y")) == ({"web"}, {"next"})
    key = ObjectKey(mesh.clusters["east"].id, APPS, "a")
    with mesh.graph.transaction() as transaction:
        transaction.delete(mesh.sources.http_routes, key)
    assert (asked(mesh), asked(mesh, f"{URL}x/y")) == (NOWHERE, {"next"})


@pytest.mark.parametrize("named", [{"port": 81}, {"sectionName": "http-more"}])
def test_a_port_that_is_named_is_the_only_one(mesh, named):
    route(mesh, "a", to("next"), parents=[{**PARENT, **named}])

    assert asked(mesh, "http://web.apps:81/") == {"next"}
    assert asked(mesh) == {"web"}


def test_a_port_that_there_is_not_means_none(mesh):
    route(mesh, "a", to("next"), parents=[{**PARENT, "sectionName": "nope"}])

    assert asked(mesh) == {"web"}


def test_what_no_rule_matches_is_not_found(mesh):
    route(mesh, "a", at("/x", **to("web")))

    assert asked(mesh) == NOWHERE


def test_routes_come_before_virtual_services_where_they_say_anything(mesh):
    spec = {"hosts": ["web"], "http": [{"route": [{"destination": {"host": "next"}}]}]}
    mesh.virtual_service("v", spec, namespace=APPS)
    route(mesh, "a", to("web"), parents=[{**PARENT, "port": 80}])

    assert asked(mesh) == {"web"}
    assert asked(mesh, "http://web.apps:81/") == {"next"}


def test_nobody_leads_the_calls_of_others_to_what_is_not_his(mesh):
    entry = {"hosts": ["web.apps.svc.cluster.local"], "ports": [{"number": 80, "name": "http"}]}
    mesh.service_entry("e", {**entry, "resolution": "NONE"}, namespace=SHOP)
    named = {"kind": "ServiceEntry", "group": "networking.istio.io", "name": "e"}
    route(mesh, "thief", to("theirs"), parents=[named, THEIRS], namespace=SHOP)

    assert asked(mesh) == {"web"}


def test_calls_to_the_hosts_of_a_service_entry_are_led_too(mesh):
    entry = {
        "hosts": ["api.example.com"],
        "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
        "resolution": "STATIC",
        "addresses": ["10.5.5.5"],
        "endpoints": [{"address": "192.0.2.1"}],
    }
    mesh.service_entry("e", entry, namespace=APPS)
    named = {"kind": "ServiceEntry", "group": "networking.istio.io", "name": "e"}
    route(mesh, "a", to("next"), parents=[named])

    east = mesh.clusters["east"]
    east.pod("knowing", namespace=APPS, shape=builders.Shape(dns="captured"))
    assert asked(mesh, "http://api.example.com/", client=f"east/{APPS}/knowing") == {"next"}


def test_a_host_of_the_mesh_can_be_a_backend(mesh):
    host = {"kind": "Hostname", "group": "networking.istio.io"}
    route(
        mesh, "a", to("next.apps.svc.cluster.local", **host), at("/x", **to("no.example", **host))
    )

    assert asked(mesh) == {"next"}
    assert asked(mesh, f"{URL}x") == {"`BlackHoleCluster` has no endpoint"}


@pytest.mark.parametrize(
    "parent",
    [
        {"kind": "Service", "name": "web"},
        {"kind": "Service", "group": "x", "name": "web"},
        {**PARENT, "name": "nope"},
        {**PARENT, "namespace": SHOP},
        {"name": "web"},
    ],
)
def test_what_names_something_else_leads_nothing(mesh, parent):
    route(mesh, "a", to("next"), parents=[parent])

    assert asked(mesh) == {"web"}


def test_a_rule_that_is_not_understood_costs_itself_and_is_named(mesh):
    filters = [{"type": "ExtensionRef"}]
    route(mesh, "a", at("/x", filters=filters, **to("next")), to("web"))

    assert asked(mesh, f"{URL}x") == {"web"}
    (finding,) = mesh.graph.items(mesh.model.findings).values()
    assert finding.subject == "HTTPRoute apps/a"


@pytest.mark.parametrize(
    "odd",
    [
        {"retry": {"codes": 5, "attempts": [], "backoff": {}}},
        {"retry": [], "timeouts": "soon"},
        {"filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": 5}}]},
        {"filters": [{"type": "RequestMirror", "requestMirror": {"fraction": {"numerator": "x"}}}]},
        {"filters": [{"type": ["URLRewrite"]}]},
        {"matches": [{"headers": [{"name": "x", "type": []}]}]},
    ],
)
def test_what_makes_no_sense_in_a_rule_disturbs_no_other(mesh, odd):
    route(mesh, "a", {**to("next"), **odd}, at("/x", **to("next")))

    assert asked(mesh, f"{URL}x") == {"next"}


def test_for_a_route_of_the_mesh_nothing_is_said_of_backends_in_other_namespaces(mesh):
    route(mesh, "a", to("theirs", namespace=SHOP))

    assert asked(mesh) == {"theirs"}
    assert not mesh.graph.items(mesh.model.findings)
