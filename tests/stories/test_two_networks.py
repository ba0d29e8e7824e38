"""A client in east on network n1; helloworld runs in east and, behind a gateway, in west on n2.

east (n1)                         west (n2)
sleep                             sleep
helloworld 10.1.0.1, .2           helloworld 10.2.0.1, .2, .3
gateway    172.30.0.11            gateway    172.30.0.12
"""

from fractions import Fraction

import pytest

from isthmus.kube import objects
from isthmus.resources import consistency, snapshot
from isthmus.testing import builders, envoys, shapes

URL = "http://helloworld:5000/hello"
HOST = "helloworld.default.svc.cluster.local"
SNI = f"outbound_.5000_._.{HOST}"
PORTS = {"http": 5000}
EAST = ["10.1.0.1", "10.1.0.2"]
WEST = ["10.2.0.1", "10.2.0.2", "10.2.0.3"]
IDENTITY = "spiffe://cluster.local/ns/default/sa/default"
CLIENTS = pytest.mark.parametrize("client", ["east/sleep", "west/sleep"])


@pytest.fixture
def mesh():
    mesh = builders.Mesh()
    east = mesh.cluster("east", network="n1")
    west = mesh.cluster("west", network="n2")
    east.service("helloworld", ready=EAST, ports=PORTS)
    west.service("helloworld", ready=WEST, ports=PORTS)
    east.gateway(external="172.30.0.11")
    west.gateway(external="172.30.0.12")
    mesh.expose_services()
    return mesh


def dialled(mesh, client):
    """Return the addresses of all endpoints that a client's proxy is told."""
    told = mesh.snapshot_of(mesh.proxy(client).pod).of(snapshot.ENDPOINTS)
    return {
        one.endpoint.address.socket_address.address
        for resource in told.values()
        for group in envoys.decoded(resource).endpoints
        for one in group.lb_endpoints
    }


@CLIENTS
def test_every_pod_near_or_far_gets_the_same_share(mesh, client):
    call = mesh.proxy(client).calls(URL)

    assert call.shares == {address: Fraction(1, 5) for address in EAST + WEST}


@CLIENTS
def test_every_call_is_encrypted_and_shows_who_calls(mesh, client):
    call = mesh.proxy(client).calls(URL)

    assert call.is_encrypted
    assert call.identities == {IDENTITY}
    assert call.sni == {SNI}


@CLIENTS
def test_pods_of_another_network_are_never_addressed_directly(mesh, client):
    foreign = set(WEST if client.startswith("east") else EAST)

    assert not dialled(mesh, client) & foreign


def test_only_the_other_networks_gateway_is_on_the_way(mesh):
    call = mesh.proxy("east/sleep").calls(URL)

    behind = [landing for landing in call.landings if landing.via]
    assert {landing.address for landing in behind} == set(WEST)


def test_several_gateways_share_what_is_behind_them(mesh):
    mesh.clusters["west"].gateway("second", external="172.30.0.13")

    call = mesh.proxy("east/sleep").calls(URL)

    assert call.via_gateway == {"istio-eastwestgateway-0", "second-0"}
    assert call.shares_by_cluster == {"east": Fraction(2, 5), "west": Fraction(3, 5)}


def test_a_gateway_of_pods_in_several_zones_gets_all_their_weight(mesh):
    west = mesh.clusters["west"]
    for number in range(len(WEST)):
        west.node(f"node{number}", region="r1", zone=f"z{number}")
        west.service("spread", ready=[], ports={"http": 5001})
        west.pod(
            f"spread-{number}", address=f"10.2.1.{number}", shape=shapes.Shape(node=f"node{number}")
        )
    west.service("spread", ready=[f"10.2.1.{n}" for n in range(3)], ports={"http": 5001})
    mesh.clusters["east"].service("spread", ready=["10.1.1.1"], ports={"http": 5001})

    call = mesh.proxy("east/sleep").calls("http://spread:5001/")

    assert call.shares_by_cluster == {"east": Fraction(1, 4), "west": Fraction(3, 4)}


def test_a_cluster_that_is_dropped_gets_no_more_calls(mesh):
    mesh.drop("west")

    call = mesh.proxy("east/sleep").calls(URL)

    assert call.shares == {address: Fraction(1, 2) for address in EAST}


def test_pods_without_a_proxy_cannot_be_reached_through_a_gateway(mesh):
    west = mesh.clusters["west"]
    plain = shapes.PLAIN
    west.service("legacy", ready=["10.2.2.1"], ports=PORTS, shape=plain)
    mesh.clusters["east"].service("legacy", ready=["10.1.2.1"], ports=PORTS, shape=plain)

    call = mesh.proxy("east/sleep").calls("http://legacy:5000/")

    assert call.arrives_at == "10.1.2.1"
    assert not call.is_encrypted


def test_where_mutual_tls_is_disabled_a_gateway_leads_nowhere(mesh):
    mesh.peer_authentication("default", "DISABLE")

    call = mesh.proxy("east/sleep").calls(URL)

    assert set(call.shares) == set(EAST)
    assert not call.is_encrypted


def test_a_service_that_each_cluster_keeps_to_itself_is_answered_at_home(mesh):
    mesh.configure(serviceSettings=[{"settings": {"clusterLocal": True}, "hosts": [HOST]}])

    call = mesh.proxy("east/sleep").calls(URL)

    assert set(call.shares) == set(EAST)
    assert not call.refused


def test_on_one_network_too_a_cluster_may_keep_a_service_to_itself():
    mesh = builders.Mesh()
    for name, address in (("east", "10.1.0.1"), ("west", "10.2.0.1")):
        mesh.cluster(name, network="n1").service("web", ready=[address])
    client = mesh.proxy("east/sleep")
    assert client.calls("http://web/").shares_by_cluster.keys() == {"east", "west"}

    local = {"settings": {"clusterLocal": True}, "hosts": ["*.default.svc.cluster.local"]}
    mesh.configure(serviceSettings=[local])

    assert client.calls("http://web/").shares_by_cluster == {"east": 1}


def test_a_subset_of_one_cluster_is_reached_through_its_gateway(mesh):
    labels = {"topology.istio.io/cluster": "west"}
    mesh.destination_rule(
        "helloworld", {"host": "helloworld", "subsets": [{"name": "west", "labels": labels}]}
    )
    destination = {"destination": {"host": "helloworld", "subset": "west"}}
    mesh.virtual_service(
        "helloworld", {"hosts": ["helloworld"], "http": [{"route": [destination]}]}
    )

    call = mesh.proxy("east/sleep").calls(URL)

    assert call.shares_by_cluster == {"west": 1}
    assert call.sni == {f"outbound_.5000_.west_.{HOST}"}


@pytest.mark.parametrize("path", ["east/sleep", "west/sleep"])
def test_what_a_client_is_told_refers_to_nothing_that_is_missing(mesh, path):
    told = mesh.snapshot_of(mesh.proxy(path).pod)

    assert consistency.missing(told) == ()


def test_envoy_takes_all_that_clients_and_gateways_are_told(mesh, tmp_path):
    clients = [mesh.proxy("east/sleep").pod, mesh.pod_at("172.30.0.12", network="")]

    for pod in clients:
        told = mesh.snapshot_of(pod).resources
        resources = [one for by_name in told.values() for one in by_name.values()]
        assert envoys.complaint_about(resources, directory=tmp_path) == ""


# --- what a gateway lets in


def doors(mesh):
    """Return the server names that the west gateway passes on."""
    gateway = mesh.pod_at("172.30.0.12", network="")
    listener = mesh.snapshot_of(gateway).of(snapshot.LISTENERS).get("0.0.0.0_15443")
    chains = [] if listener is None else envoys.decoded(listener).filter_chains
    return {name for chain in chains for name in chain.filter_chain_match.server_names}


def test_a_service_that_is_not_exported_has_no_door(mesh):
    hidden = shapes.Shape(export_to=".")
    mesh.clusters["west"].service("secret", ready=["10.2.3.1"], ports=PORTS, shape=hidden)

    assert doors(mesh) == {SNI}


def test_what_a_cluster_keeps_to_itself_has_no_door(mesh):
    mesh.configure(serviceSettings=[{"settings": {"clusterLocal": True}, "hosts": [HOST]}])

    assert not doors(mesh)


def test_tls_that_is_not_the_meshs_is_closed_at_the_gateway(mesh):
    outside = mesh.clusters["east"].pod("outside", shape=shapes.PLAIN)

    call = builders.Client(mesh, outside).calls("tls://172.30.0.12:15443", as_tls=SNI)

    assert call.refused == {"no filter chain at the gateway"}


def test_a_gateway_passes_nothing_on_to_another_networks_gateway(mesh):
    gateway = mesh.pod_at("172.30.0.12", network="")

    told = mesh.snapshot_of(gateway).of(snapshot.ENDPOINTS)[SNI]

    groups = envoys.decoded(told).endpoints
    addresses = {
        one.endpoint.address.socket_address.address
        for group in groups
        for one in group.lb_endpoints
    }
    assert addresses == set(WEST)


def test_the_control_plane_is_reached_by_its_name_through_a_gateway(mesh):
    east = mesh.clusters["east"]
    east.pod("istiod", address="10.1.9.9", namespace="istio-system", shape=shapes.PLAIN)
    ports = {"https-dns": 15012, "https-webhook": 443}
    east.service("istiod", namespace="istio-system", ready=["10.1.9.9"], ports=ports)
    mesh.gateway_object(
        "istiod-gateway",
        builders.passing(15012, "*", mode="PASSTHROUGH"),
        builders.passing(15017, "*", mode="PASSTHROUGH"),
    )
    routes = [
        {
            "match": [{"port": port, "sniHosts": ["*"]}],
            "route": [{"destination": {"host": "istiod", "port": {"number": target}}}],
        }
        for port, target in ((15012, 15012), (15017, 443))
    ]
    mesh.virtual_service(
        "istiod-vs",
        {"hosts": ["*"], "gateways": ["istiod-gateway"], "tls": routes},
        namespace="istio-system",
    )
    outside = builders.Client(mesh, mesh.clusters["west"].pod("agent", shape=shapes.PLAIN))

    for port in (15012, 15017):
        call = outside.calls(f"tls://172.30.0.11:{port}", as_tls="istiod.istio-system.svc")
        assert call.arrives_at == "10.1.9.9"


def test_an_ingress_gateway_routes_requests_by_its_own_services_ports(mesh):
    east = mesh.clusters["east"]
    east.gateway(
        "istio-ingressgateway",
        external="172.30.0.80",
        labels=builders.INGRESS,
        ports={"http2": 80},
        target_ports={"http2": 8080},
    )
    server = objects.GatewayServer(
        port=objects.GatewayPort(number=80, name="http", protocol="HTTP"), hosts=("*",)
    )
    mesh.gateway_object("public", server, selector={"istio": "ingressgateway"}, namespace="default")
    target = {"destination": {"host": "helloworld", "port": {"number": 5000}}}
    match = [{"uri": {"exact": "/hello"}}]
    mesh.virtual_service(
        "public",
        {"hosts": ["*"], "gateways": ["public"], "http": [{"match": match, "route": [target]}]},
    )
    outside = builders.Client(mesh, mesh.clusters["west"].pod("browser", shape=shapes.PLAIN))

    call = outside.calls("http://172.30.0.80:8080/hello")

    assert set(call.shares) == set(EAST + WEST)
    assert call.is_encrypted
