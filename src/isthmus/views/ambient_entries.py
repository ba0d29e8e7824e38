"""What node proxies are told of ServiceEntries: hosts as services, and who answers for them.

An entry means the same in every cluster. Its addresses are those that it names, else one of our
making, in the network of whoever asks. Hosts that are patterns have no address to be known by, and
node proxies hear nothing of them.

Source: spec sections 7.1, 7.8 and 8.5.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from isthmus.engine import collections, graph, reader
from isthmus.mesh.ambient import PlacedAddress
from isthmus.mesh.identities import ClusterId
from isthmus.mesh.services import Protocol, Service, ServiceKey
from isthmus.mesh.workloads import Endpoint, Health
from isthmus.views import addresses, addressing, facts, view
from isthmus.views.wds import AddressPort, WorkloadSlice

Places = collections.Collection[view.NodesScope, None]
Slices = collections.Collection[view.SliceKey, view.Slice]
Sliced = Iterator[tuple[view.SliceKey, view.Slice]]

EVERY: Final = "*"


def declare(graph_: graph.Graph, known: facts.Facts, *, places: Places) -> Slices:
    """Declare the services that entries are, in `graph_`."""
    return graph_.derive(
        "views/addresses of entries",
        known.model.services,
        _services(known, places),
        while_any=places,
    )


def is_told_of(service: Service) -> bool:
    """Say whether node proxies hear of the host of an entry."""
    is_hidden = service.export_to == (addresses.NOWHERE,)
    return service.entry is not None and EVERY not in service.hostname and not is_hidden


def answered_by(
    read: reader.Reader, known: facts.Facts, *, cluster: ClusterId, at: Iterable[str]
) -> dict[str, tuple[AddressPort, ...]]:
    """Return the entries that select the pod at some addresses, with its ports."""
    found = dict[str, list[AddressPort]]()
    for address in at:
        served = known.served_at(read, cluster, address)
        for key, one in sorted(served.items(), key=lambda item: item[0]):
            service = read.get(known.model.services, key.service)
            if service is not None and is_told_of(service):
                port = AddressPort(one.service_port, one.port, one.protocol)
                found.setdefault(addresses.name_of(service), []).append(port)
    return {name: tuple(dict.fromkeys(ports)) for name, ports in found.items()}


def _services(
    known: facts.Facts, places: Places
) -> Callable[[reader.Reader, ServiceKey, Service], Sliced]:
    def sliced(read: reader.Reader, _: ServiceKey, service: Service) -> Sliced:
        if service.entry is None or not is_told_of(service):
            return
        for scope in read.items(places):
            given = addressing.addresses_of(
                read, known, service, cluster=scope.cluster, naming=view.Naming.ALLOCATED
            )
            told = addressing.with_twins(read, known, service, given)
            slice_ = addresses.service_of(
                service,
                addresses=[PlacedAddress(scope.network, one, scope.cluster) for one in told],
                sans=service.entry.identities,
            )
            if slice_ is not None:
                yield view.keyed(scope, slice_)

    return sliced


def named(service: Service, endpoints: Iterable[Endpoint] | None) -> Iterator[WorkloadSlice]:
    """Yield the places that an entry names, as workloads."""
    by_address = dict[str, list[Endpoint]]()
    for one in endpoints or ():
        if not one.workload:  # Pods that it selects are told as what they are.
            by_address.setdefault(one.address, []).append(one)
    for _, found in sorted(by_address.items()):
        yield workload_of(service, found)


def workload_of(service: Service, endpoints: list[Endpoint]) -> WorkloadSlice:
    """Return one place that an entry names: an address, or a name that node proxies look up."""
    first = endpoints[0]
    entry = service.entry.name if service.entry is not None else ""
    targets = {one.port_name: one.port for one in endpoints}
    ports = tuple(
        AddressPort(port.number, targets[port.name], port.protocol)
        for port in service.ports
        if port.name in targets and port.protocol is not Protocol.UDP
    )
    is_name = not addresses.is_address(first.address)
    return WorkloadSlice(
        uid=f"{first.cluster}/networking.istio.io/ServiceEntry/{service.key.namespace}/{entry}/"
        f"{service.hostname}/{first.address}",
        name=f"{entry}/{first.address}",
        namespace=service.key.namespace,
        cluster=first.cluster,
        network=first.network,
        addresses=() if is_name else (first.address,),
        hostname=first.address if is_name else "",
        service_account=first.service_account,
        takes_tunnels=first.accepts_tunnels,
        locality=first.locality,
        services=((addresses.name_of(service), ports),),
        is_healthy=all(one.health is Health.HEALTHY for one in endpoints),
        capacity=max(first.weight, 1),
    )
