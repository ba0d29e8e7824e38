"""Slices of waypoints: what ends tunnels there, and what judges and routes what comes out of them.

Part of the hand-over: other rooms find these under `views.view`. Each port of a service has a
listener inside the proxy, so that a change of one service disturbs no other.

Source: spec sections 4.7 and 7.4.
"""

from dataclasses import dataclass
from typing import Final

from isthmus.mesh.authentication import JwtRule
from isthmus.mesh.authorization import AuthorizationPolicy
from isthmus.mesh.identities import NetworkId, TrustDomain
from isthmus.mesh.services import Protocol

TUNNEL_START: Final = "connect_originate"
"""A listener inside a proxy, and the cluster of the tunnels that begin there."""

INSIDE: Final = "inside"
"""Stands for the end of tunnels of an endpoint that is a listener inside."""

OUTER_START: Final = "outer_connect_originate"
"""The same for tunnels to gateways of other networks, in which others are."""


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
    """The listener inside that begins tunnels, which has the name of the cluster of these.

    Attributes:
        baggage: What the other end is told of whose tunnel it is; empty for nothing.
        to_gateways: Whether they lead to gateways of other networks, and not to endpoints.
    """

    access_log_path: str = ""
    baggage: str = ""
    to_gateways: bool = False

    @property
    def name(self) -> str:
        """The name of the listener."""
        return OUTER_START if self.to_gateways else TUNNEL_START


@dataclass(frozen=True, slots=True)
class TunnelCluster:
    """The cluster of all tunnels that a waypoint begins, to endpoints or to gateways.

    Attributes:
        trust_domains: Whose identities are believed at their ends.
        by_domain: Whether each of them has its own bundle by which it is believed.
        to_gateways: As in `TunnelStart`.
    """

    trust_domains: tuple[TrustDomain, ...]
    by_domain: bool = False
    to_gateways: bool = False

    @property
    def name(self) -> str:
        """The name of the cluster."""
        return OUTER_START if self.to_gateways else TUNNEL_START


@dataclass(frozen=True, slots=True, order=True)
class Beyond:
    """A gateway of another network, and how many pods of a service stand behind it."""

    address: str
    port: int
    identity: str
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Onward:
    """The listener inside that passes calls of one port of a service on to other networks.

    They go through tunnels inside of others, in which `authority` is asked for.

    Attributes:
        name: Of the cluster as well, to which it leads.
        network: The waypoint's own, which the other end is told, as it is the `baggage`.
    """

    name: str
    authority: str
    network: NetworkId
    baggage: str = ""
    access_log_path: str = ""


@dataclass(frozen=True, slots=True)
class OnwardCluster:
    """Where inner tunnels of one port of a service end: at whoever has one of the identities.

    Attributes:
        gateways: Through which they lead, and what is asked for there as well.
        by_domain: As in `TunnelCluster`.
    """

    name: str
    authority: str
    identities: tuple[str, ...]
    gateways: tuple[Beyond, ...]
    by_domain: bool = False
