"""Scopes: what some proxies see alike, and so share slices of.

A proxy sees the union of a few, from the general to the particular. Part of the hand-over: other
rooms find these under `views.view`.

Source: docs/explanation/design.md; spec sections 3.4 and 3.5.
"""

import msgspec

from isthmus.base import hashing
from isthmus.mesh.identities import ANYWHERE, ClusterId, NetworkId
from isthmus.mesh.localities import Locality
from isthmus.mesh.services import Protocol


class Naming(hashing.Word):
    """Who answers the questions of a pod for names.

    CLUSTER is the DNS of its cluster. CAPTURED is its own agent, which gives a service that has
    no address in this cluster that of another cluster, where that means nothing else here.
    ALLOCATED is the same agent, which always gives such services addresses of our making.
    """

    CLUSTER = "cluster"
    CAPTURED = "captured"
    ALLOCATED = "allocated"


class HorizonScope(msgspec.Struct, frozen=True, cache_hash=True, gc=False):
    """Where one stands: from here the endpoints of all services look the same.

    Proxies share the widest, which says a network alone. A proxy sees narrower ones
    as well, which say otherwise of the few services that look different from there; of a proxy's
    scopes the later one wins.

    Attributes:
        cluster: ANYWHERE in the widest, which has what looks the same from all clusters.
        namespace: Of those who stand here; None for all, where no namespace has own rules.
        locality: Where endpoints are nearer or farther; None where all are equal.
        labels: Of those who stand here, as far as endpoints are near by labels; None otherwise.
        selected: Of their labels those by which DestinationRules of the namespace select
            clients, sorted.
        begins_tunnels: Whether one speaks HBONE from here.
        is_apart: Whether one is told of each endpoint by itself here.
    """

    cluster: ClusterId
    network: NetworkId
    requested_networks: tuple[NetworkId, ...] = ()
    namespace: str | None = None
    locality: Locality | None = None
    labels: tuple[tuple[str, str], ...] | None = None
    selected: tuple[tuple[str, str], ...] = ()
    begins_tunnels: bool = False
    is_apart: bool = False


class CommonScope(msgspec.Struct, frozen=True, cache_hash=True, gc=False):
    """What sidecars of many namespaces and clusters see alike in a network: clusters of services.

    A proxy sees its OutboundScope as well, which counts more.

    Attributes:
        cluster: Always ANYWHERE: what depends on it is not here.
        audiences: Lists of namespaces to which many services are exported and all of these
            namespaces belong, sorted.
        namespace: Always None, and there are no `labels`: no rule of a namespace counts.
    """

    network: NetworkId
    requested_networks: tuple[NetworkId, ...] = ()
    audiences: tuple[tuple[str, ...], ...] = ()
    marks_sockets: bool = False
    begins_tunnels: bool = False
    cluster: ClusterId = ANYWHERE
    namespace: None = None
    labels: tuple[tuple[str, str], ...] = ()


class OutboundScope(msgspec.Struct, frozen=True, cache_hash=True, gc=False):
    """What sidecars of one namespace in one cluster and network see of the mesh.

    Attributes:
        audiences: As in the CommonScope, which has the clusters of what is exported so.
        naming: Who tells them of addresses. Only those who hear of addresses of our making can
            use them.
        marks_sockets: Whether their connections are known by the mark of the socket.
        labels: Of theirs, those that any VirtualService, or any DestinationRule of the
            namespace, asks for, sorted.
        begins_tunnels: Whether they speak HBONE.
    """

    cluster: ClusterId
    network: NetworkId
    namespace: str
    requested_networks: tuple[NetworkId, ...] = ()
    naming: Naming = Naming.CLUSTER
    marks_sockets: bool = False
    labels: tuple[tuple[str, str], ...] = ()
    begins_tunnels: bool = False
    audiences: tuple[tuple[str, ...], ...] = ()


class NamesScope(msgspec.Struct, frozen=True, cache_hash=True, gc=False):
    """Which names pods of one namespace may ask their proxies for, and what is answered."""

    cluster: ClusterId
    network: NetworkId
    namespace: str
    requested_networks: tuple[NetworkId, ...] = ()
    naming: Naming = Naming.CLUSTER


class InboundScope(msgspec.Struct, frozen=True, cache_hash=True, gc=False):
    """What one kind of workload serves itself: same labels, ports and namespace.

    Attributes:
        ports: Target port and what is spoken there, sorted.
        ends_tunnels: Whether HBONE ends there, too.
    """

    namespace: str
    labels: tuple[tuple[str, str], ...]
    ports: tuple[tuple[int, Protocol], ...]
    ends_tunnels: bool = False


class TunnelScope(msgspec.Struct, frozen=True, cache_hash=True, gc=False):
    """Where tunnels to one workload may lead: to its own addresses, sorted."""

    cluster: ClusterId
    addresses: tuple[str, ...]


class GatewayScope(msgspec.Struct, frozen=True, cache_hash=True, gc=False):
    """What gateways with these labels are configured to pass on.

    Attributes:
        ports: Port of the gateway's own Service, and the target port that it stands for, sorted.
        marks_sockets: Whether their connections are known by the mark of the socket.
        begins_tunnels: Whether they speak HBONE to workloads of their own network.
    """

    cluster: ClusterId
    network: NetworkId
    namespace: str
    labels: tuple[tuple[str, str], ...]
    requested_networks: tuple[NetworkId, ...]
    ports: tuple[tuple[int, int], ...] = ()
    marks_sockets: bool = False
    begins_tunnels: bool = False


class WaypointScope(msgspec.Struct, frozen=True, cache_hash=True, gc=False):
    """What the waypoints of one Gateway must have.

    Attributes:
        gateway: Its name, which is also that of its Service.
        requested_networks: Always empty, and so are `labels`: no rule selects waypoints by theirs.
    """

    cluster: ClusterId
    network: NetworkId
    namespace: str
    gateway: str
    requested_networks: tuple[NetworkId, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()


class CredentialScope(msgspec.Struct, frozen=True, cache_hash=True, gc=False):
    """What gateways that run as one account may hold: Secrets beside them that it may read."""

    cluster: ClusterId
    namespace: str
    service_account: str


class NodesScope(msgspec.Struct, frozen=True, cache_hash=True, gc=False):
    """What node proxies of one cluster and network know of the mesh."""

    cluster: ClusterId
    network: NetworkId


class TrustScope(msgspec.Struct, frozen=True, cache_hash=True, gc=False):
    """Whose identities are believed, which is the same for all proxies."""


Scope = (
    HorizonScope
    | CommonScope
    | OutboundScope
    | NamesScope
    | InboundScope
    | GatewayScope
    | WaypointScope
    | TunnelScope
    | CredentialScope
    | NodesScope
    | TrustScope
)
