"""What the control planes of linked clusters tell each other, and what links them.

A cluster tells of its own services alone, of those that it shares, and of these in sum: how many
pods answer in which place, never which ones. What is told arrives at `registry.imports`, which judges it,
and is to be read from `registry.model`.

Source: spec section 7.7.
"""

from dataclasses import dataclass
from typing import Final

from isthmus.mesh.ambient import Scope
from isthmus.mesh.identities import ClusterId, Hostname, NetworkId, SpiffeId, TrustDomain
from isthmus.mesh.localities import NOWHERE, Locality
from isthmus.mesh.networks import HBONE_PORT
from isthmus.mesh.services import ServiceKey, ServicePort

DISCOVERY_PORT: Final = 15012
"""The port of a gateway that leads to its cluster's control plane."""

APART: Final = "~"
"""Parts a network from a cluster in it; no label of a network can have it."""

TELLING_PORT: Final = 15013
"""The port of a control plane on which those of other clusters are told."""


@dataclass(frozen=True, slots=True, order=True)
class Capacity:
    """How many ready pods of a service that take tunnels are in one place.

    Attributes:
        locality: Region and zone; its subzone is never told.
        pods: At least one.
    """

    network: NetworkId
    locality: Locality = NOWHERE
    pods: int = 1


@dataclass(frozen=True, slots=True)
class Export:
    """One service, as one cluster shares it: what it has of it, not what others have.

    Attributes:
        scope: What the object there says.
        hosts: That it stands for there, sorted: what a tunnel to its gateway may ask for.
        ports: As the cluster's own object declares them.
        capacity: By place, sorted; nothing while no pod is ready, and the service stays shared.
        identities: SPIFFE identities that answer for it there, sorted, ready or not.
        distribution: The traffic distribution that the object there asks for; empty for none.
    """

    service: ServiceKey
    scope: Scope
    hosts: tuple[Hostname, ...]
    ports: tuple[ServicePort, ...] = ()
    capacity: tuple[Capacity, ...] = ()
    identities: tuple[str, ...] = ()
    distribution: str = ""

    def pods_in(self, network: NetworkId) -> int:
        """Return how many ready pods it has in a network."""
        return sum(one.pods for one in self.capacity if one.network == network)


@dataclass(frozen=True, slots=True)
class Link:
    """Another cluster that this one uses, as a Gateway of class `istio-remote` says.

    Attributes:
        namespace: Of the Gateway; that of the other cluster's gateway is called the same.
        addresses: Of the other cluster's east-west gateway: IP addresses or names.
        tunnel_port: Where it ends outer tunnels; 0 when it does not.
        discovery_port: Where it leads to the control plane; 0 when it does not.
        service_account: As which it runs.
        trust_domain: Of the other cluster.
        namespaces: Of which it may tell, sorted; empty for all.
        is_apart: Whether others are in its network as well, so that the network alone does not say
            through which gateway it is reached.
    """

    namespace: str
    name: str
    peer: ClusterId
    network: NetworkId
    addresses: tuple[str, ...]
    service_account: str
    trust_domain: TrustDomain
    tunnel_port: int = HBONE_PORT
    discovery_port: int = DISCOVERY_PORT
    namespaces: tuple[str, ...] = ()
    is_apart: bool = False

    @property
    def behind(self) -> NetworkId:
        """The network as which what is behind its gateway counts here; its own if it has one alone."""
        return NetworkId(f"{self.network}{APART}{self.peer}") if self.is_apart else self.network

    @property
    def gateway_identity(self) -> SpiffeId:
        """Who ends outer tunnels there."""
        return SpiffeId(self.trust_domain, self.namespace, self.service_account)

    @property
    def server_name(self) -> str:
        """The name that the control plane of that cluster bears, and no other."""
        return server_name(self.peer, trust_domain=self.trust_domain)


@dataclass(frozen=True, slots=True, order=True)
class ImportKey:
    """Names what one linked cluster tells of one service."""

    peer: ClusterId
    namespace: str
    name: str

    @property
    def service(self) -> ServiceKey:
        """The service that it is about."""
        return ServiceKey(self.namespace, self.name)


@dataclass(frozen=True, slots=True)
class Import:
    """A service of a linked cluster, as that cluster tells of it, checked against the link.

    Attributes:
        network: As which what is behind the gateway of that cluster counts, as the link says; the
            capacity that is told is in it.
        trust_domain: Of that cluster, as the link says.
    """

    peer: ClusterId
    network: NetworkId
    trust_domain: TrustDomain
    export: Export

    @property
    def pods(self) -> int:
        """How many ready pods stand behind the cluster's gateway."""
        return self.export.pods_in(self.network)


def server_name(cluster: ClusterId, *, trust_domain: TrustDomain) -> str:
    """Return the name that the control plane of a cluster bears towards other clusters."""
    return f"istiod.{cluster}.{trust_domain}"
