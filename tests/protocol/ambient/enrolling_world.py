"""A node with pods in networks of their own, its API server, its agent, and a proxy that notes."""

import asyncio
import contextlib
import itertools
import os
import socket
import time

from isthmus.base import namespaces, netlink
from isthmus.kube import kinds
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
                # A caller that no longer waits resets what reaches it late.
                with contextlib.suppress(ConnectionError):
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
