"""Istio's own objects: what they mean, and what happens to the parts that mean nothing."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.kube import objects
from isthmus.mesh import policies
from isthmus.mesh.policies import Destination, MtlsMode, ServerTls
from isthmus.registry import config, destination_rules, fields, virtual_services

HOST = "web.default.svc.cluster.local"


def load(kind, text):
    """Read a manifest as the doors do."""
    return msgspec.yaml.decode(text, type=kind)


# --- virtual services


def routed(world, **spec):
    world.istio(world.sources.virtual_services, **{"hosts": ["web"], **spec})
    return world.only(world.model.virtual_services)


def to(host="web", **fields):
    return {"destination": {"host": host, **fields}}


def test_short_hosts_are_completed_with_the_objects_own_namespace(world):
    found = routed(world, hosts=["web", "a.b", "*.org"], tcp=[{"route": [to("other")]}])

    assert found.hosts == (HOST, "a.b", "*.org")
    assert found.tcp[0].destinations == (Destination("other.default.svc.cluster.local"),)


def test_gateways_are_completed_and_mesh_is_the_default(world):
    assert routed(world).gateways == ("mesh",)
    found = routed(world, gateways=["mesh", "gw", "infra/gw"])
    assert found.gateways == ("mesh", "default/gw", "infra/gw")


def test_the_routes_that_expose_a_control_plane_are_understood(world):
    found = routed(
        world,
        hosts=["*"],
        gateways=["istiod-gateway"],
        tls=[
            {
                "match": [{"port": 15012, "sniHosts": ["*"]}],
                "route": [to("istiod.istio-system.svc.cluster.local", port={"number": 15012})],
            }
        ],
    )

    assert found.tls == (
        policies.SniRoute(
            15012, ("*",), (Destination("istiod.istio-system.svc.cluster.local", 15012),)
        ),
    )
    assert world.findings == []


def test_requests_are_matched_and_split(world):
    found = routed(
        world,
        http=[
            {
                "match": [
                    {
                        "uri": {"prefix": "/v2"},
                        "method": {"exact": "GET"},
                        "headers": {"End-User": {"exact": "jason"}},
                        "port": 80,
                    }
                ],
                "route": [
                    {**to(subset="v1"), "weight": 90},
                    {**to(subset="v2"), "weight": 10},
                    {**to(subset="v3"), "weight": 0},
                ],
                "timeout": "1.5s",
            }
        ],
    )

    [route] = found.http
    assert route.matches == (
        policies.HttpMatch("prefix:/v2", "GET", (("end-user", "exact:jason"),), 80),
    )
    assert [(at.subset, at.weight) for at in route.destinations] == [("v1", 90), ("v2", 10)]
    assert route.timeout_s == 1.5
    assert world.findings == []


@pytest.mark.parametrize(
    ("match", "field"),
    [
        ({"uri": {"regex": "(?=a)"}}, "spec.http[0].match[0].uri"),
        ({"uri": {"regex": "a{1001}"}}, "spec.http[0].match[0].uri"),
        ({"uri": {"exact": "/a", "prefix": "/"}}, "spec.http[0].match[0].uri"),
        ({"queryParams": {"a": {"exakt": "b"}}}, "spec.http[0].match[0].queryParams.a"),
        ({"queryParams": {"": {"exact": "b"}}}, "spec.http[0].match[0].queryParams."),
        ({"queryParams": {"ä" * 513: {}}}, f"spec.http[0].match[0].queryParams.{'ä' * 513}"),
        ({"sourceLabels": {"a": 1}}, "spec.http[0].match[0].sourceLabels.a"),
        ({"sourceLabels": ["a"]}, "spec.http[0].match[0].sourceLabels"),
        ({"headers": {"a": {"regex": "["}}}, "spec.http[0].match[0].headers.a"),
        ({"headers": {"a b": {"exact": "c"}}}, "spec.http[0].match[0].headers.a b"),
        ({"headers": {":path": {"exact": "/"}}}, "spec.http[0].match[0].headers.:path"),
        ({"port": 99999}, "spec.http[0].match[0].port"),
    ],
)
def test_a_condition_that_is_not_understood_never_widens_a_route(world, match, field):
    found = routed(world, http=[{"match": [match], "route": [to()]}, {"route": [to("rest")]}])

    [route] = found.http
    assert route.destinations == (Destination("rest.default.svc.cluster.local"),)
    assert f"`{field}`" in world.findings[0]


def test_the_other_matches_of_a_route_still_count(world):
    found = routed(
        world,
        http=[{"match": [{"uri": {"regex": "["}}, {"uri": {"exact": "/y"}}], "route": [to()]}],
    )

    assert found.http[0].matches == (policies.HttpMatch("exact:/y"),)


@pytest.mark.parametrize(
    ("setting", "field"),
    [
        ({"fault": {"abort": {}}}, "fault"),
        (
            {"fault": {"abort": {"httpStatus": 500, "grpcStatus": "INTERNAL"}}},
            "fault.abort.grpcStatus",
        ),
        ({"fault": {"delay": {"fixedDelay": "soon"}}}, "fault.delay.fixedDelay"),
        ({"retries": {"attempts": -1}}, "retries.attempts"),
        ({"retries": {"attempts": 1, "retryOn": "bad-luck"}}, "retries.retryOn"),
        ({"rewrite": {"uri": "/%x"}}, "rewrite.uri"),
        ({"rewrite": {"uriRegexRewrite": {"match": "("}}}, "rewrite.uriRegexRewrite"),
        ({"mirror": {"subset": "a"}}, "mirror.host"),
        ({"mirrorPercentage": {"value": 5}}, "mirrorPercentage"),
        ({"mirrors": [{"destination": {"host": "a"}, "percentage": {"value": 101}}]}, "value"),
        ({"headers": {"request": {"set": {":path": "/"}}}}, "headers.request.set.:path"),
        ({"headers": {"request": {"set": {"a": "%REQ(b)%"}}}}, "headers.request.set.a"),
        ({"headers": {"request": {"add": {"host": "b"}}}}, "headers.request.add.host"),
        ({"headers": {"response": {"set": {"host": "b"}}}}, "headers.response.set.host"),
        ({"headers": {"request": {"remove": [":method"]}}}, "headers.request.remove[0]"),
        ({"corsPolicy": {"allowOrigins": [{"regex": "("}]}}, "corsPolicy.allowOrigins[0]"),
    ],
)
def test_a_setting_that_is_not_understood_is_named_and_the_route_kept(world, setting, field):
    found = routed(world, http=[{"route": [to()], **setting}])

    assert len(found.http) == 1
    assert f"{field}`" in world.findings[0]


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("redirect", {"derivePort": "FROM_PROTOCOL_DEFAULT"}),
        ("redirect", {"redirectCode": 304}),
        ("redirect", {"uri": "/%x"}),
        ("redirect", {"scheme": "ftp"}),
        ("directResponse", {}),
        ("directResponse", {"status": 42}),
        ("directResponse", {"status": 200, "body": {"bytes": "YQ=="}}),
        ("delegate", {}),
    ],
)
def test_what_replaces_a_route_and_is_not_understood_leaves_it_out(world, key, said):
    found = routed(world, http=[{key: said}])

    assert found.http == ()
    assert any(f"`spec.http[0].{key}" in one for one in world.findings)


def test_a_virtual_service_without_a_host_is_left_out(world):
    world.istio(world.sources.virtual_services, http=[{"route": [to()]}])

    assert world.graph.items(world.model.virtual_services) == {}
    assert "names no host, and no VirtualService delegates to it" in world.findings[0]


def test_a_split_that_gives_nothing_to_anybody_is_left_out(world):
    found = routed(world, tcp=[{"route": [{**to(), "weight": 0}, {**to("b"), "weight": 0}]}])

    assert found.tcp == ()


def test_objects_of_other_clusters_do_not_count(world):
    world.istio(world.sources.virtual_services, cluster="c2", hosts=["web"])

    assert world.graph.items(world.model.virtual_services) == {}


# --- gateways


def gateway(world, text):
    object_ = load(objects.Gateway, text)
    world.put(world.sources.gateways, "c1", object_)
    return world.only(world.model.gateways)


def test_the_gateway_that_exposes_services_is_understood(world):
    found = gateway(
        world,
        """
        metadata: {name: cross-network-gateway, namespace: istio-system}
        spec:
          selector: {istio: eastwestgateway}
          servers:
          - port: {number: 15443, name: tls, protocol: TLS}
            tls: {mode: AUTO_PASSTHROUGH}
            hosts: ["*.local"]
        """,
    )

    assert found.selector == (("istio", "eastwestgateway"),)
    assert found.servers == (
        policies.GatewayServer(15443, "tls", "TLS", ("*.local",), ServerTls.AUTO_PASSTHROUGH),
    )
    assert world.findings == []


def test_a_server_that_is_wrong_costs_no_other(world):
    found = gateway(
        world,
        """
        metadata: {name: gw, namespace: infra}
        spec:
          servers:
          - {port: {number: 0, protocol: HTTP}, hosts: [a]}
          - {port: {number: 80, protocol: GOPHER}, hosts: [a]}
          - {port: {number: 80, protocol: TLS}, tls: {mode: MAYBE}, hosts: [a]}
          - {port: {number: 80, protocol: HTTP}}
          - {port: {number: 80, protocol: http}, hosts: ["./A.org", "*/b.org"]}
          - {port: {number: 15012, protocol: tls}, hosts: ["*"]}
        """,
    )

    assert [server.hosts for server in found.servers] == [("infra/a.org", "b.org"), ("*",)]
    assert found.servers[1].tls is ServerTls.PASSTHROUGH
    assert [f"servers[{n}]" in world.findings[n] for n in range(4)] == [True] * 4


# --- peer authentications


def accepted(world, text):
    object_ = load(objects.PeerAuthentication, text)
    world.put(world.sources.peer_authentications, "c1", object_)
    return world.only(world.model.peer_authentications)


def test_a_peer_authentication_says_what_is_accepted(world):
    found = accepted(
        world,
        """
        metadata: {name: p, namespace: default, creationTimestamp: "2026-01-01T00:00:00Z"}
        spec:
          selector: {matchLabels: {app: web}}
          mtls: {mode: STRICT}
          portLevelMtls: {"8080": {mode: DISABLE}, "9090": {mode: UNSET}}
        """,
    )

    assert found.selector == (("app", "web"),)
    assert found.mode is MtlsMode.STRICT
    assert found.port_modes == ((8080, MtlsMode.DISABLE), (9090, None))
    assert found.created == "2026-01-01T00:00:00Z"


def test_an_unknown_mode_never_lets_plain_text_in(world):
    found = accepted(world, "{metadata: {name: p}, spec: {mtls: {mode: STRICTT}}}")

    assert found.mode is MtlsMode.STRICT
    assert "`spec.mtls.mode` is unknown and counts as STRICT" in world.findings[0]


def test_a_key_that_is_no_port_is_named(world):
    found = accepted(world, "{metadata: {name: p}, spec: {portLevelMtls: {http: {mode: STRICT}}}}")

    assert (found.mode, found.port_modes) == (None, ())
    assert "`spec.portLevelMtls`" in world.findings[0]


# --- anything at all

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *(
                        "host",
                        "hosts",
                        "http",
                        "tls",
                        "tcp",
                        "match",
                        "route",
                        "destination",
                        "port",
                    ),
                    *(
                        "number",
                        "weight",
                        "subsets",
                        "name",
                        "labels",
                        "trafficPolicy",
                        "uri",
                        "exact",
                    ),
                    *("loadBalancer", "outlierDetection", "interval", "connectionPool", "mode"),
                ]
            )
            | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=25,
)


@given(
    spec=st.none()
    | st.dictionaries(st.sampled_from(["host", "hosts", "http", "tls", "tcp"]), anything)
)
def test_no_object_whatever_it_holds_makes_reading_fail(spec):
    object_ = objects.FreeForm(metadata=objects.Metadata(name="x"), spec=spec)
    origin = config.Origin("X", "default", "x", "cluster.local")

    for read in (virtual_services.read, destination_rules.read):
        problems = fields.Problems()
        if read(origin, object_, problems) is None:
            assert problems.texts()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10s", 10),
        ("1m30s", 90),
        ("1.5h", 5400),
        ("100ms", 0.1),
        ("", None),
        ("10", None),
        ("s", None),
        ("1x", None),
        ("-1s", None),
        ("1..5s", None),
        ("٣s", None),
        ("²s", None),
        ("10 s", None),
    ],
)
def test_durations_are_read_as_istio_writes_them(text, seconds):
    assert fields.seconds_of(text) == seconds
