"""A service's endpoints, put together where they look alike from everywhere but for their address.

Whoever looks decides by cluster, network, place and port what becomes of an endpoint. So this is
decided for a bunch at once, and what is told of each member is made once for all who look.

Source: docs/decisions/0033-endpoints-are-weighed-in-bunches.md.
"""

import operator
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from isthmus.mesh.identities import ClusterId, NetworkId
from isthmus.mesh.localities import Locality
from isthmus.mesh.workloads import Endpoint
from isthmus.views import view

MOST: Final = 2**32 - 1
"""The largest weight."""

IN_ORDER: Final = operator.attrgetter("address", "port")


@dataclass(frozen=True, slots=True)
class Candidate:
    """An endpoint of a service, with what the mesh's policies say of it."""

    endpoint: Endpoint
    speaks_mtls: bool
    workload: str


@dataclass(frozen=True, slots=True)
class Bunch:
    """Endpoints of one port, cluster, network and place, all of which speak mutual TLS, or none.

    Attributes:
        like: Any one of them, for what they have in common.
        endpoints: In the order of their addresses.
        members: What is told of each to who dials it; follows from the others.
        weights: How many have which weight, before sharing.
    """

    like: Endpoint
    speaks_mtls: bool
    endpoints: tuple[Endpoint, ...]
    members: tuple[view.LbEndpoint, ...] = field(compare=False, repr=False)
    weights: tuple[tuple[int, int], ...]

    @property
    def weight(self) -> int:
        """The sum of what its members weigh."""
        return sum(weight * count for weight, count in self.weights)

    def apart(self) -> Iterator["Bunch"]:
        """Yield a bunch for each member, for who looks at more than they have in common."""
        for endpoint, member in zip(self.endpoints, self.members, strict=True):
            yield Bunch(endpoint, self.speaks_mtls, (endpoint,), (member,), ((member.weight, 1),))

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
            )

    def speaking(self, speaks_mtls: bool) -> "Bunch":
        """Return it as an explicit rule about TLS makes it."""
        if speaks_mtls is self.speaks_mtls:
            return self
        members = tuple(
            _told(endpoint, speaks_mtls, workload=member.workload, weight=member.weight)
            for endpoint, member in zip(self.endpoints, self.members, strict=True)
        )
        return Bunch(self.like, speaks_mtls, self.endpoints, members, self.weights)


Bunches = Mapping[str, tuple[Bunch, ...]]
"""By the name of the service's port."""

NOTHING: Final[Bunches] = {}


class _Sort(NamedTuple):
    """What the members of a bunch have in common."""

    port_name: str
    cluster: ClusterId
    network: NetworkId
    locality: Locality
    speaks_mtls: bool


def bunched(candidates: Iterable[Candidate], *, scale: int) -> Bunches:
    """Return the endpoints in bunches, in order of arrival; `scale` multiplies their weights."""
    sorts = dict[_Sort, list[Candidate]]()
    for one in candidates:
        at = one.endpoint
        sort = _Sort(at.port_name, at.cluster, at.network, at.locality, one.speaks_mtls)
        sorts.setdefault(sort, []).append(one)
    found = dict[str, list[Bunch]]()
    for sort, alike in sorts.items():
        found.setdefault(sort.port_name, []).append(_bunch(alike, scale))
    return {name: tuple(bunches) for name, bunches in found.items()}


def _bunch(alike: list[Candidate], scale: int) -> Bunch:
    told = [
        (one.endpoint, _told(one.endpoint, one.speaks_mtls, workload=one.workload, weight=weight))
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
    )


def _told(endpoint: Endpoint, speaks_mtls: bool, *, workload: str, weight: int) -> view.LbEndpoint:
    return view.LbEndpoint(
        endpoint.address, endpoint.port, weight, endpoint.health, speaks_mtls, workload
    )


def _counted(weights: Iterable[int]) -> tuple[tuple[int, int], ...]:
    return tuple(sorted(Counter(weights).items()))


def _in_order(told: tuple[Endpoint, view.LbEndpoint]) -> tuple[str, int]:
    return told[1].address, told[1].port
