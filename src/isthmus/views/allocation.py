"""Addresses for services that a client's own cluster has no address for.

Each service has one address in 240.240.0.0/16, the same in every replica and after every restart,
because it follows from the services that there are: a digest of the host chooses the place. Of two
services with one place the older keeps it, so that a new service takes an address from an older
one only in the rare case that the older had to move before. Those that must move, about one in a
hundred among a thousand services, are placed together, the oldest first.

Source: spec sections 2.4 and 7.8; docs/decisions/0013-names-of-other-clusters.md.
"""

import hashlib
import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from isthmus.engine import collections, graph, reader
from isthmus.mesh.services import Resolution, Service, ServiceKey

RANGE: Final = ipaddress.IPv4Network("240.240.0.0/16")
ROW: Final = 254
"""Usable addresses of each 256: those that end with 0 or 255 look like a network's own."""

PLACES: Final = RANGE.num_addresses // 256 * ROW
MOST_ATTEMPTS: Final = 64

Allocated = collections.Collection[ServiceKey, str]


@dataclass(frozen=True, slots=True, order=True)
class Claim:
    """What a service asks for; in the order in which claims count.

    Attributes:
        created: When the first object of this name was made, as its API server wrote it.
    """

    created: str
    host: str

    @property
    def place(self) -> int:
        """Where the service would be if it were alone."""
        return place_of(self.host)


Claims = collections.Index[int, ServiceKey, Claim]


def place_of(host: str, *, attempt: int = 0) -> int:
    """Return a place for a host; each attempt gives another."""
    digest = hashlib.blake2b(f"{attempt}/{host}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % PLACES


def is_allocated(address: str) -> bool:
    """Say whether an IP address is of our making, whoever has it."""
    return ipaddress.ip_address(address) in RANGE


def address_at(place: int) -> str:
    """Return the address of a place."""
    row, column = divmod(place, ROW)
    return str(RANGE.network_address + row * 256 + column + 1)


def declare(
    graph_: graph.Graph, services: collections.Collection[ServiceKey, Service]
) -> Allocated:
    """Declare the address of each service that could need one."""
    claims = graph_.derive("views/claims of addresses", services, _claims)
    by_place = graph_.index("views/claims by place", claims, lambda _, claim: (claim.place,))

    def moving(
        read: reader.Reader, key: ServiceKey, claim: Claim
    ) -> Iterator[tuple[ServiceKey, Claim]]:
        if not _is_first(read, by_place, claim):
            yield key, claim

    movers = graph_.derive("views/claims that move", claims, moving)

    def moved(read: reader.Reader) -> tuple[tuple[ServiceKey, int], ...]:
        return tuple(_placed(read, by_place, read.items(movers)))

    elsewhere = graph_.single("views/claims that moved", moved)

    def allocated(
        read: reader.Reader, key: ServiceKey, claim: Claim
    ) -> Iterator[tuple[ServiceKey, str]]:
        place: int | None = claim.place
        if not _is_first(read, by_place, claim):
            found = read.value(elsewhere)
            place = dict(found).get(key)
        if place is not None:
            yield key, address_at(place)

    return graph_.derive("views/allocated addresses", claims, allocated)


def _claims(
    _: reader.Reader, key: ServiceKey, service: Service
) -> Iterator[tuple[ServiceKey, Claim]]:
    if service.entry is None:
        is_wanted = service.resolution is Resolution.VIP
    else:
        is_wanted = service.entry.wants_address
    if is_wanted:
        yield key, Claim(service.created, service.hostname)


def _is_first(read: reader.Reader, by_place: Claims, claim: Claim) -> bool:
    return min(read.lookup(by_place, claim.place).values()) == claim


def _placed(
    read: reader.Reader, by_place: Claims, movers: Mapping[ServiceKey, Claim]
) -> Iterable[tuple[ServiceKey, int]]:
    taken = set[int]()
    for key, claim in sorted(movers.items(), key=lambda item: item[1]):
        for attempt in range(1, MOST_ATTEMPTS):
            place = place_of(claim.host, attempt=attempt)
            if place not in taken and not read.lookup(by_place, place):
                taken.add(place)
                yield key, place
                break
