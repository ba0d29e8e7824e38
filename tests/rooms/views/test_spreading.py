"""Connections take turns where a gateway stands in between, and only there."""

import dataclasses

import pytest

from isthmus.mesh.traffic import LoadBalancer
from isthmus.testing import builders, shapes
from isthmus.views import view

HOST = "web.default.svc.cluster.local"
PORTS = {"http": 80, "grpc": 81, "tcp": 82, "any": 83}


@pytest.fixture
def mesh():
    """Return two networks: a client in the east, a gateway before the west."""
    mesh = builders.Mesh()
    mesh.cluster("east", network="n1").gateway(external="172.30.0.10")
    mesh.cluster("west", network="n2").gateway(external="172.30.0.11")
    mesh.expose_services()
    mesh.cluster("east").service("web", ready=["10.1.0.1"], ports=PORTS)
    return mesh


def stand_behind(mesh, number, **more):
    ready = [f"10.2.0.{index + 1}" for index in range(number)]
    mesh.cluster("west").service("web", ready=ready, ports=PORTS, **more)


def clusters_of(mesh, pod):
    """Return the slices of clusters that the proxy of a pod is told, by name."""
    found = {}
    for scope in mesh.scopes_of(pod):
        for key, slice_ in mesh.slices_of(scope).items():
            if key.kind is view.Kind.CLUSTER:
                found[key.name] = slice_
    return found


def told(mesh, port="http", *, subset=""):
    name = f"outbound|{PORTS.get(port, port)}|{subset}|{HOST}"
    return clusters_of(mesh, mesh.proxy("east/client").pod)[name]


@pytest.mark.parametrize(("pods", "requests"), [(1, 50), (5, 50), (6, 20), (40, 20)])
@pytest.mark.parametrize("port", ["http", "grpc", "any"])
def test_a_connection_has_its_turn_sooner_the_more_pods_are_behind(mesh, port, pods, requests):
    stand_behind(mesh, pods)

    cluster = told(mesh, port)

    assert cluster.pool.max_requests_per_connection == requests
    assert cluster.pool.max_streams == 4
    assert cluster.leads_through_gateways
    assert cluster.balancer is LoadBalancer.ROUND_ROBIN


def test_what_has_no_requests_keeps_its_connections(mesh):
    stand_behind(mesh, 6)

    cluster = told(mesh, "tcp")

    assert (cluster.pool.max_requests_per_connection, cluster.pool.max_streams) == (None, None)
    assert cluster.leads_through_gateways
    assert cluster.balancer is LoadBalancer.ROUND_ROBIN


def test_nothing_changes_for_a_service_that_is_near(mesh):
    cluster = told(mesh)

    assert (cluster.pool.max_requests_per_connection, cluster.pool.max_streams) == (None, None)
    assert not cluster.leads_through_gateways
    assert cluster.balancer is LoadBalancer.LEAST_REQUEST


@pytest.mark.parametrize("obstacle", ["plain text", "no gateway", "kept to its cluster"])
def test_nothing_changes_for_what_no_gateway_leads_to(mesh, obstacle):
    match obstacle:
        case "plain text":
            stand_behind(mesh, 3, shape=shapes.PLAIN)
        case "no gateway":
            mesh.cluster("north", network="n3").service("web", ready=["10.3.0.1"], ports=PORTS)
        case _:
            hosts = [{"settings": {"clusterLocal": True}, "hosts": [HOST]}]
            mesh.configure(serviceSettings=hosts)
            stand_behind(mesh, 3)

    assert not told(mesh).leads_through_gateways


def test_a_subset_without_pods_behind_gateways_stays_as_it_is(mesh):
    subsets = [{"name": name, "labels": {"version": name}} for name in ("near", "far")]
    mesh.destination_rule("web", {"host": "web", "subsets": subsets})
    east = mesh.cluster("east")
    east.pod("web-near", address="10.1.0.2", labels={"app": "web", "version": "near"})
    east.service("web", ready=["10.1.0.2"], ports=PORTS)
    stand_behind(mesh, 3, shape=shapes.Shape(labels={"version": "far"}))

    assert told(mesh, subset="far").pool.max_requests_per_connection == 50
    assert told(mesh).pool.max_requests_per_connection == 50
    assert not told(mesh, subset="near").leads_through_gateways


def test_a_rule_about_balancing_counts_more(mesh):
    stand_behind(mesh, 3)
    policy = {"loadBalancer": {"simple": "LEAST_REQUEST"}}

    mesh.destination_rule("web", {"host": "web", "trafficPolicy": policy})

    assert told(mesh).balancer is LoadBalancer.LEAST_REQUEST
    assert told(mesh).pool.max_requests_per_connection == 50


@pytest.mark.parametrize("said", [0, 7])
def test_a_rule_about_connections_counts_more(mesh, said):
    stand_behind(mesh, 3)
    http = {"maxRequestsPerConnection": said, "maxConcurrentStreams": said}
    policy = {"connectionPool": {"http": http}}

    mesh.destination_rule("web", {"host": "web", "trafficPolicy": policy})

    pool = told(mesh, "grpc").pool
    assert (pool.max_requests_per_connection, pool.max_streams) == (said, said)
    assert told(mesh).balancer is LoadBalancer.ROUND_ROBIN


def test_a_rule_about_connections_leaves_open_what_it_does_not_say(mesh):
    stand_behind(mesh, 3)
    policy = {"connectionPool": {"tcp": {"maxConnections": 9}}}

    mesh.destination_rule("web", {"host": "web", "trafficPolicy": policy})

    assert told(mesh).pool.max_connections == 9
    assert told(mesh).pool.max_requests_per_connection == 50


def test_a_rule_that_leaves_balancing_open_decides_nothing(mesh):
    stand_behind(mesh, 3)
    policy = {"loadBalancer": {"simple": "UNSPECIFIED"}}

    mesh.destination_rule("web", {"host": "web", "trafficPolicy": policy})

    assert told(mesh).balancer is LoadBalancer.ROUND_ROBIN


def test_clusters_change_when_few_pods_become_many_and_not_with_each(mesh):
    stand_behind(mesh, 2)
    before = told(mesh)

    for number in (3, 5):
        stand_behind(mesh, number)
        assert told(mesh) == before
    stand_behind(mesh, 6)

    assert told(mesh) != before


@pytest.mark.parametrize(
    ("port", "balancer"),
    [
        ("http", LoadBalancer.ROUND_ROBIN),
        ("grpc", LoadBalancer.ROUND_ROBIN),
        ("any", LoadBalancer.ROUND_ROBIN),
        ("tcp", LoadBalancer.LEAST_REQUEST),
    ],
)
def test_a_gateway_takes_the_next_pod_for_requests_and_the_idlest_for_what_lasts(
    mesh, port, balancer
):
    gateway = mesh.pod_at("172.30.0.10", network="")

    cluster = clusters_of(mesh, gateway)[f"outbound_.{PORTS[port]}_._.{HOST}"]

    assert cluster.balancer is balancer
    assert cluster.pool.max_requests_per_connection is None


def test_a_gateway_that_reads_requests_is_a_client_as_well(mesh):
    stand_behind(mesh, 3)
    door = builders.objects.GatewayServer(
        port=builders.objects.GatewayPort(number=80, name="http", protocol="HTTP"), hosts=("*",)
    )
    mesh.gateway_object("door", door, selector={"istio": "ingressgateway"})
    routes = [{"route": [{"destination": {"host": HOST, "port": {"number": 80}}}]}]
    spec = {"hosts": ["*"], "gateways": ["istio-system/door"], "http": routes}
    mesh.virtual_service("door", spec)
    labels = {"app": "istio-ingressgateway", "istio": "ingressgateway"}
    east = mesh.cluster("east")
    pod = east.gateway("ingress", external="172.30.0.20", labels=labels, ports={"http": 80})

    assert clusters_of(mesh, pod)[f"outbound|80||{HOST}"].pool.max_requests_per_connection == 50


def hear_apart(mesh, pod):
    """Let the proxy of a pod be one that is told of each endpoint by itself; return what it sees."""
    before = mesh.scopes_of(pod)
    proxy = mesh.graph.get(mesh.views.proxies, pod.connection)
    apart = dataclasses.replace(proxy, hears_endpoints_apart=True)
    mesh.put(mesh.views.proxies, pod.connection, apart)
    after = mesh.graph.get(mesh.views.proxy_scopes, pod.connection)
    with mesh.graph.transaction() as transaction:
        for scope in before:
            transaction.delete(mesh.views.scopes, scope)
        for scope in after:
            transaction.put(mesh.views.scopes, scope, 1)
    return after


@pytest.mark.parametrize("others", [(), ("east/other",)])
def test_it_makes_no_difference_how_proxies_are_told_of_endpoints(mesh, others):
    seen = hear_apart(mesh, mesh.proxy("east/client").pod)
    for other in others:
        mesh.scopes_of(mesh.proxy(other).pod)
    stand_behind(mesh, 6)

    (cluster,) = (
        slice_
        for scope in seen
        for key, slice_ in mesh.slices_of(scope).items()
        if key.name == f"outbound|80||{HOST}" and key.kind is view.Kind.CLUSTER
    )
    assert cluster.pool.max_requests_per_connection == 20
    assert cluster.leads_through_gateways
