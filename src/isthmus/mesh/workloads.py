"""Workloads, and the endpoints that they contribute to services.

Source: spec sections 2.5 and 3.1.
"""

from dataclasses import dataclass

from isthmus.base import hashing
from isthmus.mesh import identities
from isthmus.mesh.identities import ClusterId, NetworkId
from isthmus.mesh.localities import NOWHERE, Locality


class Health(hashing.Word):
    """Whether an endpoint may get traffic."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    DRAINING = "draining"


WorkloadKey = identities.ObjectKey
"""Names a pod in the mesh."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A pod as the mesh sees it.

    Attributes:
        labels: Sorted; with the topology labels added (region, zone, cluster, network, node).
        has_proxy: Whether it accepts mutual TLS (`security.istio.io/tlsMode: istio`).
        name: Of the Deployment (or other owner) that it belongs to.
        container_ports: The ports that its containers declare.
        accepts_tunnels: Whether HBONE is accepted for it: its traffic is known to be captured.
    """

    key: WorkloadKey
    addresses: tuple[str, ...]
    service_account: str
    labels: tuple[tuple[str, str], ...]
    network: NetworkId
    node: str = ""
    locality: Locality = NOWHERE
    has_proxy: bool = False
    name: str = ""
    is_terminating: bool = False
    container_ports: tuple[int, ...] = ()
    accepts_tunnels: bool = False


@dataclass(frozen=True, slots=True)
class Endpoint(hashing.Keeping):
    """One address and port that answers for one port of a service.

    Attributes:
        port_name: Name of the service port, by which clusters are matched.
        accepts_mtls: Whether a proxy stands before it.
        workload: Name of the Deployment behind it, for telemetry.
        hostname: Its own name below that of its service, if it has one.
        accepts_tunnels: Whether HBONE is accepted for it.
    """

    address: str
    port: int
    port_name: str
    cluster: ClusterId
    network: NetworkId
    locality: Locality = NOWHERE
    weight: int = 1
    health: Health = Health.HEALTHY
    accepts_mtls: bool = False
    namespace: str = ""
    service_account: str = ""
    workload: str = ""
    node: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    hostname: str = ""
    accepts_tunnels: bool = False
