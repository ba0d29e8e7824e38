"""What sidecars know of a service: clusters, listeners for its addresses, hosts of its routes.

Source: spec sections 4.7, 4.8 and 4.11.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from isthmus.mesh import policies
from isthmus.mesh.identities import TrustDomain, parse_spiffe_id
from isthmus.mesh.services import Protocol, Resolution, Service, ServicePort
from isthmus.mesh.settings import MeshSettings
from isthmus.mesh.traffic import (
    EVEN,
    UNLIMITED,
    ClientTls,
    Encryption,
    HashOf,
    Http2,
    LoadBalancer,
    TrafficPolicy,
)
from isthmus.mesh.workloads import Endpoint
from isthmus.views import (
    authorization,
    foreign,
    names,
    preferences,
    rules,
    splithorizon,
    spreading,
    view,
)

ENCRYPTION: Final = {
    ClientTls.AUTO: view.UpstreamTls.AUTO,
    ClientTls.DISABLE: view.UpstreamTls.NONE,
    ClientTls.ISTIO_MUTUAL: view.UpstreamTls.MUTUAL,
    ClientTls.SIMPLE: view.UpstreamTls.FOREIGN,
    ClientTls.MUTUAL: view.UpstreamTls.FOREIGN,
}

NOT_SAID: Final = Encryption()

RESERVED: Final = frozenset({15001, 15006, 15021, 15090})
"""Where every sidecar listens itself, on all addresses: a second listener would be refused."""


def ports_of(service: Service) -> Iterator[ServicePort]:
    """Yield the ports that a proxy can serve."""
    return (port for port in service.ports if port.protocol is not Protocol.UDP)


# --- clusters


def special_clusters(settings: MeshSettings) -> Iterator[view.ClusterSlice]:
    """Yield the clusters that every sidecar has: one that answers nothing, one for strangers."""
    yield black_hole(settings)
    yield view.ClusterSlice(
        names.PASSTHROUGH,
        view.Discovery.ORIGINAL_DST,
        connect_timeout_s=settings.connect_timeout_s,
        protocol=Protocol.AUTO,
    )


def starting(
    settings: MeshSettings,
) -> Iterator[view.waypoints.TunnelStart | view.waypoints.TunnelCluster]:
    """Yield what a proxy needs to begin tunnels."""
    yield view.waypoints.TunnelStart(settings.access_log_path)
    domains = authorization.domains_of(settings)
    yield view.waypoints.TunnelCluster(domains, settings.lists_domains)


def black_hole(settings: MeshSettings) -> view.ClusterSlice:
    """Return the cluster without endpoints."""
    return view.ClusterSlice(
        names.BLACK_HOLE,
        view.Discovery.STATIC_EMPTY,
        connect_timeout_s=settings.connect_timeout_s,
    )


def clusters_of(
    service: Service,
    *,
    rule: policies.DestinationRule | None,
    accounts: Sequence[str],
    settings: MeshSettings,
    speaks_mtls: bool | None = None,
    behind: spreading.Behind = spreading.NOTHING,
) -> Iterator[view.ClusterSlice]:
    """Yield a cluster for each port and subset, whose endpoints have the identities `accounts`.

    Where the client may pick endpoints itself, `speaks_mtls` says whether all of them speak mutual
    TLS; it is None where the proxy balances among all. `behind` says which parts have endpoints
    behind gateways.
    """
    for port in ports_of(service):
        for subset in rules.subsets_of(rule):
            policy = rules.policy_of(
                rule, port=port.number, subset=subset.name, usual=settings.traffic
            )
            picks = speaks_mtls is not None and is_left_to_client(service, policy)
            tls = encryption_of(
                service, policy, settings=settings, speaks_mtls=speaks_mtls if picks else None
            )
            cluster = view.ClusterSlice(
                names.outbound(service.hostname, port=port.number, subset=subset.name),
                _discovery(service, picks=picks),
                protocol=port.protocol,
                dns_name=service.alias_of,
                dns_port=port.number if service.alias_of else 0,
                by_domain=settings.lists_domains,
                service=(service.hostname, service.key.name, service.key.namespace),
                rule=(rule.namespace, rule.name) if rule is not None else None,
            )
            sni = names.server_name(service.hostname, port=port.number, subset=subset.name)
            spoken = _encrypted(
                cluster,
                service,
                policy.tls or NOT_SAID,
                tls=tls,
                usual=(sni, _identities(accounts, settings)),
            )
            yield spreading.over_gateways(
                ruled(spoken, policy, service=service, settings=settings),
                policy,
                turns=behind.get((port.number, subset.labels), 0),
            )


def _encrypted(
    cluster: view.ClusterSlice,
    service: Service,
    said: Encryption,
    *,
    tls: view.UpstreamTls,
    usual: tuple[str, tuple[str, ...]],
) -> view.ClusterSlice:
    """Return a cluster that speaks `tls`; `usual` are the mesh's server name and identities."""
    match tls:
        case view.UpstreamTls.NONE:
            return cluster
        case view.UpstreamTls.FOREIGN:
            return dataclasses.replace(
                cluster,
                tls=tls,
                sni=foreign.server_name(service, said),
                sans=foreign.names_of(service, said),
                foreign=foreign.of(service, said, is_http=cluster.protocol.is_http),
            )
        case _:
            sni, identities = usual
            return dataclasses.replace(
                cluster, tls=tls, sni=said.sni or sni, sans=said.names or identities
            )


def ruled(
    cluster: view.ClusterSlice, policy: TrafficPolicy, *, service: Service, settings: MeshSettings
) -> view.ClusterSlice:
    """Return a cluster that balances and limits as a policy says."""
    balancing, pool = policy.balancing or EVEN, policy.pool or UNLIMITED
    preference = preferences.preference_of(policy, service, usual=settings.locality)
    return dataclasses.replace(
        cluster,
        connect_timeout_s=pool.connect_timeout_s or settings.connect_timeout_s,
        protocol=_spoken(cluster.protocol, pool.http2),
        balancer=balancing.balancer or LoadBalancer.LEAST_REQUEST,
        ring_size=balancing.ring_size,
        warmup=balancing.warmup,
        weighs_places=preferences.weighs_places(preference),
        outlier=policy.outlier,
        pool=pool,
        budget=policy.budget,
    )


def _spoken(declared: Protocol, wanted: Http2) -> Protocol:
    """Return what is spoken to endpoints."""
    match wanted:
        case Http2.UPGRADED if declared is Protocol.HTTP:
            return Protocol.HTTP2
        case Http2.AS_CLIENT if declared.is_http:
            return Protocol.AUTO
        case _:
            return declared


def encryption_of(
    service: Service,
    policy: TrafficPolicy,
    *,
    settings: MeshSettings,
    speaks_mtls: bool | None,
) -> view.UpstreamTls:
    """Return what clients speak to the endpoints of a service."""
    wanted = ENCRYPTION[policy.mode]
    if wanted is not view.UpstreamTls.AUTO:
        return wanted
    is_foreign = service.is_external or service.resolution in {Resolution.ALIAS, Resolution.NONE}
    if is_foreign or not settings.auto_mtls:
        return view.UpstreamTls.NONE
    if speaks_mtls is None:
        return view.UpstreamTls.AUTO
    # There is no endpoint whose metadata could decide, so it is all or none.
    return view.UpstreamTls.MUTUAL if speaks_mtls else view.UpstreamTls.NONE


def _discovery(service: Service, *, picks: bool) -> view.Discovery:
    if service.resolution in {Resolution.ALIAS, Resolution.DNS}:
        return view.Discovery.STRICT_DNS
    if service.resolution is Resolution.ONE_BY_DNS:
        return view.Discovery.LOGICAL_DNS
    return view.Discovery.ORIGINAL_DST if picks else view.Discovery.EDS


def is_left_to_client(service: Service, policy: TrafficPolicy) -> bool:
    """Say whether applications pick the endpoints of a service themselves."""
    if service.resolution in {Resolution.HEADLESS, Resolution.NONE}:
        return True
    return (policy.balancing or EVEN).balancer is LoadBalancer.PASSTHROUGH


def may_be_left_to_client(
    service: Service, rule: policies.DestinationRule | None, *, settings: MeshSettings
) -> bool:
    """Say whether applications pick endpoints of any port or subset themselves."""
    return any(
        is_left_to_client(
            service,
            rules.policy_of(rule, port=port.number, subset=one.name, usual=settings.traffic),
        )
        for port in ports_of(service)
        for one in rules.subsets_of(rule)
    )


def _identities(accounts: Sequence[str], settings: MeshSettings) -> tuple[str, ...]:
    """Return the identities that a server may have, also under our trust domain's old names."""
    found = dict.fromkeys(accounts)
    ours = {settings.trust_domain, *settings.trust_domain_aliases}
    for account in accounts:
        identity = parse_spiffe_id(account)
        for alias in settings.trust_domain_aliases if identity.trust_domain in ours else ():
            found[_renamed(account, identity.trust_domain, alias)] = None
    return tuple(sorted(found))


def _renamed(account: str, old: TrustDomain, new: TrustDomain) -> str:
    return f"spiffe://{new}{account.removeprefix(f'spiffe://{old}')}"


# --- listeners


def fallback_of(settings: MeshSettings) -> str:
    """Return the cluster for traffic to what the mesh does not know."""
    return names.PASSTHROUGH if settings.allows_any_outbound else names.BLACK_HOLE


def catch_all(settings: MeshSettings) -> view.CatchAllOutbound:
    """Return the listener that all captured traffic comes to."""
    return view.CatchAllOutbound(fallback_of(settings), settings.access_log_path)


def named_listener(
    port: int, *, by_name: tuple[view.NamedShares, ...], settings: MeshSettings
) -> view.OutboundTcp:
    """Return the listener of a port where TLS alone is known, by the names that it asks for."""
    return view.OutboundTcp(
        names.ANY_ADDRESS, port, fallback_of(settings), settings.access_log_path, by_name=by_name
    )


def shared_listener(
    port: int, *, settings: MeshSettings, by_name: tuple[view.NamedShares, ...] = ()
) -> view.OutboundHttp:
    """Return the listener of all services that speak HTTP on a port, and TLS by name."""
    return view.OutboundHttp(
        names.ANY_ADDRESS,
        port,
        names.route(port),
        access_log_path=settings.access_log_path,
        sniffs=True,
        tcp_cluster=fallback_of(settings),
        by_name=by_name,
    )


@dataclass(frozen=True, slots=True)
class Split:
    """Where connections to a port go, and TLS by the name that it asks for."""

    shares: tuple[view.RouteTarget, ...] = ()
    by_name: tuple[view.NamedShares, ...] = ()


NOT_SPLIT: Final = Split()

SplitAt = Callable[[str], Mapping[int, Split]]
"""Returns what is said of connections to an address, by the service's ports."""


def own_listeners(
    service: Service,
    *,
    addresses: Sequence[str],
    endpoints: Sequence[Endpoint],
    rule: policies.DestinationRule | None,
    settings: MeshSettings,
    split: SplitAt,
) -> Iterator[view.ListenerSlice]:
    """Yield the listeners at the addresses of a service, for ports that are not plainly HTTP.

    `addresses` are the service's as the client sees them, and `endpoints`, for a service without
    an address, those that clients reach directly. `split` says where connections to an address go.
    """
    if service.resolution is Resolution.ALIAS:
        return
    for port in ports_of(service):
        if port.protocol.is_http:
            continue
        places = [(address, port.number) for address in addresses]
        if service.resolution is Resolution.HEADLESS:
            places = [(one.address, one.port) for one in endpoints if one.port_name == port.name]
        for address, number in dict.fromkeys(places):
            listener = _own_listener(
                service, port, place=(address, number), rule=rule, settings=settings
            )
            yield _divided(listener, split(address).get(port.number, NOT_SPLIT))


def _own_listener(
    service: Service,
    port: ServicePort,
    *,
    place: tuple[str, int],
    rule: policies.DestinationRule | None,
    settings: MeshSettings,
) -> view.OutboundTcp | view.OutboundHttp:
    cluster_name = names.outbound(service.hostname, port=port.number)
    if port.protocol is not Protocol.AUTO:
        policy = rules.policy_of(rule, port=port.number, usual=settings.traffic)
        key = (policy.balancing or EVEN).key
        return view.OutboundTcp(
            *place,
            cluster_name,
            settings.access_log_path,
            idle_s=(policy.pool or UNLIMITED).tcp_idle_s,
            binds_source=key is not None and key.of is HashOf.SOURCE_IP,
        )
    return view.OutboundHttp(
        *place,
        names.sniffed_route(service.hostname, port=port.number),
        access_log_path=settings.access_log_path,
        sniffs=True,
        tcp_cluster=cluster_name,
    )


def _divided(
    listener: view.OutboundTcp | view.OutboundHttp, split: Split
) -> view.OutboundTcp | view.OutboundHttp:
    """Return a listener that splits connections; names of TLS are read only where TLS is declared."""
    if split is NOT_SPLIT:
        return listener
    if isinstance(listener, view.OutboundHttp):
        return dataclasses.replace(listener, tcp_shares=split.shares)
    return dataclasses.replace(listener, shares=split.shares, by_name=split.by_name)


def reachable(
    candidates: Iterable[splithorizon.Candidate],
    *,
    service: Service,
    horizon: view.HorizonScope,
) -> list[Endpoint]:
    """Return the endpoints whose own addresses a client can dial."""
    return [
        one.endpoint
        for one in candidates
        if splithorizon.is_in_view(
            one.endpoint, horizon=horizon, is_cluster_local=service.is_cluster_local
        )
        and (not horizon.network or one.endpoint.network in {"", horizon.network})
    ]
