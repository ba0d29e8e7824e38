"""Gateways that are known by name: each counts once for every address that its name leads to.

Names are looked up outside, because that takes time; the answers come in as a collection. While
there is none, the gateway stays as it is: its network is known to have a gateway, so that nobody
is sent to addresses of that network which cannot be reached.

Source: spec section 3.3, "Hostname addresses".
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from isthmus.engine import collections, graph, reader
from isthmus.mesh.networks import NetworkGateway
from isthmus.registry import addresses

Gateways = tuple[NetworkGateway, ...]


@dataclass(frozen=True, slots=True)
class Nodes:
    """What this module declares.

    Attributes:
        looked_up: What names lead to; filled from outside.
        names: Those that somebody should look up, sorted.
        gateways: With addresses in the place of names, as far as these are known.
    """

    looked_up: collections.Source[str, tuple[str, ...]]
    names: collections.Single[tuple[str, ...]]
    gateways: collections.Single[Gateways]


def declare(graph_: graph.Graph, *, gateways: collections.Single[Gateways]) -> Nodes:
    """Declare in `graph_` what becomes of gateways that are known by name."""
    looked_up: collections.Source[str, tuple[str, ...]] = graph_.source(
        "network_gateways.looked_up"
    )

    def named(read: reader.Reader) -> tuple[str, ...]:
        found = {gateway.address for gateway in read.value(gateways)}
        return tuple(sorted(text for text in found if addresses.parsed(text) is None))

    def reached(read: reader.Reader) -> Gateways:
        return tuple(sorted(set(expanded(read))))

    def expanded(read: reader.Reader) -> Iterator[NetworkGateway]:
        for gateway in read.value(gateways):
            by_name = addresses.parsed(gateway.address) is None
            answers = read.get(looked_up, gateway.address) if by_name else None
            for address in answers or (gateway.address,):
                yield dataclasses.replace(gateway, address=address)

    return Nodes(
        looked_up,
        graph_.single("network_gateways.names", named),
        graph_.single("network_gateways.reached", reached),
    )
