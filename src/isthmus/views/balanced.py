"""Slices of endpoints: among what a client balances. Part of the hand-over: see `view`.

Source: spec sections 3.4 and 4.11; docs/decisions/0053-endpoints-are-told-from-what-they-share.md.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
from typing_extensions import override

from isthmus.base import same
from isthmus.mesh import packs
from isthmus.mesh.localities import Locality
from isthmus.mesh.networks import NetworkGateway
from isthmus.mesh.packs import Pack
from isthmus.mesh.workloads import Health, Likeness
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


class Manner(msgspec.Struct, frozen=True, gc=False):
    """How those of a bunch are reached; bunches share it.

    Attributes:
        scale: What multiplies their weights.
        ends: Who ends tunnels for each; empty where that is nothing to anybody.
        is_tunnelled: Whether those who dial them are told of `ends`.
        doors: The gateways that stand before them for other networks; None where nothing ever does.
    """

    speaks_mtls: bool
    scale: int = 1
    ends: tuple[str, ...] = ()
    is_tunnelled: bool = False
    doors: tuple[NetworkGateway, ...] | None = None


class Members(msgspec.Struct, frozen=True, eq=False, gc=False):
    """Addresses among which a client balances, of one service: what is told of each when asked.

    They are a group by themselves where nobody else is in their place and nothing is nearer.

    Attributes:
        pack: Endpoints of which they are, in the order of their addresses and ports.
        which: Their numbers in it, where they are not all.
    """

    pack: Pack
    which: packs.Which
    manner: Manner

    def __iter__(self) -> Iterator[LbEndpoint]:
        """Yield what is told of each."""
        for like, end, addresses in self.alike():
            for address in addresses:
                yield self.told(address, like, end)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.which or self.pack)

    @override
    def __eq__(self, other: object) -> bool:
        """Say whether the same is told of the same endpoints; what stands before them is not."""
        if not isinstance(other, Members):
            return NotImplemented
        return self is other or (
            self._told_alike == other._told_alike
            and self.pack.is_same(self.which, other.pack, other.which)
        )

    @override
    def __hash__(self) -> int:
        return self.pack.hash_of(self.which)

    @property
    def endpoints(self) -> "Members":
        """Themselves: what stands in their place."""
        return self

    @property
    def priority(self) -> int:
        """That of what is nearest."""
        return 0

    @property
    def locality(self) -> Locality:
        """Where they are."""
        return self.pack.spot(self.which).locality

    @property
    def speaks_mtls(self) -> bool:
        """Whether the mesh's mutual TLS is spoken to them."""
        return self.manner.speaks_mtls

    @property
    def ends(self) -> tuple[str, ...]:
        """Who must be at the end of the tunnel to each; empty where there are none."""
        return self.manner.ends if self.manner.is_tunnelled else ()

    @property
    def weight(self) -> int:
        """The sum of their weights."""
        likes = self.pack.likes
        if isinstance(likes, Likeness):
            return min(scaled(likes.weight, self.manner.scale) * len(self), MOST)
        return min(sum([each * count for each, count in self.weights()]), MOST)

    def weights(self) -> list[tuple[int, int]]:
        """Return how many have which weight."""
        counts = dict[int, int]()
        for one in self.pack.each_like(self.which):
            counts[one.weight] = counts.get(one.weight, 0) + 1
        return [(scaled(one, self.manner.scale), count) for one, count in counts.items()]

    def rows(self) -> Iterable[packs.Row]:
        """Return what there is of each."""
        return self.pack.rows(self.which)

    def alike(self) -> Iterator[tuple[Likeness, str, Sequence[str]]]:
        """Yield addresses, in order, of neighbours of whom all else that is told is the same."""
        addresses, at = self.pack.texts(self.which), 0
        if isinstance(self.pack.likes, Likeness) and not self.ends:
            yield self.pack.likes, "", addresses
            return
        likes, ends = self.pack.each_like(self.which), self.ends
        each = zip(map(id, likes), ends or itertools.repeat(""), strict=False)
        for (_, end), run in itertools.groupby(each):
            stop = at + sum(1 for _ in run)
            yield likes[at], end, addresses[at:stop]
            at = stop

    def told(self, address: str, like: Likeness, end: str) -> LbEndpoint:
        """Return what is told of one address."""
        return LbEndpoint(
            address,
            like.port,
            scaled(like.weight, self.manner.scale),
            like.health,
            self.speaks_mtls,
            descriptions.described(like),
            end,
        )

    @property
    def _told_alike(self) -> tuple[object, ...]:
        return self.speaks_mtls, self.manner.scale, self.ends


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


Group = LocalityGroup | Members


@dataclass(frozen=True, slots=True)
class EndpointsSlice:
    """The endpoints of one cluster of Envoy.

    Attributes:
        weighs_places: Whether a group's weight matters beside those of its endpoints.
        is_apart: Whether clients are told of each endpoint by itself.
        memory: What is made of it, for all places that see it.
    """

    cluster_name: str
    groups: tuple[Group, ...]
    weighs_places: bool = False
    is_apart: bool = False
    memory: same.Memory = field(default_factory=same.Memory, init=False, repr=False, compare=False)
