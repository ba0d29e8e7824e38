"""What node proxies are told, as slices: workloads, services, and who may connect to whom.

Part of the hand-over: other rooms find these under `views.view`. Every slice bears the names by
which a node proxy may ask for it.

Source: spec sections 7.1 and 7.5.
"""

from dataclasses import dataclass
from typing import Final

from isthmus.base import hashing
from isthmus.mesh.ambient import OwnerKind
from isthmus.mesh.authorization import Action, Pattern
from isthmus.mesh.identities import ClusterId, NetworkId, TrustDomain
from isthmus.mesh.localities import NOWHERE, Locality
from isthmus.mesh.services import Protocol

NO_DOMAIN: Final = TrustDomain("")


@dataclass(frozen=True, slots=True, order=True)
class NetworkAddress:
    """An address, and the network in which it means something."""

    network: NetworkId
    address: str


@dataclass(frozen=True, slots=True)
class GatewayAddress:
    """Where tunnels to something else end: an address, or a service's `(namespace, host)`."""

    port: int
    address: NetworkAddress | None = None
    host: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class AddressPort:
    """A port of a service; `target` is the workload's own, 0 where each has its own."""

    number: int
    target: int
    protocol: Protocol = Protocol.AUTO


@dataclass(frozen=True, slots=True)
class WorkloadSlice:
    """One workload.

    Attributes:
        uid: The name of the resource.
        hostname: What node proxies look up for its address, where it has none.
        services: `<namespace>/<host>` and ports of those for which it answers, sorted.
        policies: `<namespace>/<name>` of those that select it by its labels.
        gateway: Behind which it stands, for those without addresses.
        capacity: How many workloads it stands for.
    """

    uid: str
    name: str
    namespace: str
    cluster: ClusterId
    network: NetworkId
    addresses: tuple[str, ...] = ()
    hostname: str = ""
    service_account: str = ""
    trust_domain: TrustDomain = NO_DOMAIN
    takes_tunnels: bool = False
    is_tunnel_end: bool = False
    node: str = ""
    locality: Locality = NOWHERE
    owner: OwnerKind = OwnerKind.POD
    workload: str = ""
    canonical_name: str = ""
    canonical_revision: str = ""
    services: tuple[tuple[str, tuple[AddressPort, ...]], ...] = ()
    policies: tuple[str, ...] = ()
    is_healthy: bool = True
    uses_host_network: bool = False
    waypoint: GatewayAddress | None = None
    gateway: GatewayAddress | None = None
    capacity: int = 1

    @property
    def resource_name(self) -> str:
        """The name of the resource."""
        return self.uid


class Nearness(hashing.Word):
    """What endpoints may share with a client."""

    NETWORK = "network"
    REGION = "region"
    ZONE = "zone"
    SUBZONE = "subzone"
    NODE = "node"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class ServiceSlice:
    """One service.

    Attributes:
        sans: Identities that may answer for it, besides those of its workloads.
        nearness: What near endpoints share with the client, the most important first.
        is_strict: Whether only endpoints that share all of it get traffic.
        takes_unready: Whether endpoints get traffic before they are ready.
        is_canonical: Whether its host means this service wherever no nearer one has it.
        is_passed_through: Whether connections go to the very address that the client dials.
        is_private: Whether only clients of its own namespace may know of it.
    """

    name: str
    namespace: str
    host: str
    addresses: tuple[NetworkAddress, ...]
    ports: tuple[AddressPort, ...]
    sans: tuple[str, ...] = ()
    nearness: tuple[Nearness, ...] = ()
    is_strict: bool = False
    takes_unready: bool = False
    is_canonical: bool = False
    is_passed_through: bool = False
    is_private: bool = False
    waypoint: GatewayAddress | None = None

    @property
    def resource_name(self) -> str:
        """The name of the resource."""
        return f"{self.namespace}/{self.host}"


class Reach(hashing.Word):
    """For whom a policy holds without being named by workloads."""

    MESH = "mesh"
    NAMESPACE = "namespace"
    NAMED = "named"


@dataclass(frozen=True, slots=True)
class ConnectionMatch:
    """What a connection must look like: all that is said must hold, each by one of its values.

    Attributes:
        principals: Identities without `spiffe://`.
        accounts: `(namespace, name)`.
        sources: Ranges of addresses.
    """

    principals: tuple[Pattern, ...] = ()
    not_principals: tuple[Pattern, ...] = ()
    namespaces: tuple[Pattern, ...] = ()
    not_namespaces: tuple[Pattern, ...] = ()
    accounts: tuple[tuple[str, str], ...] = ()
    not_accounts: tuple[tuple[str, str], ...] = ()
    sources: tuple[str, ...] = ()
    not_sources: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    not_ports: tuple[int, ...] = ()


ANY_CONNECTION = ConnectionMatch()

Alternatives = tuple[ConnectionMatch, ...]
"""One of them must fit."""


@dataclass(frozen=True, slots=True)
class AuthorizationSlice:
    """Who may connect, or must not.

    Attributes:
        groups: Connections are meant that fit all of one group; a group without any means all,
            no groups mean none.
    """

    namespace: str
    name: str
    reach: Reach
    action: Action
    groups: tuple[tuple[Alternatives, ...], ...]

    @property
    def resource_name(self) -> str:
        """The name of the resource."""
        return f"{self.namespace}/{self.name}"


NodeSlice = WorkloadSlice | ServiceSlice | AuthorizationSlice


def node_name(cluster: ClusterId, node: str) -> str:
    """Return the name by which the workloads of a node are wanted together."""
    return f"//Node/{cluster}/{node}"


def wholes_of(slice_: WorkloadSlice) -> tuple[str, ...]:
    """Return what a workload is a part of: services, and its node."""
    services = tuple(name for name, _ in slice_.services)
    return (*services, node_name(slice_.cluster, slice_.node)) if slice_.node else services


def aliases_of(slice_: WorkloadSlice | ServiceSlice) -> tuple[str, ...]:
    """Return other names by which a node proxy may ask: `<network>/<address>`."""
    if isinstance(slice_, ServiceSlice):
        return tuple(sorted({f"{one.network}/{one.address}" for one in slice_.addresses}))
    if slice_.uses_host_network:
        return ()  # Many pods may have that address, and the node itself.
    return tuple(f"{slice_.network}/{address}" for address in slice_.addresses)
