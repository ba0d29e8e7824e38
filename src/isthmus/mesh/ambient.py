"""What node proxies must know of pods and services beside what every proxy knows.

Source: spec sections 7.1, 7.3 and 7.6.
"""

from dataclasses import dataclass

from isthmus.base import hashing
from isthmus.mesh.identities import ClusterId, NetworkId, TrustDomain
from isthmus.mesh.localities import NOWHERE, Locality
from isthmus.mesh.services import ServiceKey
from isthmus.mesh.workloads import WorkloadKey


class OwnerKind(hashing.Word):
    """What runs a pod, as far as telemetry tells it apart."""

    DEPLOYMENT = "deployment"
    CRONJOB = "cronjob"
    POD = "pod"
    JOB = "job"


@dataclass(frozen=True, slots=True)
class Waypoint:
    """A proxy that requests pass on their way to services, or to workloads."""

    for_services: bool
    for_workloads: bool


@dataclass(frozen=True, slots=True)
class WaypointUse:
    """Which waypoint something wants; None where it wants none, whatever its namespace says."""

    waypoint: ServiceKey | None


@dataclass(frozen=True, slots=True)
class Traits:
    """What is said of a pod for its node's proxy.

    Attributes:
        is_tunnel_end: Whether it ends HBONE itself (`networking.istio.io/tunnel: http`).
        workload: Name of what runs it.
        canonical_name: Of its service, for telemetry.
        canonical_revision: Of its service, for telemetry.
        trust_domain: Of its identity.
        uses_host_network: Whether its address is that of its node.
        waypoint: What it says itself of a waypoint; None where it says nothing.
    """

    key: WorkloadKey
    is_tunnel_end: bool
    owner: OwnerKind
    workload: str
    canonical_name: str
    canonical_revision: str
    trust_domain: TrustDomain
    uses_host_network: bool = False
    waypoint: WaypointUse | None = None


@dataclass(frozen=True, slots=True)
class Membership:
    """A pod answers for a service, as one EndpointSlice says.

    Attributes:
        addresses: That the slice claims; only the pod's own address proves it.
        ports: Name of the service's port, and the pod's own port; sorted.
    """

    service: ServiceKey
    pod: WorkloadKey
    addresses: tuple[str, ...]
    ports: tuple[tuple[str, int], ...]
    is_ready: bool = True


@dataclass(frozen=True, slots=True)
class LooseEndpoint:
    """An address that answers for a service without being a pod's.

    Attributes:
        uid: `<cluster>/discovery.k8s.io/EndpointSlice/<namespace>/<slice>/<address>`.
    """

    uid: str
    service: ServiceKey
    cluster: ClusterId
    address: str
    network: NetworkId
    ports: tuple[tuple[str, int], ...]
    is_ready: bool = True
    locality: Locality = NOWHERE
    node: str = ""


@dataclass(frozen=True, slots=True, order=True)
class PlacedAddress:
    """The address of a service in one cluster, and the network in which it means that."""

    network: NetworkId
    address: str
    cluster: ClusterId


@dataclass(frozen=True, slots=True)
class Scope:
    """How far the object of one cluster says that its service reaches.

    Attributes:
        derives: It is shared as `<name>.<namespace>.mesh.internal`.
        takes_over: It is shared under its own name, which takes in what others share.
    """

    derives: bool = False
    takes_over: bool = False

    @property
    def gives(self) -> bool:
        """Whether other clusters may reach its endpoints."""
        return self.derives or self.takes_over


@dataclass(frozen=True, slots=True)
class Sharing:
    """In which clusters there is a Service of a name, and which of these share it.

    Attributes:
        owners: Clusters that have one.
        sharing: Those whose own one reaches to other clusters under this name.
        givers: Those that give what is theirs to whoever takes it; all that share it, and those
            that share it under another name.
    """

    owners: frozenset[ClusterId]
    sharing: frozenset[ClusterId] = frozenset()
    givers: frozenset[ClusterId] = frozenset()

    def reaches(self, client: ClusterId, *, owner: ClusterId) -> bool:
        """Say whether clients of a cluster see the service as `owner` has it.

        Each cluster gives what is its own if its object says so, and takes what others give
        unless its own object does not. One without a Service has the name from those that
        share it under this name.
        """
        if client == owner:
            return owner in self.owners
        if client in self.sharing:
            return owner in self.givers or owner in self.sharing
        return client not in self.owners and owner in self.sharing
