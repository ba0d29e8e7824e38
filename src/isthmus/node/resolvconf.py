"""What a pod's resolv.conf says: whom to ask for names, and what to append to them.

Source: resolv.conf(5).
"""

import ipaddress
import pathlib
from dataclasses import dataclass

RESOLV_CONF = pathlib.Path("/etc/resolv.conf")


@dataclass(frozen=True, slots=True)
class Resolvers:
    """What resolv.conf says.

    Attributes:
        search: Domains that are appended to names, in order.
    """

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()


def read(path: pathlib.Path = RESOLV_CONF) -> Resolvers:
    """Read resolv.conf; one that cannot be read names no server."""
    try:
        return parsed(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return Resolvers()


def parsed(text: str) -> Resolvers:
    """Read the text of a resolv.conf, where the last word about search domains counts."""
    servers: list[str] = []
    search: tuple[str, ...] = ()
    for line in text.splitlines():
        match line.partition("#")[0].partition(";")[0].split():
            case ["nameserver", server, *_] if _is_address(server):
                servers.append(server)
            case ["search", *domains]:
                search = tuple(domains)
            case ["domain", domain, *_]:
                search = (domain,)
            case _:
                pass
    return Resolvers(tuple(dict.fromkeys(servers)), search)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
