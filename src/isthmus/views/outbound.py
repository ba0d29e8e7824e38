"""What sidecars know of a service: clusters, listeners for its addresses, hosts of its routes.

Source: spec sections 4.7, 4.8 and 4.11.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from isthmus.mesh import policies
from isthmus.mesh.identities import TrustDomain, parse_spiffe_id
from isthmus.mesh.services import Protocol, Resolution, Service, ServicePort
from isthmus.mesh.settings import MeshSettings
from isthmus.mesh.workloads import Endpoint
from isthmus.views import names, rules, splithorizon, view

ENCRYPTION: Final = {
    policies.ClientTls.AUTO: view.UpstreamTls.AUTO,
    policies.ClientTls.DISABLE: view.UpstreamTls.NONE,
    policies.ClientTls.ISTIO_MUTUAL: view.UpstreamTls.MUTUAL,
    # Keys and roots of others' making are not known here: bytes go as the application sends them.
    policies.ClientTls.SIMPLE: view.UpstreamTls.NONE,
    policies.ClientTls.MUTUAL: view.UpstreamTls.NONE,
}

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
) -> Iterator[view.ClusterSlice]:
    """Yield a cluster for each port and subset, whose endpoints have the identities `accounts`.

    For a service whose endpoints the client picks itself, `speaks_mtls` says whether all of them
    speak mutual TLS; it is None for one among whose endpoints the proxy balances.
    """
    for port in ports_of(service):
        for subset in rules.subsets_of(rule):
            policy = rules.policy_of(rule, subset=subset.name)
            tls = encryption_of(service, policy, settings=settings, speaks_mtls=speaks_mtls)
            is_plain = tls is view.UpstreamTls.NONE
            sni = names.server_name(service.hostname, port=port.number, subset=subset.name)
            yield view.ClusterSlice(
                names.outbound(service.hostname, port=port.number, subset=subset.name),
                _discovery(service, speaks_mtls),
                connect_timeout_s=settings.connect_timeout_s,
                tls=tls,
                sni="" if is_plain else sni,
                sans=() if is_plain else _identities(accounts, settings),
                protocol=port.protocol,
                balancer=policy.balancer,
                outlier=policy.outlier,
                max_connections=policy.max_connections,
                dns_name=service.alias_of,
                dns_port=port.number if service.alias_of else 0,
                service=(service.hostname, service.key.name, service.key.namespace),
            )


def encryption_of(
    service: Service,
    policy: policies.TrafficPolicy,
    *,
    settings: MeshSettings,
    speaks_mtls: bool | None,
) -> view.UpstreamTls:
    """Return what clients speak to the endpoints of a service."""
    wanted = ENCRYPTION[policy.tls]
    if wanted is not view.UpstreamTls.AUTO:
        return wanted
    if service.resolution is Resolution.ALIAS or not settings.auto_mtls:
        return view.UpstreamTls.NONE
    if speaks_mtls is None:
        return view.UpstreamTls.AUTO
    # There is no endpoint whose metadata could decide, so it is all or none.
    return view.UpstreamTls.MUTUAL if speaks_mtls else view.UpstreamTls.NONE


def _discovery(service: Service, speaks_mtls: bool | None) -> view.Discovery:
    if service.resolution is Resolution.ALIAS:
        return view.Discovery.STRICT_DNS
    return view.Discovery.EDS if speaks_mtls is None else view.Discovery.ORIGINAL_DST


def _identities(accounts: Sequence[str], settings: MeshSettings) -> tuple[str, ...]:
    """Return the identities that a server may have, also under the trust domain's old names."""
    found = dict.fromkeys(accounts)
    for account in accounts:
        identity = parse_spiffe_id(account)
        for alias in settings.trust_domain_aliases:
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


def shared_listener(port: int, *, settings: MeshSettings) -> view.OutboundHttp:
    """Return the listener of all services that speak HTTP on a port."""
    return view.OutboundHttp(
        names.ANY_ADDRESS,
        port,
        names.route(port),
        access_log_path=settings.access_log_path,
        sniffs=True,
        tcp_cluster=fallback_of(settings),
    )


def own_listeners(
    service: Service,
    *,
    addresses: Sequence[str],
    endpoints: Sequence[Endpoint],
    settings: MeshSettings,
) -> Iterator[view.ListenerSlice]:
    """Yield the listeners at the addresses of a service, for ports that are not plainly HTTP.

    `addresses` are the service's as the client sees them, and `endpoints`, for a service without
    an address, those that clients reach directly.
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
            yield _own_listener(service, port, place=(address, number), settings=settings)


def _own_listener(
    service: Service, port: ServicePort, *, place: tuple[str, int], settings: MeshSettings
) -> view.ListenerSlice:
    cluster_name = names.outbound(service.hostname, port=port.number)
    if port.protocol is not Protocol.AUTO:
        return view.OutboundTcp(*place, cluster_name, settings.access_log_path)
    return view.OutboundHttp(
        *place,
        names.sniffed_route(service.hostname, port=port.number),
        access_log_path=settings.access_log_path,
        sniffs=True,
        tcp_cluster=cluster_name,
    )


def reachable(
    candidates: Sequence[splithorizon.Candidate],
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
