"""Ways from one cluster to another, and how far one gets on each: rung by rung, as on a ladder.

A rung that breaks has one cause and one fix; those above it were not tried.

Source: spec sections 7.4 and 7.7.
"""

import enum
from dataclasses import dataclass
from typing import Final

from isthmus.mesh.identities import ClusterId, NetworkId


class Way(enum.Enum):
    """What leads to another cluster: tunnels, mutual TLS by server name, or discovery."""

    TUNNELS = "HBONE"
    MUTUAL_TLS = "mTLS"
    DISCOVERY = "discovery"


class Rung(enum.Enum):
    """How far one may get, from the bottom up."""

    DNS = "DNS"
    TCP = "TCP"
    TLS = "TLS"
    IDENTITY = "identity"
    HBONE = "HBONE"
    HTTP = "HTTP"


RUNGS: Final = {
    Way.TUNNELS: tuple(Rung),
    Way.MUTUAL_TLS: (Rung.DNS, Rung.TCP, Rung.TLS, Rung.IDENTITY, Rung.HTTP),
    Way.DISCOVERY: (Rung.DNS, Rung.TCP, Rung.TLS, Rung.IDENTITY),
}


class Outcome(enum.Enum):
    """What became of a rung."""

    GOOD = "good"
    BROKEN = "broken"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Step:
    """One rung that was tried.

    Attributes:
        found: What was found there; of a broken one the cause.
        fix: What mends a broken one.
    """

    rung: Rung
    outcome: Outcome
    found: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Shared:
    """A port of a service behind a gateway, which can be called to see that it answers.

    Attributes:
        identities: That its pods may have.
        is_http: Whether it is known to understand requests.
    """

    host: str
    port: int
    identities: tuple[str, ...]
    is_http: bool = False


@dataclass(frozen=True, slots=True)
class Goal:
    """Where to climb: one address of a gateway of another cluster, from this mesh's own table.

    Attributes:
        expected: The identity, or for discovery the name, that must answer.
        shared: What is called behind it; None where nothing is known to be shared.
    """

    way: Way
    peer: ClusterId
    network: NetworkId
    address: str
    port: int
    expected: str = ""
    shared: Shared | None = None
