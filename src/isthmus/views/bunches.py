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
        group: What is told of them to who dials them, where nobody else is in their place.
        weights: How many have which weight, before sharing.
        doors: The gateways that stand before them for other networks.
        ends: Who ends tunnels for each; empty where that is nothing else to who begins tunnels.
    """

    group: view.LocalityGroup
    weights: Weights
    doors: Doors = None
    ends: tuple[str, ...] = ()

    @property
    def members(self) -> view.Members:
        """What is told of them to who dials them."""
        return self.group.endpoints  # type: ignore[return-value]  # Of which it was made.

    @property
    def like(self) -> Endpoint:
        """Any one of them, for what they have in common."""
        return self.group.endpoints.endpoints[0]  # type: ignore[union-attr]  # As above.

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """In the order of their addresses."""
        return self.group.endpoints.endpoints  # type: ignore[union-attr]  # As above.

    @property
    def speaks_mtls(self) -> bool:
        """Whether mutual TLS is spoken to them."""
        return self.group.endpoints.speaks_mtls  # type: ignore[union-attr]  # As above.

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
        return self._telling(replace(self.members, ends=self.ends), ())

    def where(self, accepts: Callable[[Endpoint], bool]) -> Iterator["Bunch"]:
        """Yield what is left of it when only some members count."""
        kept = [number for number, one in enumerate(self.endpoints) if accepts(one)]
        if kept:
            yield self._of(kept)

    def speaking(self, speaks_mtls: bool) -> "Bunch":
        """Return it as an explicit rule about TLS makes it."""
        if speaks_mtls is self.speaks_mtls:
            return self
        return self._telling(replace(self.members, speaks_mtls=speaks_mtls), self.ends)

    def _telling(self, members: view.Members, ends: tuple[str, ...]) -> "Bunch":
        """Return the same endpoints, of which something else is told."""
        return replace(self, group=replace(self.group, endpoints=members), ends=ends)

    def _of(self, numbers: Sequence[int]) -> "Bunch":
        """Return some of it."""
        kept = tuple([self.endpoints[number] for number in numbers])
        ends = tuple([self.ends[number] for number in numbers]) if self.ends else ()
        return _made(replace(self.members, endpoints=kept), doors=self.doors, ends=ends)


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
    candidates: Candidates,
    *,
    scale: int,
    doors_of: Callable[[Endpoint], Doors],
    before: Bunches = NOTHING,
) -> Bunches:
    """Return the endpoints in bunches, in order of arrival; `scale` multiplies their weights.

    Bunches that are as they were `before` are the same objects.
    """
    sorts = dict[tuple[object, ...], list[Row]]()
    known = dict[tuple[object, ...], list[Row]]()
    ends = candidates.ends or itertools.repeat("")
    for row in zip(candidates.endpoints, candidates.speaking, ends, strict=False):
        at, speaks, end = row
        # Endpoints that share what they have in common are told apart by little.
        brief = (id(at.like), at.locality, speaks, end != "")
        alike = known.get(brief)
        if alike is None:
            like = at.like
            place = (like.port_name, like.cluster, like.network, at.locality)
            alike = known[brief] = sorts.setdefault((*place, *brief[2:]), [])
        alike.append(row)
    was = {id(one.like): one for bunches in before.values() for one in bunches}
    found = dict[str, list[Bunch]]()
    for alike in sorts.values():
        one = _bunch(alike, scale=scale, doors=doors_of(alike[0][0]))
        last = was.get(id(one.like))
        found.setdefault(one.like.port_name, []).append(last if last == one else one)
    return Bunches({name: tuple(bunches) for name, bunches in found.items()})


Row = tuple[Endpoint, int, str]
"""An endpoint, whether mutual TLS is spoken to it, and who ends tunnels for it."""


def _bunch(alike: list[Row], *, scale: int, doors: Doors) -> Bunch:
    alike.sort(key=_in_order)
    endpoints = tuple([one for one, _, _ in alike])
    _, speaks, end = alike[0]
    ends = tuple([end for _, _, end in alike]) if end else ()
    return _made(view.Members(endpoints, bool(speaks), scale), doors=doors, ends=ends)


def _made(members: view.Members, *, doors: Doors, ends: tuple[str, ...]) -> Bunch:
    weights = _counted(members.endpoints, members.scale)
    weight = min(sum([each * count for each, count in weights]), MOST)
    place = members.endpoints[0].locality
    return Bunch(view.LocalityGroup(place, weight, members), weights, doors, ends)


def _counted(endpoints: Iterable[Endpoint], scale: int) -> Weights:
    found = dict[int, int]()
    for one in endpoints:
        weight = one.like.weight
        found[weight] = found.get(weight, 0) + 1
    return _same(tuple(sorted((balanced.scaled(one, scale), found[one]) for one in found)))


@functools.lru_cache(maxsize=1024)
def _same(weights: Weights) -> Weights:
    return weights


def _in_order(row: Row) -> tuple[str, int]:
    return row[0].address, row[0].like.port
