"""What a gateway between networks is told of inner tunnels: which names, and which pods behind.

east (n1): the gateway; helloworld      west (n2), near (n1): helloworld as well
"""

import msgspec
import pytest

from fakes import links
from isthmus.fleet.sources import ObjectKey
from isthmus.install import exposing
from isthmus.kube import gateway_api
from isthmus.mesh.ambient import Scope
from isthmus.mesh.proxies import ProxyKind
from isthmus.resources import consistency, snapshot
from isthmus.testing import builders, envoys

HOST = "helloworld.sample.svc.cluster.local"
CLUSTER = f"inbound-vip|5000|tcp|{HOST}"
PORTS = {"http": 5000}
SHARED = builders.Shape(proxy=None, is_captured=True, is_global=True)
OWN = builders.Shape(proxy=None, is_captured=True)
SIDECAR = builders.Shape(is_global=True)


def put(mesh, source, decode, written):
    metadata = written["metadata"]
    key = ObjectKey(mesh.clusters["east"].id, metadata.get("namespace", ""), metadata["name"])
    mesh.put(source, key, msgspec.convert(written, decode))


@pytest.fixture
def mesh():
    mesh = builders.Mesh()
    for name, network in (("east", "n1"), ("west", "n2"), ("near", "n1")):
        mesh.cluster(name, network=network)
    class_ = {"metadata": {"name": "istio-eastwest"}}
    class_["spec"] = {"controllerName": "istio.io/eastwest-controller"}
    put(mesh, mesh.sources.gateway_classes, gateway_api.GatewayClass, class_)
    expose(mesh)
    labels = {"gateway.networking.k8s.io/gateway-name": exposing.NAME}
    shape = builders.Shape(proxy=ProxyKind.ROUTER, account=exposing.NAME)
    mesh.door = mesh.clusters["east"].pod(
        "door", namespace=exposing.NAMESPACE, labels=labels, shape=shape
    )
    return mesh


def expose(mesh, **changes):
    written = exposing.manifest(network="n1")
    written["spec"] |= changes
    put(mesh, mesh.sources.kubernetes_gateways, gateway_api.Gateway, written)


def helloworld(mesh, cluster, *ready, shape=SHARED, **more):
    mesh.clusters[cluster].service(
        "helloworld", ready=ready, namespace="sample", ports=PORTS, shape=shape, **more
    )


def told(mesh):
    found = mesh.snapshot_of(mesh.door)
    assert consistency.missing(found) == ()
    return found


def asked(mesh):
    """Return what may be asked for."""
    tables = told(mesh).of(snapshot.ROUTES)
    return {
        domain
        for name, one in tables.items()
        if name == "tunnels.15008"
        for host in envoys.decoded(one).virtual_hosts
        for domain in host.domains
    }


def behind(mesh, host=HOST):
    """Return the addresses to which inner tunnels go."""
    found = told(mesh).of(snapshot.ENDPOINTS).get(f"inbound-vip|5000|tcp|{host}")
    groups = envoys.decoded(found).endpoints if found else ()
    places = [one.endpoint.address.socket_address for group in groups for one in group.lb_endpoints]
    return {(place.address, place.port_value) for place in places}


def test_tunnels_go_to_the_pods_of_the_gateways_own_network(mesh):
    helloworld(mesh, "east", "10.1.0.1", "10.1.0.2")
    helloworld(mesh, "west", "10.2.0.1")
    helloworld(mesh, "near", "10.3.0.1")

    assert asked(mesh) == {f"{HOST}:5000"}
    assert behind(mesh) == {("10.1.0.1", 15008), ("10.1.0.2", 15008), ("10.3.0.1", 15008)}


def test_each_cluster_gives_its_own_pods_only_if_its_own_service_says_so(mesh):
    helloworld(mesh, "east", "10.1.0.1", shape=OWN)
    helloworld(mesh, "near", "10.3.0.1")
    assert behind(mesh) == {("10.3.0.1", 15008)}

    helloworld(mesh, "near", "10.3.0.1", shape=OWN)
    assert (asked(mesh), behind(mesh)) == (set(), set())

    helloworld(mesh, "east", "10.1.0.1")
    assert behind(mesh) == {("10.1.0.1", 15008)}


@pytest.mark.parametrize("scope", ["global", "global-only"])
def test_what_clusters_share_is_asked_for_by_either_name(mesh, scope):
    """By which one is decided in the cluster of the client."""
    shape = builders.Shape(proxy=None, is_captured=True, scope=scope)
    helloworld(mesh, "east", "10.1.0.1", shape=shape)
    helloworld(mesh, "near", "10.3.0.1", shape=OWN)

    assert asked(mesh) == {f"{HOST}:5000", "helloworld.sample.mesh.internal:5000"}
    for host in (HOST, "helloworld.sample.mesh.internal"):
        assert behind(mesh, host) == {("10.1.0.1", 15008)}


def test_what_only_linked_clusters_share_is_not_asked_for_here(mesh):
    links.put(mesh, peer="far", network="n9")
    links.tell(mesh, "far", "sample/helloworld", Scope(derives=True, takes_over=True))
    assert asked(mesh) == set()

    helloworld(mesh, "east", "10.1.0.1", shape=OWN)
    assert asked(mesh) == set()


def test_only_pods_that_are_ready_and_accept_tunnels_are_behind(mesh):
    helloworld(mesh, "east", "10.1.0.1", unready=["10.1.0.2"])
    helloworld(mesh, "near", "10.3.0.1", shape=SIDECAR)

    assert behind(mesh) == {("10.1.0.1", 15008)}


def test_a_name_stays_while_nobody_is_ready(mesh):
    helloworld(mesh, "east", unready=["10.1.0.1"])

    assert asked(mesh) == {f"{HOST}:5000"}
    assert behind(mesh) == set()


def test_a_service_that_is_not_exported_to_the_gateway_is_not_behind(mesh):
    shape = builders.Shape(proxy=None, is_captured=True, is_global=True, export_to=".")
    helloworld(mesh, "east", "10.1.0.1", shape=shape)

    assert asked(mesh) == set()


def test_a_pod_that_comes_changes_nothing_but_its_services_endpoints(mesh):
    helloworld(mesh, "east", "10.1.0.1")
    mesh.clusters["east"].service("other", ready=["10.1.0.9"], shape=SHARED)
    before = told(mesh)
    helloworld(mesh, "east", "10.1.0.1", "10.1.0.2")
    after = told(mesh)

    kinds = (snapshot.CLUSTERS, snapshot.ENDPOINTS, snapshot.LISTENERS, snapshot.ROUTES)
    changed = {
        name
        for kind in kinds
        for name, one in after.of(kind).items()
        if before.of(kind)[name].version != one.version
    }
    assert changed == {CLUSTER, f"outbound|5000||{HOST}"}


def test_without_a_listener_for_tunnels_nothing_is_told_of_them(mesh):
    helloworld(mesh, "east", "10.1.0.1")
    expose(mesh, listeners=exposing.manifest(network="n1")["spec"]["listeners"][1:])

    assert CLUSTER not in told(mesh).of(snapshot.CLUSTERS)
    assert "connect_terminate" not in told(mesh).of(snapshot.LISTENERS)
