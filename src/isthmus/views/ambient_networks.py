"""What node proxies are told of other networks: their gateways, and what stands behind these.

All pods of a service behind one gateway are one workload, whether their clusters' API servers are
followed or linked clusters tell how many there are. Only pods that are ready and take tunnels count.

Source: spec sections 7.3 and 7.7.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from isthmus.engine import collections, graph, reader
from isthmus.mesh import localities
from isthmus.mesh.ambient import Sharing
from isthmus.mesh.identities import ClusterId, NetworkId
from isthmus.mesh.localities import Locality
from isthmus.mesh.networks import NetworkGateway
from isthmus.mesh.services import Service, ServiceKey
from isthmus.mesh.workloads import Health
from isthmus.views import addresses, ambient_loose, facts, view

Slices = collections.Collection[view.SliceKey, view.Slice]
Sliced = Iterator[tuple[view.SliceKey, view.Slice]]
Places = collections.Collection[view.NodesScope, None]
Doors = collections.Single[Mapping[NetworkId, NetworkGateway]]


@dataclass(frozen=True, slots=True)
class Seen:
    """Pods that a client may reach: of one cluster in one network.

    Attributes:
        pods: By address where these are known, and else by place; with how many there are.
        ports: Of the service there, where that is told; None for those that it has here.
    """

    cluster: ClusterId
    network: NetworkId
    pods: dict[str, tuple[Locality, int]] = field(default_factory=dict)
    ports: frozenset[int] | None = None


def declare(graph_: graph.Graph, known: facts.Facts, *, places: Places) -> tuple[Slices, ...]:
    """Declare in `graph_` what is behind gateways, and these themselves."""
    doors = graph_.single("views/doors of networks", _doors(known))
    return (
        graph_.derive(
            "views/services behind gateways",
            known.model.services,
            _hidden(known, places, doors),
            while_any=places,
        ),
        graph_.derive("views/gateways of node proxies", places, _gateways(doors)),
    )


def _doors(known: facts.Facts) -> Callable[[reader.Reader], Mapping[NetworkId, NetworkGateway]]:
    def found(read: reader.Reader) -> Mapping[NetworkId, NetworkGateway]:
        gateways = read.value(known.model.network_gateways)
        return addresses.doors(one for one in gateways if addresses.is_address(one.address))

    return found


def _hidden(
    known: facts.Facts, places: Places, doors: Doors
) -> Callable[[reader.Reader, ServiceKey, Service], Sliced]:
    def sliced(read: reader.Reader, key: ServiceKey, service: Service) -> Sliced:
        sharing = read.get(known.model.for_nodes.sharing, key)
        if sharing is None or not sharing.givers or not (scopes := read.items(places)):
            return
        seen = seen_of(read, known, service)
        by_network = read.value(doors)
        for scope in scopes:
            for network, there in sorted(behind(seen, sharing, scope).items()):
                door = by_network.get(network)
                if door is not None:
                    yield view.keyed(scope, _summed(service, door, there))

    return sliced


def behind(
    seen: list[Seen], sharing: Sharing, scope: view.NodesScope | view.WaypointScope
) -> dict[NetworkId, list[Seen]]:
    """Return what clients of a scope reach in other networks."""
    found = dict[NetworkId, list[Seen]]()
    for one in seen:
        is_far = not ambient_loose.is_near(one.network, scope.network)
        if is_far and sharing.reaches(scope.cluster, owner=one.cluster):
            found.setdefault(one.network, []).append(one)
    return found


def _summed(service: Service, door: NetworkGateway, behind: list[Seen]) -> view.wds.WorkloadSlice:
    """Return the one workload that stands for all behind a gateway, on the ports that all have."""
    pods = [pod for one in behind for pod in one.pods.values()]
    told = [one.ports for one in behind if one.ports is not None]
    whole = addresses.hidden_of(
        service,
        door,
        capacity=sum(count for _, count in pods),
        place=localities.common(place for place, _ in pods),
    )
    if not told:
        return whole
    shared = frozenset.intersection(*told)
    services = tuple(
        (name, tuple(port for port in ports if port.number in shared))
        for name, ports in whole.services
    )
    return dataclasses.replace(whole, services=services)


def seen_of(read: reader.Reader, known: facts.Facts, service: Service) -> list[Seen]:
    """Return the pods of a service that tunnels lead to, wherever they are."""
    return [*_followed(read, known, service.key), *_told(read, known, service)]


def _followed(read: reader.Reader, known: facts.Facts, key: ServiceKey) -> list[Seen]:
    """Return the pods of clusters whose API servers are followed."""
    found = dict[tuple[ClusterId, NetworkId], Seen]()
    for one in read.get(known.model.endpoints, key) or ():
        if one.health is Health.HEALTHY and one.accepts_tunnels:
            seen = found.setdefault((one.cluster, one.network), Seen(one.cluster, one.network))
            seen.pods[one.address] = (one.locality, 1)
    return list(found.values())


def _told(read: reader.Reader, known: facts.Facts, service: Service) -> Iterator[Seen]:
    """Yield the pods of which linked clusters tell."""
    origin = service.key if service.derived is None else service.derived.origin
    for key, one in read.lookup(known.model.peers.imports_by_service, origin).items():
        pods = {
            str(place.locality): (place.locality, place.pods)
            for place in one.export.capacity
            if place.network == one.network
        }
        if pods:
            numbers = frozenset(port.number for port in one.export.ports)
            yield Seen(key.peer, one.network, pods, numbers)


def _gateways(doors: Doors) -> Callable[[reader.Reader, view.NodesScope, None], Sliced]:
    def sliced(read: reader.Reader, scope: view.NodesScope, _: None) -> Sliced:
        for network, gateway in sorted(read.value(doors).items()):
            if not ambient_loose.is_near(network, scope.network):
                yield view.keyed(scope, addresses.gateway_workload_of(gateway))

    return sliced
