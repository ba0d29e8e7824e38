"""Address ranges: what covers what, what overlaps.

Refuses to know whose ranges they are.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Final

Range = ipaddress.IPv4Network | ipaddress.IPv6Network

FOUR: Final = 4
"""The older version of addresses."""

EVERYWHERE: Final = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
"""Every address there is."""


def range_of(text: str) -> Range:
    """Return the range that a text names; bits behind the prefix are dropped.

    Raises:
        ValueError: The text is no range.
    """
    return ipaddress.ip_network(text.strip(), strict=False)


def covers(outer: Iterable[Range], inner: Range) -> bool:
    """Tell whether all addresses of `inner` are in `outer`, taken together."""
    return any(_is_within(inner, each) for each in _collapsed(outer, version=inner.version))


def overlaps(some: Iterable[Range], others: Iterable[Range]) -> bool:
    """Tell whether any address is in both."""
    rest = tuple(others)
    return any(
        one.version == other.version and (_is_within(one, other) or _is_within(other, one))
        for one in some
        for other in rest
    )


def uncovered(wanted: Iterable[Range], *, by: Sequence[Range]) -> tuple[Range, ...]:
    """Return those of `wanted` that are not wholly in `by`, in their order."""
    return tuple(each for each in wanted if not covers(by, each))


def in_order(some: Iterable[Range]) -> tuple[Range, ...]:
    """Return each range once, sorted."""
    return tuple(sorted(set(some), key=lambda each: (each.version, each)))


def text(some: Iterable[Range]) -> str:
    """Return ranges as a person reads them."""
    return ", ".join(map(str, some))


def _is_within(inner: Range, outer: Range) -> bool:
    return (
        inner.version == outer.version
        and inner.prefixlen >= outer.prefixlen
        and inner.network_address in outer
    )


def _collapsed(some: Iterable[Range], *, version: int) -> list[Range]:
    if version == FOUR:
        four = [each for each in some if isinstance(each, ipaddress.IPv4Network)]
        return list(ipaddress.collapse_addresses(four))
    six = [each for each in some if isinstance(each, ipaddress.IPv6Network)]
    return list(ipaddress.collapse_addresses(six))
