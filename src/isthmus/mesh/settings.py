"""The mesh's own settings, read from the ConfigMap `istio`.

Source: spec sections 8.8 and 3.2.
"""

from dataclasses import dataclass

from isthmus.mesh.identities import ClusterId, NetworkId, TrustDomain
from isthmus.mesh.selectors import ScopeRule
from isthmus.mesh.traffic import UNSAID, USUAL_PLACES, LocalityPreference, TrafficPolicy

DEFAULT_CLUSTER = ClusterId("Kubernetes")
DEFAULT_TRUST_DOMAIN = TrustDomain("cluster.local")


@dataclass(frozen=True, slots=True)
class NetworkMember:
    """What belongs to a network: a whole cluster, or a range of addresses."""

    network: NetworkId
    from_registry: str = ""
    from_cidr: str = ""


@dataclass(frozen=True, slots=True)
class ConfiguredGateway:
    """A gateway of a network that the settings name, by address or by Service.

    Attributes:
        is_known: False for the placeholder `0.0.0.0`: the address is filled in later.
    """

    network: NetworkId
    address: str = ""
    registry_service_name: str = ""
    port: int = 15443
    is_known: bool = True


@dataclass(frozen=True, slots=True)
class ListedAuthority:
    """Who signs for some trust domains, by the settings; for our own where none is named.

    Attributes:
        anchors: Certificates as PEM texts.
    """

    domains: tuple[TrustDomain, ...]
    anchors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MeshSettings:
    """What holds for the whole mesh.

    Attributes:
        cluster: The cluster whose API server holds the configuration.
        authorities: Who signs for which trust domain, as far as the settings say it.
        peer_domains: Trust domains that are accepted beside our own and its aliases, sorted.
        lists_domains: Whether anybody has listed who signs for which trust domain.
        domain: The DNS suffix of services.
        allows_any_outbound: Whether proxies pass traffic for unknown hosts through.
        cluster_local_hosts: Host patterns whose endpoints stay in their own cluster.
        mesh_wide_hosts: Host patterns that are exempt from that; the more specific pattern holds.
        lets_http10: Whether HTTP/1.0 is accepted.
        locality: Which places are nearer, where no rule says it.
        traffic: What holds where no rule says anything.
        shared: Which Services other clusters may reach under their own name.
        most_tunnels: How many tunnels one caller may begin at a gateway in a second; 0 for any.
    """

    cluster: ClusterId = DEFAULT_CLUSTER
    trust_domain: TrustDomain = DEFAULT_TRUST_DOMAIN
    trust_domain_aliases: tuple[TrustDomain, ...] = ()
    authorities: tuple[ListedAuthority, ...] = ()
    peer_domains: tuple[TrustDomain, ...] = ()
    lists_domains: bool = False
    root_namespace: str = "istio-system"
    system_namespace: str = "istio-system"
    domain: str = "cluster.local"
    mesh_id: str = ""
    auto_mtls: bool = True
    allows_any_outbound: bool = True
    access_log_path: str = ""
    connect_timeout_s: float = 10.0
    network_members: tuple[NetworkMember, ...] = ()
    configured_gateways: tuple[ConfiguredGateway, ...] = ()
    cluster_local_hosts: tuple[str, ...] = (
        "*.kube-system.svc.cluster.local",
        "kubernetes.default.svc.cluster.local",
        "istiod.istio-system.svc.cluster.local",
    )
    mesh_wide_hosts: tuple[str, ...] = ()
    locality: LocalityPreference = USUAL_PLACES
    traffic: TrafficPolicy = UNSAID
    shared: tuple[ScopeRule, ...] = ()
    most_tunnels: int = 0
