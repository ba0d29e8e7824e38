"""Waypoints of services that clusters share: whose waypoint is passed, and where it is found.

east (n1) and west (n2) both have `web`, shared, and each a waypoint before it.
"""

import msgspec
import pytest

from isthmus.fleet.sources import ObjectKey
from isthmus.install import exposing
from isthmus.kube import gateway_api, objects
from isthmus.mesh.proxies import ProxyKind
from isthmus.resources import consistency, snapshot
from isthmus.testing import builders, envoys, shapes

APPS = "apps"
HOST = "web.apps.svc.cluster.local"
DERIVED = "web.apps.mesh.internal"
LABELS = {
    "gateway.istio.io/managed": "istio.io-mesh-controller",
    "gateway.networking.k8s.io/gateway-name": "waypoint",
}
SHARED = builders.Shape(proxy=None, is_captured=True, account="web", scope="global-only")
ZTUNNEL = builders.Shape(proxy=ProxyKind.ZTUNNEL, account="ztunnel")


def waypoint(cluster, address):
    meta = shapes.metadata(APPS, "", {"istio.io/use-waypoint": "waypoint"})
    key = ObjectKey(cluster.id, "", APPS)
    cluster.mesh.put(cluster.mesh.sources.namespaces, key, objects.Namespace(meta))
    shape = builders.Shape(proxy=ProxyKind.WAYPOINT, account="waypoint")
    labels = {**LABELS, "networking.istio.io/tunnel": "http"}
    pod = cluster.pod("waypoint-0", address=address, namespace=APPS, labels=labels, shape=shape)
    service = shapes.service_of(
        shapes.metadata("waypoint", APPS, LABELS),
        ports={"mesh": 15008},
        vip="10.96.255.1",
        shape=shapes.USUAL,
    )
    key = ObjectKey(cluster.id, APPS, "waypoint")
    cluster.mesh.put(cluster.mesh.sources.services, key, service)
    cluster.endpoints("waypoint", namespace=APPS, ready=[address], ports={"mesh": 15008})
    return pod


def serve(cluster, *, ready=(), unready=()):
    cluster.service("web", namespace=APPS, ready=ready, unready=unready, shape=SHARED)


@pytest.fixture
def mesh():
    mesh = builders.Mesh()
    east, west = mesh.cluster("east", network="n1"), mesh.cluster("west", network="n2")
    mesh.waypoint = waypoint(east, "10.1.0.9")
    waypoint(west, "10.2.0.9")
    serve(east, ready=["10.1.0.1"])
    serve(west, ready=["10.2.0.1"])
    return mesh


def decoded(mesh, pod, kind):
    return {name: consistency.decoded(one) for name, one in mesh.snapshot_of(pod).of(kind).items()}


def service_as_told(mesh, host=HOST):
    pod = mesh.clusters["east"].pod("ztunnel", namespace="istio-system", shape=ZTUNNEL)
    return decoded(mesh, pod, snapshot.ADDRESSES)[f"apps/{host}"].service


@pytest.mark.parametrize("host", [HOST, DERIVED])
def test_clients_pass_the_waypoint_of_their_own_cluster(mesh, host):
    said = service_as_told(mesh, host)

    assert said.waypoint.hostname.hostname == "waypoint.apps.svc.cluster.local"
    assert said.waypoint.hbone_mtls_port == 15008


@pytest.mark.parametrize("host", [HOST, DERIVED])
def test_whose_pods_are_all_elsewhere_has_no_waypoint_here(mesh, host):
    """Else calls would end at a waypoint that has nobody to call."""
    serve(mesh.clusters["east"], unready=["10.1.0.1"])

    assert not service_as_told(mesh, host).HasField("waypoint")


def test_at_the_end_of_inner_tunnels_another_clusters_waypoint_may_answer(mesh):
    identity = "spiffe://cluster.local/ns/apps/sa/{}"

    assert list(service_as_told(mesh).subject_alt_names) == [
        identity.format("waypoint"),
        identity.format("web"),
    ]


def test_a_service_that_nobody_shares_keeps_its_waypoint_without_any_pod(mesh):
    own = builders.Shape(proxy=None, is_captured=True)
    mesh.clusters["east"].service("own", namespace=APPS, shape=own)

    assert service_as_told(mesh, "own.apps.svc.cluster.local").HasField("waypoint")


def addresses(assignment):
    return [
        one.endpoint.address.socket_address.address
        or one.endpoint.address.envoy_internal_address.endpoint_id
        for group in assignment.endpoints
        for one in group.lb_endpoints
    ]


def test_a_waypoint_calls_pods_of_its_own_network_through_tunnels(mesh):
    found = decoded(mesh, mesh.waypoint, snapshot.ENDPOINTS)

    assert addresses(found[f"outbound|80||{HOST}"]) == ["10.1.0.1:80"]
    assert addresses(found[f"outbound|80||{DERIVED}"]) == ["10.1.0.1:80"]


@pytest.mark.parametrize("host", [HOST, DERIVED])
def test_a_waypoint_calls_other_networks_only_after_all_that_is_near(mesh, host):
    mesh.clusters["west"].gateway(external="172.30.0.2", ports={"hbone": 15008})
    found = decoded(mesh, mesh.waypoint, snapshot.ENDPOINTS)[f"outbound|80||{host}"]

    assert addresses(found) == ["10.1.0.1:80", f"inner|80||{host}"]
    assert [group.priority for group in found.endpoints] == [0, 1]


def test_a_waypoint_with_nobody_near_calls_other_networks(mesh):
    mesh.clusters["west"].gateway(external="172.30.0.2", ports={"hbone": 15008})
    serve(mesh.clusters["east"], unready=["10.1.0.1"])

    found = decoded(mesh, mesh.waypoint, snapshot.ENDPOINTS)[f"outbound|80||{DERIVED}"]
    assert addresses(found) == [f"inner|80||{DERIVED}"]


def test_a_waypoint_asks_a_gateway_for_the_service_and_believes_its_identities_alone(mesh):
    mesh.clusters["west"].gateway(external="172.30.0.2", ports={"hbone": 15008})
    clusters = decoded(mesh, mesh.waypoint, snapshot.CLUSTERS)

    inner = str(clusters[f"inner|80||{DERIVED}"])
    assert f'"{DERIVED}:80"' in inner
    assert "172.30.0.2:15008" in inner
    assert "ns/istio-system/sa/istio-eastwestgateway-service-account" in inner
    socket = envoys.unpacked(clusters[f"inner|80||{DERIVED}"].transport_socket.typed_config)
    tls = envoys.unpacked(socket.transport_socket.typed_config).common_tls_context
    names = tls.combined_validation_context.default_validation_context
    assert [one.matcher.exact for one in names.match_typed_subject_alt_names] == [
        "spiffe://cluster.local/ns/apps/sa/waypoint",
        "spiffe://cluster.local/ns/apps/sa/web",
    ]


def test_the_end_of_a_tunnel_is_told_whose_it_is_and_of_which_network(mesh):
    mesh.clusters["west"].gateway(external="172.30.0.2", ports={"hbone": 15008})
    found = decoded(mesh, mesh.waypoint, snapshot.LISTENERS)

    def headers(name):
        (proxy, *_) = reversed(found[name].filter_chains[0].filters)
        told = envoys.unpacked(proxy.typed_config).tunneling_config.headers_to_add
        return {one.header.key: one.header.value for one in told}

    own = headers("connect_originate")["baggage"]
    assert "k8s.cluster.name=east,k8s.namespace.name=apps,k8s.deployment.name=waypoint" in own
    assert headers(f"inner|80||{DERIVED}") == {"x-forwarded-network": "n1", "baggage": own}
    assert headers("outer_connect_originate") == {"baggage": own}


@pytest.mark.parametrize("why", ["nobody shares it", "no gateway ends tunnels"])
def test_a_waypoint_has_no_way_to_other_networks_that_is_not_meant(mesh, why):
    west = mesh.clusters["west"]
    if why == "nobody shares it":
        west.gateway(external="172.30.0.2", ports={"hbone": 15008})
        for cluster, address in (("east", "10.1.0.1"), ("west", "10.2.0.1")):
            own = builders.Shape(proxy=None, is_captured=True, account="web")
            mesh.clusters[cluster].service("web", namespace=APPS, ready=[address], shape=own)
    else:
        west.gateway(external="172.30.0.2")
    found = decoded(mesh, mesh.waypoint, snapshot.ENDPOINTS)

    assert not [name for name, one in found.items() if "inner|" in str(one)]


def test_a_waypoint_is_asked_by_host_and_address_under_both_names(mesh):
    found = decoded(mesh, mesh.waypoint, snapshot.ROUTES)
    asked = {host.name for host in found["tunnels.15008"].virtual_hosts}

    given = next(one for one in asked if one.startswith("240.240."))
    assert {f"{HOST}:80", f"{DERIVED}:80", "10.96.0.1:80", given} == asked


def test_a_gateway_between_networks_leads_to_the_waypoint_of_its_own_network(mesh):
    class_ = {"metadata": {"name": "istio-eastwest"}}
    class_["spec"] = {"controllerName": "istio.io/eastwest-controller"}
    east = mesh.clusters["east"]
    for source, decode, written, namespace in (
        (mesh.sources.gateway_classes, gateway_api.GatewayClass, class_, ""),
        (mesh.sources.kubernetes_gateways, gateway_api.Gateway, exposing.manifest(network="n1"),
         exposing.NAMESPACE),
    ):  # fmt: skip
        key = ObjectKey(east.id, namespace, written["metadata"]["name"])
        mesh.put(source, key, msgspec.convert(written, decode))
    labels = {"gateway.networking.k8s.io/gateway-name": exposing.NAME}
    shape = builders.Shape(proxy=ProxyKind.ROUTER, account=exposing.NAME)
    door = east.pod("door", namespace=exposing.NAMESPACE, labels=labels, shape=shape)

    found = decoded(mesh, door, snapshot.ENDPOINTS)

    assert addresses(found[f"inbound-vip|80|tcp|{HOST}"]) == ["10.1.0.9"]
    assert addresses(found[f"inbound-vip|80|tcp|{DERIVED}"]) == ["10.1.0.9"]
    assert "inbound-vip|15008|tcp|waypoint.apps.svc.cluster.local" not in found


def test_a_service_elsewhere_changes_nothing_that_a_waypoint_was_told(mesh):
    mesh.snapshot_of(mesh.waypoint)
    before = mesh.snapshot_of(mesh.waypoint)
    other = builders.Shape(proxy=None, is_captured=True)
    mesh.clusters["east"].service("new", namespace="elsewhere", ready=["10.1.0.7"], shape=other)

    assert mesh.snapshot_of(mesh.waypoint).resources == before.resources


@pytest.mark.parametrize(
    ("kind", "name", "codes"),
    [
        ("Service", "web", []),
        ("Service", "nobody", ["ISM-VIEW-008"]),
        ("ServiceEntry", "web", ["ISM-VIEW-008"]),
        ("Gateway", "waypoint", []),
    ],
)
def test_a_policy_that_nobody_holds_to_is_named(mesh, kind, name, codes):
    group = {"Gateway": "gateway.networking.k8s.io", "ServiceEntry": "networking.istio.io"}
    target = {"group": group.get(kind, ""), "kind": kind, "name": name}

    mesh.authorization_policy("rule", {"targetRefs": [target], "rules": [{}]}, namespace=APPS)

    assert [found.code for found in mesh.graph.items(mesh.views.findings).values()] == codes


def test_a_policy_for_a_service_that_loses_its_waypoint_is_named(mesh):
    target = {"group": "", "kind": "Service", "name": "web"}
    mesh.authorization_policy("rule", {"targetRefs": [target], "rules": [{}]}, namespace=APPS)
    for cluster in mesh.clusters.values():
        key = ObjectKey(cluster.id, "", APPS)
        mesh.put(mesh.sources.namespaces, key, objects.Namespace(shapes.metadata(APPS, "")))

    (found,) = mesh.graph.items(mesh.views.findings).values()
    assert (found.code, found.subject) == ("ISM-VIEW-008", "AuthorizationPolicy apps/rule")
