"""Makes Services reachable: packet rules from Services and EndpointSlices.

Decides, purely, which rules each node needs (`rules`); `ServiceProxy` follows the API and applies
them, each time all of them in one step, so that no packet meets half a change. Every backend is as
likely as any other; a Service without backends refuses connections at once.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from isthmus.base import namespaces, netlink, nftables, tasks
from isthmus.lab.apiserver import mirrors
from isthmus.lab.machine import network

Obj = dict[str, Any]

TABLE = "services"
_FROM_OUTSIDE = 0x4000
_SETTLE_S = 0.005
_PROTOCOLS = {"TCP": nftables.tcp, "UDP": nftables.udp}


@dataclass(frozen=True, slots=True, order=True)
class Backend:
    """Where a connection ends."""

    ip: str
    port: int


@dataclass(frozen=True, slots=True)
class Front:
    """One port of a Service: the addresses that clients use, and its backends.

    Attributes:
        node_port: The port on every node's own addresses, or 0.
    """

    addresses: tuple[str, ...]
    protocol: str
    port: int
    node_port: int
    backends: tuple[Backend, ...]


def fronts(services: Iterable[Obj], slices: Iterable[Obj]) -> tuple[Front, ...]:
    """Return every port of every Service that has addresses, in a stable order."""
    by_service: dict[tuple[str, str], list[Obj]] = {}
    for each in slices:
        metadata = each["metadata"]
        name = (metadata.get("labels") or {}).get("kubernetes.io/service-name")
        if name and each.get("addressType", "IPv4") == "IPv4":
            by_service.setdefault((metadata["namespace"], name), []).append(each)
    found: list[Front] = []
    for service in sorted(services, key=mirrors.key_of):
        own = by_service.get(mirrors.key_of(service), ())
        found.extend(_fronts_of(service, own))
    return tuple(found)


def _fronts_of(service: Obj, slices: Sequence[Obj]) -> Iterator[Front]:
    spec = service["spec"]
    addresses = tuple(_addresses(service))
    if not addresses:
        return
    for port in spec.get("ports") or ():
        yield Front(
            addresses=addresses,
            protocol=port.get("protocol") or "TCP",
            port=int(port["port"]),
            node_port=int(port.get("nodePort") or 0),
            backends=tuple(sorted(set(_backends(port.get("name") or "", slices)))),
        )


def _addresses(service: Obj) -> Iterator[str]:
    spec = service["spec"]
    if spec.get("type") == "ExternalName":
        return
    if spec.get("clusterIP") not in (None, "", "None"):
        yield spec["clusterIP"]
    ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    yield from (each["ip"] for each in ingress if each.get("ip"))
    yield from spec.get("externalIPs") or ()


def _backends(port_name: str, slices: Sequence[Obj]) -> Iterator[Backend]:
    ready = list(_chosen(port_name, slices, "ready"))
    # While all are going away, those that still serve are better than none.
    yield from ready or _chosen(port_name, slices, "serving")


def _chosen(port_name: str, slices: Sequence[Obj], condition: str) -> Iterator[Backend]:
    for each in slices:
        ports = [
            port["port"]
            for port in each.get("ports") or ()
            if (port.get("name") or "") == port_name and port.get("port")
        ]
        for endpoint in each.get("endpoints") or ():
            conditions = endpoint.get("conditions") or {}
            holds = conditions.get(condition)
            if holds is False or (condition == "serving" and holds is None):
                continue
            yield from (Backend(ip, port) for ip in endpoint["addresses"] for port in ports)


def rules(found: Sequence[Front], *, node_addresses: Sequence[str] = ()) -> list[netlink.Message]:
    """Return the batch that makes exactly these Services reachable in one network."""
    batch = [
        *nftables.replaced(TABLE),
        _chain("arriving", nftables.PREROUTING, nftables.DESTINATION_NAT),
        _chain("leaving", nftables.OUTPUT, nftables.DESTINATION_NAT),
        _chain("last", nftables.POSTROUTING, nftables.SOURCE_NAT),
        _chain("forwarded", nftables.FORWARD, nftables.FILTER, kind="filter"),
        _chain("sent", nftables.OUTPUT, nftables.FILTER, kind="filter"),
        nftables.chain(TABLE, "fronts"),
        nftables.chain(TABLE, "refused"),
        # What comes from transit must go back the same way, wherever its backend is.
        _rule(
            "arriving", nftables.meta("iifname", network.OUTSIDE), nftables.set_mark(_FROM_OUTSIDE)
        ),
        _rule("arriving", nftables.jump("fronts")),
        _rule("leaving", nftables.jump("fronts")),
        _rule("last", nftables.meta("mark", _FROM_OUTSIDE), nftables.masquerade()),
        _rule("last", nftables.meta("oifname", network.OUTSIDE), nftables.masquerade()),
        _rule("forwarded", nftables.jump("refused")),
        _rule("sent", nftables.jump("refused")),
    ]
    for number, front in enumerate(found):
        if front.protocol in _PROTOCOLS:
            batch += _front_rules(number, front, node_addresses)
    # A pod that reaches itself through a Service must not see itself as the source.
    for ip in sorted({backend.ip for front in found for backend in front.backends}):
        batch.append(
            _rule("last", nftables.source(ip), nftables.destination(ip), nftables.masquerade())
        )
    return batch


def _front_rules(
    number: int, front: Front, node_addresses: Sequence[str]
) -> Iterator[netlink.Message]:
    protocol = _PROTOCOLS[front.protocol]()
    places = [(address, front.port) for address in front.addresses]
    if front.node_port:
        places += [(address, front.node_port) for address in node_addresses]
    matches = [
        (nftables.destination(address), protocol, nftables.destination_port(port))
        for address, port in places
    ]
    if not front.backends:
        refusal = nftables.reset() if front.protocol == "TCP" else nftables.reject()
        for match in matches:
            yield _rule("refused", *match, refusal)
        return
    chain = f"front{number}"
    yield nftables.chain(TABLE, chain)
    count = len(front.backends)
    for index, backend in enumerate(front.backends):
        drawn = [nftables.one_in(count - index)] if index < count - 1 else []
        yield _rule(
            chain, protocol, *drawn, nftables.destination_nat(backend.ip, port=backend.port)
        )
    for match in matches:
        yield _rule("fronts", *match, nftables.jump(chain))


def _chain(name: str, hook: int, priority: int, *, kind: str = "nat") -> netlink.Message:
    return nftables.chain(TABLE, name, hook=hook, priority=priority, kind=kind)


def _rule(chain: str, *expressions: nftables.Expression) -> netlink.Message:
    return nftables.rule(TABLE, chain, *expressions)


class ServiceProxy:
    """Keeps the rules of one cluster's control plane and nodes right."""

    def __init__(
        self, wires: network.ClusterNetwork, follow: mirrors.Mirrors, *, but: str = ""
    ) -> None:
        """Follow Services, but not the one at address `but`, which every node answers itself."""
        self._wires = wires
        self._but = but
        self._services = follow.of("services")
        self._slices = follow.of("endpointslices.discovery.k8s.io")
        self._touched = asyncio.Event()
        self._applied: tuple[Front, ...] | None = None

    def start(self, nursery: tasks.Nursery) -> None:
        """Run in `nursery`."""
        for mirror in (self._services, self._slices):
            mirror.listen(lambda _old, _new: self._touched.set())
        _ = nursery.keep("service proxy", self._run, first_delay_s=0.05)

    async def _run(self) -> None:
        await self._services.synced()
        await self._slices.synced()
        self._applied = None
        while True:
            self._touched.clear()
            services = (
                each
                for each in self._services.items()
                if each["spec"].get("clusterIP") != self._but
            )
            self._apply(fronts(services, self._slices.items()))
            await self._touched.wait()
            await asyncio.sleep(_SETTLE_S)

    def _apply(self, found: tuple[Front, ...]) -> None:
        if found == self._applied:
            return
        by_node = any(front.node_port for front in found)
        everywhere = rules(found)
        for name, place in self._wires.stations():
            batch = everywhere
            if name and by_node:
                node = self._wires.nodes[name].node
                batch = rules(found, node_addresses=(node.address, node.transit))
            with namespaces.entered(place):
                nftables.apply(batch)
        self._applied = found
