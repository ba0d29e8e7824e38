"""Which addresses stand for a service's endpoints, seen from one cluster and network.

Endpoints of the same network are addressed directly. Those of another network stand behind its
gateways, which share their weight; a gateway passes only mutual TLS, so that what does not speak
it is left out, as is what stands only behind gateways that are down. Weights are scaled so that
sharing leaves no remainder: a request is as likely to go to any one pod, near or far.

A gateway's address appears once: Envoy keeps the first of equal addresses and forgets the weight
of the others. It stands where the nearest of what it hides is.

Source: spec section 3.4; docs/decisions/0003-one-gateway-endpoint-per-priority.md and
0009-a-gateway-stands-at-the-nearest-priority.md.
"""

import functools
import ipaddress
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from isthmus.mesh.identities import ClusterId, NetworkId
from isthmus.mesh.networks import NetworkGateway
from isthmus.mesh.workloads import Endpoint
from isthmus.views import bunches, locality, preferences, view

Candidate = bunches.Candidate
GatewaysByPlace = Mapping[tuple[NetworkId, ClusterId | None], tuple[NetworkGateway, ...]]


@dataclass(frozen=True, slots=True)
class Table:
    """All gateways that pass mutual TLS on.

    Attributes:
        scale: What weights are multiplied with, so that any gateways can share them.
        by_place: Those that are up of a network and cluster, and with None those of a network.
    """

    gateways: tuple[NetworkGateway, ...]
    scale: int
    by_place: GatewaysByPlace = field(compare=False, repr=False)

    def hides(self, endpoint: Endpoint) -> bool:
        """Say whether an endpoint's network has gateways, be they up or down."""
        return (endpoint.network, None) in self.by_place

    def before(self, endpoint: Endpoint) -> Sequence[NetworkGateway]:
        """Return the gateways through which an endpoint is reached from other networks now."""
        own = self.by_place.get((endpoint.network, endpoint.cluster))
        return own or self.by_place.get((endpoint.network, None), ())


@dataclass(frozen=True, slots=True)
class Hidden:
    """What stands behind one address of a gateway: weight by nearness and place.

    Attributes:
        clusters: Those that say the address is their gateway's; more than one is a mistake.
    """

    clusters: set[ClusterId] = field(default_factory=set)
    shares: dict[locality.Spot, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entrusted:
    """The order in which a cluster's gateways pass connections on.

    First to what clients of other networks reach through them, as they have weighed it; to what
    they reach through the gateways of another cluster only when nothing else is left.
    """

    cluster: ClusterId
    table: Table

    def rank_of(self, endpoint: Endpoint) -> int:
        """Return how far an endpoint is; 0 is nearest."""
        doors = self.table.before(endpoint)
        return int(bool(doors) and all(one.cluster not in {"", self.cluster} for one in doors))

    @property
    def looks_closely(self) -> bool:
        """Whether it tells endpoints apart that stand in the same place."""
        return False

    def shares(self) -> tuple[tuple[str, int], ...]:
        """Return nothing: no shares of places are asked for."""
        return ()


def table_of(gateways: Iterable[NetworkGateway]) -> Table:
    """Arrange the mesh's gateways for looking them up."""
    usable = tuple(
        sorted((one for one in gateways if one.port), key=lambda one: (one.address, one.port, one))
    )
    places = dict[tuple[NetworkId, ClusterId | None], list[NetworkGateway]]()
    for gateway in usable:
        for place in ((gateway.network, gateway.cluster), (gateway.network, None)):
            up = [gateway] if gateway.is_up else []
            places.setdefault(place, []).extend(up)
    scale = math.lcm(*(len(members) or 1 for members in places.values()))
    return Table(usable, scale, {place: tuple(members) for place, members in places.items()})


def is_in_view(endpoint: Endpoint, *, horizon: view.HorizonScope, is_cluster_local: bool) -> bool:
    """Say whether an endpoint may be told of at all."""
    if is_cluster_local and endpoint.cluster != horizon.cluster:
        return False
    wanted = horizon.requested_networks
    return not wanted or not endpoint.network or endpoint.network in wanted


def groups_of(
    found: Iterable[bunches.Bunch],
    *,
    horizon: view.HorizonScope,
    table: Table,
    order: preferences.Order | Entrusted | None = None,
) -> tuple[view.LocalityGroup, ...]:
    """Return what a client balances among; without an order all are equally near."""
    placed = dict[locality.Spot, list[bunches.Bunch]]()
    hidden = dict[tuple[str, int], Hidden]()
    if order is not None and order.looks_closely:
        found = [single for bunch in found for single in bunch.apart()]
    for bunch in found:
        like = bunch.like
        spot = (0 if order is None else order.rank_of(like), like.locality)
        if not is_hidden(like, horizon=horizon, table=table):
            placed.setdefault(spot, []).append(bunch)
        elif bunch.speaks_mtls:
            _hide(bunch, spot, behind=_dialable(table.before(like)), hidden=hidden)
    shares = () if order is None else order.shares()
    if shares:
        return locality.distributed([*_single(placed), *_gateways(hidden)], shares)
    return locality.grouped(_gateways(hidden), placed=placed)


def _single(placed: locality.Placed) -> Iterator[locality.Part]:
    for spot, found in placed.items():
        for bunch in found:
            for member in bunch.members:
                yield locality.Part(member, {spot: member.weight})


def is_hidden(endpoint: Endpoint, *, horizon: view.HorizonScope, table: Table) -> bool:
    """Say whether an endpoint stands behind gateways, seen from a place."""
    if not endpoint.network or not table.hides(endpoint):
        return False
    # A client in no known network must not assume that it is in that of the endpoint.
    return not horizon.network or endpoint.network != horizon.network


def _hide(
    bunch: bunches.Bunch,
    spot: locality.Spot,
    *,
    behind: Sequence[NetworkGateway],
    hidden: dict[tuple[str, int], Hidden],
) -> None:
    for gateway in behind:
        known = hidden.setdefault((gateway.address, gateway.port), Hidden())
        known.clusters.add(gateway.cluster)
        share = sum(weight // len(behind) * count for weight, count in bunch.weights)
        known.shares[spot] = known.shares.get(spot, 0) + share


def _dialable(gateways: Sequence[NetworkGateway]) -> tuple[NetworkGateway, ...]:
    """Return the gateways that have an address; a name cannot be told as an endpoint."""
    return tuple(gateway for gateway in gateways if is_address(gateway.address))


@functools.lru_cache(maxsize=4096)
def is_address(text: str) -> bool:
    """Say whether a text is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _gateways(hidden: Mapping[tuple[str, int], Hidden]) -> Iterator[locality.Part]:
    for (address, port), behind in hidden.items():
        yield locality.Part(_gateway(address, port, min(behind.clusters)), behind.shares)


@functools.lru_cache(maxsize=4096)
def _gateway(address: str, port: int, cluster: ClusterId) -> view.LbEndpoint:
    return view.LbEndpoint(address, port, weight=1, speaks_mtls=True, workload=f";;;;{cluster}")
