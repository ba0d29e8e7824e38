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
from isthmus.mesh.workloads import Endpoint, Likeness
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

    def hides(self, endpoint: Endpoint | Likeness) -> bool:
        """Say whether an endpoint's network has gateways, be they up or down."""
        return (endpoint.network, None) in self.by_place

    def before(self, endpoint: Endpoint | Likeness) -> Sequence[NetworkGateway]:
        """Return the gateways through which an endpoint is reached from other networks now."""
        own = self.by_place.get((endpoint.network, endpoint.cluster))
        return own or self.by_place.get((endpoint.network, None), ())

    def doors_of(self, endpoint: Likeness) -> bunches.Doors:
        """Return those of them that have an address; a name cannot be told as an endpoint."""
        if not endpoint.network or not self.hides(endpoint):
            return None
        return tuple(one for one in self.before(endpoint) if is_address(one.address))


@dataclass(frozen=True, slots=True)
class Entrusted:
    """The order in which a cluster's gateways pass connections on.

    First to what clients of other networks reach through them, as they have weighed it; to what
    they reach through the gateways of another cluster only when nothing else is left.
    """

    cluster: ClusterId
    table: Table
    is_strict = False

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


def is_in_view(
    endpoint: Endpoint | Likeness, *, horizon: view.HorizonScope, is_cluster_local: bool
) -> bool:
    """Say whether an endpoint may be told of at all."""
    if is_cluster_local and endpoint.cluster != horizon.cluster:
        return False
    wanted = horizon.requested_networks
    return not wanted or not endpoint.network or endpoint.network in wanted


def groups_of(
    found: Iterable[bunches.Bunch],
    *,
    horizon: view.HorizonScope,
    order: preferences.Order | Entrusted | None = None,
) -> tuple[view.Group, ...]:
    """Return what a client balances among; without an order all are equally near."""
    placed = dict[locality.Spot, list[bunches.Bunch]]()
    hidden = Hidden()
    if order is not None and order.looks_closely:
        found = [single for bunch in found for single in bunch.apart()]
    for bunch in found:
        spot = (0 if order is None else order.rank_of(bunch.first), bunch.locality)
        if order is not None and order.is_strict and spot[0]:
            continue
        if not stands_behind(bunch, horizon):
            seen = bunch.by_tunnels() if horizon.begins_tunnels else bunch
            placed.setdefault(spot, []).append(seen)
        elif bunch.speaks_mtls:
            hidden.add(bunch, spot)
    shares = () if order is None else order.shares()
    if shares:
        return locality.distributed([*_single(placed), *hidden.gateways()], shares)
    return locality.grouped(hidden.gateways(), placed=placed)


class Hidden:
    """What stands behind each address of a gateway: weight by nearness and place."""

    def __init__(self) -> None:
        self._shares: dict[tuple[str, int], dict[locality.Spot, int]] = {}
        # More than one cluster that says that an address is its gateway's is a mistake.
        self._owners: dict[tuple[str, int], ClusterId] = {}

    def add(self, bunch: bunches.Bunch, spot: locality.Spot) -> None:
        """Share the weight of a bunch among the gateways before it."""
        doors = bunch.doors or ()
        share = bunch.share(len(doors)) if doors else 0
        for gateway in doors:
            place = (gateway.address, gateway.port)
            known = self._shares.get(place)
            if known is None:
                known = self._shares[place] = {}
                self._owners[place] = gateway.cluster
            elif gateway.cluster < self._owners[place]:
                self._owners[place] = gateway.cluster
            known[spot] = known.get(spot, 0) + share

    def gateways(self) -> Iterator[locality.Part]:
        """Yield the gateways with what stands behind them."""
        for place, shares in self._shares.items():
            yield locality.Part(_gateway(*place, self._owners[place]), shares)


def _single(placed: locality.Placed) -> Iterator[locality.Part]:
    for spot, found in placed.items():
        for bunch in found:
            for member in bunch:
                yield locality.Part(member, {spot: member.weight})


def stands_behind(bunch: bunches.Bunch, horizon: view.HorizonScope) -> bool:
    """Say whether a bunch stands behind gateways, seen from a place."""
    return bunch.doors is not None and _is_elsewhere(bunch.like, horizon)


def is_hidden(endpoint: Endpoint, *, horizon: view.HorizonScope, table: Table) -> bool:
    """Say whether an endpoint stands behind gateways, seen from a place."""
    if not endpoint.network or not table.hides(endpoint):
        return False
    return _is_elsewhere(endpoint, horizon)


def _is_elsewhere(endpoint: Endpoint | Likeness, horizon: view.HorizonScope) -> bool:
    # A client in no known network must not assume that it is in that of the endpoint.
    return not horizon.network or endpoint.network != horizon.network


@functools.lru_cache(maxsize=4096)
def is_address(text: str) -> bool:
    """Say whether a text is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


@functools.lru_cache(maxsize=4096)
def _gateway(address: str, port: int, cluster: ClusterId) -> view.LbEndpoint:
    return view.LbEndpoint(address, port, weight=1, speaks_mtls=True, workload=f";;;;{cluster}")
