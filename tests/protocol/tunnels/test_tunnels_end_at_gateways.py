"""Two tunnels, one in the other, through a gateway: a real Envoy passes on what is shared only."""

import asyncio

import msgspec
import pytest
import tunnelled

from isthmus.fleet.sources import ObjectKey
from isthmus.install import exposing
from isthmus.kube import gateway_api
from isthmus.mesh.proxies import ProxyKind
from isthmus.resources import building, snapshot
from isthmus.testing import builders
from isthmus.views import names, view

HOST = "helloworld.sample.svc.cluster.local"
PORTS = {"http": 5000}
KINDS = (snapshot.CLUSTERS, snapshot.ENDPOINTS, snapshot.LISTENERS, snapshot.ROUTES)
SHARED = builders.Shape(proxy=None, is_captured=True, is_global=True)
OWN = builders.Shape(proxy=None, is_captured=True)
PLAIN = builders.Shape(proxy=None, is_global=True)


def mesh_of():
    mesh = builders.Mesh()
    east = mesh.cluster("east", network="n1")
    west = mesh.cluster("west", network="n2")
    where = {"namespace": "sample", "ports": PORTS}
    east.service("helloworld", ready=["10.1.0.1"], shape=SHARED, **where)
    west.service("helloworld", ready=["10.2.0.1"], shape=SHARED, **where)
    east.service("own", ready=["10.1.0.2"], shape=OWN, **where)
    east.service("plain", ready=["10.1.0.3"], shape=PLAIN, **where)
    class_ = {"metadata": {"name": "istio-eastwest"}}
    class_["spec"] = {"controllerName": "istio.io/eastwest-controller"}
    key = ObjectKey(east.id, "", "istio-eastwest")
    mesh.put(mesh.sources.gateway_classes, key, msgspec.convert(class_, gateway_api.GatewayClass))
    gateway = msgspec.convert(exposing.manifest(network="n1"), gateway_api.Gateway)
    key = ObjectKey(east.id, exposing.NAMESPACE, exposing.NAME)
    mesh.put(mesh.sources.kubernetes_gateways, key, gateway)
    return mesh


def told(mesh):
    """Return all that the gateway's proxy is told."""
    labels = {"gateway.networking.k8s.io/gateway-name": exposing.NAME}
    shape = builders.Shape(proxy=ProxyKind.ROUTER, account=exposing.NAME)
    pod = mesh.clusters["east"].pod(
        "door", namespace=exposing.NAMESPACE, labels=labels, shape=shape
    )
    found = mesh.snapshot_of(pod)
    return [one for kind in KINDS for one in found.of(kind).values()]


@pytest.fixture(scope="module")
def resources():
    return told(mesh_of())


async def test_the_inner_tunnel_ends_at_the_pod_and_shows_who_calls(resources, tmp_path):
    async with (
        tunnelled.running(resources, tmp_path) as door,
        door.tunnel(f"{HOST}:5000") as tunnel,
    ):
        context = tunnelled.trusting(tmp_path, tunnelled.CALLER)
        answer, server = await tunnel.talk(context, b"hello")

    assert tunnel.status == 200
    assert server == tunnelled.SERVER
    assert answer == f"{tunnelled.CALLER} hello"


ASKED = {
    "a service that nobody shares": "own.sample.svc.cluster.local:5000",
    "another port": f"{HOST}:5001",
    "no port": HOST,
    "an address of a pod": "10.1.0.1:5000",
    "an address of a service": "10.96.0.1:5000",
    "loopback": "127.0.0.1:15000",
    "the gateway itself": "istio-eastwest.istio-gateways.svc.cluster.local:15008",
    "an API server": "kubernetes.default.svc.cluster.local:443",
    "a host outside": "example.com:443",
    "any": "*:5000",
    "a suffix": f"x.{HOST}:5000",
    "a cloud's metadata": "169.254.169.254:80",
}


async def test_nothing_leads_anywhere_that_is_not_in_the_table(resources, tmp_path):
    async with tunnelled.running(resources, tmp_path) as door:
        answers = {name: await door.ask(asked) for name, asked in ASKED.items()}

        assert answers == dict.fromkeys(ASKED, 404)
        assert await door.ask(f"{HOST}:5000", method="GET") == 404
        assert door.arrived == []


async def test_nobody_comes_in_who_is_not_of_the_mesh(resources, tmp_path):
    async with tunnelled.running(resources, tmp_path) as door:
        asked = f"{HOST}:5000"

        assert await door.ask(asked) == 200
        assert await door.ask(asked, who="") == 0
        assert await door.ask(asked, who=tunnelled.FOREIGN) == 0
        assert await door.ask(asked, of=tunnelled.OTHER_ROOT) == 0


async def test_what_has_no_pod_that_takes_tunnels_is_unavailable(resources, tmp_path):
    async with tunnelled.running(resources, tmp_path) as door:
        assert await door.ask("plain.sample.svc.cluster.local:5000") == 503


async def test_a_pod_that_has_just_died_costs_nobody_a_call(tmp_path):
    mesh = mesh_of()
    pods = ["10.1.0.1", "10.1.0.5"]
    mesh.clusters["east"].service(
        "helloworld", ready=pods, shape=SHARED, namespace="sample", ports=PORTS
    )
    async with tunnelled.running(told(mesh), tmp_path, dead=pods[1:]) as door:
        answers = [await door.ask(f"{HOST}:5000") for _ in range(20)]

    assert answers == [200] * 20


async def test_a_pod_that_cannot_be_reached_is_unavailable(resources, tmp_path):
    async with tunnelled.running(resources, tmp_path, serves=False) as door:
        assert await door.ask(f"{HOST}:5000") == 503


OTHER = "spiffe://cluster.local/ns/sample/sa/other"
AT_GATEWAY = {"matchLabels": {"gateway.networking.k8s.io/gateway-name": exposing.NAME}}
NAMED = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": exposing.NAME}
SLEEP = {"from": [{"source": {"principals": ["cluster.local/ns/sample/sa/sleep"]}}]}


async def asked_by(mesh, folder):
    """Return what becomes of tunnels that two callers ask for."""
    async with tunnelled.running(told(mesh), folder) as door:
        who = (tunnelled.CALLER, OTHER)
        return [await door.ask(f"{HOST}:5000", who=one) == 200 for one in who]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"selector": AT_GATEWAY, "rules": [SLEEP]}, [True, False]),
        ({"targetRefs": [NAMED], "rules": [SLEEP]}, [True, False]),
        ({"selector": AT_GATEWAY, "action": "DENY", "rules": [SLEEP]}, [False, True]),
        (
            {
                "selector": AT_GATEWAY,
                "action": "DENY",
                "rules": [{"to": [{"operation": {"hosts": [HOST]}}]}],
            },
            [False, False],
        ),
        # About workloads, which judge the inner tunnel themselves.
        ({"rules": []}, [True, True]),
    ],
)
async def test_policies_for_the_gateway_judge_who_asks_for_the_outer_tunnel(
    spec, expected, tmp_path
):
    mesh = mesh_of()
    mesh.authorization_policy("p", spec, namespace=exposing.NAMESPACE)

    assert await asked_by(mesh, tmp_path) == expected


def with_most(each, resource):
    """Return a gateway's listener with a limit for each caller; anything else as it is."""
    if resource.name != "connect_terminate":
        return resource
    end = view.tunnels.GatewayTunnels(
        15008, names.tunnel_routes(15008), ("cluster.local",), most_each=each
    )
    return building.build(end)


async def test_a_caller_that_begins_too_many_tunnels_takes_none_from_others(tmp_path):
    limited = [with_most(2, one) for one in told(mesh_of())]
    async with tunnelled.running(limited, tmp_path) as door:
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(door.ask(f"{HOST}:5000")) for _ in range(30)]
        answers = [one.result() for one in asked]
        others = [await door.ask(f"{HOST}:5000", who=OTHER) for _ in range(2)]

    # A slow machine lets a few more through, two for each second.
    assert answers.count(200) >= 4
    assert answers.count(tunnelled.REFUSED) >= 10
    assert others == [200, 200]
