"""A program: gives one Envoy the listeners of many pods, and prints what that took, as JSON.

    python -m bench.node_program FOLDER

It moves into namespaces of its own, in which it may make networks. Configuration comes as in a
node's agent: from told workloads through the graph to the proxy's stream.
"""

import asyncio
import datetime
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench import usage
from isthmus.base import clock, namespaces, netlink
from isthmus.engine import transactions
from isthmus.mesh.identities import ClusterId, NetworkId, SpiffeId, TrustDomain
from isthmus.node import envoy, joining, nodebootstrap, pages, settings, steering
from isthmus.resources import snapshot
from isthmus.testing import certificates
from isthmus.views import nodeslices, wds
from isthmus.wire import nodeads, sds, tls

PODS: Final = 100
SERVICES: Final = 100
PER_SERVICE: Final = 10
ACCOUNTS: Final = 10
PATIENCE_S: Final = 30.0
SETTLE_S: Final = 1.0
POLL_S: Final = 0.01
DOMAIN: Final = TrustDomain("cluster.local")
CLUSTER, NETWORK = ClusterId("c"), NetworkId("n")
PORT: Final = wds.AddressPort(80, 8080)


def workload(number: int, *, is_healthy: bool = True) -> wds.WorkloadSlice:
    """Return one of the mesh's pods; the first ones are the node's."""
    name = f"pod{number}"
    return wds.WorkloadSlice(
        uid=name,
        name=name,
        namespace="default",
        cluster=CLUSTER,
        network=NETWORK,
        addresses=(f"10.{number // 65536}.{number // 256 % 256}.{number % 256}",),
        service_account=f"account{number % ACCOUNTS}",
        trust_domain=DOMAIN,
        takes_tunnels=True,
        node="node1" if number < PODS else "node2",
        services=((f"default/{host(number % SERVICES)}", (PORT,)),),
        is_healthy=is_healthy,
    )


def host(number: int) -> str:
    """Return the name of a service."""
    return f"service{number}.default.svc.cluster.local"


def service(number: int) -> wds.ServiceSlice:
    """Return one of the mesh's services."""
    where = wds.NetworkAddress(NETWORK, f"10.200.{number // 256}.{number % 256}")
    return wds.ServiceSlice(host(number), "default", host(number), (where,), (PORT,))


class Node:
    """A node's agent as far as its Envoy sees it."""

    def __init__(self) -> None:
        known = nodeslices.Node("node1", CLUSTER, NETWORK, ())
        self.steering = steering.Steering(
            known, pods_changed=lambda _: None, services_changed=lambda _: None
        )
        self.shelf = sds.Shelf()
        self._certify()
        sources = self.steering.sources

        def mesh(writes: transactions.Transaction) -> None:
            for number in range(SERVICES):
                one = service(number)
                writes.put(sources.services, one.resource_name, one)
            for number in range(SERVICES * PER_SERVICE):
                pod = workload(number)
                writes.put(sources.workloads, pod.uid, pod)

        self.steering.change(mesh)
        self.steering.begin()

    def _certify(self) -> None:
        """Have the certificates of all accounts there: signing is measured elsewhere."""
        now = clock.SystemClock().now()
        signer = certificates.signer(now=now)
        for number in range(ACCOUNTS):
            identity = SpiffeId(DOMAIN, "default", f"account{number}")
            made = tls.prove(
                signer, identity=identity, now=now, lifetime=datetime.timedelta(hours=1)
            )
            name = str(identity)
            shown = sds.certificate(
                name, chain_pem=made.chain_pem, key_pem=made.key_pem, version="1"
            )
            believed = sds.roots(sds.ROOTS, roots_pem=made.roots_pem, version="1")
            self.shelf.add({name: shown, sds.ROOTS: believed})

    def told_by(self, write: Callable[[transactions.Transaction], None]) -> int:
        """Change something; return how many bytes that tells the proxy."""
        told = set[tuple[str, str]]()
        forget = self.steering.table.follow(
            lambda names: told.update((kind, one) for kind, some in names.items() for one in some)
        )
        self.steering.change(write)
        forget()
        held = self.steering.table.snapshot()
        found = (held.of(snapshot.TypeUrl(kind)).get(name) for kind, name in told)
        return sum(len(one.body) for one in found if one is not None)


def pods() -> dict[str, tuple[int, nodeslices.PlacedPod]]:
    """Make the pods' networks; return a descriptor of each, and where its proxy finds it."""
    found = {}
    for number in range(PODS):
        (fd,) = namespaces.fresh(namespaces.NEWNET, prepare=lambda: netlink.send([netlink.up(1)]))
        uid = f"uid{number}"
        placed = nodeslices.PlacedPod(uid, f"pod{number}", f"/proc/{os.getpid()}/fd/{fd}")
        found[uid] = fd, placed
    return found


async def measured(folder: Path) -> dict[str, float]:
    """Measure everything once."""
    node, made = Node(), pods()
    socket, admin, file = folder / "xds", folder / "admin", folder / "envoy.json"
    file.write_text(
        json.dumps(nodebootstrap.document("n", socket=str(socket), admin_socket=str(admin)))
    )
    habits = envoy.Habits(pages.Question("", 0, "/"), settings.Draining(), concurrency=2)
    argv = [str(envoy.found()), *envoy.arguments(habits, bootstrap=file)]
    async with nodeads.serving(node.steering.table, node.shelf, socket=str(socket)):
        with (folder / "envoy.log").open("w") as log:
            proxy = await asyncio.create_subprocess_exec(*argv, stdout=log, stderr=log)
        try:
            await until(lambda: admin.exists())
            await asyncio.sleep(SETTLE_S)
            return await _with(node, made, proxy.pid)
        finally:
            proxy.kill()
            await proxy.wait()


async def _with(
    node: Node, made: dict[str, tuple[int, nodeslices.PlacedPod]], pid: int
) -> dict[str, float]:
    sources = node.steering.sources
    empty = usage.memory(pid)
    began = time.monotonic()

    def join(writes: transactions.Transaction) -> None:
        for uid, (_, placed) in made.items():
            writes.put(sources.pods, uid, placed)

    told = node.told_by(join)
    await until(lambda: all(joining.listens(fd) for fd, _ in made.values()))
    up_s = time.monotonic() - began
    await asyncio.sleep(SETTLE_S)
    full = usage.memory(pid)
    assert empty is not None
    assert full is not None
    unready, further = workload(PODS + 1, is_healthy=False), service(SERVICES)
    return {
        "up": up_s,
        "memory": full.private,
        "memory/pod": (full.private - empty.private) * 1024 / PODS,
        "push/pod": told / PODS,
        "push/endpoint": node.told_by(lambda w: w.put(sources.workloads, unready.uid, unready)),
        "push/service": node.told_by(
            lambda w: w.put(sources.services, further.resource_name, further)
        ),
    }


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110, RUF100  # the kernel tells nobody
            await asyncio.sleep(POLL_S)


def main(folder: str) -> None:
    """Move into namespaces, measure, print."""
    uid, gid = os.getuid(), os.getgid()
    namespaces.unshare(namespaces.NEWUSER | namespaces.NEWNET)
    namespaces.map_root(uid=uid, gid=gid)
    sys.stdout.write(json.dumps(asyncio.run(measured(Path(folder)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
