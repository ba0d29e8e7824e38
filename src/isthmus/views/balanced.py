"""Slices of endpoints: among what a client balances. Part of the hand-over: see `view`.

Source: spec sections 3.4 and 4.11.
"""

from dataclasses import dataclass

from isthmus.base import hashing
from isthmus.mesh.localities import Locality
from isthmus.mesh.workloads import Health


@dataclass(frozen=True, slots=True)
class LbEndpoint(hashing.Renderable):
    """One address among which a client balances.

    Attributes:
        speaks_mtls: Whether the mesh's mutual TLS is spoken to it.
        workload: `<workload>;<namespace>;<service>;<revision>;<cluster>`, for telemetry.
        tunnel_end: Who must be at the end of the tunnel to it; empty where there is none, and
            `waypoints.INSIDE` where the address is a listener inside the proxy that makes all that.
    """

    address: str
    port: int
    weight: int
    health: Health = Health.HEALTHY
    speaks_mtls: bool = False
    workload: str = ""
    tunnel_end: str = ""

    __hash__ = hashing.Remembering.__hash__


@dataclass(frozen=True, slots=True)
class LocalityGroup:
    """Endpoints of one place; `weight` is the sum of theirs."""

    locality: Locality
    weight: int
    endpoints: tuple[LbEndpoint, ...]
    priority: int = 0


@dataclass(frozen=True, slots=True)
class EndpointsSlice:
    """The endpoints of one cluster of Envoy.

    Attributes:
        weighs_places: Whether a group's weight matters beside those of its endpoints.
        is_apart: Whether clients are told of each endpoint by itself.
    """

    cluster_name: str
    groups: tuple[LocalityGroup, ...]
    weighs_places: bool = False
    is_apart: bool = False
