"""Which policy holds, and who may know of what."""

import pytest

from isthmus.mesh import policies, traffic
from isthmus.mesh.policies import MtlsMode
from isthmus.mesh.proxies import Proxy, ProxyKind
from isthmus.mesh.services import Protocol, Service, ServiceKey
from isthmus.views import facts, modes, rules, sidecar, view, visibility

HOST = "web.shop.svc.cluster.local"
SERVICE = Service(ServiceKey("shop", "web"), HOST, ())


def policy(namespace, mode, *, name="a", created="2026", selector=(), ports=()):
    return policies.PeerAuthentication(namespace, name, created, selector, mode, ports)


def accepted(*found, port=80, labels=None):
    said = modes.modes_of(found, namespace="shop", labels=labels or {}, root="istio-system")
    return said.of(port)


def test_unless_something_is_said_both_are_accepted():
    assert accepted() is MtlsMode.PERMISSIVE


def test_the_narrower_policy_wins():
    mesh, namespace = policy("istio-system", MtlsMode.STRICT), policy("shop", MtlsMode.DISABLE)
    workload = policy("shop", MtlsMode.PERMISSIVE, name="w", selector=(("app", "web"),))

    assert accepted(mesh) is MtlsMode.STRICT
    assert accepted(mesh, namespace) is MtlsMode.DISABLE
    assert accepted(mesh, namespace, workload, labels={"app": "web"}) is MtlsMode.PERMISSIVE
    assert accepted(mesh, namespace, workload, labels={"app": "db"}) is MtlsMode.DISABLE


def test_a_mode_that_is_not_set_is_inherited():
    mesh, namespace = policy("istio-system", MtlsMode.STRICT), policy("shop", None)

    assert accepted(mesh, namespace) is MtlsMode.STRICT


def test_the_oldest_of_a_level_wins():
    new = policy("shop", MtlsMode.DISABLE, created="2026-02")
    old = policy("shop", MtlsMode.STRICT, name="b", created="2026-01")

    assert accepted(new, old) is MtlsMode.STRICT


def test_a_port_counts_only_in_a_workloads_policy():
    namespace = policy("shop", MtlsMode.STRICT, ports=((80, MtlsMode.DISABLE),))
    workload = policy(
        "shop",
        None,
        name="w",
        selector=(("app", "web"),),
        ports=((80, MtlsMode.DISABLE), (81, None)),
    )

    assert accepted(namespace) is MtlsMode.STRICT
    assert accepted(namespace, workload, labels={"app": "web"}) is MtlsMode.DISABLE
    assert accepted(namespace, workload, labels={"app": "web"}, port=81) is MtlsMode.STRICT


def rule(namespace, *, name="a", host=HOST, subsets=(), export_to=(), tls=None):
    return policies.DestinationRule(
        namespace,
        name,
        host,
        traffic.TrafficPolicy(tls=tls),
        tuple(policies.Subset(one, ()) for one in subsets),
        export_to,
    )


def chosen(*found, client):
    one = rules.chosen(found, SERVICE, client=client, root="istio-system")
    return None if one is None else one.namespace


def test_a_rule_is_looked_for_at_the_client_then_the_service_then_the_root():
    found = [rule("istio-system"), rule("shop"), rule("front")]

    assert chosen(*found, client="front") == "front"
    assert chosen(*found, client="back") == "shop"
    assert chosen(found[0], client="back") == "istio-system"
    assert chosen(found[2], client="back") is None


def test_a_rule_that_is_not_exported_counts_at_home_alone():
    private = rule("shop", export_to=(".",))

    assert chosen(private, client="shop") == "shop"
    assert chosen(private, client="back") is None


def test_rules_of_one_host_and_namespace_are_merged():
    strict = traffic.Encryption(traffic.ClientTls.ISTIO_MUTUAL)
    found = [
        rule("shop", subsets=("v1",)),
        rule("shop", name="b", subsets=("v1", "v2"), tls=strict),
    ]

    merged = rules.chosen(found, SERVICE, client="back", root="istio-system")

    assert [subset.name for subset in merged.subsets] == ["v1", "v2"]
    assert merged.policy.tls is strict


@pytest.mark.parametrize(
    ("export_to", "known_in"),
    [
        ((), {"shop", "back"}),
        (("*",), {"shop", "back"}),
        ((".",), {"shop"}),
        (("~",), set()),
        (("back",), {"back"}),
    ],
)
def test_export_says_who_may_know(export_to, known_in):
    seen = {
        client
        for client in ("shop", "back")
        if visibility.is_exported(export_to, owner="shop", client=client)
    }

    assert seen == known_in


def test_short_names_are_for_the_services_own_namespace():
    assert "web" in visibility.domains_of(SERVICE, client="shop", addresses=())
    assert "web" not in visibility.domains_of(SERVICE, client="back", addresses=())
    assert "web.shop" in visibility.domains_of(SERVICE, client="back", addresses=())


def test_addresses_of_the_sixth_version_stand_in_brackets():
    domains = visibility.domains_of(SERVICE, client="back", addresses=("fd00::1",))

    assert "[fd00::1]" in domains


def served(*ports):
    return {
        facts.ServedKey(ServiceKey("shop", name), "c1", "10.0.0.1", "http"): facts.Served(
            port, protocol, number
        )
        for name, number, port, protocol in ports
    }


def test_replicas_on_different_nodes_share_their_scopes():
    scopes = {
        sidecar.scopes_of(
            Proxy(
                "p",
                ProxyKind.SIDECAR,
                "c1",
                "n1",
                "shop",
                labels=(("app", "web"), ("kubernetes.io/hostname", node)),
            ),
            workload=None,
            served={},
        )
        for node in ("node1", "node2")
    }

    assert len(scopes) == 1


def test_of_services_that_disagree_about_a_port_the_first_ones_word_counts():
    proxy = Proxy("p", ProxyKind.SIDECAR, "c1", "n1", "shop")
    found = served(("b", 81, 8080, Protocol.HTTP), ("a", 80, 8080, Protocol.TCP))

    inbound = sidecar.scopes_of(proxy, workload=None, served=found)[-1]

    assert isinstance(inbound, view.InboundScope)
    assert inbound.ports == ((8080, Protocol.TCP),)
