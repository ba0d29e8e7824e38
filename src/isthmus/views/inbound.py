"""What a sidecar does with what comes to its own workload.

Source: spec section 4.9.
"""

from collections.abc import Iterator, Sequence

from isthmus.mesh.authorization import AuthorizationPolicy
from isthmus.mesh.policies import PeerAuthentication
from isthmus.mesh.services import Protocol
from isthmus.mesh.settings import MeshSettings
from isthmus.views import authorization, modes, names, view


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
