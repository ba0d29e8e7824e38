"""Pods with an Envoy of their own, beside the pods of `tunnel_world`, whose nodes have one.

What their Envoys run with is what the product tells sidecars and gateways, with two changes that a
test has no other way to give: files in the place of the agent's secrets, and marks on sockets as in
the agent's bootstrap.
"""

import asyncio
import contextlib
import dataclasses
import datetime
import functools
import json
import ssl
import subprocess

import tunnel_world
import tunnelled
from tunnel_world import HTTP, address

from isthmus.base import nftables
from isthmus.ca import keys, pem, signing
from isthmus.capture import redirects, rules
from isthmus.kube import objects
from isthmus.mesh.proxies import ProxyKind
from isthmus.node import bootstrap, redirect
from isthmus.resources import consistency, snapshot
from isthmus.testing import builders, envoys
from isthmus.testing import certificates as material
from isthmus.views import wds
from isthmus.wire import tls

SIDE, OTHER, DOOR = "side", "otherside", "door"
SIDES = (SIDE, OTHER)
SIDE_VIP = "10.96.0.60"
TCP, OPEN = 9000, 80
KINDS = (snapshot.CLUSTERS, snapshot.ENDPOINTS, snapshot.LISTENERS, snapshot.ROUTES)
MARK = {"level": 1, "name": 36, "int_value": bootstrap.MARK, "state": "STATE_PREBIND"}
AGENTS = {
    "cluster_manager": {
        "upstream_bind_config": {
            "source_address": {"address": "0.0.0.0", "port_value": 0},
            "socket_options": [MARK],
        }
    },
    "layered_runtime": {"layers": [{"name": "static", "static_layer": bootstrap.GUARDS}]},
}
"""What the agent's bootstrap says besides."""

tunnel_world.PODS |= dict.fromkeys((*SIDES, DOOR), 0)


class Telling(tunnel_world.Telling):
    """Tells besides what the proxy says of the caller."""

    def do_GET(self):  # noqa: N802, RUF100  # as its base calls it
        shown = self.headers.get_all("x-forwarded-client-cert") or []
        told = json.dumps([self.server.name, self.client_address[0], *shown]).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)


def certificate(identity):
    """Return a certificate with its chain, its key, and whom to believe."""
    signer = material.signer(now=tunnel_world.NOW)
    leaf = signing.workload(
        material.key(str(identity)).public_key(),
        identity=identity,
        signer=signer,
        stamp=tls.stamp(tunnel_world.NOW),
        life=datetime.timedelta(hours=1),
    )
    chain = pem.joined((leaf, *signer.chain))
    return chain, keys.private_pem(material.key(str(identity))), signer.roots_pem


def with_certificate(part, held):
    """Return Envoy's configuration with a certificate in the place of the agent's."""
    if isinstance(part, list):
        return [with_certificate(one, held) for one in part]
    if not isinstance(part, dict):
        return part
    fresh = {key: with_certificate(value, held) for key, value in part.items()}
    if fresh.pop("tls_certificate_sds_secret_configs", None):
        chain, key, roots = ({"inline_string": one} for one in held)
        fresh["tls_certificates"] = [{"certificate_chain": chain, "private_key": key}]
        context = fresh.pop("combined_validation_context")["default_validation_context"]
        fresh["validation_context"] = {**context, "trusted_ca": roots}
    return fresh


def shape_of(name, accounts):
    account = accounts.get(name, tunnel_world.ACCOUNTS.get(name, name))
    if name in SIDES:
        return builders.Shape(speaks_tunnels=True, account=account)
    if name == DOOR:
        return builders.Shape(proxy=ProxyKind.ROUTER, speaks_tunnels=True, account=account)
    return builders.Shape(proxy=None, is_captured=tunnel_world.PODS[name] != 0, account=account)


def mesh_of(**accounts):
    """Return the mesh as the control plane sees it, and its pods by name."""
    mesh = builders.Mesh()
    cluster = mesh.cluster(str(tunnel_world.CLUSTER), network=str(tunnel_world.NETWORK))
    pods = {
        name: cluster.pod(
            name,
            address=address(name),
            labels={"door": "yes"} if name == DOOR else {},
            shape=shape_of(name, accounts),
        )
        for name in tunnel_world.PODS
    }
    mesh.configure(accessLogFile="/dev/stdout")
    ports, raw = {"http": HTTP}, builders.Shape(target_port=HTTP)
    cluster.service("web", ready=[address(name) for name in tunnel_world.SERVERS], ports=ports)
    cluster.service("raw", ready=[address("far")], ports={"tcp": TCP}, shape=raw)
    cluster.service("other", ready=[address(OTHER)], ports={"tcp": HTTP})
    cluster.service("plain", ready=[address("plain")], ports=ports)
    both = {"http": TCP, "http-too": HTTP}
    cluster.service(SIDE, ready=[address(SIDE)], ports=both, shape=raw)
    server = objects.GatewayServer(
        port=objects.GatewayPort(number=OPEN, name="http", protocol="HTTP"), hosts=("*",)
    )
    mesh.gateway_object("door", server, selector={"door": "yes"}, namespace="default")
    to_web = {"destination": {"host": "web.default.svc.cluster.local"}}
    routed = {"hosts": ["*"], "gateways": ["door"], "http": [{"route": [to_web]}]}
    mesh.virtual_service("door", routed)
    return mesh, pods


class Sidecar:
    """The Envoy of one pod."""

    def __init__(self, pod, folder):
        self.pod, self.folder = pod, folder / pod.name
        self.folder.mkdir()
        self.log = self.folder / "said"
        self.process = None

    async def start(self, told, *ports):
        """Let Envoy run with what the control plane tells, and wait until it listens."""
        await asyncio.to_thread(self._start, told)
        for port in ports:
            listens = functools.partial(self.pod.listens, port)
            assert await tunnel_world.until(listens), self.log.read_text()

    def _start(self, told):
        assert consistency.missing(told) == ()
        resources = [one for kind in KINDS for one in told.of(kind).values()]
        held = certificate(tunnel_world.identity(self.pod.name))
        document = with_certificate(json.loads(json.dumps(envoys.bootstrap(resources))), held)
        file = self.folder / "envoy.json"
        file.write_text(json.dumps({**document, **AGENTS}))
        command = [str(envoys.binary()), "-c", str(file), "--disable-hot-restart", "-l", "error"]
        command += ["--concurrency", "1", "--file-flush-interval-msec", "20"]
        with self.pod.inside(), self.log.open("a") as said:
            self.process = subprocess.Popen(command, stdout=said, stderr=said)

    def stop(self):
        self.process.kill()
        self.process.wait()

    def redirect(self):
        """Capture the pod's traffic, as its init container does."""
        with self.pod.inside():
            nftables.apply(redirect.messages(rules.rules(redirects.Redirect())))


class World:
    """The world of `tunnel_world`, with sidecars."""

    def __init__(self, inner):
        self.inner, self.folder = inner, inner.folder
        self.mesh, self.pods = mesh_of()
        self.sides = {name: Sidecar(inner.pods[name], self.folder) for name in (*SIDES, DOOR)}
        for one in self.sides.values():
            one.pod.program.RequestHandlerClass = Telling

    async def start(self):
        """Start the sidecars, and tell the nodes of them."""
        for name in SIDES:
            await self._start(name, 15001, 15006, 15008)
            self.sides[name].redirect()
        await self._start(DOOR, OPEN)
        where = wds.NetworkAddress(tunnel_world.NETWORK, SIDE_VIP)
        ports = (wds.AddressPort(HTTP, 0),)
        host = f"{SIDE}.default.svc.cluster.local"
        served = {SIDE: ((f"default/{host}", (wds.AddressPort(HTTP, HTTP),)),), OTHER: ()}
        known = {
            name: dataclasses.replace(
                tunnel_world.workload(name), takes_tunnels=True, services=served[name]
            )
            for name in SIDES
        }
        service = wds.ServiceSlice(SIDE, "default", host, (where,), ports)
        self.inner.tell({**known, service.resource_name: service})

    async def _start(self, name, *ports):
        await self.sides[name].start(self.mesh.snapshot_of(self.pods[name]), *ports)

    async def changed(self, name=SIDE):
        """Let a sidecar run with what the control plane says now."""
        self.sides[name].stop()
        await self._start(name, 15008)

    def vip(self, name):
        """Return the address of a service in the mesh that sidecars see."""
        services = self.mesh.graph.items(self.mesh.sources.services)
        found = next(one for key, one in services.items() if key.name == name)
        return str(found.spec.cluster_ip)

    async def asks(self, name, host, **how):
        """Return what a pod is answered."""
        return await self.inner.asks(name, host, **how)

    async def tunnel(self, authority, *, who="client", of=SIDE, method="CONNECT"):
        """Return the status of a request for a tunnel to a pod with a sidecar; 0 if refused before.

        Without `who` no certificate is shown.
        """
        context = ssl.create_default_context(cadata=certificate(tunnel_world.identity("x"))[2])
        context.check_hostname = False
        context.set_alpn_protocols(["h2"])
        if who:
            chain, key, _ = certificate(tunnel_world.identity(who))
            files = self.folder / "shown.pem", self.folder / "shown.key"
            for file, text in zip(files, (chain, key), strict=True):
                file.write_text(text)
            context.load_cert_chain(*files)
        with contextlib.suppress(OSError, EOFError, ssl.SSLError):
            reader, writer = await asyncio.open_connection(address(of), 15008, ssl=context)
            tunnel = tunnelled.Tunnel(reader, writer)
            with contextlib.suppress(OSError, EOFError, ssl.SSLError):
                async with asyncio.timeout(tunnelled.LIMIT_S):
                    await tunnel.ask(authority, method=method)
            await tunnelled.closed(writer)
            return tunnel.status
        return 0


@contextlib.asynccontextmanager
async def running(folder):
    """Let it all run."""
    async with tunnel_world.running(folder) as inner:
        world = World(inner)
        try:
            await world.start()
            yield world
        finally:
            for one in world.sides.values():
                if one.process is not None:
                    one.stop()
