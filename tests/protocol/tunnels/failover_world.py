"""A shared service with a pod near and a pod behind another network's gateway, called all the time.

The gateway runs with what the product tells it, in a network namespace of its own.
"""

import asyncio
import contextlib
import dataclasses
import time

import msgspec
import tunnel_world
import waypoint_world
from tunnel_world import HTTP, NETWORK, address

from isthmus.base import tasks
from isthmus.fleet.sources import ObjectKey
from isthmus.install import exposing
from isthmus.kube import gateway_api, objects
from isthmus.mesh import identities
from isthmus.mesh.proxies import ProxyKind
from isthmus.resources import consistency, snapshot
from isthmus.testing import builders, envoys, shapes
from isthmus.views import wds

HOST, SHARED = "web.default.mesh.internal", "default/web.default.mesh.internal"
VIP = "240.240.0.50"
FAR = identities.NetworkId("beyond")
KEEPER = identities.SpiffeId(tunnel_world.DOMAIN, exposing.NAMESPACE, exposing.NAME)
PORTS = (wds.AddressPort(HTTP, HTTP),)
PAUSE_S = 0.02


def told():
    """Return all that the gateway of the other network is told."""
    mesh = builders.Mesh()
    cluster = mesh.cluster("beyond", network=FAR)
    shape = builders.Shape(proxy=None, account="far", is_captured=True, scope="global")
    cluster.pod("far", address=address("far"), shape=shape)
    cluster.service("web", ready=[address("far")], ports={"http": HTTP}, shape=shape)
    class_ = {"metadata": {"name": "istio-eastwest"}}
    class_["spec"] = {"controllerName": "istio.io/eastwest-controller"}
    key = ObjectKey(cluster.id, "", "istio-eastwest")
    mesh.put(mesh.sources.gateway_classes, key, msgspec.convert(class_, gateway_api.GatewayClass))
    gateway = msgspec.convert(exposing.manifest(network=FAR), gateway_api.Gateway)
    key = ObjectKey(cluster.id, exposing.NAMESPACE, exposing.NAME)
    mesh.put(mesh.sources.kubernetes_gateways, key, gateway)
    labels = {"gateway.networking.k8s.io/gateway-name": exposing.NAME}
    shape = builders.Shape(proxy=ProxyKind.ROUTER, account=exposing.NAME)
    pod = cluster.pod(
        "door",
        namespace=exposing.NAMESPACE,
        address=address("door"),
        labels=labels,
        shape=shape,
    )
    found = mesh.snapshot_of(pod)
    assert consistency.missing(found) == ()
    return [one for kind in waypoint_world.KINDS for one in found.of(kind).values()]


def answering(name, *, is_healthy=True):
    """Return a pod that answers for the shared service as well."""
    one = tunnel_world.workload(name, is_healthy=is_healthy)
    return dataclasses.replace(one, services=(*one.services, (SHARED, PORTS)))


def known():
    """Return the shared service as the client's node is told of it."""
    where = wds.NetworkAddress(FAR, address("door"))
    gateway = dataclasses.replace(
        tunnel_world.workload("near", account=exposing.NAME),
        uid=f"NetworkGateway/{FAR}/{address('door')}/15008",
        namespace=exposing.NAMESPACE,
        network=FAR,
        addresses=(address("door"),),
        services=(),
    )
    hidden = dataclasses.replace(
        gateway,
        uid=f"{FAR}/SplitHorizonWorkload/{SHARED}",
        namespace="default",
        addresses=(),
        services=((SHARED, PORTS),),
        gateway=wds.GatewayAddress(15008, address=where),
    )
    service = wds.ServiceSlice(
        HOST,
        "default",
        HOST,
        (wds.NetworkAddress(NETWORK, VIP),),
        (wds.AddressPort(HTTP, 0),),
        sans=(str(tunnel_world.identity("far")),),
        nearness=(wds.Nearness.NETWORK,),
    )
    return {
        SHARED: service,
        gateway.uid: gateway,
        hidden.uid: hidden,
        "near": answering("near"),
    }


class Caller:
    """Calls all the time, as several clients would, and notes who answered when."""

    def __init__(self, world, count=4):
        self._world = world
        self._count = count
        self.answers = []

    @contextlib.asynccontextmanager
    async def calling(self):
        async with tasks.Nursery() as nursery:
            for number in range(self._count):
                nursery.start(f"caller {number}", self._call())
            yield self

    async def _call(self):
        while True:
            began = time.monotonic()
            answer = await self._world.asks("client", VIP)
            self.answers.append((began, answer[0] if answer else None))
            await asyncio.sleep(PAUSE_S)

    async def hears_only(self, name, since):
        """Return how long after a moment the last call began that somebody else answered."""

        def is_so():
            fresh = [who for began, who in self.answers[-20:] if began > since]
            return len(fresh) == 20 and set(fresh) == {name}

        assert await tunnel_world.until(is_so), (name, self.answers[-40:])
        others = [began for began, who in self.answers if began > since and who != name]
        return max(others, default=since) - since


async def failing_over(world):
    """The near pod becomes unready, is gone, and comes back, while its service is called."""
    client, remote = world.nodes[1].control, world.nodes[2].control
    remote.tell({"far": answering("far"), SHARED: known()[SHARED]})
    client.tell(known())
    resources = told()
    running = waypoint_world.running(
        world.pods["door"], world.folder, resources=resources, identity=KEEPER
    )
    async with running:
        assert await world.becomes("near", "client", VIP)
        async with Caller(world).calling() as caller:
            await caller.hears_only("near", time.monotonic())
            client.tell({"near": answering("near", is_healthy=False)})
            over_s = await caller.hears_only("far", time.monotonic())
            world.pods["near"].stop()
            await caller.hears_only("far", time.monotonic())
            world.pods["near"].start()
            client.tell({"near": answering("near")})
            back_s = await caller.hears_only("near", time.monotonic())
        world.wire.seen()
        client.tell({"near": answering("near", is_healthy=False)})
        assert await world.becomes("far", "client", VIP)
        plain = sum(b"GET /" in payload for _, payload in world.wire.seen())
    client.tell({"near": tunnel_world.workload("near"), SHARED: None})
    return {
        "calls": len(caller.answers),
        "lost": sum(who is None for _, who in caller.answers),
        "over": over_s,
        "back": back_s,
        "plain": plain,
    }


WAYPOINT = {"istio.io/use-waypoint": waypoint_world.NAME}
KEEPER_THERE = identities.SpiffeId(
    tunnel_world.DOMAIN, builders.SYSTEM, "istio-eastwest-service-account"
)


def told_to_waypoint():
    """Return what the waypoint of the shared service is told while nobody is near.

    With the service's address, which the mesh has given.
    """
    mesh = builders.Mesh()
    near, beyond = mesh.cluster("c", network=NETWORK), mesh.cluster("beyond", network=FAR)
    shape = builders.Shape(proxy=None, account="far", is_captured=True, scope="global")
    near.service("web", ports={"http": HTTP}, shape=shape)
    key = ObjectKey(near.id, "", "default")
    mesh.put(
        mesh.sources.namespaces, key, objects.Namespace(shapes.metadata("default", "", WAYPOINT))
    )
    beyond.pod("far", address=address("far"), shape=shape)
    beyond.service("web", ready=[address("far")], ports={"http": HTTP}, shape=shape)
    beyond.gateway("istio-eastwest", external=address("door"), ports={"hbone": 15008})
    pod = waypoint_world.placed(mesh, near)
    mesh.authorization_policy("only-client", waypoint_world.ONLY_CLIENT)
    mesh.configure(accessLogFile="/dev/stdout")
    found = mesh.snapshot_of(pod)
    assert consistency.missing(found) == ()
    resources = [one for kind in waypoint_world.KINDS for one in found.of(kind).values()]
    routes = envoys.decoded(found.of(snapshot.ROUTES)["tunnels.15008"])
    asked = [one.name.partition(":")[0] for one in routes.virtual_hosts]
    return resources, next(one for one in asked if one.startswith("240.240."))


async def beyond_a_waypoint(world, waypoint, known_waypoint):
    """A waypoint has nobody near to call, and calls who is behind another network's gateway."""
    resources, vip = told_to_waypoint()
    folder = world.folder / "beyond"
    folder.mkdir()
    where = wds.NetworkAddress(NETWORK, vip)
    service = dataclasses.replace(known()[SHARED], addresses=(where,), waypoint=waypoint)
    world.nodes[2].control.tell({"far": answering("far"), SHARED: known()[SHARED]})
    async with (
        waypoint_world.running(world.pods["waypoint"], folder, resources=resources) as log,
        waypoint_world.running(world.pods["door"], folder, resources=told(), identity=KEEPER_THERE),
    ):
        world.nodes[1].control.tell({**known_waypoint, SHARED: service})
        arrived = await world.becomes("far", "client", vip, "/open/x")
        world.wire.seen()
        answers = [await world.asks("client", vip, "/open/x") for _ in range(20)]
        seen = world.wire.seen()
        shut = (await world.asks("client", vip, "/shut"))[0]
        another = (await world.asks("other", vip))[0]
        logged = await waypoint_world.logged(log, "GET /shut", " 403 ")
    world.nodes[1].control.tell({SHARED: None, "default/waypoint": None, "waypoint": None})
    world.nodes[2].control.tell({"far": tunnel_world.workload("far"), SHARED: None})
    return {
        "arrived": arrived,
        "by": sorted({one[0] for one in answers if one}),
        "lost": sum(one is None for one in answers),
        "plain": sum(b"GET /" in payload for _, payload in seen),
        "shut": shut,
        "another": another,
        "logged": logged.rsplit(" ", 1)[-1],
        "at the pod": (
            await world.logged(2, "CONNECT", f" {address('door')}:", '/sa/waypoint"')
        ).rsplit(" ", 1)[-1],
    }
