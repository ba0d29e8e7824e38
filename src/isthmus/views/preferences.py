"""Which endpoints are nearer to a client, and which labels of clients that depends on.

Nearness counts only where a client notices endpoints that fail, or where a Service itself asks
for it: without outlier detection all endpoints are equal.

Source: spec section 8.1; docs/decisions/0009-a-gateway-stands-at-the-nearest-priority.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from isthmus.mesh.localities import Locality
from isthmus.mesh.services import Service
from isthmus.mesh.traffic import LoadBalancer, LocalityPreference, TrafficPolicy, matches
from isthmus.mesh.workloads import Endpoint
from isthmus.views import nearness, view

REGION: Final = "topology.kubernetes.io/region"
ZONE: Final = "topology.kubernetes.io/zone"
SUBZONE: Final = "topology.istio.io/subzone"
CLUSTER: Final = "topology.istio.io/cluster"
NETWORK: Final = "topology.istio.io/network"
OF_PLACES: Final = frozenset({REGION, ZONE, SUBZONE, CLUSTER, NETWORK})
"""Labels whose values follow from where a client stands."""

RANKS: Final = 5
OWN_NODE: Final = LocalityPreference(
    labels=((CLUSTER, None), ("kubernetes.io/hostname", None)), is_forced=True, is_strict=True
)
"""What `internalTrafficPolicy: Local` means, whatever a rule says of places."""


@dataclass(frozen=True, slots=True)
class Order:
    """How near endpoints are to clients that stand in one place."""

    preference: LocalityPreference
    place: Locality
    labels: Mapping[str, str]

    @property
    def looks_closely(self) -> bool:
        """Whether it tells endpoints apart that stand in the same place."""
        return bool(self.preference.labels)

    @property
    def is_strict(self) -> bool:
        """Whether only the nearest endpoints are called."""
        return self.preference.is_strict

    def rank_of(self, endpoint: Endpoint) -> int:
        """Return how far an endpoint is; 0 is nearest."""
        preference = self.preference
        if preference.distribute:
            return 0
        rank = self._by_labels(endpoint)
        if preference.labels and not preference.failover:
            return rank
        return rank * RANKS + self._by_place(endpoint.locality)

    def shares(self) -> tuple[tuple[str, int], ...]:
        """Return how many percent go to which places; empty when nothing says so."""
        for one in self.preference.distribute:
            if matches(one.origin, self.place):
                return one.to
        return ()

    def _by_labels(self, endpoint: Endpoint) -> int:
        wanted = self.preference.labels
        known = dict(endpoint.labels) if wanted else {}
        shared = [
            known.get(key, "") == (self.labels.get(key, "") if value is None else value)
            for key, value in wanted
        ]
        # A Service's own wish is obeyed by node proxies too, who know the network apart; a list of
        # labels in a DestinationRule is read as Envoy's users know it.
        network_first = self.preference.is_forced and wanted[:1] == ((NETWORK, None),)
        most = nearness.most(len(wanted), network_first=network_first)
        return most - nearness.rank_of(shared, network_first=network_first)

    def _by_place(self, place: Locality) -> int:
        own = self.place
        if place.region == own.region:
            if place.zone != own.zone:
                return 2
            return int(place.subzone != own.subzone)
        stands_in = dict(reversed(self.preference.failover)).get(own.region, place.region)
        return 3 if stands_in == place.region else 4


def preference_of(
    policy: TrafficPolicy, service: Service, *, usual: LocalityPreference
) -> LocalityPreference | None:
    """Return what makes endpoints near under a policy; None when all are equal.

    `usual` is what the mesh says where neither the policy nor the service says anything.
    """
    if service.keeps_to_node:
        return OWN_NODE
    balancing = policy.balancing
    if balancing is not None and balancing.balancer is LoadBalancer.PASSTHROUGH:
        return None
    found = balancing.locality if balancing is not None else None
    if found is None:
        labels = tuple((key, None) for key in service.nearness)
        found = LocalityPreference(labels=labels, is_forced=True) if labels else usual
    if not found.is_enabled:
        return None
    is_noticed = policy.outlier is not None or found.is_forced
    return found if found.distribute or is_noticed else None


def weighs_places(preference: LocalityPreference | None) -> bool:
    """Say whether a client first picks a place by weight, and then an endpoint in it."""
    return preference is not None and bool(
        preference.distribute or preference.failover or preference.labels
    )


def labels_wanted(preference: LocalityPreference) -> frozenset[str]:
    """Return the labels of clients that a preference looks at, but for those of places."""
    if preference.distribute:
        return frozenset()
    return frozenset(key for key, value in preference.labels if value is None) - OF_PLACES


def order_of(preference: LocalityPreference, horizon: view.HorizonScope) -> Order:
    """Return the order of endpoints as seen from a place."""
    place = horizon.locality or Locality()
    own = {
        REGION: place.region,
        ZONE: place.zone,
        SUBZONE: place.subzone,
        CLUSTER: horizon.cluster,
        NETWORK: horizon.network,
    }
    return Order(preference, place, {**dict(horizon.labels or ()), **own})
