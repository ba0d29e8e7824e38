"""What a network's firewall rules let through.

Decides by the cloud's own order: the lowest priority number first, at the same number refusals
first, and at the end everything inbound is refused. Where a rule is about only a part of the
addresses asked about, doubt counts against the traffic: such a refusal refuses, such a permission
permits nothing. Refuses to know why anybody wants the traffic.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from isthmus.gke import clusters, ranges
from isthmus.gke import ports as port_sets


@dataclass(frozen=True, slots=True)
class Flow:
    """TCP traffic into nodes that bear one tag."""

    sources: tuple[ranges.Range, ...]
    destinations: tuple[ranges.Range, ...]
    tag: str
    ports: port_sets.Ports


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a flow.

    Attributes:
        allowed_by: Rules that let parts of it through.
        refused_by: Rules that refuse parts of it, or may.
        is_whole: Whether all of it gets through.
    """

    allowed_by: tuple[clusters.Rule, ...]
    refused_by: tuple[clusters.Rule, ...]
    is_whole: bool


def verdict(flow: Flow, rules: Iterable[clusters.Rule]) -> Verdict:
    """Return what the rules of its network make of a flow."""
    ordered = sorted(
        (rule for rule in rules if _concerns(rule, flow)),
        key=lambda rule: (rule.priority, rule.allows, rule.name),
    )
    deciders = [_decider(piece, ordered) for piece in _pieces(flow, ordered)]
    found = {rule.name: rule for rule in deciders if rule is not None}
    return Verdict(
        tuple(rule for _, rule in sorted(found.items()) if rule.allows),
        tuple(rule for _, rule in sorted(found.items()) if not rule.allows),
        is_whole=all(rule is not None and rule.allows for rule in deciders),
    )


def is_wider(rule: clusters.Rule, flow: Flow) -> bool:
    """Tell whether a rule that permits a flow permits more than that."""
    return (
        any(each.protocol not in {"tcp", "6"} for each in rule.traffic)
        or not port_sets.covers(flow.ports, rule.tcp)
        or not rule.target_tags
        or bool(ranges.uncovered(rule.sources or ranges.EVERYWHERE, by=flow.sources))
    )


def _concerns(rule: clusters.Rule, flow: Flow) -> bool:
    if not rule.is_ingress or not rule.is_enabled:
        return False
    if rule.names_accounts:
        # We do not see which account a node has: it may be refused, but not be permitted.
        return not rule.allows
    return not rule.target_tags or flow.tag in rule.target_tags


def _pieces(flow: Flow, rules: Sequence[clusters.Rule]) -> Iterator[Flow]:
    for ports in port_sets.split(flow.ports, at=[rule.tcp for rule in rules]):
        for source in flow.sources:
            for destination in flow.destinations:
                yield Flow((source,), (destination,), flow.tag, ports)


def _decider(piece: Flow, ordered: Sequence[clusters.Rule]) -> clusters.Rule | None:
    for rule in ordered:
        if not port_sets.overlaps(rule.tcp, piece.ports):
            continue
        if rule.allows and _permits(rule, piece):
            return rule
        if not rule.allows and _touches(rule, piece):
            return rule
    return None


def _permits(rule: clusters.Rule, piece: Flow) -> bool:
    return all(
        ranges.covers(within, each)
        for within, each in (
            (_sources(rule), piece.sources[0]),
            (rule.destinations or ranges.EVERYWHERE, piece.destinations[0]),
        )
    )


def _touches(rule: clusters.Rule, piece: Flow) -> bool:
    return ranges.overlaps(_sources(rule), piece.sources) and ranges.overlaps(
        rule.destinations or ranges.EVERYWHERE, piece.destinations
    )


def _sources(rule: clusters.Rule) -> tuple[ranges.Range, ...]:
    if rule.sources or rule.names_sources:
        return rule.sources
    return ranges.EVERYWHERE
