"""The hand-over to `resources`: frozen slices of what a proxy may know.

A proxy sees the union of a few *scopes*. All proxies with an equal scope share its slices: the
argument is the cache key. A slice holds all that one resource needs and nothing that is not in it.

Source: docs/explanation/design.md; spec sections 3.4, 3.5, 4.7 to 4.11.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

from isthmus.base import hashing
from isthmus.mesh import requests
from isthmus.mesh.authentication import JwtRule
from isthmus.mesh.authorization import AuthorizationPolicy
from isthmus.mesh.identities import TrustDomain
from isthmus.mesh.policies import USUAL_LIMITS, MtlsMode, ServerTls, TlsLimits
from isthmus.mesh.services import Protocol
from isthmus.mesh.traffic import (
    UNLIMITED,
    ConnectionPool,
    HashKey,
    LoadBalancer,
    OutlierDetection,
    RetryBudget,
    Warmup,
)
from isthmus.views import balanced, believed, foreign, scopes
from isthmus.views import nodeslices as nodeslices
from isthmus.views import tunnels as tunnels
from isthmus.views import waypoints as waypoints
from isthmus.views import wds as wds

LbEndpoint = balanced.LbEndpoint
Members = balanced.Members
Told = balanced.Told
LocalityGroup = balanced.LocalityGroup
Group = balanced.Group
EndpointsSlice = balanced.EndpointsSlice
ForeignTls = foreign.ForeignTls
TrustSlice = believed.TrustSlice
TRUST = believed.TRUST
CommonScope = scopes.CommonScope
CredentialScope = scopes.CredentialScope
GatewayScope = scopes.GatewayScope
HorizonScope = scopes.HorizonScope
InboundScope = scopes.InboundScope
NamesScope = scopes.NamesScope
Naming = scopes.Naming
NodesScope = scopes.NodesScope
OutboundScope = scopes.OutboundScope
Scope = scopes.Scope
TunnelScope = scopes.TunnelScope
WaypointScope = scopes.WaypointScope
TrustScope = scopes.TrustScope

# --- clusters


class Discovery(hashing.Word):
    """How Envoy finds the endpoints of a cluster."""

    EDS = "EDS"
    ORIGINAL_DST = "ORIGINAL_DST"
    STATIC_EMPTY = "STATIC"
    STRICT_DNS = "STRICT_DNS"
    LOGICAL_DNS = "LOGICAL_DNS"


class UpstreamTls(hashing.Word):
    """What a client speaks to the endpoints of a cluster."""

    NONE = "none"
    AUTO = "auto"
    MUTUAL = "mutual"
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True)
class ClusterSlice:
    """One cluster of Envoy.

    Attributes:
        name: `outbound|<port>|<subset>|<host>` and the other forms of spec section 4.7.
        sni: The server name of mutual TLS; empty without TLS.
        sans: Identities that the server may have, sorted; empty accepts any of the mesh.
        ring_size: For consistent hashing; 0 for the usual.
        weighs_places: Whether clients first pick a place by its weight.
        bind_address: Source address of connections, for inbound traffic; else empty.
        dns_name: For STRICT_DNS without `looked_up`; else empty.
        looked_up: Endpoints that are names, for STRICT_DNS, and one of them for LOGICAL_DNS.
        leads_through_gateways: Whether another network's gateways stand among the endpoints.
        marks_sockets: Whether sockets that have options of their own must be marked as well.
        begins_tunnels: Whether endpoints may stand at the end of tunnels.
        by_domain: Whether each trust domain has its own bundle by which servers are believed.
        foreign: What TLS that is not the mesh's shows and trusts; `sans` are its names then.
        service: `(hostname, name, namespace)` for telemetry; empty for special clusters.
        rule: Namespace and name of the DestinationRule that was obeyed, for people.
    """

    name: str
    discovery: Discovery
    connect_timeout_s: float = 10.0
    tls: UpstreamTls = UpstreamTls.NONE
    sni: str = ""
    sans: tuple[str, ...] = ()
    protocol: Protocol = Protocol.TCP
    balancer: LoadBalancer = LoadBalancer.LEAST_REQUEST
    ring_size: int = 0
    warmup: Warmup | None = None
    weighs_places: bool = False
    outlier: OutlierDetection | None = None
    pool: ConnectionPool = UNLIMITED
    budget: RetryBudget | None = None
    bind_address: str = ""
    dns_name: str = ""
    dns_port: int = 0
    looked_up: tuple[Group, ...] = ()
    leads_through_gateways: bool = False
    marks_sockets: bool = False
    begins_tunnels: bool = False
    by_domain: bool = False
    foreign: ForeignTls | None = None
    service: tuple[str, str, str] | None = None
    rule: tuple[str, str] | None = None


# --- routes


@dataclass(frozen=True, slots=True)
class RouteTarget:
    """A cluster of Envoy and its share of the requests."""

    cluster_name: str
    weight: int = 100
    headers: requests.Headers = requests.UNCHANGED


@dataclass(frozen=True, slots=True)
class Route:
    """Requests that match go to `targets`; matchers as in `mesh.policies.HttpMatch`.

    Attributes:
        key: What binds requests to an endpoint; None where nothing does.
        virtual: Namespace and name of the VirtualService that was obeyed, for people.
        targets: None, if `treatment` redirects or answers.
        copies: Where copies go; their weights are in millionths of the requests.
    """

    targets: tuple[RouteTarget, ...]
    path: str = ""
    method: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    timeout_s: float = 0.0
    operation: str = ""
    name: str = "default"
    has_retries: bool = True
    key: HashKey | None = None
    virtual: tuple[str, str] | None = None
    scheme: str = ""
    authority: str = ""
    without_headers: tuple[tuple[str, str], ...] = ()
    query: tuple[tuple[str, str], ...] = ()
    ignores_case: bool = False
    treatment: requests.Treatment = requests.PLAIN
    copies: tuple[RouteTarget, ...] = ()


@dataclass(frozen=True, slots=True)
class VirtualHost:
    """The routes for some names of a service.

    Attributes:
        needs_tls: Whether whoever asks in plain text is sent to https.
    """

    name: str
    domains: tuple[str, ...]
    routes: tuple[Route, ...]
    needs_tls: bool = False


@dataclass(frozen=True, slots=True)
class RouteSlice:
    """One route configuration: all virtual hosts of one outbound port.

    Attributes:
        fallback_cluster: Where requests for unknown hosts go; empty answers them here.
        fallback_status: The answer where there is no such cluster.
        names_caller: Whether servers are told who has called the proxy.
    """

    name: str
    hosts: tuple[VirtualHost, ...]
    fallback_cluster: str = "PassthroughCluster"
    fallback_status: int = 502
    names_caller: bool = False


# --- listeners


@dataclass(frozen=True, slots=True)
class CatchAllOutbound:
    """`virtualOutbound` on 15001: hands connections on to the listener of their destination."""

    fallback_cluster: str = "PassthroughCluster"
    access_log_path: str = ""


@dataclass(frozen=True, slots=True)
class OutboundHttp:
    """`<address>_<port>` for HTTP: routes requests by RDS; other traffic passes through.

    Attributes:
        by_name: Where TLS goes that asks for one of some names.
    """

    address: str
    port: int
    route_name: str
    access_log_path: str = ""
    sniffs: bool = False
    tcp_cluster: str = ""
    tcp_shares: tuple[RouteTarget, ...] = ()
    by_name: tuple["NamedShares", ...] = ()


@dataclass(frozen=True, slots=True)
class NamedShares:
    """TLS that asks for one of `server_names`, not decrypted, is split among `shares`."""

    server_names: tuple[str, ...]
    shares: tuple[RouteTarget, ...]


@dataclass(frozen=True, slots=True)
class OutboundTcp:
    """`<VIP>_<port>` for TCP: passes connections to one cluster.

    Attributes:
        idle_s: How long a connection may be silent; None for the proxy's own limit.
        binds_source: Whether connections of one source go to the same endpoint.
        shares: Where connections go instead, if they are split; empty: all to `cluster_name`.
        by_name: Where TLS goes that asks for one of some names.
    """

    address: str
    port: int
    cluster_name: str
    access_log_path: str = ""
    idle_s: float | None = None
    shares: tuple[RouteTarget, ...] = ()
    by_name: tuple["NamedShares", ...] = ()
    binds_source: bool = False


@dataclass(frozen=True, slots=True)
class InboundPort:
    """One port that the workload serves.

    Attributes:
        port: The target port, which is the original destination of a captured connection.
        service_port: For the virtual host's name.
    """

    port: int
    protocol: Protocol
    mode: MtlsMode
    cluster_name: str
    service_port: int = 0


@dataclass(frozen=True, slots=True)
class Inbound:
    """`virtualInbound` on 15006, all chains.

    Attributes:
        mode: For ports that no service declares.
        trust_domains: Those whose identities may call.
        by_domain: Whether each of them has its own bundle by which callers are believed.
        policies: About who may call what; their clauses about callers are IDENTITY alone.
        tokens: Those that are believed in requests.
        is_in_tunnels: Whether this is what came through tunnels: all of it from known callers.
    """

    ports: tuple[InboundPort, ...]
    mode: MtlsMode
    trust_domains: tuple[TrustDomain, ...]
    access_log_path: str = ""
    policies: tuple[AuthorizationPolicy, ...] = ()
    by_domain: bool = False
    is_in_tunnels: bool = False
    tokens: tuple[JwtRule, ...] = ()


@dataclass(frozen=True, slots=True)
class SniChain:
    """Connections that ask for one of `server_names` go to `cluster_name`, not decrypted.

    Attributes:
        server_names: Empty matches any name, and none.
        needs_mesh_alpn: Whether only the mesh's own mutual TLS may pass.
        shares: Where they go instead, if they are split.
    """

    server_names: tuple[str, ...]
    cluster_name: str
    needs_mesh_alpn: bool
    shares: tuple[RouteTarget, ...] = ()


@dataclass(frozen=True, slots=True)
class EndedChain:
    """TLS that asks for one of `server_names` ends at the gateway; requests in it are routed.

    Attributes:
        server_names: Empty matches any name, and none.
        credential: Name of the Secret with the gateway's certificate.
        mode: Whether clients must, or may, show a certificate.
    """

    server_names: tuple[str, ...]
    route_name: str
    credential: str
    mode: ServerTls
    limits: TlsLimits = USUAL_LIMITS


@dataclass(frozen=True, slots=True)
class GatewayTls:
    """A gateway's listener for TLS by server name; what matches nothing is closed.

    Attributes:
        chains: What is passed on as it is.
        ended: What ends here.
        policies: About requests in what ends here.
    """

    port: int
    chains: tuple[SniChain, ...]
    access_log_path: str = ""
    ended: tuple[EndedChain, ...] = ()
    policies: tuple[AuthorizationPolicy, ...] = ()


@dataclass(frozen=True, slots=True)
class GatewayTcp:
    """A gateway's listener that passes every connection to one cluster, or splits them."""

    port: int
    cluster_name: str
    access_log_path: str = ""
    policies: tuple[AuthorizationPolicy, ...] = ()
    shares: tuple[RouteTarget, ...] = ()


@dataclass(frozen=True, slots=True)
class GatewayHttp:
    """A gateway's listener that routes requests in plain text by RDS."""

    port: int
    route_name: str
    access_log_path: str = ""
    policies: tuple[AuthorizationPolicy, ...] = ()


GatewaySlice = GatewayTls | GatewayTcp | GatewayHttp | tunnels.GatewayTunnels
InnerSlice = waypoints.ServicePort | waypoints.TunnelStart | waypoints.Onward
ListenerSlice = CatchAllOutbound | OutboundHttp | OutboundTcp | Inbound | GatewaySlice | InnerSlice


@dataclass(frozen=True, slots=True)
class NamedHost:
    """A name and the addresses that it stands for.

    Attributes:
        host: Complete, without a final dot.
        short: What comes before the namespace in it.
    """

    host: str
    addresses: tuple[str, ...]
    short: str
    namespace: str


@dataclass(frozen=True, slots=True)
class NamesSlice:
    """All names that are answered, by host."""

    hosts: tuple[NamedHost, ...]


# --- what is handed over


class Kind(hashing.Word):
    """The kinds of slices, in the order in which a proxy must hear of them."""

    CLUSTER = "cluster"
    ENDPOINTS = "endpoints"
    LISTENER = "listener"
    ROUTE = "route"
    SECRET = "secret"
    NAMES = "names"
    ADDRESS = "address"
    AUTHORIZATION = "authorization"


Routes = RouteSlice | tunnels.TunnelRoutes | tunnels.WorkloadRoutes
Tunnels = waypoints.TunnelCluster | waypoints.OnwardCluster
Clusters = ClusterSlice | waypoints.Door | waypoints.PodCluster | Tunnels
EnvoySlice = Clusters | EndpointsSlice | ListenerSlice | Routes | NamesSlice | TrustSlice
Slice = EnvoySlice | wds.NodeSlice

NAME_TABLE: Final = "NameTable"
"""The one resource of its kind."""


class SliceKey(NamedTuple):
    """Names a slice within the mesh."""

    scope: Scope
    kind: Kind
    name: str


def listener_name(listener: ListenerSlice) -> str:
    """Return the name of Envoy's listener for a slice (spec section 4.7)."""
    match listener:
        case CatchAllOutbound():
            return "virtualOutbound"
        case Inbound(is_in_tunnels=is_in_tunnels):
            return tunnels.INSIDE if is_in_tunnels else "virtualInbound"
        case OutboundHttp(address=address, port=port) | OutboundTcp(address=address, port=port):
            return f"{address}_{port}"
        case GatewayTls(port=port) | GatewayTcp(port=port) | GatewayHttp(port=port):
            return f"0.0.0.0_{port}"
        case tunnels.GatewayTunnels(name=name) | waypoints.ServicePort(name=name):
            return name
        case waypoints.TunnelStart(name=name) | waypoints.Onward(name=name):
            return name


KINDS: Final[Mapping[type, Kind]] = MappingProxyType(
    {
        ClusterSlice: Kind.CLUSTER,
        waypoints.Door: Kind.CLUSTER,
        waypoints.PodCluster: Kind.CLUSTER,
        waypoints.TunnelCluster: Kind.CLUSTER,
        waypoints.OnwardCluster: Kind.CLUSTER,
        EndpointsSlice: Kind.ENDPOINTS,
        RouteSlice: Kind.ROUTE,
        tunnels.TunnelRoutes: Kind.ROUTE,
        tunnels.WorkloadRoutes: Kind.ROUTE,
        NamesSlice: Kind.NAMES,
        TrustSlice: Kind.SECRET,
        wds.WorkloadSlice: Kind.ADDRESS,
        wds.ServiceSlice: Kind.ADDRESS,
        wds.AuthorizationSlice: Kind.AUTHORIZATION,
    }
)
"""Kinds of slices; what is missing here is a listener."""


def kind_of(slice_: Slice) -> Kind:
    """Return what a slice describes."""
    return KINDS.get(type(slice_), Kind.LISTENER)


def name_of(slice_: Slice) -> str:
    """Return the name of the resource that a slice becomes."""
    match slice_:
        case ClusterSlice(name=name) | RouteSlice(name=name) | waypoints.Door(name=name):
            return name
        case (
            tunnels.TunnelRoutes(name=name)
            | tunnels.WorkloadRoutes(name=name)
            | EndpointsSlice(cluster_name=name)
            | waypoints.PodCluster(name=name)
            | waypoints.TunnelCluster(name=name)
            | waypoints.OnwardCluster(name=name)
            | TrustSlice(name=name)
        ):
            return name
        case NamesSlice():
            return NAME_TABLE
        case wds.WorkloadSlice() | wds.ServiceSlice() | wds.AuthorizationSlice():
            return slice_.resource_name
        case _:
            return listener_name(slice_)


def keyed(scope: Scope, slice_: Slice) -> tuple[SliceKey, Slice]:
    """Return a slice with its name within the mesh."""
    return SliceKey(scope, kind_of(slice_), name_of(slice_)), slice_
