"""Workloads, and the endpoints that they contribute to services.

Source: spec sections 2.5 and 3.1.
"""

import functools
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

from isthmus.base import hashing
from isthmus.mesh import identities
from isthmus.mesh.identities import ClusterId, NetworkId
from isthmus.mesh.localities import NOWHERE, Locality

Labels = tuple[tuple[str, str], ...]

NETWORK_LABEL: Final = "topology.istio.io/network"
CLUSTER_LABEL: Final = "topology.istio.io/cluster"
SUBZONE_LABEL: Final = "topology.istio.io/subzone"
REGION_LABEL: Final = "topology.kubernetes.io/region"
ZONE_LABEL: Final = "topology.kubernetes.io/zone"
HOSTNAME_LABEL: Final = "kubernetes.io/hostname"


@functools.lru_cache(maxsize=4096)
def placed(
    own: Labels, locality: Locality, cluster: ClusterId, network: NetworkId, node: str
) -> Labels:
    """Return labels, sorted, with those added that say where their owner is.

    They are put together whenever somebody asks: hardly anybody does, and hardly two are the same.
    """
    found = dict(own)
    added = {
        REGION_LABEL: locality.region,
        ZONE_LABEL: locality.zone,
        SUBZONE_LABEL: locality.subzone,
        CLUSTER_LABEL: cluster,
        HOSTNAME_LABEL: node,
        NETWORK_LABEL: found.get(NETWORK_LABEL) or network,
    }
    found.update({key: value for key, value in added.items() if value})
    return tuple(sorted(found.items()))


class Health(hashing.Word):
    """Whether an endpoint may get traffic."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    DRAINING = "draining"


WorkloadKey = identities.ObjectKey
"""Names a pod in the mesh."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What pods of one owner have in common; they share it.

    Attributes:
        own: Their own labels, sorted.
        has_proxy: Whether they accept mutual TLS (`security.istio.io/tlsMode: istio`).
        name: Of the Deployment (or other owner) that they belong to.
        container_ports: The ports that their containers declare.
        accepts_tunnels: Whether HBONE is accepted for them: their traffic is known to be captured.
        awaits_proxy: Whether their traffic is captured and no proxy takes it yet: nobody reaches
            them.
    """

    service_account: str
    own: Labels
    network: NetworkId
    has_proxy: bool = False
    name: str = ""
    is_terminating: bool = False
    container_ports: tuple[int, ...] = ()
    accepts_tunnels: bool = False
    awaits_proxy: bool = False


class Spot(NamedTuple):
    """Where pods of one node are; they share it."""

    node: str = ""
    locality: Locality = NOWHERE


@functools.lru_cache(maxsize=16384)
def spot(node: str, locality: Locality) -> Spot:
    """Return one object for all that are there."""
    return Spot(node, locality)


class Workload(msgspec.Struct, frozen=True, gc=False):
    """A pod as the mesh sees it; there are too many for what the garbage collector needs of each.

    Attributes:
        at: Its address, or all of them if it has several; empty if it has none.
    """

    key: WorkloadKey
    kind: Kind
    at: str | tuple[str, ...] = ""
    spot: Spot = Spot()

    @property
    def addresses(self) -> tuple[str, ...]:
        """All of its addresses."""
        at = self.at
        return at if isinstance(at, tuple) else (at,) if at else ()

    @property
    def address(self) -> str:
        """Its first one; empty if it has none."""
        at = self.at
        return at[0] if isinstance(at, tuple) else at

    @property
    def node(self) -> str:
        """The node that it runs on."""
        return self.spot.node

    @property
    def locality(self) -> Locality:
        """Where it is."""
        return self.spot.locality

    @property
    def service_account(self) -> str:
        """The account that it runs as."""
        return self.kind.service_account

    @property
    def own(self) -> Labels:
        """Its own labels, sorted."""
        return self.kind.own

    @property
    def network(self) -> NetworkId:
        """The network that it is in."""
        return self.kind.network

    @property
    def has_proxy(self) -> bool:
        """Whether it accepts mutual TLS."""
        return self.kind.has_proxy

    @property
    def name(self) -> str:
        """The name of the Deployment (or other owner) that it belongs to."""
        return self.kind.name

    @property
    def is_terminating(self) -> bool:
        """Whether it is about to end."""
        return self.kind.is_terminating

    @property
    def container_ports(self) -> tuple[int, ...]:
        """The ports that its containers declare."""
        return self.kind.container_ports

    @property
    def accepts_tunnels(self) -> bool:
        """Whether HBONE is accepted for it."""
        return self.kind.accepts_tunnels

    @property
    def awaits_proxy(self) -> bool:
        """Whether its traffic is captured and no proxy takes it yet."""
        return self.kind.awaits_proxy

    @property
    def labels(self) -> Labels:
        """Sorted, with those added that say where it is."""
        return placed(self.own, self.locality, self.key.cluster, self.network, self.node)


class Likeness(msgspec.Struct, frozen=True, gc=False):
    """What endpoints of one port and owner have in common; they share it.

    Attributes:
        port_name: Name of the service port, by which clusters are matched.
        accepts_mtls: Whether a proxy stands before them.
        own: The labels of the workloads behind them, sorted.
        workload: Name of the Deployment behind them, for telemetry.
        hostname: An endpoint's own name below that of its service, if it has one.
        accepts_tunnels: Whether HBONE is accepted for them.
    """

    port: int
    port_name: str
    cluster: ClusterId
    network: NetworkId
    weight: int = 1
    health: Health = Health.HEALTHY
    accepts_mtls: bool = False
    namespace: str = ""
    service_account: str = ""
    workload: str = ""
    own: Labels = ()
    hostname: str = ""
    accepts_tunnels: bool = False


class Endpoint(msgspec.Struct, frozen=True, gc=False):
    """One address and port that answers for one port of a service."""

    address: str
    like: Likeness
    node: str = ""
    locality: Locality = NOWHERE

    @property
    def port(self) -> int:
        """Its port."""
        return self.like.port

    @property
    def port_name(self) -> str:
        """Name of the service port."""
        return self.like.port_name

    @property
    def cluster(self) -> ClusterId:
        """The cluster that it is in."""
        return self.like.cluster

    @property
    def network(self) -> NetworkId:
        """The network that it is in."""
        return self.like.network

    @property
    def weight(self) -> int:
        """Its share among others."""
        return self.like.weight

    @property
    def health(self) -> Health:
        """Whether it may get traffic."""
        return self.like.health

    @property
    def accepts_mtls(self) -> bool:
        """Whether a proxy stands before it."""
        return self.like.accepts_mtls

    @property
    def namespace(self) -> str:
        """That of the workload behind it."""
        return self.like.namespace

    @property
    def service_account(self) -> str:
        """That of the workload behind it."""
        return self.like.service_account

    @property
    def workload(self) -> str:
        """Name of the Deployment behind it."""
        return self.like.workload

    @property
    def own(self) -> Labels:
        """The labels of the workload behind it, sorted."""
        return self.like.own

    @property
    def hostname(self) -> str:
        """Its own name below that of its service, if it has one."""
        return self.like.hostname

    @property
    def accepts_tunnels(self) -> bool:
        """Whether HBONE is accepted for it."""
        return self.like.accepts_tunnels

    @property
    def labels(self) -> Labels:
        """Sorted, with those added that say where it is."""
        like = self.like
        return placed(like.own, self.locality, like.cluster, like.network, self.node)
