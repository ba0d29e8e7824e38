"""Slices of endpoints: among what a client balances. Part of the hand-over: see `view`.

Source: spec sections 3.4 and 4.11; docs/decisions/0053-endpoints-are-told-from-what-they-share.md.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import msgspec
from typing_extensions import override

from isthmus.base import same
from isthmus.mesh.localities import Locality
from isthmus.mesh.workloads import Endpoint, Health, Likeness
from isthmus.views import descriptions

MOST: Final = 2**32 - 1
"""The largest weight."""


@dataclass(frozen=True, slots=True)
class LbEndpoint:
    """One address among which a client balances.

    Attributes:
        speaks_mtls: Whether the mesh's mutual TLS is spoken to it.
        workload: `<workload>;<namespace>;<service>;<revision>;<cluster>`, for telemetry.
        tunnel_end: Who must be at the end of the tunnel to it; empty where there is none, and
            `waypoints.INSIDE` where the address is a listener inside the proxy that makes all that.
    """

    address: str
    port: int
    weight: int
    health: Health = Health.HEALTHY
    speaks_mtls: bool = False
    workload: str = ""
    tunnel_end: str = ""


class Members(msgspec.Struct, frozen=True, eq=False, gc=False):
    """Addresses among which a client balances, of one service: what is told of each when asked.

    Attributes:
        endpoints: In the order of their addresses and ports.
        scale: What multiplies their weights.
        ends: Who must be at the end of the tunnel to each; empty where there are none.
    """

    endpoints: tuple[Endpoint, ...]
    speaks_mtls: bool
    scale: int = 1
    ends: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[LbEndpoint]:
        """Yield what is told of each."""
        for like, end, addresses in self.alike():
            for address in addresses:
                yield self.told(address, like, end)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.endpoints)

    @override
    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Members):
            return NotImplemented
        return (
            self.endpoints == other.endpoints
            and self.speaks_mtls is other.speaks_mtls
            and self.scale == other.scale
            and self.ends == other.ends
        )

    @override
    def __hash__(self) -> int:
        return hash(tuple([one.address for one in self.endpoints]))

    @property
    def weight(self) -> int:
        """The sum of their weights."""
        counts = dict[int, int]()
        for one in self.endpoints:
            weight = one.like.weight
            counts[weight] = counts.get(weight, 0) + 1
        return sum([scaled(one, self.scale) * count for one, count in counts.items()])

    def alike(self) -> Iterator[tuple[Likeness, str, list[str]]]:
        """Yield addresses, in order, of neighbours of whom all else that is told is the same."""
        ends = self.ends or itertools.repeat("")
        before, before_end, addresses = None, "", list[str]()
        for one, end in zip(self.endpoints, ends, strict=False):
            if one.like is before and end == before_end:
                addresses.append(one.address)
                continue
            if before is not None:
                yield before, before_end, addresses
            before, before_end, addresses = one.like, end, [one.address]
        if before is not None:
            yield before, before_end, addresses

    def told(self, address: str, like: Likeness, end: str) -> LbEndpoint:
        """Return what is told of one address."""
        return LbEndpoint(
            address,
            like.port,
            scaled(like.weight, self.scale),
            like.health,
            self.speaks_mtls,
            descriptions.described(like),
            end,
        )


Told = tuple[LbEndpoint, ...] | Members


def scaled(weight: int, scale: int) -> int:
    """Return the weight of an endpoint among others whose weights are scaled likewise."""
    return min(max((weight or 1) * scale, 1), MOST)


class LocalityGroup(msgspec.Struct, frozen=True, gc=False):
    """Endpoints of one place; `weight` is the sum of theirs."""

    locality: Locality
    weight: int
    endpoints: Told
    priority: int = 0


@dataclass(frozen=True, slots=True)
class EndpointsSlice:
    """The endpoints of one cluster of Envoy.

    Attributes:
        weighs_places: Whether a group's weight matters beside those of its endpoints.
        is_apart: Whether clients are told of each endpoint by itself.
        memory: What is made of it, for all places that see it.
    """

    cluster_name: str
    groups: tuple[LocalityGroup, ...]
    weighs_places: bool = False
    is_apart: bool = False
    memory: same.Memory = field(default_factory=same.Memory, init=False, repr=False, compare=False)
