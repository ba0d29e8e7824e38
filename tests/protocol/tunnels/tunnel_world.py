"""Two nodes with an Envoy each, and pods in networks of their own.

Envoys get what the product builds, from the product's own servers; the rules that capture traffic
are the product's, too. Pods are network namespaces on one bridge, whose frames are looked at.
"""

import asyncio
import contextlib
import functools
import http.client
import json
import os
import pathlib
import socket
import socketserver
import struct
import threading
import time
from http import server

from isthmus.base import clock, metrics, namespaces, netlink, tasks
from isthmus.ca import anchors
from isthmus.mesh import authorization, identities, trust
from isthmus.node import capturing, enrolment, nodebootstrap, settings
from isthmus.resources import snapshot
from isthmus.resources.envoy import secrets
from isthmus.resources.ztunnel import build
from isthmus.testing import certificates as material
from isthmus.testing import envoys, pace
from isthmus.views import nodeslices, view, wds
from isthmus.wire import ads, callers, csr, dialing, listening, notary, tls, wdsclient
from isthmus.xds import messages

NOW = clock.SystemClock().now()
DOMAIN = identities.TrustDomain("cluster.local")
PEER = identities.TrustDomain("b.local")
CLUSTER, NETWORK = identities.ClusterId("c"), identities.NetworkId("n")
ISTIOD = "istiod.istio-system.svc"
CLAIM = {
    "id": "ztunnel~10.0.0.1~ztunnel-1.istio-system~istio-system.svc.cluster.local",
    "metadata": {"CLUSTER_ID": "c", "NAMESPACE": "istio-system", "NAME": "ztunnel-1"},
}
HTTP, VIP = 8080, "10.96.0.50"
PATIENCE_S = pace.patience(15.0)
ETHERNET, IPV4, TCP = 14, b"\x08\x00", 6
EVERY_PROTOCOL = 3

PODS = {
    "client": 1,
    "twin": 1,
    "other": 1,
    "near": 1,
    "far": 2,
    "plain": 0,
    "waypoint": 0,
    "door": 0,
}
"""On which node each pod is; 0 is a pod that takes no part."""

OWN_PROXIES = ("waypoint", "door")
"""Pods that are proxies themselves; of these nobody is told but where they are meant."""

ACCOUNTS = {"twin": "client"}
"""Pods that run as another account than their own name."""

SERVERS = ("near", "far")


def address(name):
    return f"10.0.0.{10 + list(PODS).index(name)}"


def identity(name):
    return identities.SpiffeId(DOMAIN, "default", ACCOUNTS.get(name, name))


class Telling(server.BaseHTTPRequestHandler):
    """Tells who was asked, and from which address; then closes the connection."""

    def do_GET(self):
        self.server.asked += 1
        if self.path == "/broken":
            self.close_connection = True
            return
        told = json.dumps([self.server.name, self.client_address[0]]).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    def log_message(self, *_):
        """Say nothing."""


class Program(server.ThreadingHTTPServer):
    """Listens without asking for the name of its address, which nobody here knows."""

    asked = 0

    def server_bind(self):
        socketserver.TCPServer.server_bind(self)


class Pod:
    """A network namespace with a program that answers."""

    def __init__(self, name, bridge):
        self.name, self.address = name, address(name)
        prepare = functools.partial(netlink.send, [netlink.up(1)])
        (self.fd,) = namespaces.fresh(namespaces.NEWNET, prepare=prepare)
        outside = f"v{name}"
        made = netlink.veth(outside, peer="eth0", peer_network=self.fd, bridge_index=bridge)
        netlink.send([made])
        netlink.send([netlink.up(netlink.index_of(outside))])
        with self.inside():
            link = netlink.index_of("eth0")
            netlink.send([netlink.address(link, self.address, prefix=24), netlink.up(link)])
            netlink.send([netlink.route("0.0.0.0/0", link=link, via="10.0.0.1")])
        self.start()

    def start(self):
        with self.inside():
            self.program = Program((self.address, HTTP), Telling)
        self.program.name = self.name
        threading.Thread(target=self.program.serve_forever, daemon=True).start()

    def stop(self):
        self.program.shutdown()
        self.program.server_close()

    @property
    def path(self):
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def inside(self):
        return namespaces.entered(self.fd)

    def redirect(self):
        capturing.capture(self.path)

    def asks(self, host, port=HTTP, path="/", headers=()):
        """Return who answers, and whom he takes us for; None for no answer."""
        with self.inside():
            raw = socket.socket()
        with contextlib.closing(raw), contextlib.suppress(OSError, http.client.HTTPException):
            raw.settimeout(PATIENCE_S)
            raw.connect((host, port))
            asked = http.client.HTTPConnection(host)
            asked.sock = raw
            asked.request("GET", path, headers=dict(headers))
            answer = asked.getresponse()
            body = answer.read()
            return json.loads(body) if answer.status == 200 else [answer.status, body.decode()]
        return None

    def listens(self, port):
        with self.inside(), socket.socket() as raw:
            raw.settimeout(1)
            return raw.connect_ex((self.address, port)) == 0

    def is_closed_by(self, port):
        """Say whether a connection to a port is closed at once without a byte."""
        with self.inside():
            raw = socket.socket()
        with contextlib.closing(raw):
            raw.settimeout(PATIENCE_S)
            raw.connect((self.address, port))
            try:
                return raw.recv(1) == b""
            except ConnectionResetError:
                return True


# --- the control plane


def signing(name):
    """Return an authority below the common root."""
    return material.signer(name, now=NOW)


def workload(name, *, account=None, domain=DOMAIN, **more):
    ports = (wds.AddressPort(HTTP, HTTP),)
    return wds.WorkloadSlice(
        uid=name,
        name=name,
        namespace="default",
        cluster=CLUSTER,
        network=NETWORK,
        addresses=(address(name),),
        service_account=account or ACCOUNTS.get(name, name),
        trust_domain=domain,
        takes_tunnels=PODS[name] != 0,
        services=(("default/web", ports),) if name in SERVERS else (),
        **more,
    )


def service():
    where = wds.NetworkAddress(NETWORK, VIP)
    return wds.ServiceSlice("web", "default", "web", (where,), (wds.AddressPort(HTTP, 0),))


def policy(action, match):
    groups = (((match,),),)
    return wds.AuthorizationSlice("default", "p", wds.Reach.NAMESPACE, action, groups)


def calls_of(account):
    principal = f"cluster.local/ns/default/sa/{account}"
    return wds.ConnectionMatch(
        principals=(authorization.Pattern(authorization.Form.EXACT, principal),)
    )


class ControlPlane:
    """Tells one node what the test says, and signs for its pods, over the product's own doors."""

    def __init__(self, pods):
        self.authenticator = self
        self.pods = pods
        self.signer = material.signer(now=NOW)
        self.serving = tls.Serving(tls.issue(self.signer, names=(ISTIOD,), now=NOW))
        self.held = {kind: {} for kind in (*wdsclient.TYPES, snapshot.SECRETS)}
        self.domain = DOMAIN
        self.wake = lambda _: None
        self.signed_for = []
        self.port = 0

    async def authenticate(self, credentials):
        assert credentials.token == "good"
        return callers.Caller(CLUSTER, "istio-system", "ztunnel", pod="ztunnel-1", pod_uid="1")

    def signs_for(self, _, spiffe_id):
        self.signed_for.append(str(spiffe_id))
        return (
            ""
            if spiffe_id.service_account
            in {identity(pod.name).service_account for pod in self.pods}
            else "no pod of the node"
        )

    # What `ads.Discovery` and `ads.Watch` want.

    def open(self, caller, node):
        return self

    def snapshot(self):
        return snapshot.Snapshot(self.held)

    def heeds(self, type_url, names):
        """Nothing: every change is told."""

    def on_change(self, wake):
        self.wake = wake

    def status(self, report):
        assert isinstance(report.outcome, messages.Accepted), report

    def close(self):
        self.wake = lambda _: None

    def tell(self, entries):
        """Tell slices by name; None stands for what is gone."""
        changed = {kind: set() for kind in self.held}
        for name, slice_ in entries.items():
            for kind in self.held:
                if self.held[kind].pop(name, None):
                    changed[kind].add(name)
            if slice_ is not None:
                made = build.build(slice_)
                self.held[made.type_url][name] = made
                changed[made.type_url].add(name)
        self.wake({kind: frozenset(names) for kind, names in changed.items()})

    def believe(self, **by_domain):
        """Tell who vouches for which trust domain; underscores stand for dots."""
        bundles = [
            trust.Bundle(domain.replace("_", "."), anchors.of([certificate]))
            for domain, certificate in by_domain.items()
        ]
        made = secrets.bundles(view.TRUST, bundles)
        self.held[snapshot.SECRETS][made.name] = made
        self.wake({snapshot.SECRETS: frozenset({made.name})})

    async def start(self):
        signing = csr.service(
            csr.Signatory(
                self,
                sign=notary.Notary(lambda: self.signer, clock.SystemClock()).asked,
                trust_domain=lambda _: self.domain,
                own_domain=lambda: self.domain,
                counters=csr.Counters(metrics.Metrics()),
                impersonation=self.signs_for,
            )
        )
        self.server, self.port = listening.listen(
            (signing, ads.Service(self).handler()),
            address=f"127.0.0.1:{self.port}",
            serving=self.serving,
        )

    async def stop(self):
        await self.server.stop(0)

    # What `enrolment.Targets` wants.

    def discovery(self):
        roots = material.files(now=NOW)["root-cert.pem"]
        return dialing.Target(f"127.0.0.1:{self.port}", ISTIOD, roots, "good", str(CLUSTER))

    authority = discovery


# --- nodes


class Node:
    """An Envoy, the agent beside it, and its control plane."""

    def __init__(self, number, folder, pods):
        self.folder = folder / f"node{number}"
        self.folder.mkdir()
        self.access_log = self.folder / "access.log"
        self.pods = [pod for name, pod in pods.items() if PODS[name] == number]
        self.control = ControlPlane(self.pods)
        told = {name: workload(name) for name in pods if name not in OWN_PROXIES}
        self.control.tell(told | {"default/web": service()})
        log = str(self.access_log)
        known = nodeslices.Node(f"node{number}", CLUSTER, NETWORK, (DOMAIN,), access_log=log)
        self.socket = str(self.folder / "socket")
        wanted = enrolment.Wanted(known, CLAIM, self.socket, settings.Renewing())
        self.agent = enrolment.Enrolment(
            wanted, targets=self.control, system_clock=clock.SystemClock()
        )
        for pod in self.pods:
            self.agent.join(placed_pod(pod))

    @contextlib.asynccontextmanager
    async def running(self):
        file, admin = self.folder / "envoy.json", str(self.folder / "admin")
        document = nodebootstrap.document("node", socket=self.socket, admin_socket=admin)
        file.write_text(json.dumps(document))
        command = [str(envoys.binary()), "-c", str(file), "--disable-hot-restart", "-l", "error"]
        more = ["--concurrency", "2", "--file-flush-interval-msec", "20"]
        more += ["--drain-strategy", "immediate"]
        self.command = [*command, *more]
        await self.control.start()
        async with tasks.Nursery() as nursery:
            nursery.start("agent", self.agent.run())
            await self.start_proxy()
            try:
                yield
            finally:
                await self.kill_proxy()
                await self.control.stop()

    async def start_proxy(self):
        with (self.folder / "envoy.log").open("a") as said:
            self.process = await asyncio.create_subprocess_exec(
                *self.command, stdout=said, stderr=said
            )

    async def restart_proxy(self):
        """Begin anew, without the tunnels that were open."""
        await self.kill_proxy()
        await self.start_proxy()

    async def enrol_anew(self, name):
        """Have a pod's certificate signed again."""
        signed = len(self.control.signed_for)
        self.agent.leave(name)
        self.agent.join(placed_pod(next(pod for pod in self.pods if pod.name == name)))
        assert await until(lambda: len(self.control.signed_for) > signed)

    async def kill_proxy(self):
        self.process.kill()
        await self.process.wait()


def placed_pod(pod, *, path=None):
    return nodeslices.PlacedPod(pod.name, pod.name, path or pod.path)


# --- all of it


async def until(is_so):
    """Wait until something is so, and return it."""
    return await asyncio.to_thread(_waited, is_so)


def _waited(is_so):
    deadline = time.monotonic() + PATIENCE_S
    while not (so := is_so()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return so


class Wire:
    """Whatever passes the bridge."""

    def __init__(self):
        everything = socket.htons(EVERY_PROTOCOL)
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, everything)
        self._socket.setblocking(False)

    def seen(self, *, of=None):
        """Return what TCP carried since the last look, as pairs of ports and payload.

        Of one address only, where it is given: what others still say of earlier calls (how a
        tunnel ends, say) may pass after a caller has its answer.
        """
        found = []
        only = of and socket.inet_aton(of)
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, (link, *_) = self._socket.recvfrom(1 << 16)
                if link == "lo":
                    continue  # What agents and control planes say to each other.
                if frame[12:14] == IPV4 and frame[ETHERNET + 9] == TCP:
                    start = ETHERNET + (frame[ETHERNET] & 15) * 4
                    end = ETHERNET + int.from_bytes(frame[ETHERNET + 2 : ETHERNET + 4], "big")
                    source, destination = struct.unpack_from("!4s4s", frame, ETHERNET + 12)
                    if only and only not in (source, destination):
                        continue
                    ports = struct.unpack_from("!HH", frame, start)
                    payload = frame[start + (frame[start + 12] >> 4) * 4 : end]
                    if payload:
                        found.append((ports, payload))
        return found


class World:
    """All pods and nodes."""

    def __init__(self, folder):
        self.folder = folder
        netlink.send([netlink.up(1), netlink.bridge("br0")])
        link = netlink.index_of("br0")
        netlink.send([netlink.address(link, "10.0.0.1", prefix=24), netlink.up(link)])
        self.wire = Wire()
        self.pods = {name: Pod(name, link) for name in PODS}
        self.nodes = {number: Node(number, folder, self.pods) for number in (1, 2)}

    async def asks(self, name, host, path="/", **how):
        """Return what a pod is answered."""
        return await asyncio.to_thread(self.pods[name].asks, host, path=path, **how)

    def tell(self, entries):
        """Tell all nodes."""
        for node in self.nodes.values():
            node.control.tell(entries)

    def believe(self, **by_domain):
        """Tell all nodes who vouches for which trust domain."""
        for node in self.nodes.values():
            node.control.believe(**by_domain)

    async def becomes(self, expected, name, host, path="/"):
        """Say whether a pod is answered as expected, now or soon."""

        def is_so():
            answer = self.pods[name].asks(host, path=path)
            return (answer is not None and answer[0]) == expected

        return await until(is_so)

    async def enrol(self):
        for node in self.nodes.values():
            for pod in node.pods:
                for port in nodeslices.OWN_PORTS:
                    assert await until(functools.partial(pod.listens, port)), (pod.name, port)
                pod.redirect()

    async def logged(self, number, *texts):
        """Return the first line of a node's log with all of these, as soon as there is one."""
        log = self.nodes[number].access_log

        def line():
            lines = log.read_text().splitlines() if log.exists() else ()
            return next((one for one in lines if all(text in one for text in texts)), "")

        return await until(line)


@contextlib.asynccontextmanager
async def running(folder):
    """Let a world run, in a network that nobody else sees."""
    world = World(pathlib.Path(folder))
    async with contextlib.AsyncExitStack() as stack:
        for node in world.nodes.values():
            await stack.enter_async_context(node.running())
        await world.enrol()
        yield world
