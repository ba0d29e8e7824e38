"""What a pod's traffic should do: which of it goes through the proxy, and where.

Source: spec section 5.4.

    IsthmusError
    └── ArgumentsRefused
"""

import ipaddress
from dataclasses import dataclass

from isthmus.base import errors

EVERYTHING = "*"


class ArgumentsRefused(errors.IsthmusError):
    """The arguments of istio-iptables ask for something unknown or impossible."""

    code = "ISM-CAP-001"


@dataclass(frozen=True, slots=True)
class Redirect:
    """Which connections of a pod go through its proxy.

    Attributes:
        outbound_port: Where the proxy takes connections that the pod opens.
        inbound_port: Where it takes connections to the pod.
        tunnel_port: Arrives at the proxy anyway and is left alone.
        proxy_uid: Whoever runs as this user or group is the proxy itself.
        mark: Whatever socket bears this mark is the proxy's own. It is what tells the proxy
            apart where it cannot have a user of its own.
        inbound_ports: Ports that are captured; None for all.
        outbound_ports: Ports that are captured besides `outbound_ranges`; None for all.
        outbound_ranges: Destinations that are captured; None for all.
        dns_port: Where questions for names are answered.
        dns_servers: Servers whose questions are captured, by UDP and TCP; None for all servers.
    """

    outbound_port: int = 15001
    inbound_port: int = 15006
    tunnel_port: int = 15008
    proxy_uid: int = 1337
    proxy_gid: int = 1337
    mark: int = 1337
    inbound_ports: tuple[int, ...] | None = None
    excluded_inbound_ports: tuple[int, ...] = ()
    outbound_ports: tuple[int, ...] | None = ()
    excluded_outbound_ports: tuple[int, ...] = ()
    outbound_ranges: tuple[str, ...] | None = None
    excluded_outbound_ranges: tuple[str, ...] = ()
    excluded_interfaces: tuple[str, ...] = ()
    dns_port: int = 15053
    dns_servers: tuple[str, ...] | None = ()


def ports(text: str, *, option: str) -> tuple[int, ...]:
    """Read a list of ports.

    Raises:
        ArgumentsRefused: One of them is none (ISM-CAP-001).
    """
    return tuple(_port(each, option=option) for each in _listed(text))


def ports_or_all(text: str, *, option: str) -> tuple[int, ...] | None:
    """Read a list of ports, or `*` for all: None.

    Raises:
        ArgumentsRefused: One of them is none (ISM-CAP-001).
    """
    return None if text.strip() == EVERYTHING else ports(text, option=option)


def ranges(text: str, *, option: str) -> tuple[str, ...]:
    """Read a list of IPv4 ranges; IPv6 ones are dropped, because pods here have IPv4 only.

    Raises:
        ArgumentsRefused: One of them is none (ISM-CAP-001).
    """
    found = []
    for each in _listed(text):
        try:
            network = ipaddress.ip_network(each, strict=False)
        except ValueError as error:
            raise ArgumentsRefused(
                f"`{option}` holds something that is no address range: `{each[:60]}`",
                hint="write ranges such as `10.0.0.0/8`, separated by commas",
            ) from error
        if isinstance(network, ipaddress.IPv4Network):
            found.append(str(network))
    return tuple(found)


def ranges_or_all(text: str, *, option: str) -> tuple[str, ...] | None:
    """Read a list of ranges, or `*` for all: None.

    Raises:
        ArgumentsRefused: One of them is none (ISM-CAP-001).
    """
    return None if text.strip() == EVERYTHING else ranges(text, option=option)


def names(text: str) -> tuple[str, ...]:
    """Read a list of names."""
    return _listed(text)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _port(text: str, *, option: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 6 and 0 < int(text) < 65536:
        return int(text)
    raise ArgumentsRefused(
        f"`{option}` holds something that is no port: `{text[:60]}`",
        hint="write ports from 1 to 65535, separated by commas",
    )
