"""A mesh whose proxies are told by processes of their own, and real Envoys that are told by these."""

import asyncio
import contextlib

import aiohttp
import grpc
from envoy.service.discovery.v3 import discovery_pb2

from fakes import assembled, told_envoys
from isthmus.base import clock, metrics, tasks
from isthmus.mesh.identities import ClusterId
from isthmus.resources.snapshot import ADDRESSES, AUTHORIZATIONS
from isthmus.runtime import connections
from isthmus.runtime.fanout import crowd, hosting, messages
from isthmus.testing import builders, certificates, envoys
from isthmus.wire import ads, callers, csr, debugging, debugstreams, listening, sds, streams, tls

NAME = "istiod.istio-system.svc"
EAST = ClusterId("east")
WEB = "outbound|80||web.default.svc.cluster.local"
LIMIT_S = told_envoys.LIMIT_S
CHAIN = ("signed", "by", "somebody")


class Judge(callers.Authenticator):
    """Knows each pod of namespace `default` by its name."""

    async def authenticate(self, credentials):
        if not credentials.token.startswith("caller"):
            raise callers.CallerRefused("the token proves nothing")
        pod = credentials.token
        return callers.Caller(EAST, "default", "default", pod, f"uid-{pod}")


class Connections(connections.Connections):
    """What happens as soon as a proxy is let in: nothing, unless a test says what."""

    def __init__(self, *given, **said):
        super().__init__(*given, **said)
        self.then = None

    def open(self, caller, node):
        watch = super().open(caller, node)
        if self.then is not None:
            asyncio.get_running_loop().call_soon(self.then)
        return watch


class Pages:
    """Of the pages only what proxies were told."""

    def __init__(self, world):
        self.page = lambda name: streams.syncz(world.crowd.statuses()) if name == "syncz" else []


class Hurried(clock.SystemClock):
    """A clock by which so many looks after workers are over at once, and no rest between two words."""

    def __init__(self, looks=0):
        self.looks = looks

    async def sleep(self, delay_s):
        is_look = delay_s == hosting.LOOK_EVERY_S and self.looks > 0
        self.looks -= is_look
        await super().sleep(0 if is_look or delay_s == hosting.SPACING_S else delay_s)


class World:
    """A mesh of one cluster, and the processes that tell of it."""

    def __init__(self, workers, *, system_clock=None):
        self.builder = builder = builders.Mesh()
        self.east = builder.cluster("east", network="n1")
        self.mesh = assembled.mesh_of(builder)
        self.proxies = Connections(
            self.mesh,
            authenticator=Judge(),
            unready=lambda _: self.unready,
            node_accounts=[("default", "default")],
        )
        self.proxies.tells_apart = True
        self.unready = ""
        self.metrics = metrics.Metrics()
        self.own = ads.Service(self.proxies, registered=self.metrics)  # declares what is counted
        self.asked = []
        self.show(certificates.signer(now=clock.SystemClock().now()))
        desk = debugging.Desk(Pages(self), own_cluster=EAST, system_namespace="default")
        self.crowd = crowd.Crowd(
            workers,
            proxies=self.proxies,
            certify=self.certify,
            asides=lambda: debugstreams.Asides(desk, pod="istiod-1"),
            state=lambda: self.state,
            registered=self.metrics,
            log_level="warning",
            system_clock=system_clock,
        )
        desk.gather = self.crowd.gather

    def show(self, signer):
        """Serve with a certificate of an authority from now on."""
        self.signer = signer
        shown = tls.issue(signer, names=(NAME,), now=clock.SystemClock().now())
        self.state = messages.State(shown.chain_pem, shown.key_pem, "east", ads.Limits())

    async def certify(self, request, shown):
        self.asked.append(request)
        if shown.token != "caller-1":
            raise csr.refusal("PERMISSION_DENIED", "not for you")
        return CHAIN

    def web(self, *addresses):
        self.east.service("web", ready=list(addresses))

    async def statuses(self):
        await self.crowd.gather()
        return {each.node.pod: each for each in self.crowd.statuses()}

    def counted(self, name, *labels):
        [metric] = [one for key, one in self.metrics._metrics.items() if key == name]
        return sum(metric.values.values()) if not labels else metric.values.get(labels, 0)

    @contextlib.asynccontextmanager
    async def channel(self, *, roots=None, token="caller-1"):
        """Connect to whichever worker; each call shows a token."""
        trusted = grpc.ssl_channel_credentials((roots or self.signer.roots_pem).encode())
        shown = grpc.composite_channel_credentials(
            trusted, grpc.access_token_call_credentials(token)
        )
        options = (("grpc.ssl_target_name_override", NAME),)
        async with grpc.aio.secure_channel(f"127.0.0.1:{self.port}", shown, options) as opened:
            yield opened


def at(name, port, **more):
    place = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}
    return {
        "name": name,
        "type": "STATIC",
        "typed_extension_protocol_options": {
            envoys.HTTP2: {
                "@type": f"type.googleapis.com/{envoys.HTTP2}",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": place}]}],
        },
        **more,
    }


def bootstrap(world, pod, api_type, roots):
    names = [{"san_type": "DNS", "matcher": {"exact": NAME}}]
    trusted = {"trusted_ca": {"filename": str(roots)}, "match_typed_subject_alt_names": names}
    socket = {
        "name": "tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"
            ".UpstreamTlsContext",
            "sni": NAME,
            "common_tls_context": {"validation_context": trusted},
        },
    }
    said = [{"key": "authorization", "value": f"Bearer {pod}"}]
    return {
        "node": {
            "id": f"sidecar~10.0.0.1~{pod}.default~default.svc.cluster.local",
            "cluster": "caller.default",
            "metadata": {"CLUSTER_ID": "east"},
        },
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "dynamic_resources": {
            "cds_config": told_envoys.ADS,
            "ads_config": {
                "api_type": api_type,
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [
                    {"envoy_grpc": {"cluster_name": "ads"}, "initial_metadata": said}
                ],
            },
        },
        "static_resources": {
            "clusters": [
                at("ads", world.port, transport_socket=socket),
                at("sds-grpc", world.sds_port),
            ]
        },
    }


class Proxy:
    """A real Envoy."""

    def __init__(self, process, port):
        self.process = process
        self._page = f"http://127.0.0.1:{port}/config_dump?include_eds"

    async def addresses(self):
        """Return where `web` is, for all that it knows."""
        async with aiohttp.ClientSession() as session, session.get(self._page) as answer:
            dump = await answer.json()
        told = [one for part in dump["configs"] for one in part.get("dynamic_endpoint_configs", ())]
        said = [one["endpoint_config"] for one in told]
        mine = [one for one in said if one["cluster_name"] == WEB]
        found = [
            member["endpoint"]["address"]["socket_address"]["address"]
            for one in mine
            for group in one.get("endpoints", ())
            for member in group.get("lb_endpoints", ())
        ]
        return sorted(found)

    async def until(self, *wanted):
        await until(self.addresses, lambda found: found == sorted(wanted))


async def until(ask, holds, *, every_s=0.02):
    """Ask until something holds; return the answer."""
    found = None
    try:
        async with asyncio.timeout(LIMIT_S):
            while True:
                found = await ask()
                if holds(found):
                    return found
                await asyncio.sleep(every_s)
    except TimeoutError:
        raise AssertionError(found) from None


@contextlib.asynccontextmanager
async def running(workers=2, *, system_clock=None):
    """Run a world with one service, until its workers serve."""
    world = World(workers, system_clock=system_clock)
    world.web("10.1.0.1")
    door = listening.bound("127.0.0.1", 0)
    world.port = door.getsockname()[1]
    async with tasks.Nursery() as nursery:
        world.crowd.serve(door, nursery)
        world.crowd.look()
        own = grpc.aio.server()
        own.add_generic_rpc_handlers((sds.handler(told_envoys.shelf()),))
        world.sds_port = own.add_insecure_port("127.0.0.1:0")
        await own.start()
        async with asyncio.timeout(LIMIT_S):
            await world.crowd.serving()
        try:
            yield world
        finally:
            await own.stop(None)
            await world.crowd.stop(0)


@contextlib.asynccontextmanager
async def envoy(world, folder, pod, api_type="DELTA_GRPC"):
    roots = folder / f"{pod}.pem"
    roots.write_text(world.signer.roots_pem)
    document = bootstrap(world, pod, api_type, roots)
    async with told_envoys.running(document, folder, pod) as (process, port):
        yield Proxy(process, port)


def asking(type_url, *, pod="caller-1", namespace="default", names=()):
    """Return the first message of a proxy."""
    first = discovery_pb2.DeltaDiscoveryRequest(type_url=type_url)
    first.node.id = f"sidecar~10.0.0.1~{pod}.{namespace}~{namespace}.svc.cluster.local"
    first.node.metadata.update({"CLUSTER_ID": "east"})
    first.resource_names_subscribe.extend(names)
    return first


class NodeProxy:
    """A node proxy on a stream of its own, which takes whatever it is told.

    Attributes:
        holds: What it was told, by type and name.
    """

    def __init__(self, channel, *, node):
        self._call = stream(channel)
        self._node = node
        self.holds = {ADDRESSES: {}, AUTHORIZATIONS: {}}

    async def ask(self, type_url, *, subscribe=(), unsubscribe=()):
        asked = asking(type_url, names=subscribe)
        asked.node.id = asked.node.id.replace("sidecar", "ztunnel")
        asked.node.metadata.update({"NODE_NAME": self._node})
        asked.resource_names_unsubscribe.extend(unsubscribe)
        await self._call.write(asked)

    async def until(self, type_url, *names):
        """Take what is told until it holds just these of a type."""
        try:
            async with asyncio.timeout(LIMIT_S):
                while self.holds[type_url].keys() != {*names}:
                    await self._take(await self._call.read())
        except TimeoutError:
            raise AssertionError(self.holds[type_url].keys()) from None

    async def _take(self, told):
        held = self.holds[told.type_url]
        held.update((one.name, one.version) for one in told.resources)
        for name in told.removed_resources:
            held.pop(name, None)
        taken = discovery_pb2.DeltaDiscoveryRequest(
            type_url=told.type_url, response_nonce=told.nonce
        )
        await self._call.write(taken)

    def leave(self):
        self._call.cancel()


def stream(channel):
    return channel.stream_stream(
        f"/{ads.SERVICE}/DeltaAggregatedResources",
        request_serializer=discovery_pb2.DeltaDiscoveryRequest.SerializeToString,
        response_deserializer=discovery_pb2.DeltaDiscoveryResponse.FromString,
    )()
