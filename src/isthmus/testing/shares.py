"""Which endpoints of an assignment Envoy uses while all are well, and how often each."""

from fractions import Fraction

from isthmus.testing import envoys

Group = tuple[int, list[envoys.Message]]
"""The weight of a place, and its endpoints."""


def nearest(assignment: envoys.Message) -> list[Group]:
    """Return the endpoints that Envoy uses: of equal addresses only the first, and the nearest."""
    seen = set[tuple[str, int]]()
    by_priority = dict[int, list[Group]]()
    for group in assignment.endpoints:
        kept = []
        for one in group.lb_endpoints:
            place = one.endpoint.address.socket_address
            key = (place.address, place.port_value)
            if key not in seen and one.health_status in {0, 1}:
                seen.add(key)
                kept.append(one)
        if kept:
            groups = by_priority.setdefault(group.priority, [])
            groups.append((group.load_balancing_weight.value, kept))
    return by_priority[min(by_priority)] if by_priority else []


def of(assignment: envoys.Message, *, by_place: bool) -> list[tuple[envoys.Message, Fraction]]:
    """Return each endpoint's share; by place, where clients pick a place first."""
    groups = nearest(assignment)
    sums = [sum(one.load_balancing_weight.value for one in group) for _, group in groups]
    weights = [weight for weight, _ in groups] if by_place else sums
    return [
        (one, Fraction(weight, sum(weights)) * Fraction(one.load_balancing_weight.value, own))
        for (_, group), weight, own in zip(groups, weights, sums, strict=True)
        for one in group
    ]
