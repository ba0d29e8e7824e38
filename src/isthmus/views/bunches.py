"""A service's endpoints, put together where they look alike from everywhere but for their address.

Whoever looks decides by cluster, network, place and port what becomes of an endpoint. So this is
decided for a bunch at once.

Source: docs/decisions/0033-endpoints-are-weighed-in-bunches.md.
"""

import functools
import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from isthmus.base import same
from isthmus.mesh.networks import NetworkGateway
from isthmus.mesh.workloads import Endpoint
from isthmus.views import balanced, view

MOST: Final = balanced.MOST
replace: Final = msgspec.structs.replace
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


Weights = tuple[tuple[int, int], ...]


class Bunch(msgspec.Struct, frozen=True, gc=False):
    """Endpoints of one port, cluster, network and place, all of which speak mutual TLS, or none.

    Attributes:
        members: What is told of them to who dials them.
        weights: How many have which weight, before sharing.
        doors: The gateways that stand before them for other networks.
        ends: Who ends tunnels for each; empty where that is nothing else to who begins tunnels.
    """

    members: view.Members
    weights: Weights
    doors: Doors = None
    ends: tuple[str, ...] = ()

    @property
    def like(self) -> Endpoint:
        """Any one of them, for what they have in common."""
        return self.members.endpoints[0]

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """In the order of their addresses."""
        return self.members.endpoints

    @property
    def speaks_mtls(self) -> bool:
        """Whether mutual TLS is spoken to them."""
        return self.members.speaks_mtls

    def share(self, parts: int) -> int:
        """Return the weight of each of `parts` equal parts of it."""
        return sum([weight // parts * count for weight, count in self.weights])

    def apart(self) -> Iterator["Bunch"]:
        """Yield a bunch for each member, for who looks at more than they have in common."""
        for number in range(len(self.endpoints)):
            yield self._of([number])

    def by_tunnels(self) -> "Bunch":
        """Return it as who begins tunnels is told of it."""
        if not self.ends:
            return self
        return replace(self, members=replace(self.members, ends=self.ends), ends=())

    def where(self, accepts: Callable[[Endpoint], bool]) -> Iterator["Bunch"]:
        """Yield what is left of it when only some members count."""
        kept = [number for number, one in enumerate(self.endpoints) if accepts(one)]
        if kept:
            yield self._of(kept)

    def speaking(self, speaks_mtls: bool) -> "Bunch":
        """Return it as an explicit rule about TLS makes it."""
        if speaks_mtls is self.speaks_mtls:
            return self
        return replace(self, members=replace(self.members, speaks_mtls=speaks_mtls))

    def _of(self, numbers: Sequence[int]) -> "Bunch":
        """Return some of it."""
        kept = tuple([self.endpoints[number] for number in numbers])
        ends = tuple([self.ends[number] for number in numbers]) if self.ends else ()
        members = replace(self.members, endpoints=kept)
        return Bunch(members, _counted(kept, self.members.scale), self.doors, ends)


class Bunches(dict[str, tuple[Bunch, ...]]):
    """Those of a service, by the name of its port.

    Attributes:
        memory: What places see of them: it lasts until the service has other endpoints.
    """

    __slots__ = ("memory",)

    def __init__(self, found: Mapping[str, tuple[Bunch, ...]]) -> None:
        super().__init__(found)
        self.memory = same.Memory()


NOTHING: Final = Bunches({})


def bunched(
    candidates: Iterable[Candidate],
    *,
    scale: int,
    doors_of: Callable[[Endpoint], Doors],
) -> Bunches:
    """Return the endpoints in bunches, in order of arrival; `scale` multiplies their weights."""
    sorts = dict[tuple[object, ...], list[Candidate]]()
    known = dict[tuple[object, ...], list[Candidate]]()
    for one in candidates:
        at, is_tunnelled = one.endpoint, one.tunnel_end != ""
        # Endpoints that share what they have in common are told apart by little.
        brief = (id(at.like), at.locality, one.speaks_mtls, is_tunnelled)
        alike = known.get(brief)
        if alike is None:
            like = at.like
            place = (like.port_name, like.cluster, like.network, at.locality)
            alike = known[brief] = sorts.setdefault((*place, *brief[2:]), [])
        alike.append(one)
    found = dict[str, list[Bunch]]()
    for alike in sorts.values():
        like_ = alike[0].endpoint
        doors = doors_of(like_)
        found.setdefault(like_.port_name, []).append(_bunch(alike, scale=scale, doors=doors))
    return Bunches({name: tuple(bunches) for name, bunches in found.items()})


def _bunch(alike: list[Candidate], *, scale: int, doors: Doors) -> Bunch:
    alike.sort(key=_in_order)
    endpoints = tuple([one.endpoint for one in alike])
    ends = tuple([one.tunnel_end for one in alike]) if alike[0].tunnel_end else ()
    members = view.Members(endpoints, alike[0].speaks_mtls, scale)
    return Bunch(members, _counted(endpoints, scale), doors, ends)


def _counted(endpoints: Iterable[Endpoint], scale: int) -> Weights:
    found = dict[int, int]()
    for one in endpoints:
        weight = one.like.weight
        found[weight] = found.get(weight, 0) + 1
    return _same(tuple(sorted((balanced.scaled(one, scale), found[one]) for one in found)))


@functools.lru_cache(maxsize=1024)
def _same(weights: Weights) -> Weights:
    return weights


def _in_order(one: Candidate) -> tuple[str, int]:
    return one.endpoint.address, one.endpoint.like.port
