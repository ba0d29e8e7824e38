"""Where something runs: region, zone, subzone.

Source: spec section 2.5.
"""

from dataclasses import dataclass

from typing_extensions import override


@dataclass(frozen=True, slots=True, order=True)
class Locality:
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
