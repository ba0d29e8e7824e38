"""ServiceEntry objects: services that no cluster has a Service for.

Source: spec section 8.5.
"""

from dataclasses import dataclass

from isthmus.mesh.identities import NetworkId
from isthmus.mesh.localities import NOWHERE, Locality
from isthmus.mesh.services import Resolution, ServicePort

ANY_NETWORK = NetworkId("")
Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class EntryEndpoint:
    """One place where an entry is served.

    Attributes:
        address: An IP address, or a DNS name where proxies look names up.
        ports: Name of the entry's port, and the endpoint's own; sorted.
        network: Empty for that of the configuration cluster.
        accepts_mtls: Whether a proxy stands before it.
    """

    address: str
    ports: tuple[tuple[str, int], ...] = ()
    labels: Pairs = ()
    network: NetworkId = ANY_NETWORK
    locality: Locality = NOWHERE
    weight: int = 1
    service_account: str = ""
    accepts_mtls: bool = False


@dataclass(frozen=True, slots=True)
class ServiceEntry:
    """One ServiceEntry object of networking.istio.io.

    Attributes:
        hosts: Complete names, or `*.suffix`, in lower case.
        targets: Name of a port, and the number that its endpoints listen on; sorted.
        selector: Labels of the pods of its namespace that serve it; None if none do.
        identities: SPIFFE identities that may answer for it.
        wants_address: Whether its hosts may get addresses of our making.
    """

    namespace: str
    name: str
    hosts: tuple[str, ...]
    ports: tuple[ServicePort, ...]
    resolution: Resolution
    is_external: bool = True
    addresses: tuple[str, ...] = ()
    targets: tuple[tuple[str, int], ...] = ()
    endpoints: tuple[EntryEndpoint, ...] = ()
    selector: Pairs | None = None
    export_to: tuple[str, ...] = ()
    identities: tuple[str, ...] = ()
    labels: Pairs = ()
    wants_address: bool = False
    created: str = ""
