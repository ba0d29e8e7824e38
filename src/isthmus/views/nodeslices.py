"""What the one Envoy of a node is told, as slices: whose listeners it has, and where calls lead.

Part of the hand-over: other rooms find these under `views.view`. A slice becomes one resource, and
holds nothing that is not in it; so what many pods of a node share is told once.

Source: spec sections 7.1, 7.2 and 7.4.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from isthmus.base import hashing
from isthmus.mesh.authorization import Action
from isthmus.mesh.identities import ClusterId, NetworkId, SpiffeId, TrustDomain
from isthmus.mesh.localities import NOWHERE, Locality
from isthmus.views.wds import AuthorizationSlice

OUTBOUND_PORT, PLAINTEXT_PORT, TUNNEL_PORT = 15001, 15006, 15008
"""Where the listeners of a pod are: what it calls, what calls it in plain text, and by tunnel."""

OWN_PORTS = (OUTBOUND_PORT, PLAINTEXT_PORT, TUNNEL_PORT)


@dataclass(frozen=True, slots=True)
class Node:
    """The node itself, as its proxy and those who balance for it know it.

    Attributes:
        trust_domains: Whose identities are believed, those of this mesh.
        access_log: The file to which connections are written; empty for none.
    """

    name: str
    cluster: ClusterId
    network: NetworkId
    trust_domains: tuple[TrustDomain, ...]
    locality: Locality = NOWHERE
    access_log: str = ""


@dataclass(frozen=True, slots=True)
class PlacedPod:
    """A pod of this node that shall take part, as those know it who enrol pods.

    Attributes:
        uid: Kubernetes' own; no two pods ever have the same.
        workload: The name under which all node proxies know it.
        namespace_path: A file that is its network namespace; no other pod's ever had this path.
    """

    uid: str
    workload: str
    namespace_path: str


@dataclass(frozen=True, slots=True)
class EnrolledPod:
    """The same with what the control plane says of it: its traffic goes through this proxy."""

    uid: str
    workload: str
    address: str
    identity: SpiffeId
    namespace_path: str


@dataclass(frozen=True, slots=True)
class OutboundListener:
    """Takes what a pod calls, notes who calls and from where, and passes it on to `Ways`."""

    pod: EnrolledPod


@dataclass(frozen=True, slots=True)
class PlaintextListener:
    """Takes what calls a pod without a tunnel; such callers have no identity."""

    pod: EnrolledPod
    policies: tuple[AuthorizationSlice, ...]
    access_log: str = ""


@dataclass(frozen=True, slots=True)
class TunnelListener:
    """Ends the tunnels that lead to a pod, with its certificate, for those who may call it.

    Who that is comes apart: tunnels stay open for long, and must heed a policy that changes.
    """

    pod: EnrolledPod
    trust_domains: tuple[TrustDomain, ...]
    access_log: str = ""


@dataclass(frozen=True, slots=True, order=True)
class TunnelName:
    """A name and port of a service by which a pod's own port is asked for."""

    authority: str
    port: int


@dataclass(frozen=True, slots=True)
class TunnelRoutes:
    """What may be asked for in tunnels that lead to a pod.

    They come apart from its listener, as policies do: services come and go.

    Attributes:
        names: What those ask for who are in other networks: they do not know the pod's address.
    """

    pod_uid: str
    address: str
    names: tuple[TunnelName, ...] = ()


@dataclass(frozen=True, slots=True)
class TunnelPolicies:
    """Who is denied, or who is allowed, to call a pod through tunnels."""

    pod_uid: str
    action: Action
    policies: tuple[AuthorizationSlice, ...]
    address: str
    names: tuple[TunnelName, ...] = ()


class Leading(hashing.Word):
    """What becomes of a call to a port of a service, whose cluster has the name of what was called."""

    TUNNELLED = "tunnelled"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True, order=True)
class ServiceWay:
    """Calls to an address and port of a service lead somewhere.

    Attributes:
        chain: A `Leading`, or the cluster of a waypoint, which is asked for the address.
    """

    address: str
    port: int
    chain: str = Leading.TUNNELLED.value


@dataclass(frozen=True, slots=True, order=True)
class WorkloadWay:
    """Calls to a workload's own address go through a tunnel to who can prove `identity`.

    Attributes:
        waypoint: The cluster to which they go instead, and which is asked for the address.
    """

    address: str
    identity: SpiffeId
    waypoint: str = ""


@dataclass(frozen=True, slots=True)
class Ways:
    """Which calls of all pods of the node are to services; all others are for `OtherWays`.

    Of a service it holds the address and nothing else: the rest is told with its cluster.
    """

    services: tuple[ServiceWay, ...]
    access_log: str = ""

    @property
    def name(self) -> str:
        """Return the name of the listener."""
        return WAYS


@dataclass(frozen=True, slots=True)
class OtherWays:
    """Where calls to workloads lead; what is not in here goes where it was going."""

    workloads: tuple[WorkloadWay, ...]
    access_log: str = ""

    @property
    def name(self) -> str:
        """Return the name of the listener."""
        return OTHERS


class Passage(hashing.Word):
    """The listeners inside the proxy for endpoints that no tunnel leads to by itself."""

    PLAINTEXT = "plaintext_originate"
    GATEWAY = "gateway_originate"


@dataclass(frozen=True, slots=True)
class PassageListener:
    """Passes calls on to the endpoints that were chosen for them."""

    passage: Passage
    access_log: str = ""


class Upstream(hashing.Word):
    """The clusters that every node has."""

    OUTBOUND = "outbound"
    OTHERS = "outbound_others"
    TUNNELS = "tunnels"
    GATEWAYS = "gateways"
    PLAINTEXT = "plaintext"
    TUNNELLED = "tunnelled"
    ARRIVED = "arrived"


@dataclass(frozen=True, slots=True)
class UpstreamCluster:
    """One of the clusters that every node has."""

    upstream: Upstream
    trust_domains: tuple[TrustDomain, ...]


@dataclass(frozen=True, slots=True)
class ServiceCluster:
    """The cluster of one port of a service.

    Attributes:
        shown: The name by which it is written of, where its own is an address.
        authority: What is asked for; empty where that is what was called.
        identities: Who may answer; which of them must, says each endpoint.
        is_plain: Whether nobody is asked for a tunnel.
    """

    name: str
    shown: str = ""
    authority: str = ""
    identities: tuple[SpiffeId, ...] = ()
    is_plain: bool = False


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """A workload that answers for a service; one without an identity is called in plain text.

    Attributes:
        is_asked: Whether it is a waypoint, which passes on to what is asked for.
    """

    address: str
    port: int
    identity: SpiffeId | None
    weight: int = 1
    is_asked: bool = False


@dataclass(frozen=True, slots=True)
class ServiceEndpoints:
    """Who answers for one port of a service.

    Attributes:
        far: The listener inside that makes two tunnels to what is in other networks; empty where
            nobody there is to be called.
        far_weight: How many workloads that stands for.
        is_plain: Whether nobody is asked for a tunnel.
    """

    cluster_name: str
    endpoints: tuple[Endpoint, ...]
    far: str = ""
    far_weight: int = 0
    is_plain: bool = False


@dataclass(frozen=True, slots=True)
class InnerListener:
    """Passes connections on through inner tunnels, in which `authority` is asked for.

    Attributes:
        name: Of the cluster as well, to which they lead.
        network: The node's own, which the other end is told.
    """

    name: str
    authority: str
    network: NetworkId
    access_log: str = ""


@dataclass(frozen=True, slots=True)
class InnerCluster:
    """Where inner tunnels of one port of a service end: at whoever has one of these identities."""

    name: str
    identities: tuple[str, ...]


@dataclass(frozen=True, slots=True, order=True)
class Door:
    """A gateway of another network, which ends outer tunnels."""

    address: str
    port: int
    identity: SpiffeId
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Doors:
    """The gateways through which inner tunnels lead, and what is asked for there."""

    cluster_name: str
    authority: str
    doors: tuple[Door, ...]


PodListener = OutboundListener | PlaintextListener | TunnelListener
TunnelSlice = (
    PodListener
    | TunnelPolicies
    | TunnelRoutes
    | Ways
    | OtherWays
    | PassageListener
    | UpstreamCluster
    | ServiceCluster
    | ServiceEndpoints
    | InnerListener
    | InnerCluster
    | Doors
)

WAYS = "outbound"
OTHERS = "outbound_others"
LISTENERS: Final[Mapping[type, str]] = MappingProxyType(
    {
        OutboundListener: "outbound",
        PlaintextListener: "inbound_plaintext",
        TunnelListener: "inbound_tunnel",
    }
)


class Kind(hashing.Word):
    """The kinds of resources."""

    CLUSTER = "cluster"
    ENDPOINTS = "endpoints"
    LISTENER = "listener"
    EXTENSION = "extension"
    ROUTES = "routes"


@dataclass(frozen=True, slots=True, order=True)
class TunnelKey:
    """Names a slice within its node."""

    kind: str
    name: str


def kind_of(slice_: TunnelSlice) -> Kind:
    """Return what kind of resource a slice becomes."""
    match slice_:
        case UpstreamCluster() | ServiceCluster() | InnerCluster():
            return Kind.CLUSTER
        case ServiceEndpoints() | Doors():
            return Kind.ENDPOINTS
        case TunnelPolicies():
            return Kind.EXTENSION
        case TunnelRoutes():
            return Kind.ROUTES
        case _:
            return Kind.LISTENER


def name_of(slice_: TunnelSlice) -> str:
    """Return the name of the resource that a slice becomes."""
    match slice_:
        case OutboundListener() | PlaintextListener() | TunnelListener():
            return f"{LISTENERS[type(slice_)]}|{slice_.pod.uid}"
        case TunnelPolicies(pod_uid=uid, action=action):
            return policies_name(action, uid)
        case TunnelRoutes(pod_uid=uid):
            return routes_name(uid)
        case PassageListener(passage=word) | UpstreamCluster(upstream=word):
            return str(word.value)
        case ServiceEndpoints(cluster_name=name) | Doors(cluster_name=name):
            return name
        case _:
            return slice_.name


def routes_name(pod_uid: str) -> str:
    """Return the name of what says what may be asked for in tunnels to a pod."""
    return f"inbound_tunnel|{pod_uid}"


def policies_name(action: Action, pod_uid: str) -> str:
    """Return the name of what says who is denied or allowed."""
    return f"{action.value.lower()}|{pod_uid}"


def keyed(slice_: TunnelSlice) -> tuple[TunnelKey, TunnelSlice]:
    """Return a slice with its name within its node."""
    return TunnelKey(kind_of(slice_).value, name_of(slice_)), slice_
