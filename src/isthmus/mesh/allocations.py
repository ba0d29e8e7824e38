"""Addresses of our own making: ranges, and what is written down of those that were given.

Source: spec section 7.8.
"""

import ipaddress
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Final

ROW: Final = 256
LARGEST, SMALLEST = 8, 28
"""Lengths of the prefix of a range for IPv4."""


class RangeUnusable(ValueError):  # noqa: N818  # what is wrong with a text of others
    """A range cannot be given addresses from."""


@dataclass(frozen=True, slots=True)
class Ranges:
    """From where addresses are given; to each of IPv4 belongs one of IPv6.

    Places are numbered. Of each 256 addresses the first and the last are left out: they look like
    a network's own.
    """

    ipv4: IPv4Network = field(default_factory=lambda: IPv4Network("240.240.0.0/16"))
    ipv6: IPv6Network = field(default_factory=lambda: IPv6Network("2001:2::/48"))

    @property
    def places(self) -> int:
        """How many addresses there are to give."""
        rows = max(self.ipv4.num_addresses // ROW, 1)
        return rows * self._per_row

    @property
    def _per_row(self) -> int:
        return min(self.ipv4.num_addresses, ROW) - 2

    def address_at(self, place: int) -> str:
        """Return the address of a place."""
        row, column = divmod(place, self._per_row)
        return str(self.ipv4.network_address + row * ROW + column + 1)

    def place_at(self, text: str) -> int | None:
        """Return the place of an address; None for one that is never given."""
        try:
            found = ipaddress.IPv4Address(text)
        except ValueError:
            return None
        row, column = divmod(int(found) - int(self.ipv4.network_address), ROW)
        if found not in self.ipv4 or not 0 < column <= self._per_row:
            return None
        return row * self._per_row + column - 1

    def twin_of(self, text: str) -> str:
        """Return the address of IPv6 that belongs to one of IPv4."""
        number = int(ipaddress.IPv4Address(text)) - int(self.ipv4.network_address)
        return str(self.ipv6.network_address + number)

    def contains(self, text: str) -> bool:
        """Say whether an address is of our making, whoever has it."""
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        return address in self.ipv4 or address in self.ipv6


def ranges(ipv4: str, ipv6: str) -> Ranges:
    """Return the ranges of two prefixes, such as `240.240.0.0/16` and `2001:2::/48`.

    Raises:
        RangeUnusable: One of them is no range, or too small or too large.
    """
    try:
        found = Ranges(IPv4Network(ipv4), IPv6Network(ipv6))
    except ValueError as error:
        raise RangeUnusable(str(error)) from error
    if not LARGEST <= found.ipv4.prefixlen <= SMALLEST:
        raise RangeUnusable(f"`{ipv4}` must have a prefix of {LARGEST} to {SMALLEST} bits")
    if found.ipv6.num_addresses < found.ipv4.num_addresses:
        raise RangeUnusable(f"`{ipv6}` has fewer addresses than `{ipv4}`")
    return found


USUAL: Final = Ranges()


@dataclass(frozen=True, slots=True)
class Recorded:
    """An address that was given to a host before, as a ServiceEntry's status says."""

    host: str
    address: str
