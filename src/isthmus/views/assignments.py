"""The endpoints of each cluster of a service, as seen from one place.

Source: spec sections 3.4, 3.5 and 8.2.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from isthmus.mesh import policies
from isthmus.mesh.services import Protocol, Service
from isthmus.mesh.settings import MeshSettings
from isthmus.mesh.traffic import ClientTls, TrafficPolicy
from isthmus.views import names, preferences, rules, splithorizon, view

Candidates = Sequence[splithorizon.Candidate]


def outbound(
    service: Service,
    candidates: Candidates,
    *,
    rule: policies.DestinationRule | None,
    horizon: view.HorizonScope,
    table: splithorizon.Table,
    settings: MeshSettings,
) -> Iterator[view.EndpointsSlice]:
    """Yield what clients balance among, for each port and subset that looks different from here."""
    seen = _in_view(service, candidates, horizon=horizon)
    for port, subset, members in _parts(service, seen, rule=rule):
        policy = rules.policy_of(rule, port=port, subset=subset, usual=settings.traffic)
        order = None
        if horizon.locality is not None:
            order = order_in(policy, service, horizon=horizon, settings=settings)
            if order is None:
                continue
        groups = splithorizon.groups_of(
            _as_ruled(members, policy), horizon=horizon, table=table, order=order
        )
        yield view.EndpointsSlice(
            names.outbound(service.hostname, port=port, subset=subset), groups
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
    candidates: Candidates,
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
    seen = _in_view(service, candidates, horizon=horizon)
    for port, subset, members in _parts(service, seen, rule=rule):
        policy = rules.policy_of(rule, port=port, subset=subset, usual=settings.traffic)
        speaking = [one for one in _as_ruled(members, policy) if one.speaks_mtls]
        groups = splithorizon.groups_of(speaking, horizon=horizon, table=table, order=order)
        yield view.EndpointsSlice(
            names.server_name(service.hostname, port=port, subset=subset), groups
        )


def _in_view(
    service: Service, candidates: Candidates, *, horizon: view.HorizonScope
) -> list[splithorizon.Candidate]:
    return [
        one
        for one in candidates
        if splithorizon.is_in_view(
            one.endpoint, horizon=horizon, is_cluster_local=service.is_cluster_local
        )
    ]


def _parts(
    service: Service, candidates: Candidates, *, rule: policies.DestinationRule | None
) -> Iterator[tuple[int, str, Candidates]]:
    """Yield port, subset and the endpoints that belong to both."""
    for port in service.ports:
        if port.protocol is Protocol.UDP:
            continue
        members = [one for one in candidates if one.endpoint.port_name == port.name]
        for subset in rules.subsets_of(rule):
            yield port.number, subset.name, list(filter(_selected(subset), members))


def _selected(subset: policies.Subset) -> Callable[[splithorizon.Candidate], bool]:
    wanted = set(subset.labels)
    return lambda one: not wanted or wanted.issubset(one.endpoint.labels)


def _as_ruled(candidates: Candidates, policy: TrafficPolicy) -> Candidates:
    """Return the candidates as an explicit rule about TLS makes them."""
    if policy.mode is ClientTls.AUTO:
        return candidates
    speaks = policy.mode is ClientTls.ISTIO_MUTUAL
    return [replace(one, speaks_mtls=speaks) for one in candidates]
