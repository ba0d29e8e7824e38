"""Which addresses traffic may be sent to, whoever claims them.

A cluster that lies must not be able to point the mesh's proxies at themselves, at their node's
metadata service, or at everybody.

Source: docs/explanation/design.md (hostile answers of an API server).
"""

import functools
import ipaddress
import re
from typing import Final

REMEMBERED: Final = 4096
THIS_NETWORK: Final = ipaddress.ip_network("0.0.0.0/8")
BROADCAST: Final = ipaddress.ip_address("255.255.255.255")

_OCTET: Final = r"(?:[0-9]|[1-9][0-9]|1[0-9][0-9]|2[0-4][0-9]|25[0-5])"
_USUAL: Final = re.compile(
    r"(?!127\.|169\.254\.)(?:[1-9]|[1-9][0-9]|1[0-9][0-9]|2[01][0-9]|22[0-3])"
    rf"(?:\.{_OCTET}){{3}}"
)
"""Almost all: IPv4 that one host has, and neither a host for itself nor a link."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def parsed(text: str) -> Address | None:
    """Return an IP address, or None for any other text; one that maps IPv4 counts as IPv4."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def is_one(text: str) -> bool:
    """Say whether this is an IP address."""
    return _USUAL.fullmatch(text) is not None or parsed(text) is not None


def fault_of(text: str) -> str:
    """Say why no traffic may be sent to an IP address; empty when it may."""
    return "" if _USUAL.fullmatch(text) else _fault_of(text)


@functools.lru_cache(maxsize=REMEMBERED)
def _fault_of(text: str) -> str:
    address = parsed(text)
    if address is None or "%" in text:
        return "no IP address"
    if address.is_unspecified or (address.version == 4 and address in THIS_NETWORK):
        return "unspecified"
    if address.is_loopback:
        return "loopback"
    if address.is_link_local:
        return "link-local"
    if address.is_multicast or address == BROADCAST:
        return "multicast"
    return ""


def is_unspecified(text: str) -> bool:
    """Whether this is the placeholder `0.0.0.0`, which users write for "not known yet"."""
    address = parsed(text)
    return address is not None and address.is_unspecified


def is_hostname(text: str) -> bool:
    """Whether this is a DNS name, and no address in disguise such as `127.1` or `0x7f000001`."""
    labels = text.rstrip(".").split(".")
    last = labels[-1]
    return (
        0 < len(text) <= 253
        and all(is_label(label) for label in labels)
        and not last.isdigit()
        and not last.lower().startswith("0x")
        and text.rstrip(".").lower() != "localhost"
        and not text.rstrip(".").lower().endswith(".localhost")
    )


def fault_of_reachable(text: str) -> str:
    """Say why a gateway cannot be reached at an IP address or hostname; empty when it can."""
    return "" if is_hostname(text) else fault_of(text)


def is_label(label: str) -> bool:
    """Whether this can stand between two dots of a DNS name; underscores are let in."""
    return (
        0 < len(label) <= 63
        and label.isascii()
        and label.replace("-", "").replace("_", "").isalnum()
        and not label.startswith("-")
        and not label.endswith("-")
    )
