"""Where something runs: region, zone, subzone.

Source: spec section 2.5.
"""

from collections.abc import Iterable
from typing import NamedTuple

from typing_extensions import override


class Locality(NamedTuple):
    """A place, from the large to the small; an empty part is unknown."""

    region: str = ""
    zone: str = ""
    subzone: str = ""

    @override
    def __str__(self) -> str:
        return "/".join((self.region, self.zone, self.subzone)).rstrip("/")


NOWHERE = Locality()
"""The locality of what says nothing of its place."""


def parse(text: str) -> Locality:
    """Read `region/zone/subzone`, or the same with dots where there is no slash."""
    separator = "/" if "/" in text else "."
    parts = [*text.split(separator, 2), "", "", ""][:3]
    return Locality(*parts)


def common(places: Iterable[Locality]) -> Locality:
    """Return the smallest place that all of some places are in."""
    found = list(places)
    region = _shared(one.region for one in found)
    zone = _shared(one.zone for one in found) if region else ""
    return Locality(region, zone, _shared(one.subzone for one in found) if zone else "")


def _shared(parts: Iterable[str]) -> str:
    different = set(parts)
    return different.pop() if len(different) == 1 else ""
