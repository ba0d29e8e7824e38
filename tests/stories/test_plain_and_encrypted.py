"""One cluster, one network: who may speak plain text to whom, protocol by protocol."""

import pytest

from isthmus.resources import consistency, snapshot
from isthmus.testing import builders, envoys, shapes

PORTS = {"http": 80, "tcp": 9000, "odd": 7000}
IDENTITY = "spiffe://cluster.local/ns/default/sa/default"
URLS = pytest.mark.parametrize(
    "url", ["http://server/", "tcp://server:9000", "http://server:7000/"]
)


@pytest.fixture
def mesh():
    mesh = builders.Mesh()
    mesh.cluster("east").service("server", ready=["10.0.0.1"], ports=PORTS)
    return mesh


@pytest.fixture
def stranger(mesh):
    """A pod without a proxy."""
    return builders.Client(mesh, mesh.clusters["east"].pod("stranger", shape=shapes.PLAIN))


@URLS
@pytest.mark.parametrize("mode", ["PERMISSIVE", "STRICT"])
def test_proxies_speak_mutual_tls_whatever_the_protocol(mesh, url, mode):
    mesh.peer_authentication("istio-system", mode)

    call = mesh.proxy("east/client").calls(url)

    assert call.arrives_at == "10.0.0.1"
    assert call.is_encrypted
    assert call.identities == {IDENTITY}


@URLS
def test_plain_text_is_refused_under_strict(mesh, stranger, url):
    mesh.peer_authentication("istio-system", "STRICT")

    call = stranger.calls(url)

    assert call.refused == {"no filter chain at the destination"}


@URLS
def test_plain_text_is_let_in_unless_something_else_is_said(stranger, url):
    call = stranger.calls(url)

    assert call.arrives_at == "10.0.0.1"
    assert not call.is_encrypted


@URLS
def test_where_mutual_tls_is_disabled_proxies_speak_plain_text(mesh, url):
    mesh.peer_authentication("default", "DISABLE")

    call = mesh.proxy("east/client").calls(url)

    assert call.arrives_at == "10.0.0.1"
    assert not call.is_encrypted


def test_a_port_that_no_service_declares_is_strict_as_well(mesh, stranger):
    mesh.peer_authentication("istio-system", "STRICT")

    call = stranger.calls("http://10.0.0.1:4444/")

    assert call.refused == {"no filter chain at the destination"}


def test_a_workloads_policy_overrules_its_namespaces_on_one_port(mesh, stranger):
    mesh.peer_authentication("default", "STRICT")
    mesh.peer_authentication(
        "default", "UNSET", name="open", selector={"app": "server"}, ports={9000: "PERMISSIVE"}
    )

    assert stranger.calls("tcp://server:9000").arrives_at == "10.0.0.1"
    assert stranger.calls("http://server/").refused


def test_a_rule_that_disables_tls_is_obeyed_and_strict_servers_refuse(mesh):
    rule = {"host": "server", "trafficPolicy": {"tls": {"mode": "DISABLE"}}}
    mesh.destination_rule("server", rule)
    mesh.peer_authentication("istio-system", "STRICT")

    call = mesh.proxy("east/client").calls("http://server/")

    assert call.refused == {"no filter chain at the destination"}


def test_only_the_identities_of_a_services_own_pods_are_accepted(mesh):
    east = mesh.clusters["east"]
    east.service("bank", ready=["10.0.0.9"], shape=shapes.Shape(account="bank"))

    call = mesh.proxy("east/client").calls("http://bank/")

    assert {name for one in call.landings for name in one.accepted} == {
        "spiffe://cluster.local/ns/default/sa/bank"
    }


def test_requests_are_read_where_the_port_says_http(mesh):
    call = mesh.proxy("east/client").calls("http://server/")

    assert all(landing.is_request for landing in call.landings)


def test_unready_pods_get_no_calls(mesh):
    mesh.clusters["east"].service("server", ready=["10.0.0.1"], unready=["10.0.0.2"], ports=PORTS)

    call = mesh.proxy("east/client").calls("http://server/")

    assert call.arrives_at == "10.0.0.1"


def test_a_pod_that_is_not_ready_keeps_what_it_serves(mesh):
    pod = mesh.pod_at("10.0.0.1", network="")
    before = mesh.snapshot_of(pod)

    mesh.clusters["east"].service("server", unready=["10.0.0.1"], ports=PORTS)

    after = mesh.snapshot_of(pod)
    clusters = {name for name in after.of(snapshot.CLUSTERS) if name.startswith("inbound|")}
    listener = "virtualInbound"
    assert clusters == {"inbound|80||", "inbound|9000||", "inbound|7000||"}
    assert after.of(snapshot.LISTENERS)[listener] == before.of(snapshot.LISTENERS)[listener]


def test_hosts_outside_the_mesh_are_passed_through_unless_forbidden(mesh):
    client = mesh.proxy("east/client")
    mesh.clusters["east"].pod("outside", address="10.9.9.9", shape=shapes.PLAIN)

    assert client.calls("http://10.9.9.9:8080/").arrives_at == "10.9.9.9"
    mesh.configure(outboundTrafficPolicy={"mode": "REGISTRY_ONLY"})
    assert client.calls("http://10.9.9.9:8080/").refused


def test_pods_of_a_headless_service_are_reached_one_by_one_and_encrypted(mesh):
    headless = shapes.Shape(is_headless=True)
    mesh.clusters["east"].service(
        "db", ready=["10.0.1.1", "10.0.1.2"], ports={"tcp": 5432, "http": 8080}, shape=headless
    )
    mesh.peer_authentication("istio-system", "STRICT")

    for url in ("tcp://db:5432", "http://db:8080/"):
        call = mesh.proxy("east/client").calls(url)
        assert set(call.shares) == {"10.0.1.1", "10.0.1.2"}
        assert call.is_encrypted


def test_another_name_for_a_service_keeps_its_encryption(mesh):
    alias = shapes.Shape(alias_of="server.default.svc.cluster.local")
    mesh.clusters["east"].service("other", shape=alias)
    mesh.peer_authentication("istio-system", "STRICT")
    client = mesh.proxy("east/client")

    told = mesh.snapshot_of(client.pod)

    assert consistency.missing(told) == ()


# --- routes


def routed(*routes):
    return {"hosts": ["server"], "http": list(routes)}


def to(host, weight=100, **match):
    destination = {"destination": {"host": host}, "weight": weight}
    return {"route": [destination], **({"match": [match]} if match else {})}


def test_requests_are_split_by_weight(mesh):
    mesh.clusters["east"].service("canary", ready=["10.0.0.5"])
    route = {"route": [*to("server", 75)["route"], *to("canary", 25)["route"]]}
    mesh.virtual_service("server", routed(route))

    call = mesh.proxy("east/client").calls("http://server/")

    assert {address: float(share) for address, share in call.shares.items()} == {
        "10.0.0.1": 0.75,
        "10.0.0.5": 0.25,
    }


def test_requests_are_routed_by_path_method_and_header(mesh):
    mesh.clusters["east"].service("beta", ready=["10.0.0.5"])
    mesh.virtual_service(
        "server",
        routed(
            to("beta", uri={"prefix": "/beta"}),
            to("beta", headers={"end-user": {"exact": "jason"}}),
            to("server"),
        ),
    )
    client = mesh.proxy("east/client")

    assert client.calls("http://server/beta/1").arrives_at == "10.0.0.5"
    assert client.calls("http://server/", headers={"end-user": "jason"}).arrives_at == "10.0.0.5"
    assert client.calls("http://server/", headers={"end-user": "ann"}).arrives_at == "10.0.0.1"


def test_a_route_to_nowhere_is_answered_by_nobody_and_named(mesh):
    mesh.virtual_service("server", routed(to("missing")))

    call = mesh.proxy("east/client").calls("http://server/")

    assert call.refused == {"`BlackHoleCluster` has no endpoint"}
    found = mesh.graph.items(mesh.views.findings).values()
    assert [finding.code for finding in found] == ["ISM-VIEW-001"]


def test_a_rule_of_the_clients_namespace_counts_for_it_alone(mesh):
    east = mesh.clusters["east"]
    east.service("server", namespace="shop", ready=["10.0.2.1", "10.0.2.2"])
    host = "server.shop.svc.cluster.local"
    east.pod("labelled", namespace="shop", address="10.0.2.9", labels={"version": "v1"})
    rule = {"host": host, "trafficPolicy": {"tls": {"mode": "DISABLE"}}}
    mesh.destination_rule("own", rule, namespace="default")

    own = mesh.proxy("east/default/client").calls(f"http://{host}/")
    other = mesh.proxy("east/elsewhere/client").calls(f"http://{host}/")

    assert not own.is_encrypted
    assert other.is_encrypted


def test_a_service_that_is_not_exported_is_a_stranger_elsewhere(mesh):
    hidden = shapes.Shape(export_to=".")
    mesh.clusters["east"].service("private", namespace="shop", ready=["10.0.2.1"], shape=hidden)
    mesh.configure(outboundTrafficPolicy={"mode": "REGISTRY_ONLY"})
    url = "http://private.shop.svc.cluster.local/"

    assert mesh.proxy("east/shop/client").calls(url).arrives_at == "10.0.2.1"
    assert mesh.proxy("east/default/client").calls(url).refused


@pytest.mark.parametrize("mode", ["PERMISSIVE", "STRICT", "DISABLE"])
def test_envoy_takes_all_that_a_sidecar_is_told(mesh, mode, tmp_path):
    mesh.peer_authentication("istio-system", mode)
    mesh.configure(accessLogFile="/dev/stdout")

    told = mesh.snapshot_of(mesh.pod_at("10.0.0.1", network="")).resources

    resources = [one for by_name in told.values() for one in by_name.values()]
    assert envoys.complaint_about(resources, directory=tmp_path) == ""


# --- impossible meshes


def test_two_pods_of_one_address_are_refused(mesh):
    with pytest.raises(shapes.ImpossibleMesh, match="two pods"):
        mesh.clusters["east"].pod("twin", address="10.0.0.1")


def test_a_proxy_in_an_unknown_cluster_is_refused(mesh):
    with pytest.raises(shapes.ImpossibleMesh, match="no known cluster"):
        mesh.proxy("north/client")
