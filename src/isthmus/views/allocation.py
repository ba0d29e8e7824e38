"""Addresses for services that a client's own cluster has no address for.

Each service has one address of our range, the same in every replica and after every restart,
because it follows from the services that there are: a digest of the host chooses the place. Of two
services with one place the older keeps it, so that a new service takes an address from an older
one only in the rare case that the older had to move before. Those that must move, about one in a
hundred among a thousand services, are placed together, the oldest first. An address that was
written down counts before any that is only computed. One of the range that somebody has chosen in a
ServiceEntry is given to nobody else, but only if it is free: who writes an entry must not get what
others are called by.

Source: spec sections 2.4 and 7.8; docs/decisions/0013-names-of-other-clusters.md.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from isthmus.engine import collections, graph, reader
from isthmus.mesh import allocations
from isthmus.mesh.allocations import Ranges, Recorded
from isthmus.mesh.services import Resolution, Service, ServiceKey

MOST_ATTEMPTS: Final = 64

Allocated = collections.Collection[ServiceKey, str]
Records = collections.Collection[ServiceKey, Recorded]
ClaimKey = tuple[ServiceKey, str]
"""A service, and the address that somebody has chosen for it; empty where nobody has."""


@dataclass(frozen=True, slots=True, order=True)
class Claim:
    """What a service asks for; in the order in which claims count.

    Attributes:
        weight: 0 for an address that was written down; 1 for one that somebody has chosen, and for
            what has no other; 2 for Services, most of which never need it.
        created: When the first object of this name was made, as its API server wrote it.
        place: Where the service would be if it were alone.
        is_chosen: Whether somebody has chosen the address, which is not ours to give.
    """

    weight: int
    created: str
    host: str
    place: int
    is_chosen: bool = False


Claims = collections.Index[int, ClaimKey, Claim]


@dataclass(frozen=True, slots=True)
class Nodes:
    """What this module declares.

    Attributes:
        allocated: The address of each service that could need one.
        refused: Addresses that somebody has chosen and that are somebody else's: whose.
    """

    allocated: Allocated
    refused: collections.Collection[ClaimKey, ServiceKey]


def place_of(host: str, *, attempt: int = 0, ranges: Ranges = allocations.USUAL) -> int:
    """Return a place for a host; each attempt gives another."""
    digest = hashlib.blake2b(f"{attempt}/{host}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % ranges.places


def declare(
    graph_: graph.Graph,
    services: collections.Collection[ServiceKey, Service],
    *,
    recorded: Records,
    ranges: Ranges = allocations.USUAL,
) -> Nodes:
    """Declare in `graph_` which addresses services have that need one."""
    claims = graph_.derive("views/claims of addresses", services, _claims(recorded, ranges))
    by_place = graph_.index("views/claims by place", claims, lambda _, claim: (claim.place,))

    def moving(
        read: reader.Reader, key: ClaimKey, claim: Claim
    ) -> Iterator[tuple[ServiceKey, Claim]]:
        if not claim.is_chosen and not _is_first(read, by_place, claim):
            yield key[0], claim

    movers = graph_.derive("views/claims that move", claims, moving)

    def moved(read: reader.Reader) -> tuple[tuple[ServiceKey, int], ...]:
        return tuple(_placed(read, by_place, read.items(movers), ranges))

    elsewhere = graph_.single("views/claims that moved", moved)

    def allocated(
        read: reader.Reader, key: ClaimKey, claim: Claim
    ) -> Iterator[tuple[ServiceKey, str]]:
        if claim.is_chosen:
            return
        place: int | None = claim.place
        if not _is_first(read, by_place, claim):
            found = read.value(elsewhere)
            place = dict(found).get(key[0])
        if place is not None:
            yield key[0], ranges.address_at(place)

    def refused(
        read: reader.Reader, key: ClaimKey, claim: Claim
    ) -> Iterator[tuple[ClaimKey, ServiceKey]]:
        if claim.is_chosen and not _is_first(read, by_place, claim):
            rivals = read.lookup(by_place, claim.place)
            yield key, min(rivals, key=lambda other: rivals[other])[0]

    return Nodes(
        graph_.derive("views/allocated addresses", claims, allocated),
        graph_.derive("views/refused addresses", claims, refused),
    )


def _claims(
    recorded: Records, ranges: Ranges
) -> Callable[[reader.Reader, ServiceKey, Service], Iterator[tuple[ClaimKey, Claim]]]:
    def claims(
        read: reader.Reader, key: ServiceKey, service: Service
    ) -> Iterator[tuple[ClaimKey, Claim]]:
        for address in service.entry.addresses if service.entry is not None else ():
            place = ranges.place_at(address)
            if place is not None:
                chosen = Claim(1, service.created, service.hostname, place, is_chosen=True)
                yield (key, address), chosen
        if wants_address(service):
            known = read.get(recorded, key)
            place = ranges.place_at(known.address) if known is not None else None
            weight = 0 if place is not None else 1 if service.has_full_name_only else 2
            place = place_of(service.hostname, ranges=ranges) if place is None else place
            yield (key, ""), Claim(weight, service.created, service.hostname, place)

    return claims


def wants_address(service: Service) -> bool:
    """Say whether a service may need an address of our making."""
    if service.entry is None:
        return service.resolution is Resolution.VIP
    return service.entry.wants_address


def _is_first(read: reader.Reader, by_place: Claims, claim: Claim) -> bool:
    return min(read.lookup(by_place, claim.place).values()) == claim


def _placed(
    read: reader.Reader, by_place: Claims, movers: Mapping[ServiceKey, Claim], ranges: Ranges
) -> Iterable[tuple[ServiceKey, int]]:
    taken = set[int]()
    for key, claim in sorted(movers.items(), key=lambda item: item[1]):
        for attempt in range(MOST_ATTEMPTS):
            place = place_of(claim.host, attempt=attempt, ranges=ranges)
            if place not in taken and not read.lookup(by_place, place):
                taken.add(place)
                yield key, place
                break
