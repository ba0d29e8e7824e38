"""What the one Envoy of a node is told, beyond what the real one tells by itself."""

import re

import pytest
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2

from isthmus.mesh.authorization import Action, Form, Pattern
from isthmus.mesh.identities import SpiffeId, TrustDomain
from isthmus.resources import snapshot
from isthmus.resources.nodeproxy import build, judging, pods
from isthmus.testing import envoys
from isthmus.views import nodeslices, wds

DOMAIN = TrustDomain("cluster.local")
POD = nodeslices.EnrolledPod("u", "w", "10.0.0.1", SpiffeId(DOMAIN, "default", "a"), "/netns/50%a")


def policy(*groups, action=Action.ALLOW):
    return wds.AuthorizationSlice("default", "p", wds.Reach.NAMESPACE, action, groups)


def rules(*policies):
    each = (judging.tunnels(policies, action, address="10.0.0.1") for action in judging.IN_ORDER)
    return [one.rules for one in each if one.HasField("rules")]


def caller(text, form=Form.EXACT):
    return wds.ConnectionMatch(principals=(Pattern(form, text),))


def test_equal_slices_give_equal_bytes():
    listener = nodeslices.OutboundListener(POD)

    assert build.build(listener) == build.build(nodeslices.OutboundListener(POD))
    assert build.build(listener).type_url == snapshot.LISTENERS


def test_a_path_is_taken_literally_by_envoys_formats():
    told = envoys.as_json(envoys.decoded(build.build(nodeslices.OutboundListener(POD))))

    assert "/netns/50%%a" in str(told["default_filter_chain"])
    assert told["address"]["socket_address"]["network_namespace_filepath"] == "/netns/50%a"


@pytest.mark.parametrize(
    ("authority", "passes"),
    [
        ("10.0.0.1:8080", True),
        ("10.0.0.1:08080", False),
        ("10.0.0.2:8080", False),
        ("10x0.0.1:8080", False),
        ("10.0.0.1:8080 ", False),
        ("10.0.0.1", False),
    ],
)
def test_a_tunnel_leads_to_one_address_written_in_one_way(authority, passes):
    """Policies judge by the authority, and the connection goes where it says."""
    told = pods.routes(nodeslices.TunnelRoutes("u", POD.address), "r")
    passing = told.virtual_hosts[-1].routes[0].match.headers[0]
    pattern = passing.string_match.safe_regex.regex

    assert bool(re.fullmatch(pattern, authority)) is passes


def test_without_policies_nobody_is_judged():
    assert rules() == []
    assert judging.connections(()) == []


def test_a_policy_that_allows_nothing_lets_nobody_in():
    [told] = rules(policy())

    assert "nothing-is-allowed" in told.policies


def test_what_is_denied_is_judged_before_what_is_allowed():
    allow, deny = policy(((caller("a"),),)), policy(((caller("b"),),), action=Action.DENY)

    assert [one.action for one in rules(allow, deny)] == [
        rbac_pb2.RBAC.DESCRIPTOR.fields_by_name["rules"]
        .message_type.enum_values_by_name[name]
        .number
        for name in ("DENY", "ALLOW")
    ]


def test_callers_and_ports_of_one_group_must_both_fit():
    ports = wds.ConnectionMatch(ports=(80,))
    [told] = rules(policy(((caller("a"), caller("b")), (ports,))))

    [meant] = told.policies.values()
    said = str(meant)
    assert said.count('exact: "spiffe') == 2
    assert 'exact: "10.0.0.1:80"' in said


def test_a_port_is_judged_as_the_pods_own_by_whatever_name_it_is_asked_for():
    """Callers of other networks ask for ports of services, which may be others."""
    names = (nodeslices.TunnelName("web:80", 8080), nodeslices.TunnelName("web:81", 90))
    denied = policy(((wds.ConnectionMatch(ports=(8080,)),),), action=Action.DENY)

    said = str(judging.tunnels([denied], Action.DENY, address="10.0.0.1", names=names))

    assert 'exact: "10.0.0.1:8080"' in said
    assert 'exact: "web:80"' in said
    assert "web:81" not in said


def test_alternatives_about_callers_and_ports_at_once_are_kept_apart():
    """Otherwise the caller of one alternative would get the port of the other."""
    both = [
        wds.ConnectionMatch(principals=(Pattern(Form.EXACT, name),), ports=(port,))
        for name, port in (("a", 80), ("b", 90))
    ]
    [told] = rules(policy((tuple(both),)))

    said = [str(told.policies[name]) for name in sorted(told.policies)]
    assert ["spiffe://a" in one for one in said] == [":80" in one for one in said]
    assert len(said) == 2


def test_a_stranger_is_not_allowed_in_for_whom_he_is_not():
    unless = wds.ConnectionMatch(not_principals=(Pattern(Form.EXACT, "x"),))

    [allowed], [denied] = (
        rules(policy(((unless,),))),
        rules(policy(((unless,),), action=Action.DENY)),
    )

    assert 'prefix: "spiffe://"' in str(allowed)
    assert 'prefix: "spiffe://"' not in str(denied)


@pytest.mark.parametrize(
    ("pattern", "identity", "fits"),
    [
        (Pattern(Form.EXACT, "a"), "spiffe://d/ns/a/sa/x", True),
        (Pattern(Form.EXACT, "a"), "spiffe://d/ns/ab/sa/x", False),
        (Pattern(Form.PREFIX, "a"), "spiffe://d/ns/ab/sa/x", True),
        (Pattern(Form.SUFFIX, "b"), "spiffe://d/ns/ab/sa/x", True),
        (Pattern(Form.SUFFIX, "b"), "spiffe://d/ns/ab/x/sa/x", False),
        (Pattern(Form.PRESENT), "spiffe://d/ns/q/sa/x", True),
    ],
)
def test_namespaces_of_callers(pattern, identity, fits):
    [told] = rules(policy(((wds.ConnectionMatch(namespaces=(pattern,)),),)))
    regex = re.search(r'regex: "(.*)"', str(told))[1]

    assert bool(re.fullmatch(regex, identity)) is fits
