"""Why each endpoint of a service gets its share of a client's calls, or none.

Nothing here decides: what a client is told has been decided and is handed in. Each endpoint that
the mesh knows is held against it, and the reason why one is absent is found by asking the very
functions that left it out. Computed only when somebody asks.

Source: spec sections 3.4 and 8.1; Envoy's documentation of priority levels.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from isthmus.base import hashing
from isthmus.mesh import policies
from isthmus.mesh.services import Service
from isthmus.mesh.traffic import ClientTls, TrafficPolicy
from isthmus.mesh.workloads import Endpoint, Health
from isthmus.views import splithorizon, view

OVERPROVISIONING: Final = 1.4
"""Envoy spills over to the next priority when less than 1/1.4 of the endpoints are well."""


class Reason(hashing.Word):
    """Why a client does not call an endpoint."""

    CLUSTER_LOCAL = "the service is cluster-local, and this is another cluster"
    NETWORK_VIEW = "the client asked for the endpoints of other networks only"
    SUBSET = "it lacks the labels of the subset"
    NOT_READY = "its cluster says that it is not ready"
    NO_MTLS = "it speaks no mutual TLS, and gateways pass nothing else"
    GATEWAY_DOWN = "no gateway of its network has a pod that is ready"
    GATEWAY_NAMELESS = "the address of its gateway is a name that leads nowhere yet"
    OTHER_NETWORK = "the client dials pods itself, and this one is in another network"
    NO_SHARE = "a locality rule gives its place no share"


@dataclass(frozen=True, slots=True)
class Told:
    """One address that a client balances among, with its expected share of the calls, 0 to 1."""

    address: str
    port: int
    priority: int
    weight: int
    share: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of one endpoint.

    Attributes:
        via: The gateways behind which it is hidden; empty when it is called directly.
        share: The part of the calls that it gets, 0 to 1.
        reason: Why it gets none; None when it is told.
    """

    endpoint: Endpoint
    speaks_mtls: bool
    told: tuple[Told, ...] = ()
    via: tuple[Told, ...] = ()
    share: float = 0.0
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """One cluster of Envoy, as its clients in one place see it.

    Attributes:
        subset: The subset that it stands for; its labels are those that endpoints must have.
        slice: What clients are told; None when they dial the endpoints' addresses themselves.
        weighs_places: Whether a client picks a place by weight first.
        dialled: For endpoints that clients dial themselves: those that they can reach.
    """

    service: Service
    port_name: str
    subset: policies.Subset
    policy: TrafficPolicy
    horizon: view.HorizonScope
    table: splithorizon.Table
    slice: view.EndpointsSlice | None
    weighs_places: bool = False
    dialled: frozenset[tuple[str, int]] = field(default=frozenset())


def shares_of(groups: Sequence[view.Group], *, weighs_places: bool) -> tuple[Told, ...]:
    """Return all addresses with the share of calls that each may expect.

    By Envoy's rules: priorities by how many of their endpoints are well, then places by weight
    where that is wanted, then endpoints by weight. Endpoints that are not well get nothing.
    """
    loads = _loads(groups)
    found = []
    for group in groups:
        same = [one for one in groups if one.priority == group.priority and _well(one)]
        whole = sum(_weight(one, weighs_places=weighs_places) for one in same)
        inner = sum(one.weight for one in _well(group))
        part = _weight(group, weighs_places=weighs_places) / whole if whole and inner else 0.0
        for one in group.endpoints:
            is_well = one.health is Health.HEALTHY
            share = loads[group.priority] * part * one.weight / inner if is_well and inner else 0.0
            found.append(Told(one.address, one.port, group.priority, one.weight, share))
    return tuple(found)


def verdicts(
    question: Question, candidates: Iterable[splithorizon.Candidate], unready: Iterable[Endpoint]
) -> tuple[Verdict, ...]:
    """Return what becomes of each endpoint of a port, those that get calls first."""
    groups = question.slice.groups if question.slice is not None else ()
    shares = shares_of(groups, weighs_places=question.weighs_places)
    told = {(one.address, one.port): one for one in shares}
    members = [one for one in candidates if one.endpoint.port_name == question.port_name]
    found = [_verdict(question, one, told) for one in members]
    weights = _weights_behind(found)
    shared = [_with_share(one, weights) for one in found]
    known = {(one.cluster, one.address, one.port) for one in (each.endpoint for each in members)}
    shared += [
        Verdict(one, one.accepts_mtls, reason=Reason.NOT_READY)
        for one in unready
        if one.port_name == question.port_name and (one.cluster, one.address, one.port) not in known
    ]
    return tuple(sorted(shared, key=_order))


def _verdict(
    question: Question,
    candidate: splithorizon.Candidate,
    told: Mapping[tuple[str, int], Told],
) -> Verdict:
    endpoint = candidate.endpoint
    speaks = _speaks(candidate, question.policy)
    refused = _reason(question, endpoint, speaks=speaks)
    if refused is not None:
        return Verdict(endpoint, speaks, reason=refused)
    # In a tunnel mutual TLS is spoken, too, whatever a rule says of the endpoint itself.
    speaks = speaks or (question.slice is not None and _is_tunnelled(question, candidate))
    own = (endpoint.address, endpoint.port)
    if question.slice is None:
        # The kernel of the client has chosen, before its proxy saw anything.
        mine = (Told(*own, priority=0, weight=1, share=0.0),) if own in question.dialled else ()
        return Verdict(endpoint, speaks, told=mine, reason=None if mine else Reason.OTHER_NETWORK)
    is_hidden = splithorizon.is_hidden(endpoint, horizon=question.horizon, table=question.table)
    before = question.table.before(endpoint) if is_hidden else ()
    places = [(one.address, one.port) for one in before] if is_hidden else [own]
    found = tuple(told[place] for place in places if place in told)
    if not found:
        return Verdict(endpoint, speaks, reason=Reason.NO_SHARE)
    if is_hidden:
        return Verdict(endpoint, speaks, via=found)
    return Verdict(endpoint, speaks, told=found, share=found[0].share)


def _is_tunnelled(question: Question, candidate: splithorizon.Candidate) -> bool:
    return question.horizon.begins_tunnels and candidate.tunnel_end != ""


def _reason(question: Question, endpoint: Endpoint, *, speaks: bool) -> Reason | None:
    """Return why an endpoint is left out before anybody looks at where it is."""
    horizon, table = question.horizon, question.table
    if not splithorizon.is_in_view(
        endpoint, horizon=horizon, is_cluster_local=question.service.is_cluster_local
    ):
        is_open = splithorizon.is_in_view(endpoint, horizon=horizon, is_cluster_local=False)
        return Reason.CLUSTER_LOCAL if is_open else Reason.NETWORK_VIEW
    if not set(question.subset.labels).issubset(endpoint.labels):
        return Reason.SUBSET
    if question.slice is None or not splithorizon.is_hidden(endpoint, horizon=horizon, table=table):
        return None
    return _reason_behind(endpoint, table, speaks=speaks)


def _reason_behind(endpoint: Endpoint, table: splithorizon.Table, *, speaks: bool) -> Reason | None:
    """Return why an endpoint cannot be reached through the gateways of its network."""
    before = table.before(endpoint)
    if not speaks:
        return Reason.NO_MTLS
    if not before:
        return Reason.GATEWAY_DOWN
    is_dialable = any(splithorizon.is_address(one.address) for one in before)
    return None if is_dialable else Reason.GATEWAY_NAMELESS


def _speaks(candidate: splithorizon.Candidate, policy: TrafficPolicy) -> bool:
    """Say whether mutual TLS is spoken to an endpoint, under an explicit rule or by itself."""
    if policy.mode is ClientTls.AUTO:
        return candidate.speaks_mtls
    return policy.mode is ClientTls.ISTIO_MUTUAL


def _weights_behind(found: Iterable[Verdict]) -> Mapping[tuple[str, int], float]:
    """Return what stands behind each gateway's address in all."""
    weights = dict[tuple[str, int], float]()
    for one in found:
        for gateway in one.via:
            place = (gateway.address, gateway.port)
            weights[place] = weights.get(place, 0.0) + _part(one)
    return weights


def _with_share(one: Verdict, weights: Mapping[tuple[str, int], float]) -> Verdict:
    """Return a hidden endpoint with its part of what its gateways get.

    A gateway does not know which of its endpoints the client prefers: all get the same.
    """
    if not one.via:
        return one
    share = sum(
        gateway.share * _part(one) / weights[gateway.address, gateway.port] for gateway in one.via
    )
    return Verdict(one.endpoint, one.speaks_mtls, via=one.via, share=share)


def _part(one: Verdict) -> float:
    return (one.endpoint.weight or 1) / len(one.via)


def _order(one: Verdict) -> tuple[bool, bool, int, str, str, int]:
    addresses = (*one.told, *one.via)
    priority = min((each.priority for each in addresses), default=0)
    endpoint = one.endpoint
    return (
        one.reason is not None,
        bool(one.via),
        priority,
        endpoint.cluster,
        endpoint.address,
        endpoint.port,
    )


def _well(group: view.Group) -> list[view.LbEndpoint]:
    return [one for one in group.endpoints if one.health is Health.HEALTHY]


def _weight(group: view.Group, *, weighs_places: bool) -> int:
    return group.weight if weighs_places else sum(one.weight for one in _well(group))


def _loads(groups: Sequence[view.Group]) -> dict[int, float]:
    """Return the part of all calls that each priority gets."""
    levels = sorted({group.priority for group in groups})
    health = dict[int, float]()
    for level in levels:
        same = [group for group in groups if group.priority == level]
        count = sum(len(group.endpoints) for group in same)
        well = sum(len(_well(group)) for group in same)
        health[level] = min(1.0, OVERPROVISIONING * well / count) if count else 0.0
    whole = min(1.0, sum(health.values()))
    left, loads = 1.0, dict[int, float]()
    for level in levels:
        loads[level] = min(left, health[level] / whole) if whole else 0.0
        left -= loads[level]
    return loads
