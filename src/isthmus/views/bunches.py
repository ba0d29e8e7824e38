"""A service's endpoints, put together where they look alike from everywhere but for their address.

Whoever looks decides by cluster, network, place and port what becomes of an endpoint. So this is
decided for a bunch at once.

Source: docs/decisions/0033-endpoints-are-weighed-in-bunches.md.
"""

import functools
import itertools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from typing_extensions import override

from isthmus.base import same
from isthmus.mesh import packs
from isthmus.mesh.identities import ClusterId, NetworkId
from isthmus.mesh.networks import NetworkGateway
from isthmus.mesh.packs import Pack, Packs
from isthmus.mesh.workloads import Endpoint, Likeness
from isthmus.views import balanced, view

MOST: Final = balanced.MOST
replace: Final = msgspec.structs.replace
IN_ORDER: Final = operator.attrgetter("address", "port")


Doors = tuple[NetworkGateway, ...] | None
"""Those that lead somewhere; None where nothing ever stands behind gateways."""

Where = tuple[ClusterId, NetworkId]
"""By what it is known which doors lead to an endpoint."""


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

    endpoints: Packs = packs.NOBODY
    speaking: bytes = b""
    ends: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Candidate]:
        """Yield them one by one."""
        ends = self.ends or itertools.repeat("")
        for endpoint, speaks, end in zip(self.endpoints, self.speaking, ends, strict=False):
            yield Candidate(endpoint, bool(speaks), end)


class Bunch(view.Members, frozen=True, eq=False, gc=False):
    """Endpoints of one port, cluster, network and place, all of which speak mutual TLS, or none."""

    @property
    def like(self) -> Likeness:
        """What they have in common, of any one of them."""
        return self.pack.like(self.which)

    @property
    def first(self) -> Endpoint:
        """One of them."""
        return packs.endpoint(next(iter(self.pack.rows(self.which[:1] or packs.FIRST))))

    @property
    def doors(self) -> Doors:
        """The gateways that stand before them for other networks."""
        return self.manner.doors

    def unpacked(self) -> Iterator[Endpoint]:
        """Yield them one by one."""
        return map(packs.endpoint, self.rows())

    def share(self, parts: int) -> int:
        """Return the weight of each of `parts` equal parts of it."""
        return sum([weight // parts * count for weight, count in self.weights()])

    def apart(self) -> Iterator["Bunch"]:
        """Yield a bunch for each member, for who looks at more than they have in common."""
        for number in range(len(self)):
            yield self._of([number])

    def by_tunnels(self) -> "Bunch":
        """Return it as who begins tunnels is told of it."""
        return self._in(replace(self.manner, is_tunnelled=True)) if self.manner.ends else self

    def where(self, accepts: Callable[[Endpoint], bool]) -> Iterator["Bunch"]:
        """Yield what is left of it when only some members count."""
        kept = [number for number, one in enumerate(self.unpacked()) if accepts(one)]
        if kept:
            yield self._of(kept)

    def speaking(self, speaks_mtls: bool) -> "Bunch":
        """Return it as an explicit rule about TLS makes it."""
        if speaks_mtls is self.speaks_mtls:
            return self
        return self._in(replace(self.manner, speaks_mtls=speaks_mtls))

    def _in(self, manner: balanced.Manner) -> "Bunch":
        return Bunch(self.pack, self.which, _manner(manner))

    def _of(self, numbers: Sequence[int]) -> "Bunch":
        """Return some of it."""
        which = list(map(ord, self.which)) or range(len(self.pack))
        ends = self.manner.ends
        kept = tuple([ends[number] for number in numbers]) if ends else ()
        manner = replace(self.manner, ends=kept)
        return _bunch(self.pack, [which[number] for number in numbers], manner)


class Bunches(dict[str, tuple[Bunch, ...]]):
    """Those of a service, by the name of its port.

    Attributes:
        memory: What places see of them: it lasts until the service has other endpoints.
    """

    __slots__ = ("memory",)

    def __init__(self, found: Mapping[str, tuple[Bunch, ...]]) -> None:
        super().__init__(found)
        self.memory = same.Memory()

    @override
    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Bunches):
            return NotImplemented
        return super().__eq__(other) and all(
            one.manner is two.manner or one.manner == two.manner
            for name, bunches in self.items()
            for one, two in zip(bunches, other[name], strict=True)
        )

    @override
    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None


NOTHING: Final = Bunches({})


def bunched(
    candidates: Candidates,
    *,
    scale: int,
    doors_of: Callable[[Likeness], Doors],
    before: Bunches = NOTHING,
) -> Bunches:
    """Return the endpoints in bunches, in order of arrival; `scale` multiplies their weights.

    Bunches of packs that are as they were `before` are the same objects.
    """
    was = dict[int, list[Bunch]]()
    for bunches in before.values():
        for one in bunches:
            was.setdefault(id(one.pack), []).append(one)
    doors, found, begin = _Doors(doors_of), dict[str, list[Bunch]](), 0
    for pack in candidates.endpoints.parts:
        end = begin + len(pack)
        sorting = _Sorting(
            pack, candidates.speaking[begin:end], candidates.ends[begin:end], scale, doors
        )
        begin = end
        for one in sorting.last(was.get(id(pack), [])) or sorting.made():
            found.setdefault(one.like.port_name, []).append(one)
    return Bunches({name: tuple(bunches) for name, bunches in found.items()})


class _Doors(dict[Where, Doors]):
    """Those that lead to endpoints; hardly two of a service's clusters are in several networks."""

    def __init__(self, doors_of: Callable[[Likeness], Doors]) -> None:
        super().__init__()
        self._doors_of = doors_of

    def of(self, like: Likeness) -> Doors:
        """Return those that lead to an endpoint."""
        where = like.cluster, like.network
        if where not in self:
            self[where] = self._doors_of(like)
        return self[where]


@dataclass(frozen=True, slots=True)
class _Sorting:
    """Sorts the endpoints of a pack.

    Attributes:
        speaking: As of `Candidates`.
        ends: As of `Candidates`.
    """

    pack: Pack
    speaking: bytes
    ends: tuple[str, ...]
    scale: int
    doors: _Doors

    def last(self, found: list[Bunch]) -> list[Bunch]:
        """Return the bunches that were made of the pack last, if the same would be made again."""
        if not found or self.ends or len(set(self.speaking)) > 1:
            return []
        speaks = bool(self.speaking[0])
        is_same = all(
            one.manner.scale == self.scale
            and one.speaks_mtls is speaks
            and not one.manner.ends
            and one.doors == self.doors.of(one.like)
            for one in found
        )
        return found if is_same else []

    def made(self) -> Iterator[Bunch]:
        """Yield the bunches."""
        sorts = dict[tuple[object, ...], list[int]]()
        ends = self.ends or itertools.repeat("")
        rows = zip(self.pack.rows(), self.speaking, ends, strict=False)
        for number, ((_, like, spot), speaks, end) in enumerate(rows):
            place = (like.port_name, like.cluster, like.network, spot.locality, speaks, end != "")
            sorts.setdefault(place, []).append(number)
        for numbers in sorts.values():
            first = numbers[0]
            told = tuple([self.ends[one] for one in numbers]) if any(self.ends) else ()
            doors = self.doors.of(self.pack.like(chr(first)))
            manner = balanced.Manner(bool(self.speaking[first]), self.scale, told, doors=doors)
            yield _bunch(self.pack, numbers, manner)


def _bunch(pack: Pack, numbers: Sequence[int], manner: balanced.Manner) -> Bunch:
    is_all = len(numbers) == len(pack)
    return Bunch(pack, packs.EVERY if is_all else packs.numbered(numbers), _manner(manner))


@functools.lru_cache(maxsize=4096)
def _manner(manner: balanced.Manner) -> balanced.Manner:
    return manner
