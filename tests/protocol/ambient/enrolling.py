"""The agent of ambient mode on a node of its own: real networks, a real API server, a noted proxy.

A program of its own, since it moves into namespaces, in which it may be root. It prints, as one JSON
object, what was found true in each scene.

    python enrolling.py <folder for sockets> <scene>...
"""

import asyncio
import contextlib
import itertools
import json
import os
import pathlib
import socket
import sys
import time

import two_ztunnels
from tests.fakes import lab_server

from isthmus.base import namespaces, netlink
from isthmus.kube import client, kinds
from isthmus.node.cni import agent, settings
from isthmus.testing import pace
from isthmus_proto.istio.workload import zds_pb2

NODE, GATEWAY = "node1", "169.254.1.1"
PORTS = (8080, 15001, 15006, 15008)
NUMBERS = itertools.count(1)
LIMIT_S, CALL_S = pace.patience(15.0), 6.0 * pace.slowness()
AMBIENT, NONE = "ambient", "none"
MODE, REDIRECTION = "istio.io/dataplane-mode", "ambient.istio.io/redirection"


class Network:
    """A pod's network, with servers that say at which port one has arrived, and from where."""

    def __init__(self, folder, uid, number):
        self.uid, self.address = uid, f"10.9.0.{number}"
        self.path = folder / uid
        (self.fd,) = namespaces.fresh(namespaces.NEWNET)
        link = f"p{number}"
        netlink.send([netlink.veth(link, peer="eth0", peer_network=self.fd)])
        index = netlink.index_of(link)
        netlink.send(
            [
                netlink.address(index, GATEWAY, prefix=32),
                netlink.route(f"{self.address}/32", link=index),
            ]
        )
        with namespaces.entered(self.fd):
            inside = netlink.index_of("eth0")
            netlink.send(
                [
                    netlink.up(1),
                    netlink.up(inside),
                    netlink.address(inside, self.address, prefix=32),
                    netlink.route(f"{GATEWAY}/32", link=inside),
                    netlink.route("0.0.0.0/0", via=GATEWAY, link=inside, on_link=True),
                ]
            )
        self.show()

    def show(self):
        self.path.symlink_to(f"/proc/{os.getpid()}/fd/{self.fd}")

    async def serve(self, ports):
        for port in ports:
            with namespaces.entered(self.fd):
                listener = socket.create_server(("0.0.0.0", port))

            async def greet(reader, writer, port=port):
                writer.write(f"{port} {writer.get_extra_info('peername')[0]}".encode())
                while said := await reader.read(99):
                    writer.write(said)
                writer.close()

            await asyncio.start_server(greet, sock=listener)

    async def arrives(self, *, at, port=8080, mark=0):
        """Return where a call from this network to another arrives: the port, and who was seen."""
        return await call(at, port, network=self.fd, mark=mark)


@contextlib.asynccontextmanager
async def held(pod, address, port=8080):
    """Keep a connection open; give what says whether it still carries words."""
    with namespaces.entered(pod.fd):
        link = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    loop = asyncio.get_running_loop()
    with link:
        await loop.sock_connect(link, (address, port))
        await loop.sock_recv(link, 99)

        async def carries():
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(CALL_S):
                    await loop.sock_sendall(link, b"more")
                    return await loop.sock_recv(link, 99) == b"more"
            return False

        yield carries


async def call(address, port, *, network=None, mark=0):
    with namespaces.entered(network) if network is not None else contextlib.nullcontext():
        link = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    with link:
        if mark:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        try:
            async with asyncio.timeout(CALL_S):
                await asyncio.get_running_loop().sock_connect(link, (address, port))
                said = await asyncio.get_running_loop().sock_recv(link, 99)
        except OSError as error:  # a limit of time is one, too
            return error.strerror or type(error).__name__
    return said.decode()


class Proxy:
    """A node's proxy that notes what it is told, and takes every pod."""

    def __init__(self, path):
        self.path, self.told, self.refuses = path, [], ""
        self.networks = {}

    @contextlib.contextmanager
    def connected(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as end:
            end.connect(str(self.path))
            end.setblocking(False)
            end.send(zds_pb2.ZdsHello(version=zds_pb2.V1).SerializeToString())
            loop = asyncio.get_running_loop()
            loop.add_reader(end, self._hear, end)
            try:
                yield self
            finally:
                loop.remove_reader(end)

    def _hear(self, end):
        packet, fds, _, _ = socket.recv_fds(end, 1024, 2)
        request = zds_pb2.WorkloadRequest.FromString(packet)
        kind = request.WhichOneof("payload")
        if not kind:
            asyncio.get_running_loop().remove_reader(end)
            return
        uid = getattr(getattr(request, kind), "uid", "")
        for fd in fds:
            self.networks[uid] = os.fstat(fd).st_ino
            os.close(fd)
        self.told.append(f"{kind} {uid}".strip())
        error = self.refuses if kind == "add" else ""
        end.send(zds_pb2.WorkloadResponse(ack=zds_pb2.Ack(error=error)).SerializeToString())


class World:
    """A node, its API server, and the agent."""

    def __init__(self, folder, server, reads):
        self.networks = folder / "netns"
        self.networks.mkdir()
        self.server, self.reads = server, reads
        self.settings = settings.Settings(
            node=NODE,
            socket=folder / "z.sock",
            networks=self.networks,
            processes=folder,
            health_port=8000,
            metrics_port=15014,
        )

    def agent(self):
        return agent.Agent(self.settings, self.reads, linger_s=0.3).running()

    def proxy(self):
        return Proxy(self.settings.socket)

    async def namespace(self, name, mode=""):
        body = {"metadata": {"name": name, "labels": {MODE: mode} if mode else {}}}
        await self.reads.create(kinds.NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", **body})

    async def pod(self, name, namespace, *, phase="Running", mode="", ports=PORTS, **spec):
        """Make a pod with a network; return that."""
        manifest = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": {MODE: mode} if mode else {},
            },
            "spec": {"nodeName": NODE, "containers": [{"name": "c", "image": "i"}], **spec},
        }
        made = await self.reads.create(kinds.POD, manifest)
        network = Network(self.networks, made["metadata"]["uid"], next(NUMBERS))
        await network.serve(ports)
        if phase:
            await self.starts(name, namespace, network, phase=phase)
        return network

    async def starts(self, name, namespace, network, *, phase="Running"):
        status = {"status": {"phase": phase, "podIP": network.address}}
        await self.reads.patch(kinds.POD, name, status, namespace=namespace, subresource="status")

    async def label(self, kind, name, mode, namespace=""):
        labels = {"metadata": {"labels": {MODE: mode}}}
        await self.reads.patch(kind, name, labels, namespace=namespace)

    async def mark(self, name, namespace):
        found = await self.reads.get(kinds.POD, name, namespace=namespace)
        return (found["metadata"].get("annotations") or {}).get(REDIRECTION)

    async def marked(self, name, namespace, word):
        async def holds():
            return await self.mark(name, namespace) == word

        return await becomes(holds)


async def becomes(question):
    """Say whether something becomes true in time."""
    deadline = time.monotonic() + LIMIT_S
    while not await question():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True


async def heard(proxy, *orders):
    async def holds():
        return proxy.told[-len(orders) :] == list(orders)

    return await becomes(holds) or proxy.told


# --- scenes ---------------------------------------------------------------------------------------


async def begins(world):
    """A pod that begins in an enrolled namespace, before any proxy is there."""
    await world.namespace("mesh", AMBIENT)
    async with world.agent():
        pod = await world.pod("p", "mesh", phase="")
        yield "is captured before it has an address", await becomes(lambda: is_captured(pod))
        await world.starts("p", "mesh", pod, phase="Pending")
        yield "waits for a proxy", await world.marked("p", "mesh", "pending")
        yield "is captured already", await call(pod.address, 8080) == "8080 169.254.7.127"
        proxy = world.proxy()
        with proxy.connected():
            yield "proxy is told", await heard(proxy, f"add {pod.uid}", "snapshot_sent")
            yield "its own network", proxy.networks[pod.uid] == os.fstat(pod.fd).st_ino
            yield "is marked", await world.marked("p", "mesh", "enabled")
            await world.server.api.delete("pods", "p", "mesh", grace_s=0)
            yield "goes", await heard(proxy, f"del {pod.uid}")


async def is_asked_by_node(pod):
    """Say whether a pod sees the node's own address when it is asked."""
    return await call(pod.address, 8080) == f"8080 {GATEWAY}"


async def is_captured(pod):
    """Say whether what a pod calls goes to its proxy."""
    return (await pod.arrives(at="10.0.0.254"))[:5] == "15001"


async def joins(world):
    """Pods that are at work when their namespace joins, and when it leaves."""
    await world.namespace("ns")
    async with world.agent():
        pod, other = await world.pod("p", "ns"), await world.pod("other", "ns", mode=NONE)
        proxy = world.proxy()
        with proxy.connected():
            yield "nobody at first", await heard(proxy, "snapshot_sent")
            yield "direct before", await other.arrives(at=pod.address) == f"8080 {other.address}"
            proxy.refuses = "not yet"
            await world.label(kinds.NAMESPACE, "ns", AMBIENT)
            yield "offered", await heard(proxy, f"add {pod.uid}")
            yield "goes on until then", (await other.arrives(at=pod.address))[:4] == "8080"
            yield "no mark until then", await world.mark("p", "ns") is None
            proxy.refuses = ""
            yield "is marked", await world.marked("p", "ns", "enabled")
            yield "plain text in", await other.arrives(at=pod.address) == f"15006 {other.address}"
            yield "tunnels in", (await other.arrives(at=pod.address, port=15008))[:5] == "15008"
            yield "calls out", (await pod.arrives(at=other.address))[:5] == "15001"
            yield "the proxy's out", (await pod.arrives(at=other.address, mark=1337))[:4] == "8080"
            yield "the node's probes", await call(pod.address, 8080) == "8080 169.254.7.127"
            yield "names", await asks(pod)
            yield "no other pod", await world.mark("other", "ns") is None
            await world.label(kinds.NAMESPACE, "ns", NONE)
            yield "mark goes", await world.marked("p", "ns", None)
            yield "direct again", await other.arrives(at=pod.address) == f"8080 {other.address}"
            yield "served a while longer", proxy.told[-1] != f"del {pod.uid}"
            yield "then goes", await heard(proxy, f"del {pod.uid}")
            yield "probes are their own again", await becomes(lambda: is_asked_by_node(pod))


async def asks(pod):
    """Say whether a question for a name goes to the proxy, and its answer comes back."""
    loop = asyncio.get_running_loop()
    with namespaces.entered(pod.fd):
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    with server, asker:
        server.bind(("127.0.0.1", 15053))
        await loop.sock_sendto(asker, b"question", ("10.96.0.10", 53))
        async with asyncio.timeout(CALL_S):
            asked, who = await loop.sock_recvfrom(server, 99)
            await loop.sock_sendto(server, b"answer", who)
            told, whose = await loop.sock_recvfrom(asker, 99)
    return (asked, told, whose) == (b"question", b"answer", ("10.96.0.10", 53))


async def goes_on(world):
    """Connections that are open while a pod joins, and while it leaves."""
    await world.namespace("ns")
    async with world.agent():
        pod, other = await world.pod("p", "ns"), await world.pod("other", "ns", mode=NONE)
        with world.proxy().connected():
            async with held(pod, other.address) as out, held(other, pod.address) as arriving:
                await world.label(kinds.NAMESPACE, "ns", AMBIENT)
                yield "is marked", await world.marked("p", "ns", "enabled")
                yield "what it opened before", await out()
                yield "what came before", await arriving()
            async with held(pod, other.address) as out, held(other, pod.address) as arriving:
                yield "through the proxy", await out() and await arriving()
                await world.label(kinds.NAMESPACE, "ns", NONE)
                yield "mark goes", await world.marked("p", "ns", None)
                yield "direct again", (await other.arrives(at=pod.address))[:4] == "8080"
                yield "what it opened through the proxy", await out()
                yield "what came through the proxy", await arriving()


async def restarts(world):
    """An agent that follows another, while pods of the former are captured."""
    await world.namespace("mesh", AMBIENT)
    first = world.proxy()
    async with world.agent():
        pod, lost = await world.pod("p", "mesh"), await world.pod("lost", "mesh")
        gone = await world.pod("gone", "mesh")
        with first.connected():
            for name in ("p", "lost", "gone"):
                yield f"{name} is marked", await world.marked(name, "mesh", "enabled")
    yield "captured without it", (await pod.arrives(at=lost.address))[:5] == "15001"
    lost.path.unlink()
    await world.label(kinds.POD, "gone", NONE, "mesh")
    second = world.proxy()
    async with world.agent():
        with second.connected():
            yield "all at once", await heard(second, "snapshot_sent")
            told = {f"add {pod.uid}", f"keep {lost.uid}", "snapshot_sent"}
            yield "and no more", set(second.told) == told
            yield "who left meanwhile is let go", await world.marked("gone", "mesh", None)
            yield "and free", (await pod.arrives(at=gone.address, mark=1337))[:4] == "8080"
            yield "the lost one stays", await world.mark("lost", "mesh") == "enabled"
            lost.show()
            yield "and is found again", await heard(second, f"add {lost.uid}")


async def troubles(world):
    """A pod whose network is not there, and one that the proxy does not take."""
    await world.namespace("mesh", AMBIENT)
    async with world.agent():
        proxy = world.proxy()
        with proxy.connected():
            bad = await world.pod("bad", "mesh", phase="Pending")
            yield "at first", await world.marked("bad", "mesh", "enabled")
            bad.path.unlink()
            await world.label(kinds.POD, "bad", NONE, "mesh")
            yield "lets go without a network", await world.marked("bad", "mesh", None)
            await world.label(kinds.POD, "bad", AMBIENT, "mesh")
            good = await world.pod("good", "mesh")
            yield "others are not disturbed", await world.marked("good", "mesh", "enabled")
            yield "no mark without a network", await world.mark("bad", "mesh") is None
            bad.show()
            yield "mended by itself", await world.marked("bad", "mesh", "enabled")
            proxy.refuses = "no room"
            refused = await world.pod("refused", "mesh")
            yield "offered", await heard(proxy, f"add {refused.uid}", f"add {refused.uid}")
            yield "waits when refused", await world.mark("refused", "mesh") == "pending"
            yield "closed until then", (await refused.arrives(at=good.address))[:5] == "15001"
            proxy.refuses = ""
            yield "taken in the end", await world.marked("refused", "mesh", "enabled")


async def ends(world):
    """Pods that finish, that live in the node's network, or that bear a sidecar."""
    await world.namespace("mesh", AMBIENT)
    async with world.agent():
        proxy = world.proxy()
        with proxy.connected():
            job = await world.pod("job", "mesh")
            yield "job takes part", await world.marked("job", "mesh", "enabled")
            await world.pod("host", "mesh", hostNetwork=True)
            done = {"status": {"phase": "Succeeded"}}
            await world.reads.patch(kinds.POD, "job", done, namespace="mesh", subresource="status")
            yield "job leaves", await heard(proxy, f"del {job.uid}")
            yield "mark goes", await world.marked("job", "mesh", None)
            yield "node's network is left alone", await world.mark("host", "mesh") is None
            yield "ready", "200" in await page(8000, "/readyz")
            yield "figures", 'isthmus_cni_pods{state="outside"} 2' in await page(15014, "/metrics")


async def ztunnel(world):
    """Istio's own node proxy, unmodified, behind the agent."""
    await world.label(kinds.NAMESPACE, "default", AMBIENT)
    for name in ("a", "b"):
        account = {"apiVersion": "v1", "kind": "ServiceAccount"}
        metadata = {"name": name, "namespace": "default"}
        await world.reads.create(kinds.SERVICE_ACCOUNT, {**account, "metadata": metadata})
    async with world.agent():
        here, there = [
            await world.pod(name, "default", ports=(8080,), serviceAccountName=name)
            for name in ("a", "b")
        ]
        async with started(world, {"a": here.address, "b": there.address}) as log:
            for name in ("a", "b"):
                yield f"{name} is served", await world.marked(name, "default", "enabled")
            seen = await here.arrives(at=there.address)
            yield "called by the caller's own address", seen == f"8080 {here.address}"
            identity = 'src.identity="spiffe://cluster.local/ns/default/sa/a"'
            yield "over mutual TLS", await becomes(lambda: said(log, identity))
            yield "the node's probes", await call(there.address, 8080) == "8080 169.254.7.127"
            await world.label(kinds.POD, "b", NONE, "default")
            yield "b leaves", await world.marked("b", "default", None)
            yield "b calls by itself", (await there.arrives(at=here.address))[:4] == "8080"
            yield "b is let go", await becomes(lambda: said(log, "pod delete request"))


@contextlib.asynccontextmanager
async def started(world, pods):
    """Run a ztunnel under a control plane that knows these pods; give the path of its log."""
    folder = world.networks.parent
    plane = two_ztunnels.ControlPlane(
        {**pods, "ztunnel": two_ztunnels.CONTROL}, accounts=[("default", "ztunnel")], server="b"
    )
    server, port, roots = await plane.serve()
    (folder / "roots.pem").write_text(roots)
    (folder / "token").write_text("ztunnel")
    told = {
        "INPOD_UDS": str(world.settings.socket),
        **dict.fromkeys(("XDS_ADDRESS", "CA_ADDRESS"), f"https://{two_ztunnels.CONTROL}:{port}"),
        **dict.fromkeys(("ALT_XDS_HOSTNAME", "ALT_CA_HOSTNAME"), two_ztunnels.NAME),
        **dict.fromkeys(("XDS_ROOT_CA", "CA_ROOT_CA"), str(folder / "roots.pem")),
        "AUTH_TOKEN": str(folder / "token"),
        "CLUSTER_ID": "east",
        "POD_NAME": "ztunnel",
        "POD_NAMESPACE": "default",
        "INSTANCE_IP": two_ztunnels.CONTROL,
        "TERMINATION_GRACE_PERIOD_SECONDS": "1",
        "NETWORK": "n1",
        "NODE_NAME": "node-1",
        "IPV6_ENABLED": "false",
    }
    with (folder / "ztunnel.log").open("wb") as log:
        running = await asyncio.create_subprocess_exec(
            os.environ["ISTHMUS_ZTUNNEL"],
            env=told,
            stdout=log,
            stderr=log,
            preexec_fn=namespaces.die_with_parent,
        )
        try:
            yield folder / "ztunnel.log"
        finally:
            running.terminate()
            await running.wait()
            await server.stop(None)


async def said(log, text):
    return text in log.read_text()


async def page(port, path):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nconnection: close\r\n\r\n".encode())
    said = await reader.read()
    writer.close()
    return said.decode()


SCENES = {
    each.__name__: each for each in (begins, joins, goes_on, restarts, troubles, ends, ztunnel)
}


async def played(folder, names):
    found = {}
    for name in names:
        place = folder / name
        place.mkdir()
        async with (
            lab_server.serving("cluster1") as server,
            client.Client(server.access()) as reads,
        ):
            async for what, holds in SCENES[name](World(place, server, reads)):
                found[f"{name}: {what}"] = holds
    return found


def alone():
    uid, gid = os.getuid(), os.getgid()
    namespaces.unshare(namespaces.NEWUSER | namespaces.NEWNET)
    namespaces.map_root(uid=uid, gid=gid)
    netlink.send([netlink.up(netlink.index_of("lo"))])
    netlink.send([netlink.address(netlink.index_of("lo"), two_ztunnels.CONTROL, prefix=32)])
    namespaces.set_sysctl("net.ipv4.ip_forward", 1)


if __name__ == "__main__":
    alone()
    wanted = sys.argv[2:]
    told = asyncio.run(played(pathlib.Path(sys.argv[1]), wanted))
    sys.stdout.write(json.dumps(told))
