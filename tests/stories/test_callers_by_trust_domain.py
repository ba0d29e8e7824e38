"""Policies that say from which cluster a caller comes, by its trust domain."""

import itertools

import pytest

from isthmus.ca import pem
from isthmus.mesh.proxies import ProxyKind
from isthmus.resources import consistency, snapshot
from isthmus.testing import builders, chains, envoys, rbac, shapes
from isthmus.testing import certificates as material
from isthmus_proto.istio.security import authorization_pb2

A, B, C = "a.local", "b.local", "c.local"
CLUSTERS = {"east": A, "west": B, "north": C}
CALLERS = {
    (domain, account): f"spiffe://{domain}/ns/default/sa/{account}"
    for domain, account in itertools.product((A, B, C), ("x", "y"))
}
SOURCE_CLUSTERS = "isthmus.dev/source-clusters"
ANY = {"rules": [{}]}


def below(name):
    return pem.written(material.intermediate_certificate(name))


@pytest.fixture
def mesh():
    found = builders.Mesh()
    for name, domain in CLUSTERS.items():
        found.cluster(name, trust_domain=domain)
    found.configure(trustDomain=A)
    for domain in (B, C):
        found.lists(domain, below(domain))
    found.cluster("east").service("server", ready=["10.0.0.9"])
    return found


def codes(mesh):
    return sorted(one.code for one in mesh.graph.items(mesh.model.findings).values())


def let_in(mesh):
    """Return who may call by HTTP, as the server's sidecar judges."""
    pod = next(pod for pod in mesh.pods if pod.address == "10.0.0.9")
    listener = mesh.snapshot_of(pod).of(snapshot.LISTENERS)["virtualInbound"]
    said = chains.Connection("10.0.0.9", 80)
    filters = chains.chosen(envoys.decoded(listener), said).filters
    return {
        key
        for key, caller in CALLERS.items()
        if rbac.lets_in(filters, rbac.Asked(caller, "10.9.9.9", 80))
    }


def judged_by_nodes(mesh, name="p"):
    """Return who is meant by a policy, as node proxies hear it; ztunnel's reading of it."""
    proxies = [pod for pod in mesh.pods if pod.proxy is ProxyKind.ZTUNNEL]
    node = proxies[0] if proxies else _node(mesh)
    told = mesh.snapshot_of(node).of(snapshot.AUTHORIZATIONS)
    policy = consistency.decoded(told[f"default/{name}"])
    return {key for key, caller in CALLERS.items() if _is_meant(policy, caller)}


def _node(mesh):
    shape = shapes.Shape(proxy=ProxyKind.ZTUNNEL, account="ztunnel")
    return mesh.cluster("east").pod("ztunnel-1", namespace="istio-system", shape=shape)


def _is_meant(policy, caller):
    return any(
        all(any(_matches(one, caller) for one in rule.matches) for rule in group.rules)
        for group in policy.groups
    )


def _matches(match, caller):
    principal = caller.removeprefix("spiffe://")
    _, _, namespace, _, account = principal.split("/")
    return (
        _any(match.principals, principal)
        and not (match.not_principals and _any(match.not_principals, principal))
        and _any(match.namespaces, namespace)
        and (
            not match.service_accounts
            or any(
                (one.namespace, one.serviceAccount) == (namespace, account)
                for one in match.service_accounts
            )
        )
    )


def _any(patterns, text):
    found = {
        "exact": lambda one: text == one.exact,
        "prefix": lambda one: text.startswith(one.prefix),
        "suffix": lambda one: text.endswith(one.suffix),
        "presence": lambda one: bool(text),
    }
    return not patterns or any(found[one.WhichOneof("match_type")](one) for one in patterns)


def of(*domains, accounts=("x", "y")):
    return set(itertools.product(domains, accounts))


def source(**clauses):
    return {"rules": [{"from": [{"source": clauses}]}]}


# --- trust domains in clauses

MEANT = [
    ({"trustDomains": [B]}, of(B)),
    ({"trustDomains": [A, C]}, of(A, C)),
    ({"trustDomains": ["b*"]}, of(B)),
    ({"trustDomains": ["*.local"]}, of(A, B, C)),
    ({"trustDomains": ["*.elsewhere"]}, set()),
    ({"trustDomains": ["*"]}, of(A, B, C)),
    ({"notTrustDomains": [B]}, of(A, C)),
    ({"notTrustDomains": ["*.local"]}, set()),
    ({"trustDomains": [B], "principals": [f"{B}/ns/default/sa/x"]}, {(B, "x")}),
    ({"trustDomains": [B], "principals": [f"{A}/ns/default/sa/x"]}, set()),
    ({"trustDomains": [B], "principals": ["*/ns/default/sa/x"]}, {(B, "x")}),
    ({"trustDomains": [B], "principals": ["*"]}, of(B)),
    ({"trustDomains": [A, B], "notPrincipals": [f"{B}/ns/default/sa/x"]}, of(A) | {(B, "y")}),
    ({"trustDomains": [B], "serviceAccounts": ["default/x"]}, {(B, "x")}),
    ({"trustDomains": [B], "namespaces": ["default"]}, of(B)),
    ({"trustDomains": [B], "namespaces": ["other"]}, set()),
    ({"namespaces": ["default"]}, of(A, B, C)),
    ({"principals": [f"{B}/ns/default/sa/x"]}, {(B, "x")}),
    ({"principals": [f"{A}/ns/default/sa/x"]}, {(A, "x")}),
]


@pytest.mark.parametrize(("clauses", "meant"), MEANT)
def test_a_clause_means_callers_of_the_named_trust_domains_to_sidecars_and_nodes(
    mesh, clauses, meant
):
    mesh.authorization_policy("p", source(**clauses))

    assert let_in(mesh) == meant
    assert judged_by_nodes(mesh) == meant
    assert codes(mesh) == []


@pytest.mark.parametrize(("clauses", "meant"), MEANT)
def test_what_is_denied_is_what_is_meant(mesh, clauses, meant):
    mesh.authorization_policy("p", source(**clauses) | {"action": "DENY"})

    assert let_in(mesh) == of(A, B, C) - meant
    assert judged_by_nodes(mesh) == meant


def test_what_a_node_cannot_be_told_at_once_lets_in_less_and_denies_more(mesh):
    clauses = {"trustDomains": [B], "principals": ["*/sa/x"]}
    mesh.authorization_policy("p", source(**clauses))
    assert let_in(mesh) == {(B, "x")}
    assert judged_by_nodes(mesh) == set()

    mesh.authorization_policy("p", source(**clauses) | {"action": "DENY"})
    assert judged_by_nodes(mesh) == of(A, B, C, accounts="x")


def test_a_trust_domain_that_is_listed_no_more_lets_nobody_in_by_namespace(mesh):
    mesh.authorization_policy("p", source(namespaces=["default"]))
    mesh.lists_no_more(B)

    assert let_in(mesh) == of(A, C)


def test_a_condition_may_name_trust_domains(mesh):
    when = [{"key": "source.trustDomain", "values": ["*.local"], "notValues": [C]}]
    mesh.authorization_policy("p", {"rules": [{"when": when}]})

    assert let_in(mesh) == judged_by_nodes(mesh) == of(A, B)


# --- cluster.local

USUAL = "cluster.local/ns/default/sa/x"


def test_cluster_local_means_a_cluster_of_that_name_where_there_is_one(mesh):
    mesh.lists("cluster.local", below("usual"))
    mesh.authorization_policy("p", source(principals=[USUAL]))
    assert let_in(mesh) == judged_by_nodes(mesh) == set()

    mesh.authorization_policy("p", source(principals=[USUAL]) | {"action": "DENY"})
    assert let_in(mesh) == of(A, B, C)
    assert codes(mesh) == []


def test_where_nobody_has_it_it_allows_nobody_and_denies_us_and_says_so(mesh):
    mesh.authorization_policy("p", source(principals=[USUAL]))
    assert let_in(mesh) == judged_by_nodes(mesh) == set()
    assert codes(mesh) == ["ISM-REG-043"]

    mesh.authorization_policy("p", source(principals=[USUAL]) | {"action": "DENY"})
    assert let_in(mesh) == of(A, B, C) - {(A, "x")}
    assert judged_by_nodes(mesh) == {(A, "x")}


def test_as_an_alias_it_means_us(mesh):
    mesh.configure(trustDomain=A, trustDomainAliases=["cluster.local"])
    mesh.authorization_policy("p", source(principals=[USUAL]))

    assert let_in(mesh) == {(A, "x")}
    assert codes(mesh) == []


# --- clusters by name


@pytest.mark.parametrize(
    ("clusters", "spec", "meant"),
    [
        ("west", ANY, of(B)),
        ("west, north", ANY, of(B, C)),
        ("east", ANY, of(A)),
        ("west", source(serviceAccounts=["default/x"]), {(B, "x")}),
        ("west", source(principals=[f"{B}/ns/default/sa/x"]), {(B, "x")}),
        ("west", source(principals=[f"{A}/ns/default/sa/x"]), set()),
        ("west", {"rules": []}, set()),
    ],
)
def test_source_clusters_narrow_every_rule(mesh, clusters, spec, meant):
    mesh.authorization_policy("p", spec, annotations={SOURCE_CLUSTERS: clusters})

    assert let_in(mesh) == meant
    assert judged_by_nodes(mesh) == meant
    assert codes(mesh) == []


def test_a_denial_holds_for_these_clusters_alone(mesh):
    mesh.authorization_policy(
        "p", ANY | {"action": "DENY"}, annotations={SOURCE_CLUSTERS: "west,north"}
    )

    assert let_in(mesh) == of(A)
    assert judged_by_nodes(mesh) == of(B, C)


@pytest.mark.parametrize("clusters", ["", " , ", "south", "west,south"])
def test_an_unknown_cluster_denies_all_and_says_so(mesh, clusters):
    mesh.authorization_policy("p", ANY, annotations={SOURCE_CLUSTERS: clusters})

    assert let_in(mesh) == set()
    assert judged_by_nodes(mesh) == of(A, B, C)
    assert codes(mesh) == ["ISM-REG-042"]


@pytest.mark.parametrize("shared", [A, B])
def test_clusters_that_share_a_trust_domain_cannot_be_told_apart(mesh, shared):
    mesh.cluster("twin", trust_domain=shared)
    named = next(name for name, domain in CLUSTERS.items() if domain == shared)
    mesh.authorization_policy("p", ANY, annotations={SOURCE_CLUSTERS: named})
    assert let_in(mesh) == set()
    (finding,) = mesh.graph.items(mesh.model.findings).values()
    assert "names no cluster `twin`, which cannot be told apart" in finding.happened

    mesh.authorization_policy("p", ANY, annotations={SOURCE_CLUSTERS: f"{named}, twin"})
    assert let_in(mesh) == of(shared)


def test_an_alias_that_another_cluster_has_cannot_be_told_from_us(mesh):
    mesh.configure(trustDomain=A, trustDomainAliases=[B])
    mesh.authorization_policy("p", ANY, annotations={SOURCE_CLUSTERS: "west"})

    assert let_in(mesh) == set()
    assert codes(mesh) == ["ISM-REG-042"]


def test_a_policy_that_cannot_be_told_changes_no_other_one(mesh):
    mesh.authorization_policy(
        "p",
        {"selector": {"matchLabels": {"app": "other"}}} | ANY,
        annotations={SOURCE_CLUSTERS: "south"},
    )

    assert let_in(mesh) == of(A, B, C)


def test_node_proxies_get_conditions_that_stand_beside_the_sources(mesh):
    """One match has one list of principals: a second one would widen it."""
    mesh.authorization_policy(
        "p",
        source(principals=[f"{B}/ns/default/sa/x"]),
        annotations={SOURCE_CLUSTERS: "west"},
    )
    told = mesh.snapshot_of(_node(mesh)).of(snapshot.AUTHORIZATIONS)["default/p"]
    (group,) = consistency.decoded(told).groups

    assert isinstance(group, authorization_pb2.Group)
    exact, prefix = (rule.matches[0].principals for rule in group.rules)
    assert [one.exact for one in exact] == [f"{B}/ns/default/sa/x"]
    assert [one.prefix for one in prefix] == [f"{B}/"]
