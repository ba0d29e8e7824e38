"""A program: runs a node's agent as a container does, and prints what came of each act, as JSON.

    python node_acts.py FOLDER

Pods are told over the socket at which istio-cni tells Istio's own node proxy of them.
"""

import asyncio
import contextlib
import dataclasses
import json
import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import tunnel_world
from tunnel_world import VIP, address

from isthmus.base import dns, namespaces, netlink
from isthmus.testing import certificates as material
from isthmus.views import nodeslices, wds
from isthmus_proto.istio.workload import zds_pb2

PODS = ("client", "near")
SHARED = "web.default.mesh.internal"
PORTS = {"READINESS_PORT": "15021", "STATS_PORT": "15020"}


class PodAgent:
    """Tells node proxies of pods, as istio-cni does; keeps what they leave, as ours does."""

    def __init__(self, folder):
        self.left = {}
        self.path = folder / "zds.sock"
        self.listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listening.bind(str(self.path))
        self.listening.listen()

    def accept(self):
        self.listening.settimeout(tunnel_world.PATIENCE_S)
        self.connection, _ = self.listening.accept()
        self.connection.settimeout(tunnel_world.PATIENCE_S)
        return zds_pb2.ZdsHello.FromString(self.connection.recv(1000)).version

    def say(self, descriptors=(), **said):
        request = zds_pb2.WorkloadRequest(**said).SerializeToString()
        socket.send_fds(self.connection, [request], descriptors)
        return self.heard()

    def heard(self):
        packet, self.received, _, _ = socket.recv_fds(self.connection, 1000, 2)
        return zds_pb2.WorkloadResponse.FromString(packet).ack.error

    def add(self, pod):
        info = zds_pb2.WorkloadInfo(name=pod.name, namespace="default", service_account=pod.name)
        left = self.left.pop(pod.name, ())
        said = self.say(
            [pod.fd, *left], add=zds_pb2.AddWorkload(uid=f"uid-{pod.name}", workload_info=info)
        )
        for fd in left:
            os.close(fd)
        self.left[pod.name] = self.received
        return said

    def complete(self):
        return self.say(snapshot_sent=zds_pb2.SnapshotSent())


class World:
    """A node, its agent as a program, and pods."""

    def __init__(self, folder):
        netlink.send([netlink.up(1), netlink.bridge("br0")])
        link = netlink.index_of("br0")
        netlink.send([netlink.address(link, "10.0.0.1", prefix=24), netlink.up(link)])
        self.wire = tunnel_world.Wire()
        self.folder = folder
        self.pods = {name: tunnel_world.Pod(name, link) for name in PODS}
        self.control = tunnel_world.ControlPlane(list(self.pods.values()))
        self.pod_agent = PodAgent(folder)
        self.log = folder / "agent.log"

    def tell(self, *, to_know):
        told = {name: known(name) for name in to_know}
        self.control.tell({f"c//Pod/default/{name}": one for name, one in told.items()})

    def start(self):
        (self.folder / "token").write_text("good")
        (self.folder / "roots.pem").write_text(
            material.files(now=tunnel_world.NOW)["root-cert.pem"]
        )
        environment = {
            **os.environ,
            **PORTS,
            "XDS_ADDRESS": f"https://127.0.0.1:{self.control.port}",
            "ALT_XDS_HOSTNAME": tunnel_world.ISTIOD,
            "XDS_ROOT_CA": str(self.folder / "roots.pem"),
            "ISTHMUS_TOKEN_FILE": str(self.folder / "token"),
            "INPOD_UDS": str(self.pod_agent.path),
            "TMPDIR": str(self.folder),
            "POD_NAME": "ztunnel-1",
            "POD_NAMESPACE": "istio-system",
            "SERVICE_ACCOUNT": "ztunnel",
            "INSTANCE_IP": "10.0.0.1",
            "NODE_NAME": "node1",
            "CLUSTER_ID": "c",
            "NETWORK": "n",
            "TERMINATION_GRACE_PERIOD_SECONDS": "0.5",
        }
        with self.log.open("a") as log:
            self.agent = subprocess.Popen(
                [sys.executable, "-m", "isthmus.node", "ztunnel"],
                env=environment,
                stdout=log,
                stderr=log,
            )

    async def asks(self, host):
        return await asyncio.to_thread(self.pods["client"].asks, host)

    async def readiness(self):
        return await asyncio.to_thread(page, "http://127.0.0.1:15021/healthz/ready")


def known(name):
    return dataclasses.replace(tunnel_world.workload(name), uid=f"c//Pod/default/{name}")


def shared_service():
    where = wds.NetworkAddress(tunnel_world.NETWORK, "240.240.0.1")
    return dataclasses.replace(tunnel_world.service(), host=SHARED, addresses=(where,))


def page(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode()
    except OSError:
        return ""


def listening(pod):
    return [port for port in nodeslices.OWN_PORTS if pod.listens(port)]


def asked(pod, name, *, by_stream):
    """Return the addresses that a pod is told for a name."""
    with contextlib.closing(asking(pod, name, by_stream=by_stream)) as raw:
        return answer_on(raw)


def asking(pod, name, *, by_stream):
    """Ask for a name; return where the answer comes."""
    kind = socket.SOCK_STREAM if by_stream else socket.SOCK_DGRAM
    question = dns.asking(name, dns.A, number=7)
    with pod.inside():
        raw = socket.socket(type=kind)
    raw.settimeout(tunnel_world.PATIENCE_S)
    raw.connect(("127.0.0.1", 15053))
    raw.send(dns.framed(question) if by_stream else question)
    return raw


def answer_on(raw):
    return socket.inet_ntoa(raw.recv(2000)[-4:])


async def in_thread(function, *arguments):
    return await asyncio.to_thread(function, *arguments)


# --- acts, in this order


async def at_first(world):
    """Nobody has told of pods yet."""
    world.start()
    version = await in_thread(world.pod_agent.accept)
    return {"hello": version, "readiness": (await world.readiness()).strip()}


async def joining(world):
    """One pod is known at once, one is told of before the control plane knows it."""
    world.tell(to_know=["client"])
    first = await in_thread(world.pod_agent.add, world.pods["client"])
    up = listening(world.pods["client"])
    loop = asyncio.get_running_loop()
    waiting = loop.run_in_executor(None, world.pod_agent.add, world.pods["near"])
    assert await tunnel_world.until(lambda: world.log.read_text().count("names are answered") > 1)
    too_early = listening(world.pods["near"])
    world.tell(to_know=["near"])
    second = await waiting
    later = listening(world.pods["near"])
    again = await in_thread(world.pod_agent.add, world.pods["near"])
    done = await in_thread(world.pod_agent.complete)
    world.control.tell({"default/web": tunnel_world.service()})
    for pod in world.pods.values():
        pod.redirect()
    ready = await tunnel_world.until(
        lambda: page("http://127.0.0.1:15021/healthz/ready") == "ready\n"
    )
    return {
        "errors": [first, second, again, done],
        "up": [up, too_early, later],
        "ready": ready,
    }


async def calls(world):
    world.wire.seen()
    answers = [await world.asks(VIP if number % 2 else address("near")) for number in range(20)]
    return {
        "answered": sum(map(bool, answers)),
        "plain": any(b"GET /" in payload for _, payload in world.wire.seen()),
    }


async def names(world):
    """Services are found by name, one too that exists in no cluster's own servers."""
    world.control.tell({f"default/{SHARED}": shared_service()})
    pod, name = world.pods["client"], f"{SHARED}.default.svc.cluster.local"
    assert await tunnel_world.until(lambda: asked(pod, SHARED, by_stream=False) == "240.240.0.1")
    return [asked(pod, SHARED, by_stream=True), asked(pod, name, by_stream=False)]


async def killed(world):
    """The agent is killed, with its proxy; another starts and gets a snapshot."""
    children = children_of(world.agent.pid)
    for pid in (world.agent.pid, *children):
        os.kill(pid, 9)
    world.agent.wait()
    began = time.monotonic()
    waiting = [asking(world.pods["client"], SHARED, by_stream=each) for each in (False, True)]
    world.start()
    await in_thread(world.pod_agent.accept)
    errors = [await in_thread(world.pod_agent.add, pod) for pod in world.pods.values()]
    errors.append(await in_thread(world.pod_agent.complete))
    back = await tunnel_world.until(lambda: world.pods["client"].asks(VIP))
    names = [await in_thread(answer_on, each) for each in waiting]
    for each in waiting:
        each.close()
    gap_s = time.monotonic() - began
    return {"errors": errors, "back": bool(back), "names": names, "gap_s": gap_s}


async def told_anew(world):
    """Who tells of pods goes and comes back with a snapshot of one pod less."""
    world.pod_agent.connection.close()
    meanwhile = await world.asks(VIP)
    await in_thread(world.pod_agent.accept)
    kept = await in_thread(lambda: world.pod_agent.say(keep={"uid": "uid-client"}))
    done = await in_thread(world.pod_agent.complete)
    gone = await tunnel_world.until(lambda: listening(world.pods["near"]) == [])
    return {"meanwhile": bool(meanwhile), "errors": [kept, done], "gone": gone,
            "stays": listening(world.pods["client"])}  # fmt: skip


async def broken(world):
    """What is no message is refused, and the next connection works."""
    world.pod_agent.connection.send(b"\xff\xff\xff")
    refused = await in_thread(world.pod_agent.heard)
    await in_thread(world.pod_agent.accept)
    return {"refused": refused, "then": await in_thread(world.pod_agent.complete)}


async def ending(world):
    world.agent.terminate()
    return {"status": await in_thread(world.agent.wait, tunnel_world.PATIENCE_S)}


def children_of(pid):
    found = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(one) for one in found.split()]


async def main(folder):
    namespaces.unshare(namespaces.NEWUSER | namespaces.NEWNET)
    namespaces.map_root(uid=UID, gid=GID)
    acts = [at_first, joining, calls, names, killed, told_anew, broken, ending]
    world = World(pathlib.Path(folder))
    await world.control.start()
    told = {}
    try:
        for act in acts:
            told[act.__name__] = await act(world)
    finally:
        with contextlib.suppress(ProcessLookupError):
            world.agent.kill()
        await world.control.stop()
    sys.stdout.write(json.dumps(told))


UID, GID = os.getuid(), os.getgid()

if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
