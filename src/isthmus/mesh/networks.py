"""Networks, and the gateways through which one is reached from another.

Source: spec sections 3.2 and 3.3.
"""

from dataclasses import dataclass

from isthmus.mesh.identities import ClusterId, NetworkId, TrustDomain

MTLS_PORT = 15443
"""The port of a gateway that passes mutual TLS through by server name."""

NO_DOMAIN = TrustDomain("")

HBONE_PORT = 15008
"""The port of a gateway that ends the outer tunnel of ambient traffic."""


@dataclass(frozen=True, slots=True, order=True)
class NetworkGateway:
    """One address at which the endpoints of a network can be reached from outside.

    Attributes:
        cluster: The cluster that it stands in; empty when only configuration knows it.
        port: For mutual TLS by server name; 0 when it has none.
        hbone_port: For ambient tunnels; 0 when it has none.
        is_up: Whether anything answers there, as far as is known.
        namespace: Of its workloads; empty when only configuration knows it.
        service_account: Of its workloads, which ends ambient tunnels; empty likewise.
        trust_domain: Of its workloads, where a link says it; empty for that of its cluster.
    """

    network: NetworkId
    cluster: ClusterId
    address: str
    port: int = MTLS_PORT
    hbone_port: int = 0
    is_up: bool = True
    namespace: str = ""
    service_account: str = ""
    trust_domain: TrustDomain = NO_DOMAIN
