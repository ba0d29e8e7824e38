"""Addresses that answer for services without being told of as pods.

Who writes an EndpointSlice or a ServiceEntry may name any address. Where that is a pod's, the pod
itself answers, as who it is: two workloads of one address would let node proxies take the one for
the other, and send in plain text what the pod wants encrypted. A service's own address is nobody's:
node proxies look for workloads before services, and would pass by the service.

Source: spec sections 7.1 and 8.5.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from isthmus.engine import collections, graph, reader
from isthmus.mesh.ambient import LooseEndpoint, Sharing
from isthmus.mesh.identities import ClusterId, NetworkId
from isthmus.mesh.services import Service, ServiceKey, derived_key
from isthmus.mesh.workloads import Workload, WorkloadKey
from isthmus.registry import model
from isthmus.views import addresses, ambient_entries, facts, view
from isthmus.views.wds import AddressPort, WorkloadSlice

Places = collections.Collection[view.NodesScope, None]
Slices = collections.Collection[view.SliceKey, view.Slice]
Sliced = Iterator[tuple[view.SliceKey, view.Slice]]
Services = dict[str, tuple[AddressPort, ...]]

Virtual = collections.Index[str, ServiceKey, Service]

NOBODY = Sharing(frozenset())


@dataclass(frozen=True, slots=True)
class Loose:
    """An address that answers for services.

    Attributes:
        shared: The services whose sharing says who hears of which of the workload's services, in
            their order; empty if everybody hears of all.
    """

    workload: WorkloadSlice
    shared: tuple[ServiceKey, ...] = ()


@dataclass(frozen=True, slots=True)
class Nodes:
    """What this module declares.

    Attributes:
        by_address: All of them.
        slices: Of those that are no pods'.
    """

    by_address: collections.Index[str, str, Loose]
    slices: Slices


def declare(graph_: graph.Graph, known: facts.Facts, *, places: Places, pods: model.Pods) -> Nodes:
    """Declare in `graph_` what answers for services without being a pod."""
    by_address = graph_.index(
        "views/pods by address",
        known.model.workloads,
        lambda _, pod: pod.addresses,
        while_any=places,
    )
    virtual = graph_.index(
        "views/entries by address",
        known.model.services,
        lambda _, service: service.entry.addresses if service.entry is not None else (),
    )
    found = graph_.join(
        "views/loose addresses",
        graph_.derive("views/addresses in slices", pods.loose_endpoints, _in_slices(known)),
        graph_.derive(
            "views/addresses in entries",
            known.model.services,
            _in_entries(known),
            while_any=places,
        ),
    )
    return Nodes(
        graph_.index(
            "views/loose addresses by address", found, lambda _, one: one.workload.addresses
        ),
        graph_.derive("views/loose workloads", found, _sliced(known, places, by_address, virtual)),
    )


def is_near(network: NetworkId, other: NetworkId) -> bool:
    """Say whether addresses of a network can be dialled from another; one without a name is any."""
    return network == other or not network or not other


def reaches(
    read: reader.Reader,
    known: facts.Facts,
    service: ServiceKey,
    scope: view.NodesScope,
    owner: ClusterId,
) -> bool:
    """Say whether the clients of a scope see a service as a cluster has it."""
    sharing = read.get(known.model.for_nodes.sharing, service) or NOBODY
    return sharing.reaches(scope.cluster, owner=owner)


def services_of(
    read: reader.Reader, known: facts.Facts, name: ServiceKey, cluster: ClusterId
) -> list[Service]:
    """Return what a cluster's Service is: the service of its name, and the one derived from it."""
    own = read.get(known.model.services, name)
    derived = read.get(known.model.services, derived_key(name))
    found = [] if own is None else [own]
    if derived is not None and derived.derived is not None:
        found += [derived] if cluster in derived.derived.exporters else []
    return found


def services_at(
    read: reader.Reader,
    known: facts.Facts,
    loose: Nodes,
    pod: Workload,
    scope: view.NodesScope,
) -> Services:
    """Return the services for which a pod answers because somebody has written its address."""
    found: Services = {}
    for address in pod.addresses:
        for _, one in sorted(read.lookup(loose.by_address, address).items()):
            if is_near(one.workload.network, pod.network):
                found.update(_seen(read, known, one, scope))
    return found


def _seen(
    read: reader.Reader, known: facts.Facts, one: Loose, scope: view.NodesScope
) -> tuple[tuple[str, tuple[AddressPort, ...]], ...]:
    """Return those services of an address that clients of a scope see there."""
    named = one.workload.services
    if not one.shared:
        return named
    return tuple(
        service
        for service, key in zip(named, one.shared, strict=True)
        if reaches(read, known, key, scope, one.workload.cluster)
    )


def _is_services(
    read: reader.Reader, known: facts.Facts, virtual: Virtual, address: str, scope: view.NodesScope
) -> bool:
    """Say whether clients of a scope know an address as that of a service."""
    return bool(
        read.lookup(known.services_by_address, (scope.cluster, address))
        or read.lookup(virtual, address)
        or known.model.ranges.contains(address)
    )


def _in_slices(
    known: facts.Facts,
) -> Callable[[reader.Reader, str, LooseEndpoint], Iterable[tuple[str, Loose]]]:
    def found(
        read: reader.Reader, uid: str, endpoint: LooseEndpoint
    ) -> Iterable[tuple[str, Loose]]:
        found = services_of(read, known, endpoint.service, endpoint.cluster)
        if found:
            workload = addresses.loose_workload_of(endpoint, found)
            yield uid, Loose(workload, tuple(service.key for service in found))

    return found


def _in_entries(
    known: facts.Facts,
) -> Callable[[reader.Reader, ServiceKey, Service], Iterable[tuple[str, Loose]]]:
    def found(
        read: reader.Reader, key: ServiceKey, service: Service
    ) -> Iterable[tuple[str, Loose]]:
        if ambient_entries.is_told_of(service):
            for workload in ambient_entries.named(service, read.get(known.model.endpoints, key)):
                yield workload.uid, Loose(workload)

    return found


def _sliced(
    known: facts.Facts,
    places: Places,
    pods: collections.Index[str, WorkloadKey, Workload],
    virtual: Virtual,
) -> Callable[[reader.Reader, str, Loose], Sliced]:
    def sliced(read: reader.Reader, _: str, one: Loose) -> Sliced:
        scopes, workload = read.items(places), one.workload
        if scopes and any(
            is_near(pod.network, workload.network)
            for address in workload.addresses
            for pod in read.lookup(pods, address).values()
        ):
            return
        for scope in scopes:
            seen = (
                _seen(read, known, one, scope) if is_near(workload.network, scope.network) else ()
            )
            if seen and not any(
                _is_services(read, known, virtual, address, scope) for address in workload.addresses
            ):
                yield view.keyed(scope, dataclasses.replace(workload, services=seen))

    return sliced
