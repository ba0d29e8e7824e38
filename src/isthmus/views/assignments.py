"""The endpoints of each cluster of a service, as seen from one place.

Source: spec sections 3.4, 3.5 and 8.2.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from isthmus.mesh import policies
from isthmus.mesh.services import Protocol, Service
from isthmus.views import names, rules, splithorizon, view

Candidates = Sequence[splithorizon.Candidate]


def outbound(
    service: Service,
    candidates: Candidates,
    *,
    rule: policies.DestinationRule | None,
    horizon: view.HorizonScope,
    table: splithorizon.Table,
) -> Iterator[view.EndpointsSlice]:
    """Yield what clients balance among, for each port and subset."""
    seen = _in_view(service, candidates, horizon=horizon)
    for port, subset, members in _parts(service, seen, rule=rule):
        policy = rules.policy_of(rule, subset=subset)
        groups = splithorizon.groups_of(_as_ruled(members, policy), horizon=horizon, table=table)
        yield view.EndpointsSlice(
            names.outbound(service.hostname, port=port, subset=subset), groups
        )


def passed_on(
    service: Service,
    candidates: Candidates,
    *,
    rule: policies.DestinationRule | None,
    horizon: view.HorizonScope,
    table: splithorizon.Table,
) -> Iterator[view.EndpointsSlice]:
    """Yield what a gateway passes mutual TLS on to: only what speaks it."""
    seen = _in_view(service, candidates, horizon=horizon)
    for port, subset, members in _parts(service, seen, rule=rule):
        policy = rules.policy_of(rule, subset=subset)
        speaking = [one for one in _as_ruled(members, policy) if one.speaks_mtls]
        groups = splithorizon.groups_of(speaking, horizon=horizon, table=table)
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


def _as_ruled(candidates: Candidates, policy: policies.TrafficPolicy) -> Candidates:
    """Return the candidates as an explicit rule about TLS makes them."""
    if policy.tls is policies.ClientTls.AUTO:
        return candidates
    speaks = policy.tls is policies.ClientTls.ISTIO_MUTUAL
    return [replace(one, speaks_mtls=speaks) for one in candidates]
