"""Gateways of the Gateway API: what the proxies that run for them are told.

east: gateway pods of Gateway `door` in namespace apps, and pods that only claim to be.
"""

import msgspec
import pytest

from isthmus.fleet.sources import ObjectKey
from isthmus.kube import gateway_api
from isthmus.mesh.proxies import ProxyKind
from isthmus.resources import snapshot
from isthmus.testing import builders, envoys

APPS = "apps"
NAME = "gateway.networking.k8s.io/gateway-name"
XDS = {"name": "xds", "port": 15012, "protocol": "TLS", "tls": {"mode": "Passthrough"}}
HTTP = {"name": "http", "port": 8000, "protocol": "HTTP"}
EXPOSED = {"istio.io/expose-istiod": "15012"}


@pytest.fixture
def mesh():
    mesh = builders.Mesh()
    east = mesh.cluster("east", network="n1")
    east.service("istiod", namespace="istio-system", ready=["10.1.0.9"], ports={"dns": 15012})
    for class_name, controller in (
        ("istio", "istio.io/gateway-controller"),
        ("istio-eastwest", "istio.io/eastwest-controller"),
        ("theirs", "example.com/controller"),
    ):
        put(mesh, mesh.sources.gateway_classes, gateway_api.GatewayClass, "", class_name,
            {"controllerName": controller})  # fmt: skip
    return mesh


def put(mesh, source, decode, namespace, name, spec, **metadata):
    east = mesh.clusters["east"]
    written = {"metadata": {"name": name, "namespace": namespace, **metadata}, "spec": spec}
    mesh.put(source, ObjectKey(east.id, namespace, name), msgspec.convert(written, decode))


def gateway(mesh, *listeners, class_name="istio", name="door", **metadata):
    spec = {"gatewayClassName": class_name, "listeners": listeners}
    put(mesh, mesh.sources.kubernetes_gateways, gateway_api.Gateway, APPS, name, spec, **metadata)


def pod(mesh, name="door", namespace=APPS):
    east = mesh.clusters["east"]
    shape = builders.Shape(proxy=ProxyKind.ROUTER, account="x")
    labels = {NAME: name}
    return east.pod(f"{name}-{namespace}", namespace=namespace, labels=labels, shape=shape)


def listeners(mesh, found):
    told = mesh.snapshot_of(found).of(snapshot.LISTENERS)
    return {name: envoys.decoded(one) for name, one in told.items()}


def test_a_gateway_listens_in_its_own_pods_only(mesh):
    gateway(mesh, HTTP)

    assert list(listeners(mesh, pod(mesh))) == ["0.0.0.0_8000"]
    assert listeners(mesh, pod(mesh, "other")) == {}
    assert listeners(mesh, pod(mesh, namespace="elsewhere")) == {}


def test_a_gateway_of_a_class_that_is_not_ours_configures_nothing(mesh):
    gateway(mesh, HTTP, class_name="theirs")

    assert listeners(mesh, pod(mesh)) == {}


def test_a_gateway_of_another_revision_configures_nothing(mesh):
    gateway(mesh, HTTP, labels={"istio.io/rev": "canary"})

    assert listeners(mesh, pod(mesh)) == {}


def test_the_control_plane_is_reached_without_decrypting(mesh):
    gateway(mesh, XDS, class_name="istio-eastwest", labels=EXPOSED)
    found = pod(mesh)

    (listener,) = listeners(mesh, found).values()
    (chain,) = listener.filter_chains
    proxy = envoys.unpacked(chain.filters[-1].typed_config)
    assert not chain.HasField("transport_socket")
    assert proxy.cluster == "outbound|15012||istiod.istio-system.svc.cluster.local"
    assert proxy.cluster in mesh.snapshot_of(found).of(snapshot.CLUSTERS)


def test_nobody_leads_to_the_control_plane_who_does_not_say_so(mesh):
    gateway(mesh, XDS, class_name="istio-eastwest")

    assert listeners(mesh, pod(mesh)) == {}


@pytest.mark.parametrize("gateways", [["apps/door"], ["apps/door~http"]])
def test_no_virtual_service_binds_it(mesh, gateways):
    mesh.clusters["east"].service("web", ready=["10.1.0.5"], ports={"http": 80})
    gateway(mesh, HTTP)
    spec = {
        "hosts": ["*"],
        "gateways": gateways,
        "http": [{"route": [{"destination": {"host": "web"}}]}],
    }
    mesh.virtual_service("thief", spec)

    told = mesh.snapshot_of(pod(mesh)).of(snapshot.ROUTES)
    (routes,) = (envoys.decoded(one) for one in told.values())
    assert [list(host.domains) for host in routes.virtual_hosts if host.domains != ["*"]] == []
    assert "web" not in str(routes)


def test_a_gateway_that_goes_takes_its_listeners_with_it(mesh):
    gateway(mesh, HTTP)
    found = pod(mesh)
    assert listeners(mesh, found)

    key = ObjectKey(mesh.clusters["east"].id, APPS, "door")
    with mesh.graph.transaction() as transaction:
        transaction.delete(mesh.sources.kubernetes_gateways, key)

    assert listeners(mesh, found) == {}
