"""A service's endpoints, put together where they look alike from everywhere but for their address.

Whoever looks decides by cluster, network, place and port what becomes of an endpoint. So this is
decided for a bunch at once, and what is told of each member is made once for all who look.

Source: docs/decisions/0033-endpoints-are-weighed-in-bunches.md.
"""

import dataclasses
import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from isthmus.mesh.networks import NetworkGateway
from isthmus.mesh.workloads import Endpoint
from isthmus.views import descriptions, view

MOST: Final = 2**32 - 1
"""The largest weight."""

IN_ORDER: Final = operator.attrgetter("address", "port")


Doors = tuple[NetworkGateway, ...] | None
"""Those that lead somewhere; None where nothing ever stands behind gateways."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An endpoint of a service, with what the mesh's policies say of it.

    Attributes:
        tunnel_end: Who ends tunnels for it, where that is all it takes encrypted; else empty.
    """

    endpoint: Endpoint
    speaks_mtls: bool
    tunnel_end: str = ""


@dataclass(frozen=True, slots=True)
class Candidates:
    """All endpoints of a service.

    Attributes:
        speaking: A byte for each: whether mutual TLS is spoken to it.
        ends: Who ends tunnels for each; empty where nobody does for any.
    """

    endpoints: tuple[Endpoint, ...] = ()
    speaking: bytes = b""
    ends: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Candidate]:
        """Yield them one by one."""
        ends = self.ends or itertools.repeat("")
        for endpoint, speaks, end in zip(self.endpoints, self.speaking, ends, strict=False):
            yield Candidate(endpoint, bool(speaks), end)


@dataclass(frozen=True, slots=True)
class Bunch:
    """Endpoints of one port, cluster, network and place, all of which speak mutual TLS, or none.

    Attributes:
        like: Any one of them, for what they have in common.
        endpoints: In the order of their addresses.
        members: What is told of each to who dials it; follows from the others.
        weights: How many have which weight, before sharing.
        doors: The gateways that stand before them for other networks.
        tunnelled: What is told of each to who begins tunnels; empty where that is nothing else.
    """

    like: Endpoint
    speaks_mtls: bool
    endpoints: tuple[Endpoint, ...]
    members: tuple[view.LbEndpoint, ...] = field(compare=False, repr=False)
    weights: tuple[tuple[int, int], ...]
    doors: Doors = None
    tunnelled: tuple[view.LbEndpoint, ...] = field(default=(), repr=False)

    def share(self, parts: int) -> int:
        """Return the weight of each of `parts` equal parts of it."""
        return sum([weight // parts * count for weight, count in self.weights])

    def apart(self) -> Iterator["Bunch"]:
        """Yield a bunch for each member, for who looks at more than they have in common."""
        both = zip(self.endpoints, self.members, strict=True)
        for number, (endpoint, member) in enumerate(both):
            yield Bunch(
                endpoint,
                self.speaks_mtls,
                (endpoint,),
                (member,),
                ((member.weight, 1),),
                self.doors,
                self.tunnelled[number : number + 1],
            )

    def by_tunnels(self) -> "Bunch":
        """Return it as who begins tunnels is told of it."""
        return dataclasses.replace(self, members=self.tunnelled) if self.tunnelled else self

    def where(self, accepts: Callable[[Endpoint], bool]) -> Iterator["Bunch"]:
        """Yield what is left of it when only some members count."""
        kept = [one for one in self.apart() if accepts(one.like)]
        if kept:
            yield Bunch(
                kept[0].like,
                self.speaks_mtls,
                tuple(one.like for one in kept),
                tuple(one.members[0] for one in kept),
                _counted(one.members[0].weight for one in kept),
                self.doors,
                tuple(through for one in kept for through in one.tunnelled),
            )

    def speaking(self, speaks_mtls: bool) -> "Bunch":
        """Return it as an explicit rule about TLS makes it."""
        if speaks_mtls is self.speaks_mtls:
            return self
        members = tuple(
            _told(endpoint, speaks_mtls, weight=member.weight)
            for endpoint, member in zip(self.endpoints, self.members, strict=True)
        )
        return dataclasses.replace(self, speaks_mtls=speaks_mtls, members=members)


Bunches = Mapping[str, tuple[Bunch, ...]]
"""By the name of the service's port."""

NOTHING: Final[Bunches] = {}


def bunched(
    candidates: Iterable[Candidate],
    *,
    scale: int,
    doors_of: Callable[[Endpoint], Doors],
) -> Bunches:
    """Return the endpoints in bunches, in order of arrival; `scale` multiplies their weights."""
    sorts = dict[tuple[object, ...], list[Candidate]]()
    for one in candidates:
        at = one.endpoint
        is_tunnelled = one.tunnel_end != ""
        sort = (at.port_name, at.cluster, at.network, at.locality, one.speaks_mtls, is_tunnelled)
        alike = sorts.get(sort)
        if alike is None:
            sorts[sort] = [one]
        else:
            alike.append(one)
    found = dict[str, list[Bunch]]()
    for alike in sorts.values():
        like = alike[0].endpoint
        doors = doors_of(like)
        found.setdefault(like.port_name, []).append(_bunch(alike, scale=scale, doors=doors))
    return {name: tuple(bunches) for name, bunches in found.items()}


def _bunch(alike: list[Candidate], *, scale: int, doors: Doors) -> Bunch:
    told = [
        (one.endpoint, _told(one.endpoint, one.speaks_mtls, weight=weight))
        for one in alike
        for weight in (min(max((one.endpoint.weight or 1) * scale, 1), MOST),)
    ]
    told.sort(key=_in_order)
    return Bunch(
        alike[0].endpoint,
        alike[0].speaks_mtls,
        tuple(endpoint for endpoint, _ in told),
        tuple(member for _, member in told),
        _counted(member.weight for _, member in told),
        doors,
        _tunnelled(alike, told) if alike[0].tunnel_end else (),
    )


def _tunnelled(
    alike: Iterable[Candidate], told: Iterable[tuple[Endpoint, view.LbEndpoint]]
) -> tuple[view.LbEndpoint, ...]:
    ends = {(one.endpoint.address, one.endpoint.port): one.tunnel_end for one in alike}
    return tuple(
        dataclasses.replace(member, tunnel_end=ends[member.address, member.port])
        for _, member in told
    )


def _told(endpoint: Endpoint, speaks_mtls: bool, *, weight: int) -> view.LbEndpoint:
    kept = endpoint.kept
    if (
        isinstance(kept, view.LbEndpoint)
        and kept.weight == weight
        and kept.speaks_mtls is speaks_mtls
    ):
        return kept
    told = view.LbEndpoint(
        endpoint.address,
        endpoint.port,
        weight,
        endpoint.health,
        speaks_mtls,
        descriptions.described(endpoint),
    )
    endpoint.keep(told)
    return told


def _counted(weights: Iterable[int]) -> tuple[tuple[int, int], ...]:
    found = dict[int, int]()
    for weight in weights:
        found[weight] = found.get(weight, 0) + 1
    return tuple(sorted(found.items()))


def _in_order(told: tuple[Endpoint, view.LbEndpoint]) -> tuple[str, int]:
    return told[1].address, told[1].port
