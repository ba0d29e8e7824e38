"""Who may call what: what built filters let in is what a plain reading of the policies says."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.kube import objects
from isthmus.mesh import policies, settings
from isthmus.mesh.services import Protocol
from isthmus.registry import authorization_policies, config, fields
from isthmus.resources import snapshot
from isthmus.resources.envoy import build
from isthmus.testing import builders, chains, envoys, rbac, shapes
from isthmus.views import authorization, view

NAMESPACES, ACCOUNTS = ("a", "b", "ab", "ns", "sa"), ("x", "y", "xy")
PATHS = ("/", "/admin", "/admin/a", "/public")
CALLERS = ("", *(f"spiffe://cluster.local/ns/{ns}/sa/{sa}" for ns in NAMESPACES for sa in ACCOUNTS))


# --- a plain reading


def text_fits(pattern, text):
    if pattern == "*":
        return True
    if pattern.endswith("*"):
        return text.startswith(pattern[:-1])
    if pattern.startswith("*"):
        return text.endswith(pattern[1:])
    return pattern == text


def source_fits(field, values, asked):
    """Say whether a caller has one of some values; None for a caller without an identity."""
    if not asked.caller:
        return None
    principal = asked.caller.removeprefix("spiffe://")
    namespace, account = principal.split("/")[2], principal.split("/")[4]
    said = {"principals": principal, "namespaces": namespace}.get(field, f"{namespace}/{account}")
    return any(text_fits(value, said) for value in values)


def operation_fits(field, values, asked):
    said = {"paths": asked.path, "methods": asked.method, "ports": str(asked.port)}[field]
    return any(text_fits(value, said) for value in values)


def clause_fits(field, values, asked, *, denies):
    is_negated = field.startswith("not")
    name = field[3].lower() + field[4:] if is_negated else field
    is_source = name in {"principals", "namespaces", "serviceAccounts"}
    if not is_source and not asked.is_request and name != "ports":
        return denies
    fits = (source_fits if is_source else operation_fits)(name, values, asked)
    return denies if fits is None else fits is not is_negated


def part_fits(parts, inner, asked, *, denies):
    return not parts or any(
        all(clause_fits(*clause, asked, denies=denies) for clause in part[inner].items())
        for part in parts
    )


def policy_fits(spec, asked):
    denies = spec["action"] == "DENY"
    return any(
        part_fits(rule.get("from"), "source", asked, denies=denies)
        and part_fits(rule.get("to"), "operation", asked, denies=denies)
        and (denies or asked.is_request or not needs_request(rule))
        for rule in spec.get("rules", ())
    )


def needs_request(rule):
    fields = {field for part in rule.get("to", ()) for field in part["operation"]}
    return bool(fields - {"ports", "notPorts"})


def is_let_in(specs, asked):
    if any(policy_fits(spec, asked) for spec in specs if spec["action"] == "DENY"):
        return False
    allowing = [spec for spec in specs if spec["action"] == "ALLOW"]
    return not allowing or any(policy_fits(spec, asked) for spec in allowing)


# --- what is generated


def some(values):
    return st.lists(st.sampled_from(values), min_size=1, max_size=2, unique=True)


PRINCIPALS = ["cluster.local/ns/a/sa/x", "cluster.local/ns/b/*", "*/sa/y", "*/ns/a/sa/x", "*"]
SOURCES = {
    "principals": PRINCIPALS,
    "notPrincipals": PRINCIPALS,
    "namespaces": ["a", "b", "sa", "a*", "*"],
    "notNamespaces": ["a", "sa"],
    "serviceAccounts": ["a/x", "b/y"],
    "notServiceAccounts": ["a/x"],
}
OPERATIONS = {
    "paths": [*PATHS, "/admin*", "*/a", "*", "/*"],
    "notPaths": [*PATHS, "/admin*", "*/a"],
    "methods": ["GET", "P*", "*"],
    "notMethods": ["GET", "POST"],
    "ports": ["8080", "9000"],
    "notPorts": ["8080"],
}


def parts(fields):
    choices = {name: some(values) for name, values in fields.items()}
    one = st.sets(st.sampled_from(sorted(fields)), min_size=1, max_size=2)
    return one.flatmap(lambda names: st.fixed_dictionaries({name: choices[name] for name in names}))


rules = st.fixed_dictionaries(
    {},
    optional={
        "from": st.lists(st.fixed_dictionaries({"source": parts(SOURCES)}), min_size=1, max_size=2),
        "to": st.lists(
            st.fixed_dictionaries({"operation": parts(OPERATIONS)}), min_size=1, max_size=2
        ),
    },
)
specs = st.fixed_dictionaries(
    {"action": st.sampled_from(["ALLOW", "DENY"]), "rules": st.lists(rules, max_size=2)}
)
calls = st.builds(
    rbac.Asked,
    caller=st.sampled_from(CALLERS),
    address=st.just("10.9.9.9"),
    port=st.sampled_from([8080, 9000]),
    path=st.sampled_from(PATHS),
    method=st.sampled_from(["GET", "POST", "PUT"]),
    is_request=st.booleans(),
)


SETTINGS = settings.MeshSettings()
PORT = view.InboundPort(8080, Protocol.HTTP, policies.MtlsMode.PERMISSIVE, "inbound|8080||")


def understood(specs):
    """Return what policies mean for a workload of their namespace."""
    found = []
    for number, spec in enumerate(specs):
        problems = fields.Problems()
        origin = config.Origin("AuthorizationPolicy", "a", f"p{number}", "cluster.local")
        object_ = objects.FreeForm(shapes.metadata(f"p{number}", "a"), spec=spec)
        found.append(authorization_policies.read(origin, object_, problems))
        assert not problems.texts()
    return authorization.policies_of(found, namespace="a", labels={}, settings=SETTINGS)


def lets_in(specs, asked):
    """Say whether the filters that are built for a workload let a call in."""
    protocol = Protocol.HTTP if asked.is_request else Protocol.TCP
    port = dataclasses.replace(PORT, port=asked.port, protocol=protocol)
    listener = view.Inbound((port,), port.mode, ("cluster.local",), policies=understood(specs))
    told = envoys.decoded(build.build(listener))
    said = chains.Connection("10.0.0.1", asked.port)
    return rbac.lets_in(chains.chosen(told, said).filters, asked)


@given(st.lists(specs, max_size=3), calls)
def test_filters_let_in_what_a_plain_reading_lets_in(held, asked):
    assert lets_in(held, asked) is is_let_in(held, asked)


@given(st.lists(specs, max_size=3), specs, calls)
def test_another_denial_lets_no_call_in(held, denial, asked):
    more = [*held, denial | {"action": "DENY"}]
    assert lets_in(held, asked) or not lets_in(more, asked)


@given(st.lists(specs, max_size=3), specs, specs, calls)
def test_where_something_is_allowed_allowing_more_refuses_no_call(held, first, second, asked):
    one = [*held, first | {"action": "ALLOW"}]
    assert lets_in([*one, second | {"action": "ALLOW"}], asked) or not lets_in(one, asked)


@given(parts(SOURCES), calls)
def test_callers_in_plain_text_fit_no_clause_about_identities(source, asked):
    stranger = dataclasses.replace(asked, caller="")
    rules_ = [{"from": [{"source": source}]}]

    assert not lets_in([{"action": "ALLOW", "rules": rules_}], stranger)
    assert not lets_in([{"action": "DENY", "rules": rules_}], stranger)


# --- in a mesh of two networks


@pytest.fixture
def mesh():
    mesh = builders.Mesh()
    east, west = mesh.cluster("east", network="n1"), mesh.cluster("west", network="n2")
    west.gateway(external="172.30.0.2")
    mesh.expose_services()
    ports = {"http": 80, "tcp": 9000}
    west.service("server", ready=["10.2.0.1"], ports=ports)
    east.service("server", ready=[], ports=ports)
    east.pod("friend", shape=shapes.Shape(account="friend"))
    return mesh


FRIENDS = {
    "rules": [{"from": [{"source": {"principals": ["cluster.local/ns/default/sa/friend"]}}]}]
}
SERVER = {"selector": {"matchLabels": {"app": "server"}}}


@pytest.mark.parametrize("url", ["http://server/", "tcp://server:9000"])
def test_identities_count_across_networks(mesh, url):
    mesh.authorization_policy("friends", FRIENDS | SERVER)

    assert mesh.proxy("east/friend").calls(url).arrives_at == "10.2.0.1"
    assert mesh.proxy("east/other").calls(url).refused == {rbac.REFUSED}


def test_what_the_mesh_denies_a_namespace_can_allow(mesh):
    mesh.authorization_policy("nobody", {}, namespace="istio-system")
    assert mesh.proxy("east/friend").calls("http://server/").refused == {rbac.REFUSED}

    mesh.authorization_policy("friends", FRIENDS | SERVER)
    assert mesh.proxy("east/friend").calls("http://server/").arrives_at == "10.2.0.1"


def test_the_mesh_is_meant_by_all_names_of_its_trust_domain(mesh):
    mesh.configure(trustDomain="new.example", trustDomainAliases=["cluster.local"])
    mesh.authorization_policy("friends", FRIENDS | SERVER)

    assert mesh.proxy("east/friend").calls("http://server/").arrives_at == "10.2.0.1"


def test_a_policy_for_others_changes_nothing_for_a_workload(mesh):
    before = mesh.snapshot_of(mesh.pods[-1])
    mesh.authorization_policy("nobody", {"selector": {"matchLabels": {"app": "nobody"}}})
    mesh.authorization_policy("nobody", {"rules": "odd"}, namespace="elsewhere")

    assert mesh.snapshot_of(mesh.pods[-1]) == before


NOT_UNDERSTOOD = [
    {"rules": [{"to": [{"operation": {"colours": ["red"]}}]}]},
    {"rules": [{"to": [{"operation": {"paths": []}}]}]},
    {"rules": [{"to": [{"operation": {"paths": ["/%2e"]}}]}]},
    {"rules": [{"to": [{"operation": {"paths": ["/a//b"]}}]}]},
    {"rules": [{"to": [{"operation": {"paths": ["/{*}/b"]}}]}]},
    {"rules": [{"to": [{"operation": {"ports": ["http"]}}]}]},
    {"rules": [{"to": [{"operation": {"hosts": ["a.example:80"]}}]}]},
    {"rules": [{"to": [{}]}]},
    {"rules": [{"from": [{"source": {}}]}]},
    {"rules": [{"from": []}]},
    {"rules": [{"from": [{"source": {"principals": ["cluster.local/ns/a*"]}}]}]},
    {"rules": [{"from": [{"source": {"principals": ["cluster.local/ns/*/sa/b"]}}]}]},
    {"rules": [{"from": [{"source": {"principals": None}}]}]},
    {"rules": [{"from": [{"source": {"requestPrincipals": ["a*b*"]}}]}]},
    {"rules": [{"from": [{"source": {"remoteIpBlocks": ["10.0.0.0/8"]}}]}]},
    {"rules": [{"from": [{"source": {"ipBlocks": ["10.0.0.0/99"]}}]}]},
    {"rules": [{"when": [{"key": "request.auth.claims", "values": ["b"]}]}]},
    {"rules": [{"when": [{"key": "request.auth.claims[a]b", "values": ["b"]}]}]},
    {"rules": [{"when": [{"key": "request.headers[host]", "values": ["b"]}]}]},
    {"rules": [{"when": [{"key": "source.ip"}]}]},
    {"rules": ["odd"]},
    {"rules": "odd"},
    {"action": "PERHAPS"},
    {"selector": "odd", "rules": [{}]},
    {"targetRefs": [{"kind": "Planet", "name": "server"}], "rules": [{}]},
    {"targetRefs": [{"kind": "Service", "name": "server", "namespace": "else"}], "rules": [{}]},
    {"targetRefs": [{"kind": "Service"}], "rules": [{}]},
    {"targetRefs": [], "rules": [{}]},
    {
        "targetRef": {"kind": "Service", "name": "server"},
        "selector": {"matchLabels": {"app": "server"}},
    },
]


def test_what_names_a_service_holds_at_its_waypoint_and_not_at_sidecars(mesh):
    target = {"kind": "Service", "group": "", "name": "server"}
    mesh.authorization_policy("nobody", {"targetRefs": [target]})

    assert not mesh.proxy("east/friend").calls("http://server/").refused
    assert not mesh.graph.items(mesh.model.findings)


@pytest.mark.parametrize("spec", NOT_UNDERSTOOD, ids=str)
def test_what_is_not_understood_denies_and_says_so(mesh, spec):
    mesh.authorization_policy("odd", {"rules": [{}]} | spec)

    assert mesh.proxy("east/friend").calls("http://server/").refused == {rbac.REFUSED}
    assert mesh.proxy("east/friend").calls("tcp://server:9000").refused == {rbac.REFUSED}
    found = mesh.graph.items(mesh.model.findings).values()
    assert {one.subject for one in found} == {"AuthorizationPolicy default/odd"}


def test_custom_denies_what_it_would_ask_about_and_audit_does_nothing(mesh):
    admin = [{"to": [{"operation": {"paths": ["/admin"]}}]}]
    mesh.authorization_policy("asked", {"action": "CUSTOM", "rules": admin})
    mesh.authorization_policy("told", {"action": "AUDIT", "rules": [{}]})

    assert mesh.proxy("east/friend").calls("http://server/").arrives_at
    assert mesh.proxy("east/friend").calls("http://server/admin").refused == {rbac.REFUSED}
    assert len(mesh.graph.items(mesh.model.findings)) == 2


def test_a_policy_about_requests_is_reported_where_none_are_read(mesh):
    mesh.authorization_policy("paths", {"rules": [{"to": [{"operation": {"paths": ["/a"]}}]}]})
    mesh.snapshot_of(mesh.pods[-2])
    mesh.snapshot_of(next(pod for pod in mesh.pods if pod.address == "10.2.0.1"))
    (found,) = mesh.graph.items(mesh.views.findings).values()

    assert found.code == "ISM-VIEW-005"
    assert "9000" in found.happened


@pytest.mark.parametrize("kind", [view.GatewayHttp, view.GatewayTcp])
def test_gateways_judge_what_they_do_not_only_pass_on(kind):
    friends = [{"action": "ALLOW", "rules": FRIENDS["rules"]}]
    stranger = rbac.Asked("", "10.9.9.9", 8080)

    def judged(specs):
        told = envoys.decoded(build.build(kind(8080, "somewhere", policies=understood(specs))))
        return rbac.lets_in(told.filter_chains[0].filters, stranger)

    assert judged([])
    assert not judged(friends)


def test_envoy_takes_every_clause(mesh, tmp_path):
    every = {
        "from": [
            {"source": SOURCES | {"ipBlocks": ["10.0.0.0/8", "::1"], "notIpBlocks": ["1.2.3.4"]}}
        ],
        "to": [{"operation": OPERATIONS | {"hosts": ["a" * 250, "*.b", "c*"], "notHosts": ["*"]}}],
        "when": [
            {"key": "request.headers[x]", "values": ["v" * 500, "v*", "*v"], "notValues": ["*"]}
        ],
    }
    for action in ("ALLOW", "DENY"):
        mesh.authorization_policy(action.lower(), {"action": action, "rules": [every]})
    told = mesh.snapshot_of(next(pod for pod in mesh.pods if pod.address == "10.2.0.1"))

    assert not mesh.graph.items(mesh.model.findings)
    assert not envoys.complaint_about(told.of(snapshot.LISTENERS).values(), directory=tmp_path)


@pytest.mark.parametrize("caller", ["ns/ab/sa/x", "ns/ns/sa/a", "ns/b/sa/a", "ns/sa/sa/ns"])
def test_a_namespace_is_not_taken_for_another_of_a_similar_name(caller):
    asked = rbac.Asked(f"spiffe://cluster.local/{caller}", "10.9.9.9", 8080)

    def lets_in_from(namespace):
        rules_ = [{"from": [{"source": {"namespaces": [namespace]}}]}]
        return lets_in([{"action": "ALLOW", "rules": rules_}], asked)

    assert not lets_in_from("a")
    assert lets_in_from(caller.split("/")[1])
    assert lets_in_from("sa") is caller.startswith("ns/sa/")
