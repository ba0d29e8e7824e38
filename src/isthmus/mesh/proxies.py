"""A proxy that is connected, as proven: what it may be told follows from this.

Source: spec sections 3.1 and 4.2.
"""

from dataclasses import dataclass
from typing import Final

from isthmus.base import hashing
from isthmus.mesh.identities import ClusterId, NetworkId
from isthmus.mesh.localities import NOWHERE, Locality


class ProxyKind(hashing.Word):
    """The first part of a node id."""

    SIDECAR = "sidecar"
    ROUTER = "router"
    WAYPOINT = "waypoint"
    ZTUNNEL = "ztunnel"
    CONTROL_PLANE = "istiod"


@dataclass(frozen=True, slots=True)
class Tunnelling:
    """Whether HBONE is spoken by those proxies that say that they can.

    Attributes:
        begins: To workloads (`PILOT_ENABLE_SENDING_HBONE`).
        ends: By sidecars, for their own workloads (`PILOT_ENABLE_SIDECAR_LISTENING_HBONE`).
    """

    begins: bool = False
    ends: bool = False


NO_TUNNELS: Final = Tunnelling()


@dataclass(frozen=True, slots=True)
class Proxy:
    """One connected proxy.

    Cluster, namespace and service account were proven when it connected. Labels, network and
    locality come from the registry where it knows the pod, else from the proxy's own word.

    Attributes:
        id: `<pod>.<namespace>`.
        requested_networks: Networks whose endpoints it wants; empty for all.
        has_metadata_exchange: Whether it is Istio's own build of Envoy.
        captures_dns: Whether its pod's questions for names are answered beside it.
        allocates_addresses: Whether it wants addresses for services that have none where it is.
        marks_sockets: Whether packet rules tell its own connections by the mark of the socket.
        ends_tunnels: Whether it ends HBONE on a port of its own.
        begins_tunnels: Whether it speaks HBONE to workloads that take nothing else encrypted.
        hears_endpoints_apart: Whether it is told of each endpoint by itself.
    """

    id: str
    kind: ProxyKind
    cluster: ClusterId
    network: NetworkId
    namespace: str
    service_account: str = "default"
    pod: str = ""
    address: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    locality: Locality = NOWHERE
    node: str = ""
    requested_networks: tuple[NetworkId, ...] = ()
    has_metadata_exchange: bool = False
    captures_dns: bool = False
    allocates_addresses: bool = False
    marks_sockets: bool = False
    ends_tunnels: bool = False
    begins_tunnels: bool = False
    hears_endpoints_apart: bool = False
