"""Reads a `localityLbSetting`: which places are nearer than others.

What contradicts itself is named, and what is left holds.

Source: spec section 8.1.
"""

from collections.abc import Iterable
from typing import Final

from isthmus.mesh.traffic import Distribution, LocalityPreference
from isthmus.registry import fields

WHOLE: Final = 100
PLACES: Final = frozenset(
    {
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
        "topology.istio.io/subzone",
    }
)


def read(part: fields.Fields) -> LocalityPreference:
    """Say what a setting means."""
    part.refuse_others({"enabled", "distribute", "failover", "failoverPriority"})
    distribute = tuple(_distributions(part))
    failover = tuple(_failovers(part))
    labels = tuple(_labels(part))
    if distribute and (failover or labels):
        part.problem("failover", "cannot stand beside `distribute`, which holds")
        failover = labels = ()
    if failover and any(key in PLACES for key, _ in labels):
        part.problem("failoverPriority", "must not name places beside `failover`, which holds")
        labels = ()
    return LocalityPreference(part.flag("enabled", default=True), distribute, failover, labels)


def _distributions(part: fields.Fields) -> Iterable[Distribution]:
    for entry in part.parts("distribute"):
        entry.refuse_others({"from", "to"})
        origin, to = entry.text("from"), entry.part("to")
        shares = [(place, to.number(place, default=0, least=1, most=WHOLE)) for place in to.names()]
        if not origin:
            entry.problem("from", "must name a place, so that this entry is left out")
        elif sum(share for _, share in shares) != WHOLE or not all(share for _, share in shares):
            entry.problem("to", "must add up to 100, so that this entry is left out")
        elif overlapping := _overlapping([place for place, _ in shares]):
            entry.problem("to", f"names `{overlapping}` twice, so that this entry is left out")
        else:
            yield Distribution(origin, tuple(shares))


def _overlapping(places: list[str]) -> str:
    """Return a place that is part of another one, or nothing."""
    for place in places:
        for other in places:
            if other is not place and _covers(other, place):
                return place
    return ""


def _covers(pattern: str, place: str) -> bool:
    wide, narrow = pattern.split("/"), place.split("/")
    return len(wide) <= len(narrow) and all(
        one in {"*", other} for one, other in zip(wide, narrow, strict=False)
    )


def _failovers(part: fields.Fields) -> Iterable[tuple[str, str]]:
    for entry in part.parts("failover"):
        entry.refuse_others({"from", "to"})
        origin, to = entry.text("from"), entry.text("to")
        if not origin or not to or origin == to:
            entry.problem("to", "and `from` must name two regions, so that this entry is left out")
        elif any(sign in origin + to for sign in "/*"):
            entry.problem("to", "and `from` must be regions, so that this entry is left out")
        else:
            yield origin, to


def _labels(part: fields.Fields) -> Iterable[tuple[str, str | None]]:
    for text in part.texts("failoverPriority"):
        key, separator, value = text.partition("=")
        if key:
            yield key, value if separator else None
