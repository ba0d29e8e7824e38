"""What node proxies are told of pods, services and policies."""

import ipaddress

import msgspec
import pytest
from told_node_proxies import GLOBAL, node_proxy, service, told, two_clusters, workload

from isthmus.fleet.sources import ObjectKey
from isthmus.kube import objects
from isthmus.resources import snapshot
from isthmus.testing import shapes
from isthmus.testing.shapes import Shape
from isthmus.views import view
from isthmus_proto.istio.workload import workload_pb2


def test_a_pod_becomes_a_workload_that_answers_for_its_service():
    _, east = two_clusters("n1")
    east.node("node-1", region="r1", zone="z1")
    shape = Shape(proxy=None, account="rev", node="node-1", is_captured=True, target_port=8080)
    east.service("reviews", ready=["10.0.0.1"], shape=shape)

    said = workload(east, "east//Pod/default/reviews-10-0-0-1")

    assert list(said.addresses) == [ipaddress.ip_address("10.0.0.1").packed]
    assert (said.network, said.cluster_id, said.node) == ("n1", "east", "node-1")
    assert (said.service_account, said.trust_domain) == ("rev", "")
    assert (said.locality.region, said.locality.zone) == ("r1", "z1")
    assert said.tunnel_protocol == workload_pb2.HBONE
    assert said.status == workload_pb2.HEALTHY
    (port,) = said.services["default/reviews.default.svc.cluster.local"].ports
    assert (port.service_port, port.target_port) == (80, 8080)
    assert port.app_protocol == workload_pb2.HTTP11
    assert (said.canonical_name, said.canonical_revision) == ("reviews", "latest")


def test_a_pod_whose_traffic_nobody_captures_takes_no_tunnels():
    _, east = two_clusters("")
    east.pod("plain", shape=shapes.PLAIN)
    east.pod("sidecar")

    for name in ("plain", "sidecar"):
        said = workload(east, f"east//Pod/default/{name}")
        assert said.tunnel_protocol == workload_pb2.NONE


def test_a_pod_that_is_not_ready_is_unhealthy_and_keeps_its_ports():
    _, east = two_clusters("")
    east.service("reviews", unready=["10.0.0.1"], shape=shapes.CAPTURED)

    said = workload(east, "east//Pod/default/reviews-10-0-0-1")

    assert said.status == workload_pb2.UNHEALTHY
    assert list(said.services) == ["default/reviews.default.svc.cluster.local"]


def test_a_slice_that_claims_another_address_gives_a_pod_no_service():
    mesh, east = two_clusters("")
    east.service("reviews", ready=["10.0.0.1"], shape=shapes.CAPTURED)
    claim = mesh.graph.get(mesh.sources.endpoint_slices, east._key("default", "reviews-1"))
    member = claim.endpoints[0]
    forged = type(member)(addresses=("10.9.9.9",), target_ref=member.target_ref)
    mesh.put(
        mesh.sources.endpoint_slices,
        east._key("default", "reviews-1"),
        shapes.slice_of(claim.metadata, members=[forged], ports={"http": 80}),
    )

    assert not workload(east, "east//Pod/default/reviews-10-0-0-1").services


def test_a_service_has_its_address_in_its_network_and_its_ports():
    _, east = two_clusters("n1")
    east.service("reviews", ready=["10.0.0.1"], ports={"http": 80, "tcp": 9000})

    said = service(east)

    (vip,) = said.addresses
    assert (vip.network, len(vip.address)) == ("n1", 4)
    assert {port.service_port: port.app_protocol for port in said.ports} == {
        80: workload_pb2.HTTP11,
        9000: workload_pb2.TCP,
    }
    assert said.canonical
    assert said.ip_families == workload_pb2.IPV4_ONLY
    assert not said.HasField("load_balancing")


def test_names_of_addresses_are_aliases_but_for_pods_on_the_host_network():
    mesh, east = two_clusters("n1")
    east.service("reviews", ready=["10.0.0.1"], shape=shapes.CAPTURED)

    found = mesh.snapshot_of(node_proxy(east)).of(snapshot.ADDRESSES)

    assert found["east//Pod/default/reviews-10-0-0-1"].aliases == ("n1/10.0.0.1",)
    assert found["default/reviews.default.svc.cluster.local"].aliases == ("n1/10.96.0.1",)


def test_clusters_on_one_network_share_only_what_is_global():
    _, east, west = two_clusters("n1", "n1")
    for cluster, address in ((east, "10.0.0.1"), (west, "10.1.0.1")):
        cluster.service("reviews", ready=[address], shape=GLOBAL)
    west.service("own", ready=["10.1.0.2"], shape=shapes.CAPTURED)

    assert "west//Pod/default/reviews-10-1-0-1" in told(east)
    assert "west//Pod/default/own-10-1-0-2" not in told(east)
    assert "default/own.default.svc.cluster.local" not in told(east)
    # The other cluster's address means the same service there, but another one here.
    assert len(service(east).addresses) == 1


def test_what_is_not_global_here_stays_as_it_is_here():
    _, east, west = two_clusters("n1", "n1")
    east.service("reviews", ready=["10.0.0.1"], shape=shapes.CAPTURED)
    west.service("reviews", ready=["10.1.0.1"], shape=GLOBAL)

    assert "west//Pod/default/reviews-10-1-0-1" not in told(east)
    assert not service(east).subject_alt_names


def test_what_stands_behind_a_gateway_is_one_workload_for_all():
    _, east, west = two_clusters("n1", "n2")
    west.gateway(external="172.30.0.2", ports={"hbone": 15008})
    east.service("reviews", ready=["10.0.0.1"], shape=GLOBAL)
    west.service("reviews", ready=["10.1.0.1", "10.1.0.2"], unready=["10.1.0.3"], shape=GLOBAL)

    found = told(east)

    assert not any(name.startswith("west//Pod") for name in found)
    (hidden,) = [one.workload for name, one in found.items() if "SplitHorizon" in name]
    assert not hidden.addresses
    assert (hidden.network, hidden.capacity.value) == ("n2", 2)
    assert hidden.network_gateway.address.network == "n2"
    assert hidden.network_gateway.hbone_mtls_port == 15008
    assert hidden.tunnel_protocol == workload_pb2.HBONE
    assert list(hidden.services) == ["default/reviews.default.svc.cluster.local"]
    assert list(service(east).subject_alt_names) == ["spiffe://cluster.local/ns/default/sa/default"]
    door = found["NetworkGateway/n2/172.30.0.2/15008"].workload
    assert list(door.addresses) == [ipaddress.ip_address("172.30.0.2").packed]
    assert (door.namespace, door.service_account) == (
        "istio-system",
        "istio-eastwestgateway-service-account",
    )


def test_without_healthy_workloads_nothing_stands_behind_a_gateway():
    _, east, west = two_clusters("n1", "n2")
    west.gateway(external="172.30.0.2", ports={"hbone": 15008})
    west.service("reviews", unready=["10.1.0.1"], shape=GLOBAL)

    assert not [name for name in told(east) if "SplitHorizon" in name]
    assert "default/reviews.default.svc.cluster.local" in told(east)


# --- waypoints


def labelled(cluster, source, name, namespace="", **labels):
    """Give an object labels, with underscores for what a keyword cannot have."""
    key = ObjectKey(cluster.id, namespace, name)
    old = cluster.mesh.graph.get(source, key)
    all_labels = {**((old and old.metadata.labels) or {}), **LABELS(labels)}
    meta = shapes.metadata(name, namespace, all_labels)
    cluster.mesh.put(source, key, msgspec.structs.replace(old.whole(), metadata=meta))


def LABELS(labels):  # noqa: N802
    names = {
        "use": "istio.io/use-waypoint",
        "use_namespace": "istio.io/use-waypoint-namespace",
        "waypoint_for": "istio.io/waypoint-for",
        "managed": "gateway.istio.io/managed",
    }
    return {names[key]: value for key, value in labels.items()}


def with_waypoint(waypoint_for="", **use):
    """Return a mesh with a waypoint, whose namespace's Service and pod say `use`."""
    mesh, east = two_clusters("n1")
    east.service("reviews", ready=["10.0.0.1"], shape=shapes.CAPTURED)
    east.service("gate", ready=["10.0.0.9"], ports={"mesh": 15008}, shape=shapes.CAPTURED)
    said = {"managed": "istio.io-mesh-controller"}
    said |= {"waypoint_for": waypoint_for} if waypoint_for else {}
    labelled(east, mesh.sources.services, "gate", "default", **said)
    if use:
        labelled(east, mesh.sources.services, "reviews", "default", **use)
        labelled(east, mesh.sources.pods, "reviews-10-0-0-1", "default", **use)
    return mesh, east


def waypoints(east):
    """Return the hosts of the waypoints of the service and of its pod."""
    told_of = (service(east), workload(east, "east//Pod/default/reviews-10-0-0-1"))
    return [one.waypoint.hostname.hostname.partition(".")[0] for one in told_of]


@pytest.mark.parametrize(
    ("waypoint_for", "expected"),
    [
        ("", ["gate", ""]),
        ("service", ["gate", ""]),
        ("workload", ["", "gate"]),
        ("all", ["gate", "gate"]),
        ("none", ["", ""]),
    ],
)
def test_a_waypoint_stands_before_what_it_is_for(waypoint_for, expected):
    _, east = with_waypoint(waypoint_for, use="gate")

    assert waypoints(east) == expected
    if expected[0]:
        assert service(east).waypoint.hbone_mtls_port == 15008
        assert service(east).waypoint.hostname.namespace == "default"


def test_a_namespace_may_say_it_for_all_in_it_but_not_for_the_waypoint():
    mesh, east = with_waypoint("all")
    mesh.put(
        mesh.sources.namespaces,
        ObjectKey(east.id, "", "default"),
        objects.Namespace(shapes.metadata("default", "", LABELS({"use": "gate"}))),
    )
    assert waypoints(east) == ["gate", "gate"]
    assert not service(east, "gate").HasField("waypoint")

    labelled(east, mesh.sources.services, "reviews", "default", use="none")

    assert waypoints(east) == ["", "gate"]


@pytest.mark.parametrize("use", [{"use": "other"}, {"use": "gate", "use_namespace": "elsewhere"}])
def test_a_waypoint_that_is_not_there_is_none(use):
    _, east = with_waypoint("all", **use)

    assert waypoints(east) == ["", ""]


# --- how much is computed


@pytest.mark.parametrize("size", [50, 500])
def test_a_changed_pod_computes_its_own_resource_alone(size):
    mesh, east = two_clusters("n1")
    with mesh.one_change():
        for index in range(size):
            address = f"10.0.{index // 250}.{index % 250 + 1}"
            east.service(f"s{index}", ready=[address], shape=shapes.CAPTURED)
    mesh.scopes_of(node_proxy(east))
    seen = []
    mesh.graph.listen(seen.append)

    east.endpoints("s7", ready=[], unready=["10.0.0.8"], ports={"http": 80})

    changed = [key for batch in seen for key in batch.of(mesh.views.slices)]
    assert [(key.kind, key.name) for key in changed] == [
        (view.Kind.ADDRESS, "east//Pod/default/s7-10-0-0-8")
    ]
    # The slice (five ways), its service in the registry, twice in the views, and one workload.
    assert mesh.graph.recomputed() == 12


def test_a_policy_for_all_computes_no_workload_again():
    mesh, east = two_clusters("n1")
    for index in range(20):
        east.service(f"s{index}", ready=[f"10.0.0.{index + 1}"], shape=shapes.CAPTURED)
    mesh.scopes_of(node_proxy(east))

    mesh.authorization_policy("all", {"rules": [{}]})

    # The policy: read, checked, found out, told by cluster, checked, arranged twice, judged, said, and
    # looked at for services without a waypoint.
    assert mesh.graph.recomputed() <= 11
    assert "default/all" in told(east, snapshot.AUTHORIZATIONS)


def test_without_node_proxies_nothing_is_said_to_them():
    mesh, east = two_clusters("n1")
    east.service("reviews", ready=["10.0.0.1"], shape=shapes.CAPTURED)

    slices = mesh.graph.items(mesh.views.slices)

    assert not [key for key in slices if key.kind in {view.Kind.ADDRESS, view.Kind.AUTHORIZATION}]


# --- bad objects


def test_a_pod_whose_address_is_none_is_told_without_it_and_disturbs_nobody():
    mesh, east = two_clusters("n1")
    east.pod("good", address="10.0.0.1", shape=shapes.CAPTURED)
    for name, addresses in {"bad": ("nowhere",), "half": ("10.0.0.7", "fe80::zz")}.items():
        status = objects.PodStatus(
            phase="Running", pod_ips=tuple(objects.PodIp(ip=one) for one in addresses)
        )
        pod = objects.Pod(shapes.metadata(name, "default"), status=status)
        mesh.put(mesh.sources.pods, ObjectKey(east.id, "default", name), pod)

    assert len(workload(east, "east//Pod/default/good").addresses) == 1
    assert len(workload(east, "east//Pod/default/half").addresses) == 1
    assert "east//Pod/default/bad" not in told(east)


def test_a_slice_that_names_an_address_twice_counts_once():
    mesh, east = two_clusters("n1")
    east.service("db", shape=shapes.PLAIN)
    members = [objects.SliceEndpoint(addresses=("192.0.2.1",)) for _ in range(2)]
    meta = shapes.metadata("db-1", "default", {"kubernetes.io/service-name": "db"})
    slice_ = shapes.slice_of(meta, members=members, ports={"http": 80})
    mesh.put(mesh.sources.endpoint_slices, ObjectKey(east.id, "default", "db-1"), slice_)

    said = workload(east, "east/discovery.k8s.io/EndpointSlice/default/db-1/192.0.2.1")
    assert list(said.services) == ["default/db.default.svc.cluster.local"]
    assert len(said.addresses) == 1


def written(cluster, address):
    """Let a Service without pods say that an address answers for it."""
    cluster.service("db", shape=shapes.PLAIN)
    members = [objects.SliceEndpoint(addresses=(address,))]
    meta = shapes.metadata("db-1", "default", {"kubernetes.io/service-name": "db"})
    slice_ = shapes.slice_of(meta, members=members, ports={"http": 8080})
    cluster.mesh.put(
        cluster.mesh.sources.endpoint_slices, ObjectKey(cluster.id, "default", "db-1"), slice_
    )


def at(cluster, address):
    """Return the names of all workloads of an address."""
    packed = ipaddress.ip_address(address).packed
    return [name for name, one in told(cluster).items() if packed in one.workload.addresses]


def test_an_address_in_a_slice_that_is_a_pods_means_the_pod_as_who_it_is():
    _, east = two_clusters("n1")
    written(east, "10.0.0.9")
    assert at(east, "10.0.0.9") == ["east/discovery.k8s.io/EndpointSlice/default/db-1/10.0.0.9"]

    shape = Shape(proxy=None, account="victim", is_captured=True)
    east.pod("victim", address="10.0.0.9", namespace="other", shape=shape)

    assert at(east, "10.0.0.9") == ["east//Pod/other/victim"]
    said = workload(east, "east//Pod/other/victim")
    assert (said.service_account, said.tunnel_protocol) == ("victim", workload_pb2.HBONE)
    (port,) = said.services["default/db.default.svc.cluster.local"].ports
    assert (port.service_port, port.target_port) == (80, 8080)


def test_an_address_in_an_entry_that_is_a_pods_means_the_pod_as_who_it_is():
    mesh, east = two_clusters("n1")
    east.pod("victim", address="10.0.0.9", namespace="other", shape=shapes.CAPTURED)
    https = {"number": 443, "name": "https", "protocol": "HTTPS"}
    spec = {"hosts": ["db.example.com"], "ports": [https], "resolution": "STATIC"}
    mesh.service_entry("db", {**spec, "endpoints": [{"address": "10.0.0.9"}]})

    assert at(east, "10.0.0.9") == ["east//Pod/other/victim"]
    assert "default/db.example.com" in workload(east, "east//Pod/other/victim").services


def test_an_address_of_another_network_is_no_pods():
    _, east, west = two_clusters("n1", "n2")
    west.pod("far", address="10.0.0.9", shape=shapes.CAPTURED)
    written(east, "10.0.0.9")

    assert at(east, "10.0.0.9") == ["east/discovery.k8s.io/EndpointSlice/default/db-1/10.0.0.9"]


@pytest.mark.parametrize("address", ["10.96.0.1", "198.51.100.1", "240.240.1.1"])
def test_the_address_of_a_service_is_no_workloads(address):
    mesh, east = two_clusters("n1")
    east.service("victim", ready=["10.0.0.1"], shape=shapes.CAPTURED)
    https = {"number": 443, "name": "https", "protocol": "HTTPS"}
    spec = {"hosts": ["db.example.com"], "ports": [https], "resolution": "NONE"}
    mesh.service_entry("db", {**spec, "addresses": ["198.51.100.1"]})

    written(east, address)

    assert not at(east, address)


def test_nothing_is_kept_of_pods_for_node_proxies_until_one_asks_and_then_all_of_it():
    mesh, east, west = two_clusters("n1", "n1")
    first, late = view.NodesScope("east", "n1"), view.NodesScope("west", "n1")
    mesh.put(mesh.views.scopes, first, 1)
    for number, cluster in enumerate((east, west)):
        cluster.service("reviews", ready=[f"10.{number}.0.1"], shape=GLOBAL)
    told = dict(mesh.slices_of(first))
    names = ("ambient.traits", "memberships", "views/workloads")
    kept = [mesh.graph.named(name).content for name in names]
    assert {key.kind for key in told} == {view.Kind.ADDRESS, view.Kind.AUTHORIZATION}
    assert all(kept)

    mesh.put(mesh.views.scopes, late, 1)
    with mesh.graph.transaction() as change:
        change.delete(mesh.views.scopes, first)
        change.delete(mesh.views.scopes, late)

    assert not any(kept)
    assert not mesh.slices_of(first)

    mesh.put(mesh.views.scopes, first, 1)

    assert dict(mesh.slices_of(first)) == told
