"""The agent of ambient mode on a node of its own: real networks, a real API server, a noted proxy.

A program of its own, since it moves into namespaces, in which it may be root. It prints, as one JSON
object, what was found true in each scene.

    python enrolling.py <folder for sockets> <scene>...
"""

import asyncio
import contextlib
import json
import os
import pathlib
import socket
import sys

import two_ztunnels
from enrolling_world import AMBIENT, CALL_S, GATEWAY, NONE, World, becomes, call, heard, held
from tests.fakes import lab_server

from isthmus.base import namespaces, netlink
from isthmus.kube import client, kinds

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
