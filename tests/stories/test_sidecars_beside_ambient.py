"""Which endpoints sidecars and gateways call through tunnels, and what they are told without."""

import pytest

from isthmus.mesh.proxies import ProxyKind
from isthmus.resources import consistency, snapshot
from isthmus.testing import builders, envoys, shapes

HOST = "mixed.default.svc.cluster.local"
CLUSTER = f"outbound|80||{HOST}"
SPEAKING = builders.Shape(speaks_tunnels=True)
BOTH = builders.Shape(speaks_tunnels=True, labels={"networking.istio.io/tunnel": "http"})
CAPTURED, SIDECAR, PLAIN, FAR = "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.1.0.1"


def mesh_of():
    """Return a mesh with a service of pods of all kinds, in two networks."""
    mesh = builders.Mesh()
    east, west = mesh.cluster("east", network="n1"), mesh.cluster("west", network="n2")
    east.pod("captured", address=CAPTURED, shape=shapes.CAPTURED)
    east.pod("sidecar", address=SIDECAR, shape=BOTH)
    east.pod("plain", address=PLAIN, shape=shapes.PLAIN)
    east.service("mixed", ready=[CAPTURED, SIDECAR, PLAIN])
    west.service("mixed", ready=[FAR], shape=shapes.CAPTURED)
    west.gateway(external="203.0.113.2")
    mesh.expose_services()
    return mesh


def told(mesh, shape=SPEAKING):
    return mesh.snapshot_of(mesh.clusters["east"].pod("caller", shape=shape))


def ways(found):
    """Return by which address and with which metadata each endpoint is called."""
    assignment = envoys.decoded(found.of(snapshot.ENDPOINTS)[CLUSTER])
    endpoints = [one for group in assignment.endpoints for one in group.lb_endpoints]
    result = {}
    for one in endpoints:
        spoken = dict(one.metadata.filter_metadata["envoy.transport_socket_match"])
        inside = one.endpoint.address.envoy_internal_address
        place = inside.endpoint_id or one.endpoint.address.socket_address.address
        result[place] = spoken
    return result


def sockets(found):
    cluster = envoys.decoded(found.of(snapshot.CLUSTERS)[CLUSTER])
    return [one.name for one in cluster.transport_socket_matches]


def test_only_what_takes_nothing_else_is_called_through_tunnels():
    """Behind another network's gateway mutual TLS cannot end at a pod without a sidecar."""
    assert ways(told(mesh_of())) == {
        f"{CAPTURED}:80": {"tunnel": "http"},
        SIDECAR: {},
        PLAIN: {"tlsMode": "disabled"},
    }


def test_who_speaks_no_hbone_is_told_nothing_of_it():
    found = told(mesh_of(), shape=shapes.USUAL)

    plain = {"tlsMode": "disabled"}
    assert ways(found) == {CAPTURED: plain, SIDECAR: {}, PLAIN: plain}
    assert sockets(found) == ["tlsMode-disabled", "tlsMode-istio"]
    names = {*found.of(snapshot.LISTENERS), *found.of(snapshot.CLUSTERS)}
    assert names.isdisjoint({"connect_originate", "connect_terminate", "main_internal"})


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("", ["hbone", "tlsMode-disabled", "tlsMode-istio"]),
        ("DISABLE", ["hbone", "otherwise"]),
        ("ISTIO_MUTUAL", ["hbone", "otherwise"]),
        ("SIMPLE", ["hbone", "otherwise"]),
    ],
)
def test_rules_about_tls_say_nothing_of_tunnels_and_envoy_takes_them(mode, expected, tmp_path):
    mesh = mesh_of()
    if mode:
        mesh.destination_rule("r", {"host": HOST, "trafficPolicy": {"tls": {"mode": mode}}})
    found = told(mesh)
    kinds = (snapshot.CLUSTERS, snapshot.ENDPOINTS, snapshot.LISTENERS, snapshot.ROUTES)
    resources = [one for kind in kinds for one in found.of(kind).values()]

    assert sockets(found) == expected
    assert consistency.missing(found) == ()
    assert envoys.complaint_about(resources, directory=tmp_path) == ""


def test_gateways_call_through_tunnels_what_they_do_not_pass_on():
    shape = builders.Shape(proxy=ProxyKind.ROUTER, speaks_tunnels=True)

    assert ways(told(mesh_of(), shape=shape))[f"{CAPTURED}:80"] == {"tunnel": "http"}


def test_a_workload_in_no_service_ends_tunnels_all_the_same():
    mesh = builders.Mesh()
    mesh.cluster("east")

    found = told(mesh)

    assert consistency.missing(found) == ()
    assert {"connect_terminate", "main_internal"} <= found.of(snapshot.LISTENERS).keys()


def test_tunnels_to_a_sidecar_may_ask_for_what_its_service_is_called_in_all_clusters():
    mesh = builders.Mesh()
    shape = builders.Shape(speaks_tunnels=True, scope="global")
    mesh.cluster("east", network="n1").service("shared", ready=["10.0.0.1"], shape=shape)

    found = mesh.snapshot_of(mesh.pod_at("10.0.0.1", network="n1"))
    routes = envoys.decoded(found.of(snapshot.ROUTES)["connect_terminate"])

    asked = {name for host in routes.virtual_hosts for name in host.domains}
    assert {f"shared.default.{one}:80" for one in ("svc.cluster.local", "mesh.internal")} <= asked
