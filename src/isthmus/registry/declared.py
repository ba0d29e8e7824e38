"""Which ports pods serve for services, in whatever state they are.

A pod that is not ready yet, or is ending, gets no new calls; but its own proxy must know its ports
all the while, since calls are under way. So this says nothing of who may be called.

Source: spec section 4.9.
"""

import functools
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec
from typing_extensions import override

from isthmus.engine import collections, graph, reader
from isthmus.fleet import sources
from isthmus.kube import objects
from isthmus.mesh import addresses
from isthmus.mesh.identities import ClusterId
from isthmus.mesh.services import ServiceKey, key_of
from isthmus.registry import endpoints


class Declared(msgspec.Struct, frozen=True, gc=False):
    """What one EndpointSlice says of its members.

    Attributes:
        addresses: Each once.
        ports: Name of the service's port, and the members' own port; sorted.
    """

    service: ServiceKey
    cluster: ClusterId
    addresses: addresses.Packed
    ports: tuple[tuple[str, int], ...]


Ports = collections.Collection[sources.ObjectKey, Declared]
ByAddress = collections.Groups[addresses.Brief, sources.ObjectKey, None]
"""Which of them name an address."""


@dataclass(frozen=True, slots=True)
class Nodes:
    """What this module declares."""

    ports: Ports
    by_address: ByAddress


class _Naming(graph.Naming[addresses.Brief, Declared]):
    """How what slices declare names addresses."""

    @override
    def names(self, value: Declared) -> tuple[addresses.Brief, ...]:
        return addresses.unpacked(value.addresses)

    @override
    def is_named(self, value: Declared, name: addresses.Brief) -> bool:
        return addresses.is_among(name, value.addresses)


@functools.lru_cache(maxsize=4096)
def _ports(said: tuple[objects.EndpointPort, ...]) -> tuple[tuple[str, int], ...]:
    """Return name and number of ports: slices that are alike share them."""
    return tuple(sorted({(port.name, port.port or 0) for port in said}))


def declare(graph_: graph.Graph, sources_: sources.Sources, *, more: Ports) -> Nodes:
    """Declare the ports of all clusters' pods in `graph_`; `more` come from no EndpointSlice."""

    def declared(
        _: reader.Reader, key: sources.ObjectKey, slice_: objects.EndpointSlice
    ) -> Iterable[tuple[sources.ObjectKey, Declared]]:
        service = slice_.metadata.label(endpoints.SERVICE_LABEL)
        if service:
            members = slice_.endpoints or ()
            yield (
                key,
                Declared(
                    key_of(key.namespace, service),
                    key.cluster,
                    addresses.packed(one for member in members for one in member.addresses),
                    _ports(slice_.ports or ()),
                ),
            )

    own = graph_.derive("declared_ports", sources_.endpoint_slices, declared)
    every = graph_.join("all_declared_ports", own, more)
    return Nodes(every, graph_.mentions("declared_ports.by_address", every, _Naming()))
