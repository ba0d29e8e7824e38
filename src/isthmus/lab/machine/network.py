"""The lab's wires: networks as bridges, nodes and control planes as network namespaces, pods.

Decides links, addresses and routes from the topology. Refuses to know Services: packet rules for
them are in `serviceproxy`.

    pod /32 ── veth ── node ── eth0 ── bridge of the network ── eth0 ── node of the same network
                        └──── ext0 ── transit bridge ────────── ext0 ── any node, any API server

Bridges have no address, nodes no default route, and only transit joins networks: a pod reaches
another network's load balancers and API servers, through its node, and nothing else there.
"""

import contextlib
import ipaddress
import os
import socket
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from isthmus.base import namespaces, netlink
from isthmus.lab import topology as topologies

TRANSIT_BRIDGE = "transit"
INSIDE, OUTSIDE = "eth0", "ext0"
_GATEWAY = "169.254.1.1"
_FIRST_POD = 2


@dataclass(frozen=True, slots=True)
class PodNetwork:
    """Where a pod lives: its address and its namespaces, held by descriptors.

    Attributes:
        link: The name of the node's end of its link; empty in the node's own network.
    """

    ip: str
    network: int
    hostname: int
    shared_memory: int
    link: str = ""

    def namespaces(self) -> tuple[int, int, int]:
        """Return the descriptors of its namespaces."""
        return self.network, self.hostname, self.shared_memory


@dataclass(slots=True)
class NodeNetwork:
    """A node's network: its namespace and the addresses it can still give to pods."""

    node: topologies.Node
    network: int
    free: deque[str] = field(default_factory=deque)
    links: int = 0


class ClusterNetwork:
    """One cluster's part of the wires. Only the thread that made it may call it.

    Attributes:
        control: The network namespace of the control plane.
        nodes: The nodes by name.
    """

    def __init__(self, topology: topologies.Topology, cluster: topologies.Cluster) -> None:
        self._topology = topology
        self._cluster = cluster
        self._lab = namespaces.current(namespaces.NEWNET)
        self.control = -1
        self.nodes: dict[str, NodeNetwork] = {}

    def build(self) -> None:
        """Make the control plane's and the nodes' networks; called in the lab's own network."""
        cluster = self._cluster
        number = self._topology.clusters.index(cluster)
        self.control = _station()
        self._connect(
            self.control, f"c{number}", inside=cluster.control_address, outside=cluster.api_address
        )
        for index, node in enumerate(cluster.nodes):
            network = _station()
            self._connect(network, f"c{number}n{index}", inside=node.address, outside=node.transit)
            free = deque(map(str, list(ipaddress.IPv4Network(node.pods).hosts())[_FIRST_POD:]))
            self.nodes[node.name] = NodeNetwork(node, network, free)
        self._route(self.control, (cluster,), "")
        for each in self.nodes.values():
            neighbours = self._topology.on_network(cluster.network)
            self._route(each.network, neighbours, each.node.name)

    def _connect(self, network: int, prefix: str, *, inside: str, outside: str) -> None:
        names = list(self._topology.networks)
        bridge = netlink.index_of(bridge_name(names.index(self._cluster.network)))
        transit = netlink.index_of(TRANSIT_BRIDGE)
        netlink.send(
            [
                netlink.veth(f"{prefix}i", peer=INSIDE, peer_network=network, bridge_index=bridge),
                netlink.veth(
                    f"{prefix}x", peer=OUTSIDE, peer_network=network, bridge_index=transit
                ),
            ]
        )
        length = topologies.TRANSIT.prefixlen
        with namespaces.entered(network):
            here, out = netlink.index_of(INSIDE), netlink.index_of(OUTSIDE)
            netlink.send(
                [
                    netlink.address(here, inside, prefix=24),
                    netlink.up(here),
                    netlink.address(out, outside, prefix=length),
                    netlink.up(out),
                ]
            )

    def _route(self, network: int, clusters: tuple[topologies.Cluster, ...], own_node: str) -> None:
        with namespaces.entered(network):
            here = netlink.index_of(INSIDE)
            others = [
                node for cluster in clusters for node in cluster.nodes if node.name != own_node
            ]
            # Who calls a Service from here needs a way there, before its address is translated.
            services = netlink.route(self._cluster.services, link=here)
            pods = [netlink.route(each.pods, via=each.address, link=here) for each in others]
            netlink.send([services, *pods])

    def attach(self, node_name: str, hostname: str) -> PodNetwork:
        """Make the namespaces of a new pod and connect it to its node."""
        node = self.nodes[node_name]
        ip = node.free.popleft()
        node.links += 1
        link = f"p{node.links}"
        kinds = (namespaces.NEWNET, namespaces.NEWUTS, namespaces.NEWIPC)
        fds = namespaces.fresh(*kinds, prepare=lambda: _prepare_pod(hostname))
        try:
            with namespaces.entered(node.network):
                netlink.send([netlink.veth(link, peer=INSIDE, peer_network=fds[0])])
                index = netlink.index_of(link)
                gateway = netlink.address(index, _GATEWAY, prefix=32)
                netlink.send([gateway, netlink.route(f"{ip}/32", link=index)])
            with namespaces.entered(fds[0]):
                _address_pod(ip)
        except BaseException:
            for fd in fds:
                os.close(fd)
            node.free.append(ip)
            raise
        return PodNetwork(ip, fds[0], fds[1], fds[2], link)

    def share(self, node_name: str) -> PodNetwork:
        """Return the namespaces of a new pod that lives in its node's own network."""
        node = self.nodes[node_name]
        kinds = (namespaces.NEWUTS, namespaces.NEWIPC)
        fds = namespaces.fresh(*kinds, prepare=lambda: socket.sethostname(node_name))
        return PodNetwork(node.node.address, os.dup(node.network), fds[0], fds[1])

    def release(self, node_name: str, pod: PodNetwork) -> None:
        """Disconnect a pod; its address may be given again, after all others."""
        for fd in pod.namespaces():
            os.close(fd)
        if not pod.link:
            return
        node = self.nodes[node_name]
        with namespaces.entered(node.network), contextlib.suppress(OSError):
            netlink.send([netlink.delete_link(netlink.index_of(pod.link))])
        node.free.append(pod.ip)

    def hold(self, node_name: str, address: str) -> None:
        """Let a node answer for a further address on transit."""
        with namespaces.entered(self.nodes[node_name].network):
            index = netlink.index_of(OUTSIDE)
            try:
                netlink.send([netlink.address(index, address, prefix=32)])
            except netlink.RefusedError as error:
                if not netlink.is_present(error):
                    raise

    def let_go(self, node_name: str, address: str) -> None:
        """Let a node no longer answer for an address."""
        with namespaces.entered(self.nodes[node_name].network):
            index = netlink.index_of(OUTSIDE)
            try:
                netlink.send([netlink.delete_address(index, address, prefix=32)])
            except netlink.RefusedError as error:
                if not netlink.is_absent(error):
                    raise

    def stations(self) -> Iterator[tuple[str, int]]:
        """Yield the namespaces where Services are reached from: control plane (``), nodes."""
        yield "", self.control
        for name, node in self.nodes.items():
            yield name, node.network


def bridge_name(number: int) -> str:
    """Return the name of a network's bridge."""
    return f"net{number}"


def build_bridges(topology: topologies.Topology) -> None:
    """Make the bridges in the lab's own network, which must not be the machine's."""
    netlink.send([netlink.up(1)])
    _quiet()
    # Bridged packets must not pass the machine's own packet rules, such as Docker's.
    with contextlib.suppress(OSError):
        namespaces.set_sysctl("net.bridge.bridge-nf-call-iptables", 0)
    names = [bridge_name(number) for number in range(len(topology.networks))]
    netlink.send([netlink.bridge(name) for name in (*names, TRANSIT_BRIDGE)])


def listener(network: int, address: str, port: int) -> socket.socket:
    """Return a TCP socket that listens inside a network namespace."""
    with namespaces.entered(network):
        made = socket.create_server((address, port), backlog=512)
    made.setblocking(False)
    return made


def _quiet() -> None:
    # The lab speaks IPv4; without this every link chatters about IPv6 for its first seconds.
    with contextlib.suppress(OSError):
        namespaces.set_sysctl("net.ipv6.conf.default.disable_ipv6", 1)


def _station() -> int:
    def prepare() -> None:
        _quiet()
        # Answers may come back over another link than the question went.
        for scope in ("all", "default"):
            namespaces.set_sysctl(f"net.ipv4.conf.{scope}.rp_filter", 0)
        namespaces.set_sysctl("net.ipv4.ip_forward", 1)
        netlink.send([netlink.up(1)])

    return namespaces.fresh(namespaces.NEWNET, prepare=prepare)[0]


def _prepare_pod(hostname: str) -> None:
    _quiet()
    socket.sethostname(hostname)
    # As container engines do: any port may be listened on, any user may ping.
    namespaces.set_sysctl("net.ipv4.ip_unprivileged_port_start", 0)
    with contextlib.suppress(OSError):
        namespaces.set_sysctl("net.ipv4.ping_group_range", "0 2147483647")


def _address_pod(ip: str) -> None:
    link = netlink.index_of(INSIDE)
    netlink.send(
        [
            netlink.up(1),
            netlink.up(link),
            netlink.address(link, ip, prefix=32),
            netlink.route(f"{_GATEWAY}/32", link=link),
            netlink.route("0.0.0.0/0", via=_GATEWAY, link=link, on_link=True),
        ]
    )
