"""One cluster, in one process: its wires, API server, controllers, nodes, names and services.

This is the only place where the lab's rooms meet; it decides nothing but their order.
"""

import asyncio
import contextlib
import json
import os
import pathlib
import socket
from typing import Any

from aiohttp import web

from isthmus.base import clock, logs, namespaces, tasks
from isthmus.lab import orders, state
from isthmus.lab import topology as topologies
from isthmus.lab.apiserver import api as apis
from isthmus.lab.apiserver import audit, http, mirrors, pki, security, streams
from isthmus.lab.apiserver import doors as doors_
from isthmus.lab.controllers import events, running
from isthmus.lab.machine import (
    dns,
    kubelet,
    network,
    nodefiles,
    pods,
    runtime,
    serviceproxy,
    spawning,
)

Obj = dict[str, Any]

_LOG = logs.Log("isthmus.lab.cluster")
_DNS_SERVICE = "kube-dns"
_LONGEST_NAME = 15


class Progress:
    """Tells whoever waits for the lab how far this cluster is."""

    def __init__(self, fd: int, cluster: str) -> None:
        self._fd = fd
        self._cluster = cluster

    def tell(self, step: str, **facts: str) -> None:
        """Say that a step is complete."""
        line = json.dumps({"cluster": self._cluster, "step": step, **facts})
        with contextlib.suppress(OSError):
            os.write(self._fd, line.encode() + b"\n")

    def close(self) -> None:
        """Say that there is nothing more to tell."""
        os.close(self._fd)


def serve(
    topology: topologies.Topology,
    cluster: topologies.Cluster,
    place: state.Place,
    descriptors: tuple[int, int, int],
) -> None:
    """Run a cluster until the lab ends; called in the lab's own network.

    Args:
        topology: The whole lab.
        cluster: The cluster.
        place: The lab's folder.
        descriptors: Where its API server is reached from outside of the lab; what leads to the
            process that starts its programs; what takes its progress.
    """
    for fd in descriptors:
        os.set_inheritable(fd, False)
    listener, link, told = descriptors
    _name(cluster.name)
    wires = network.ClusterNetwork(topology, cluster)
    wires.build()
    # From here on this process lives in the control plane's network: what it connects to, such as
    # webhooks behind Services, it reaches as a pod of its own cluster would.
    namespaces.enter(wires.control, flags=namespaces.NEWNET)
    progress = Progress(told, cluster.name)
    progress.tell("wires")
    process = _Cluster(cluster, wires, place, progress)
    asyncio.run(process.run(socket.socket(fileno=listener), socket.socket(fileno=link)))


def _name(name: str) -> None:
    """Let whoever lists processes tell clusters from each other."""
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/self/comm").write_text(name[-_LONGEST_NAME:])


class _Cluster:
    def __init__(
        self,
        cluster: topologies.Cluster,
        wires: network.ClusterNetwork,
        place: state.Place,
        progress: Progress,
    ) -> None:
        self._cluster = cluster
        self._wires = wires
        self._place = place
        self._progress = progress
        self._clock = clock.SystemClock()
        self._held: dict[tuple[str, str], str] = {}
        self._orders: asyncio.Server | None = None

    async def run(self, outside: socket.socket, link: socket.socket) -> None:
        cluster = self._cluster
        async with tasks.Nursery() as nursery:
            api = apis.Api(service_cidr=cluster.services)
            authority = pki.make_cluster_authority(
                cluster.name,
                now=self._clock.now(),
                cluster_ip=cluster.api_service,
                addresses=[cluster.api_address],
            )
            asked = audit.Audit(self._place.audit(cluster.name))
            secure = security.ClusterSecurity(api, authority=authority, nursery=nursery, log=asked)
            settings = running.Settings(
                authority=authority,
                signer=secure.signer,
                cluster_ip=cluster.api_service,
                address=cluster.api_address,
                port=topologies.API_PORT,
                load_balancer_pool=cluster.balancers,
                on_load_balancer=self._on_load_balancer,
            )
            await running.prepare(api, settings)
            await _make_dns_service(api, cluster)
            follow = mirrors.Mirrors(api, nursery)
            nodes = self._nodes(api, follow, spawning.Spawning(link), nursery)
            relay = streams.PodStreams(api, runtime.Runtime(nodes))
            application = http.application(api, secure, relay)
            await self._listen(application, authority, outside)
            await nodes.start()
            proxy = serviceproxy.ServiceProxy(self._wires, follow, but=cluster.dns_service)
            proxy.start(nursery)
            await dns.serve(self._wires, cluster.dns_service, dns.Objects(follow))
            running.run_all(api, nursery, settings)
            self._progress.tell("ready", kubeconfig=self._kubeconfig(authority, outside))
            self._progress.close()
            await asyncio.Event().wait()

    def _nodes(
        self,
        api: apis.Api,
        follow: mirrors.Mirrors,
        spawner: spawning.Spawning,
        nursery: tasks.Nursery,
    ) -> kubelet.Kubelet:
        folder = self._place.scratch / self._cluster.name
        folder.mkdir()
        files = {
            node.name: nodefiles.NodeFiles(folder / "nodes" / node.name)
            for node in self._cluster.nodes
        }
        for each in files.values():
            each.prepare()
        machine = pods.Machine(
            api=api,
            cluster=self._cluster,
            wires=self._wires,
            spawner=spawner,
            lookup=kubelet.Objects(follow),
            recorder=events.Recorder(api, component="kubelet", system_clock=self._clock),
            clock=self._clock,
            folder=folder.resolve(),
            many_users=namespaces.has_many_uids(),
            files=files,
        )
        return kubelet.Kubelet(machine, follow=follow, nursery=nursery)

    async def _listen(
        self, application: web.Application, authority: pki.Authority, outside: socket.socket
    ) -> None:
        tls = pki.server_context(authority)
        outside.setblocking(False)
        inside = network.listener(
            self._wires.control, self._cluster.api_address, topologies.API_PORT
        )
        doors = doors_.Doors(application, {"outside": outside, "inside": inside}, context=tls)
        await doors.open()
        self._orders = await orders.serve(
            self._place.orders(self._cluster.name), lambda order: _turn(doors, order)
        )

    def _kubeconfig(self, authority: pki.Authority, outside: socket.socket) -> str:
        host, port = outside.getsockname()
        name = self._cluster.name
        return pki.kubeconfig(authority, name=name, server=f"https://{host}:{port}")

    async def _on_load_balancer(self, service: Obj, address: str | None) -> None:
        # Any node can answer for an address, since every node has every Service's rules.
        node = self._cluster.nodes[0].name
        key = (service["metadata"]["namespace"], service["metadata"]["name"])
        before = self._held.pop(key, None)
        if before is not None and before != address:
            self._wires.let_go(node, before)
        if address is not None:
            self._held[key] = address
            self._wires.hold(node, address)


async def _turn(doors: doors_.Doors, order: Obj) -> dict[str, str]:
    """Make the API server serve or fail, for everybody or only for those in the lab."""
    if "mode" in order:
        names = ("inside",) if order.get("only_inside") else ("inside", "outside")
        mode = doors_.Mode(order["mode"])
        await doors.turn(mode, names)
        _LOG.info("API server told", mode=mode.value, doors=",".join(names))
    return {name: mode.value for name, mode in doors.modes.items()}


async def _make_dns_service(api: apis.Api, cluster: topologies.Cluster) -> None:
    """Show the cluster's DNS as a Service, which also keeps its address from being given away."""
    ports = [
        {"name": "dns", "port": dns.PORT, "protocol": "UDP"},
        {"name": "dns-tcp", "port": dns.PORT, "protocol": "TCP"},
    ]
    await api.create(
        "services",
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": _DNS_SERVICE, "namespace": "kube-system"},
            "spec": {"clusterIP": cluster.dns_service, "ports": ports},
        },
    )
