"""Slices of what ends tunnels: the outer of two, or a workload's own. Part of the hand-over: see `view`.

Source: spec section 7.4.
"""

from dataclasses import dataclass
from typing import Final

from isthmus.mesh.authorization import AuthorizationPolicy
from isthmus.mesh.identities import TrustDomain
from isthmus.mesh.networks import HBONE_PORT

INSIDE: Final = "main_internal"
"""The listener inside a sidecar that gets what came through tunnels, and the way to it."""

WORKLOAD_ROUTES: Final = "connect_terminate"
"""The table of what may be asked for at a sidecar."""


@dataclass(frozen=True, slots=True)
class GatewayTunnels:
    """A listener for HBONE: it ends the outer tunnel, and passes on what is in it.

    Attributes:
        trust_domains: Whose identities may come in.
        notes_callers: Whether what is inside the proxy learns who has come in.
        policies: About who may ask for which tunnel.
        by_domain: Whether each of them has its own bundle by which clients are believed.
        most_each: How many tunnels one caller may begin in a second; 0 for any number.
    """

    port: int
    route_name: str
    trust_domains: tuple[TrustDomain, ...]
    access_log_path: str = ""
    notes_callers: bool = False
    policies: tuple[AuthorizationPolicy, ...] = ()
    by_domain: bool = False
    most_each: int = 0

    @property
    def name(self) -> str:
        """How the listener is called."""
        usual = "connect_terminate"
        return usual if self.port == HBONE_PORT else f"{usual}_{self.port}"


@dataclass(frozen=True, slots=True)
class TunnelHost:
    """One `host:port` that may be asked for, and the cluster behind it; `*` is any port."""

    authority: str
    cluster_name: str


@dataclass(frozen=True, slots=True)
class TunnelRoutes:
    """All that may be asked for through a gateway, sorted; nothing else leads anywhere."""

    name: str
    hosts: tuple[TunnelHost, ...]


@dataclass(frozen=True, slots=True, order=True)
class OwnHost:
    """One `host:port` that may be asked for, and the workload's own port that answers."""

    authority: str
    port: int


@dataclass(frozen=True, slots=True)
class WorkloadRoutes:
    """What may be asked for at a sidecar: ports of the workload's own addresses.

    Attributes:
        hosts: The services for which the workload answers, sorted.
    """

    addresses: tuple[str, ...]
    hosts: tuple[OwnHost, ...]
    name: str = WORKLOAD_ROUTES
