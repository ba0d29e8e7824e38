"""The endpoints of each cluster of a service, as seen from one place.

Places that differ only in what has no say in it, nearly always all clusters of a network, see them
alike. What the first one saw is remembered with the endpoints, so that those that follow see the same
object, be it with it or when they come.

Source: spec sections 3.4, 3.5 and 8.2.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from isthmus.base.same import Same
from isthmus.mesh import policies
from isthmus.mesh.identities import ANYWHERE
from isthmus.mesh.services import Protocol, Service
from isthmus.mesh.settings import MeshSettings
from isthmus.mesh.traffic import ClientTls, TrafficPolicy
from isthmus.mesh.workloads import Endpoint
from isthmus.views import bunches, names, preferences, rules, splithorizon, view

PLACES: Final = 256
"""So many places are remembered without their clusters."""


def outbound(
    service: Service,
    endpoints: bunches.Bunches,
    *,
    rule: policies.DestinationRule | None,
    horizon: view.HorizonScope,
    settings: MeshSettings,
) -> tuple[view.EndpointsSlice, ...]:
    """Return what clients balance among, for each port and subset that looks different from here."""
    if horizon.locality is None and not service.is_cluster_local:
        horizon = _anywhere(horizon)

    def seen() -> tuple[view.EndpointsSlice, ...]:
        found = _slices(service, endpoints, rule=rule, horizon=horizon, settings=settings)
        return tuple(found)

    return endpoints.memory.answer((service, settings), (Same(rule), horizon), seen)


@functools.lru_cache(maxsize=PLACES)
def _anywhere(horizon: view.HorizonScope) -> view.HorizonScope:
    return msgspec.structs.replace(horizon, cluster=ANYWHERE)


def _slices(
    service: Service,
    endpoints: bunches.Bunches,
    *,
    rule: policies.DestinationRule | None,
    horizon: view.HorizonScope,
    settings: MeshSettings,
) -> Iterator[view.EndpointsSlice]:
    for port, subset, members in _parts(service, endpoints, rule=rule, horizon=horizon):
        policy = rules.policy_of(rule, port=port, subset=subset, usual=settings.traffic)
        order = None
        if horizon.locality is not None:
            order = order_in(policy, service, horizon=horizon, settings=settings)
            if order is None:
                continue
        groups = splithorizon.groups_of(_as_ruled(members, policy), horizon=horizon, order=order)
        yield view.EndpointsSlice(
            names.outbound(service.hostname, port=port, subset=subset),
            groups,
            weighs_places=preferences.weighs_places(
                preferences.preference_of(policy, service, usual=settings.locality)
            ),
            is_apart=horizon.is_apart,
        )


def order_in(
    policy: TrafficPolicy, service: Service, *, horizon: view.HorizonScope, settings: MeshSettings
) -> preferences.Order | None:
    """Return how near endpoints are from a place, or None where this place has no say in it.

    A preference that looks at labels is for places that know them, any other for those that do not.
    """
    preference = preferences.preference_of(policy, service, usual=settings.locality)
    if preference is None:
        return None
    if bool(preferences.labels_wanted(preference)) is (horizon.labels is None):
        return None
    return preferences.order_of(preference, horizon)


def passed_on(
    service: Service,
    endpoints: bunches.Bunches,
    *,
    rule: policies.DestinationRule | None,
    horizon: view.HorizonScope,
    table: splithorizon.Table,
    settings: MeshSettings,
) -> Iterator[view.EndpointsSlice]:
    """Yield what a gateway passes mutual TLS on to: only what speaks it.

    No preference for places holds here: the client has chosen already, by the weight of all that it
    reaches through the gateways of this cluster.
    """
    order = splithorizon.Entrusted(horizon.cluster, table)
    for port, subset, members in _parts(service, endpoints, rule=rule, horizon=horizon):
        policy = rules.policy_of(rule, port=port, subset=subset, usual=settings.traffic)
        speaking = [one for one in _as_ruled(members, policy) if one.speaks_mtls]
        groups = splithorizon.groups_of(speaking, horizon=horizon, order=order)
        yield view.EndpointsSlice(
            names.server_name(service.hostname, port=port, subset=subset), groups
        )


def _parts(
    service: Service,
    endpoints: bunches.Bunches,
    *,
    rule: policies.DestinationRule | None,
    horizon: view.HorizonScope,
) -> Iterator[tuple[int, str, Sequence[bunches.Bunch]]]:
    """Yield port, subset and the endpoints in view that belong to both."""
    is_local = service.is_cluster_local
    for port in service.ports:
        if port.protocol is Protocol.UDP:
            continue
        seen = [
            bunch
            for bunch in endpoints.get(port.name, ())
            if splithorizon.is_in_view(bunch.like, horizon=horizon, is_cluster_local=is_local)
        ]
        for subset in rules.subsets_of(rule):
            if not subset.labels:
                yield port.number, subset.name, seen
                continue
            selected = _selected(subset)
            yield port.number, subset.name, [one for all_ in seen for one in all_.where(selected)]


def _selected(subset: policies.Subset) -> Callable[[Endpoint], bool]:
    wanted = set(subset.labels)
    return lambda one: wanted.issubset(one.labels)


def _as_ruled(found: Sequence[bunches.Bunch], policy: TrafficPolicy) -> Sequence[bunches.Bunch]:
    """Return the endpoints as an explicit rule about TLS makes them."""
    if policy.mode is ClientTls.AUTO:
        return found
    speaks = policy.mode is ClientTls.ISTIO_MUTUAL
    return [one.speaking(speaks) for one in found]
