"""Addresses as keys of collections: there is one for each endpoint of a mesh.

It decides how addresses are kept where only equality counts, and nothing about which are good.

Source: docs/decisions/0053-endpoints-are-told-from-what-they-share.md;
docs/decisions/0069-who-names-an-address-is-looked-for.md.
"""

from collections.abc import Iterable
from typing import Final

Brief = bytes | str
"""Stands for an address, and for no other: the four bytes of IPv4, or the text."""

Packed = bytes | tuple[Brief, ...]
"""Several addresses, each once: four bytes each where all are of IPv4."""

PARTS: Final = 4


def brief(address: str) -> Brief:
    """Return what stands for an address; one that is not written as usual stands for itself."""
    parts = address.split(".")
    if len(parts) != PARTS or not address.isascii():
        return address
    try:
        found = bytes(map(int, parts))
    except ValueError:
        return address
    return found if ".".join(map(str, found)) == address else address


def packed(found: Iterable[str]) -> Packed:
    """Return addresses together; the same ones are equal, in whatever order they came."""
    each = {brief(one) for one in found}
    usual = [one for one in each if isinstance(one, bytes)]
    usual.sort()
    if len(usual) == len(each):
        return b"".join(usual)
    return (*usual, *sorted([one for one in each if isinstance(one, str)]))


def unpacked(several: Packed) -> tuple[Brief, ...]:
    """Return each of several addresses."""
    if isinstance(several, tuple):
        return several
    return tuple([several[at : at + PARTS] for at in range(0, len(several), PARTS)])


def is_among(one: Brief, several: Packed) -> bool:
    """Say whether an address is one of several."""
    if isinstance(several, tuple):
        return one in several
    if isinstance(one, str):
        return False
    at = several.find(one)
    while at >= 0 and at % PARTS:  # Found across the border of two others.
        at = several.find(one, at + 1)
    return at >= 0
