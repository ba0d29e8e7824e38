"""What a sidecar does with what comes to its own workload.

Source: spec section 4.9.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from isthmus.mesh.authorization import AuthorizationPolicy
from isthmus.mesh.networks import HBONE_PORT
from isthmus.mesh.policies import MtlsMode, PeerAuthentication
from isthmus.mesh.services import Protocol, Service
from isthmus.mesh.settings import MeshSettings
from isthmus.views import authorization, facts, modes, names, view


def listener_of(
    scope: view.InboundScope,
    *,
    policies: Sequence[PeerAuthentication],
    authorizations: Sequence[AuthorizationPolicy],
    settings: MeshSettings,
) -> view.Inbound:
    """Return which connections are let in, port by port."""
    accepted = modes.modes_of(
        policies,
        namespace=scope.namespace,
        labels=dict(scope.labels),
        root=settings.root_namespace,
    )
    ports = [
        view.InboundPort(port, protocol, accepted.of(port), names.inbound(port))
        for port, protocol in scope.ports
    ]
    # A port of its own in a policy counts also where no service declares it.
    undeclared = sorted(accepted.by_port.keys() - {port for port, _ in scope.ports})
    ports += [
        view.InboundPort(port, Protocol.AUTO, accepted.of(port), names.INBOUND_PASSTHROUGH)
        for port in undeclared
    ]
    return view.Inbound(
        tuple(ports),
        accepted.general,
        authorization.domains_of(settings),
        settings.access_log_path,
        authorization.policies_of(
            authorizations,
            namespace=scope.namespace,
            labels=dict(scope.labels),
            settings=settings,
        ),
        by_domain=settings.lists_domains,
    )


def tunnels_of(scope: view.InboundScope, usual: view.Inbound) -> Iterator[view.Slice]:
    """Yield what lets tunnels end at the workload, where `usual` holds for all else."""
    if not scope.ends_tunnels:
        return
    yield view.tunnels.GatewayTunnels(
        HBONE_PORT,
        view.tunnels.WORKLOAD_ROUTES,
        usual.trust_domains,
        notes_callers=True,
        by_domain=usual.by_domain,
    )
    yield view.waypoints.Door(view.tunnels.INSIDE)
    # The tunnel is all the encryption that a caller needs.
    ports = tuple(dataclasses.replace(port, mode=MtlsMode.DISABLE) for port in usual.ports)
    yield dataclasses.replace(usual, ports=ports, mode=MtlsMode.DISABLE, is_in_tunnels=True)


def routes_of(
    scope: view.TunnelScope, served: Iterable[tuple[Service, facts.Served]]
) -> view.tunnels.WorkloadRoutes:
    """Return where tunnels to a workload may lead; `served` are its ports, service by service."""
    hosts = {
        f"{service.hostname}:{one.service_port}": one.port
        for service, one in served
        if "*" not in service.hostname
    }
    told = sorted(view.tunnels.OwnHost(asked, port) for asked, port in hosts.items())
    return view.tunnels.WorkloadRoutes(scope.addresses, tuple(told))


def clusters_of(scope: view.InboundScope, *, settings: MeshSettings) -> Iterator[view.ClusterSlice]:
    """Yield the clusters that lead to the workload itself.

    They dial where the connection was going, from an address that is never captured again.
    """
    yield _to_self(names.INBOUND_PASSTHROUGH, Protocol.AUTO, settings)
    for port, protocol in scope.ports:
        yield _to_self(names.inbound(port), protocol, settings)


def _to_self(name: str, protocol: Protocol, settings: MeshSettings) -> view.ClusterSlice:
    return view.ClusterSlice(
        name,
        view.Discovery.ORIGINAL_DST,
        connect_timeout_s=settings.connect_timeout_s,
        protocol=protocol,
        bind_address=names.INBOUND_SOURCE,
    )
