"""Slices of waypoints: what ends tunnels there, and what judges and routes what comes out of them.

Part of the hand-over: other rooms find these under `views.view`. Each port of a service has a
listener inside the proxy, so that a change of one service disturbs no other.

Source: spec sections 4.7 and 7.4.
"""

from dataclasses import dataclass

from isthmus.mesh.authentication import JwtRule
from isthmus.mesh.authorization import AuthorizationPolicy
from isthmus.mesh.identities import TrustDomain
from isthmus.mesh.services import Protocol


@dataclass(frozen=True, slots=True)
class ServicePort:
    """The listener inside a waypoint to which tunnels for one port of a service lead.

    Attributes:
        name: Also of the cluster that leads to it.
        port: Of the service, which is what policies mean by a port; 0 for all ports of a pod.
        route_name: Of its requests; empty where none are read.
        shares: The clusters to which connections go that are no requests, and how often.
        tokens: Those that are believed in requests.
        policies: Their clauses about callers are IDENTITY alone.
    """

    name: str
    port: int
    protocol: Protocol
    route_name: str
    shares: tuple[tuple[str, int], ...]
    policies: tuple[AuthorizationPolicy, ...] = ()
    access_log_path: str = ""
    tokens: tuple[JwtRule, ...] = ()


@dataclass(frozen=True, slots=True)
class PodCluster:
    """The cluster that leads to a pod itself, at the port that was asked for.

    Attributes:
        tunnel_end: Who must be at the end of the tunnel to it; empty where it takes none.
    """

    name: str
    tunnel_end: str


@dataclass(frozen=True, slots=True)
class Door:
    """The cluster that leads to a listener inside, which has the same name."""

    name: str


@dataclass(frozen=True, slots=True)
class TunnelStart:
    """The listener inside that begins tunnels to endpoints."""

    access_log_path: str = ""


@dataclass(frozen=True, slots=True)
class TunnelCluster:
    """The cluster of all tunnels that a waypoint begins.

    Attributes:
        trust_domains: Whose identities are believed at their ends.
        by_domain: Whether each of them has its own bundle by which it is believed.
    """

    trust_domains: tuple[TrustDomain, ...]
    by_domain: bool = False
