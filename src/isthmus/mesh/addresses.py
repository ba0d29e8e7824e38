"""Addresses as keys of collections: there is one for each endpoint of a mesh.

It decides how an address is kept where only equality counts, and nothing about which are good.

Source: docs/decisions/0053-endpoints-are-told-from-what-they-share.md.
"""

from typing import Final

Brief = int | str
"""Stands for an address, and for no other."""

PARTS: Final = 4


def brief(address: str) -> Brief:
    """Return what stands for an address: a number for IPv4, which is half as large as the text.

    What is not written as usual stands for itself.
    """
    parts = address.split(".")
    if len(parts) != PARTS or not address.isascii():
        return address
    try:
        found = bytes(map(int, parts))
    except ValueError:
        return address
    written = ".".join(map(str, found))
    return int.from_bytes(found) if written == address else address
