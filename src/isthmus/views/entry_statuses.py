"""What is to be written down of addresses of our making: in ServiceEntries, for people and restarts.

Entries of users get their addresses as status. A service that clusters share has an entry of ours,
which says the same and nothing that anybody obeys: the service is there without it.

Source: spec sections 7.7 and 7.8.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from isthmus.engine import collections, graph, reader
from isthmus.mesh.allocations import Ranges
from isthmus.mesh.entries import ServiceEntry
from isthmus.mesh.services import Service, ServiceKey, ServicePort
from isthmus.views import facts

Named = tuple[str, str]
Given = tuple[tuple[str, str], ...]
"""Hosts and addresses, in order."""


@dataclass(frozen=True, slots=True)
class Shared:
    """A service that clusters share, as its entry says it.

    Attributes:
        origin: The Services that it is derived from.
    """

    origin: ServiceKey
    host: str
    ports: tuple[ServicePort, ...]
    addresses: Given


@dataclass(frozen=True, slots=True)
class Nodes:
    """What this module declares.

    Attributes:
        given: To entries of users, by namespace and name.
        shared: By the Services that they are derived from.
    """

    given: collections.Collection[Named, Given]
    shared: collections.Collection[ServiceKey, Shared]


def declare(graph_: graph.Graph, known: facts.Facts, *, ranges: Ranges) -> Nodes:
    """Declare in `graph_` what is to be written down."""

    def given_to(read: reader.Reader, namespace: str, host: str) -> Given:
        address = read.get(known.allocated, ServiceKey(namespace, host))
        return () if address is None else ((host, address), (host, ranges.twin_of(address)))

    def given(read: reader.Reader, _: object, entry: ServiceEntry) -> Iterator[tuple[Named, Given]]:
        found: Given = ()
        for host in entry.hosts if entry.wants_address else ():
            service = read.get(known.model.services, ServiceKey(entry.namespace, host))
            owner = service.entry.name if service is not None and service.entry else ""
            if owner == entry.name:
                found += given_to(read, entry.namespace, host)
        yield (entry.namespace, entry.name), found

    def shared(
        read: reader.Reader, key: ServiceKey, service: Service
    ) -> Iterator[tuple[ServiceKey, Shared]]:
        if service.derived is not None:
            addresses = given_to(read, key.namespace, service.hostname)
            yield (
                service.derived.origin,
                Shared(service.derived.origin, service.hostname, service.ports, addresses),
            )

    return Nodes(
        graph_.derive("views/addresses given to entries", known.model.service_entries, given),
        graph_.derive("views/shared services to write down", known.model.services, shared),
    )
