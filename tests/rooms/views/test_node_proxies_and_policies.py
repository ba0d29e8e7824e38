"""What node proxies are told of policies."""

import pytest
from told_node_proxies import node_proxy, told, two_clusters, workload

from isthmus.resources import snapshot
from isthmus.testing import shapes
from isthmus_proto.istio.security import authorization_pb2

# --- policies


def authorization(cluster, name):
    return told(cluster, snapshot.AUTHORIZATIONS)[name]


def test_workloads_name_the_policies_that_select_them():
    mesh, east = two_clusters("")
    east.pod("reviews", shape=shapes.CAPTURED)
    chosen = {"selector": {"matchLabels": {"app": "reviews"}}, "rules": [{}]}
    mesh.authorization_policy("mine", chosen)
    mesh.authorization_policy("all", {"rules": [{}]})
    mesh.authorization_policy(
        "not-mine", {"selector": {"matchLabels": {"app": "other"}}, "rules": [{}]}
    )

    said = workload(east, "east//Pod/default/reviews")

    assert list(said.authorization_policies) == ["default/mine"]
    scopes = {one.name: one.scope for one in told(east, snapshot.AUTHORIZATIONS).values()}
    assert scopes["mine"] == authorization_pb2.WORKLOAD_SELECTOR
    assert scopes["all"] == authorization_pb2.NAMESPACE


def test_a_rule_becomes_a_group_of_what_connections_show():
    mesh, east = two_clusters("")
    mesh.authorization_policy(
        "some",
        {
            "action": "DENY",
            "rules": [
                {
                    "from": [
                        {"source": {"principals": ["cluster.local/ns/a/sa/b"]}},
                        {"source": {"notNamespaces": ["c*"], "ipBlocks": ["10.0.0.0/8"]}},
                    ],
                    "to": [{"operation": {"ports": ["80"]}}],
                    "when": [{"key": "source.namespace", "notValues": ["d"]}],
                }
            ],
        },
    )

    (group,) = authorization(east, "default/some").groups

    ports, sources, when = group.rules
    assert [list(one.destination_ports) for one in ports.matches] == [[80]]
    assert [one.exact for one in sources.matches[0].principals] == ["cluster.local/ns/a/sa/b"]
    assert [one.prefix for one in sources.matches[1].not_namespaces] == ["c"]
    assert [one.length for one in sources.matches[1].source_ips] == [8]
    assert [one.exact for one in when.matches[0].not_namespaces] == ["d"]


LOOKS = {"to": [{"operation": {"methods": ["GET"]}}]}


def test_a_rule_to_allow_that_looks_at_requests_is_left_out():
    mesh, east = two_clusters("")
    mesh.authorization_policy("some", {"rules": [LOOKS, {"to": [{"operation": {"ports": ["1"]}}]}]})
    mesh.authorization_policy("none", {"rules": [LOOKS]})

    assert len(authorization(east, "default/some").groups) == 1
    assert not authorization(east, "default/none").groups


def test_a_rule_to_deny_loses_what_looks_at_requests_and_denies_more():
    mesh, east = two_clusters("")
    mesh.authorization_policy("all", {"action": "DENY", "rules": [LOOKS]})
    mesh.authorization_policy(
        "some",
        {"action": "DENY", "rules": [{**LOOKS, "from": [{"source": {"namespaces": ["a"]}}]}]},
    )

    # A group without rules fits every connection; a match that says nothing would fit none.
    assert [list(one.rules) for one in authorization(east, "default/all").groups] == [[]]
    (group,) = authorization(east, "default/some").groups
    (rule,) = group.rules
    assert [one.exact for one in rule.matches[0].namespaces] == ["a"]


def test_a_policy_that_looks_at_requests_is_named_where_there_are_node_proxies():
    mesh, east = two_clusters("")
    mesh.authorization_policy("some", {"rules": [LOOKS]})
    mesh.authorization_policy("other", {"rules": [{"to": [{"operation": {"ports": ["1"]}}]}]})
    assert not mesh.graph.items(mesh.views.findings)

    mesh.scopes_of(node_proxy(east))

    (found,) = mesh.graph.items(mesh.views.findings).values()
    assert (found.code, found.subject) == ("ISM-VIEW-007", "AuthorizationPolicy default/some")
    assert "allow nothing" in found.happened


@pytest.mark.parametrize("namespace", ["istio-system", "default"])
def test_a_workload_that_accepts_no_plain_text_names_the_static_policy(namespace):
    mesh, east = two_clusters("")
    east.pod("reviews", shape=shapes.CAPTURED)
    assert not workload(east, "east//Pod/default/reviews").authorization_policies

    mesh.peer_authentication(namespace, "STRICT")

    said = workload(east, "east//Pod/default/reviews")
    strict = "istio-system/istio_converted_static_strict"
    assert list(said.authorization_policies) == [strict]
    policy = authorization(east, strict)
    assert policy.action == authorization_pb2.DENY
    (match,) = policy.groups[0].rules[0].matches
    assert match.not_principals[0].HasField("presence")


def test_ports_that_accept_plain_text_are_exempt():
    mesh, east = two_clusters("")
    east.pod("reviews", shape=shapes.CAPTURED)
    mesh.peer_authentication("default", "STRICT")
    mesh.peer_authentication(
        "default",
        "UNSET",
        selector={"app": "reviews"},
        ports={8080: "PERMISSIVE", 9000: "STRICT"},
        name="ports",
    )

    name = "default/converted_peer_authentication_ports"
    assert list(workload(east, "east//Pod/default/reviews").authorization_policies) == [name]
    identity, ports = authorization(east, name).groups[0].rules
    assert identity.matches[0].not_principals[0].HasField("presence")
    assert list(ports.matches[0].not_destination_ports) == [8080]


def test_ports_that_accept_no_plain_text_are_named():
    mesh, east = two_clusters("")
    east.pod("reviews", shape=shapes.CAPTURED)
    mesh.peer_authentication(
        "default", "PERMISSIVE", selector={"app": "reviews"}, ports={9000: "STRICT"}, name="ports"
    )

    (rule,) = authorization(east, "default/converted_peer_authentication_ports").groups[0].rules
    assert list(rule.matches[0].destination_ports) == [9000]
    assert rule.matches[0].not_principals[0].HasField("presence")
