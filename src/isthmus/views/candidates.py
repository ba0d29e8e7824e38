"""A service's endpoints with what the mesh's policies say of them, whoever looks.

Source: spec sections 3.4 and 4.7.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from isthmus.mesh.identities import ClusterId, SpiffeId, TrustDomain
from isthmus.mesh.policies import MtlsMode, PeerAuthentication
from isthmus.mesh.services import ServiceKey
from isthmus.mesh.settings import MeshSettings
from isthmus.mesh.workloads import Endpoint
from isthmus.views import modes, splithorizon

CANONICAL_NAME: Final = ("service.istio.io/canonical-name", "app.kubernetes.io/name", "app")
CANONICAL_REVISION: Final = (
    "service.istio.io/canonical-revision",
    "app.kubernetes.io/version",
    "version",
)
TOLD: Final = frozenset((*CANONICAL_NAME, *CANONICAL_REVISION))
LATEST: Final = "latest"


def candidates_of(
    endpoints: Sequence[Endpoint],
    *,
    service: ServiceKey,
    found: Sequence[PeerAuthentication],
    settings: MeshSettings,
    domain_of: Callable[[ClusterId], TrustDomain],
) -> tuple[splithorizon.Candidate, ...]:
    """Return the endpoints, each with whether mutual TLS is spoken to it unless a rule objects.

    `found` are all policies that may hold for workloads of the service's namespace, and `domain_of`
    says under which name a cluster's identities go.
    """
    may_refuse = any(_disables(policy) for policy in found)

    def speaks(endpoint: Endpoint) -> bool:
        if not settings.auto_mtls or not endpoint.accepts_mtls:
            return False
        if not may_refuse:
            return True
        accepted = modes.modes_of(
            found,
            namespace=service.namespace,
            labels=dict(endpoint.labels),
            root=settings.root_namespace,
        )
        return accepted.of(endpoint.port) is not MtlsMode.DISABLE

    return tuple(
        splithorizon.Candidate(
            one,
            speaks_mtls=speaks(one),
            workload=_described(one, service),
            tunnel_end=_tunnel_end(one, domain_of=domain_of),
        )
        for one in endpoints
    )


def _tunnel_end(endpoint: Endpoint, *, domain_of: Callable[[ClusterId], TrustDomain]) -> str:
    """Return who ends tunnels for an endpoint; empty where a sidecar takes mutual TLS as well.

    That costs less, as one handshake and one proxy less are on the way.
    """
    if not endpoint.accepts_tunnels or endpoint.accepts_mtls or not endpoint.service_account:
        return ""
    domain = domain_of(endpoint.cluster)
    return str(SpiffeId(domain, endpoint.namespace, endpoint.service_account))


def _disables(policy: PeerAuthentication) -> bool:
    modes_said = (policy.mode, *(mode for _, mode in policy.port_modes))
    return MtlsMode.DISABLE in modes_said


def _described(endpoint: Endpoint, service: ServiceKey) -> str:
    """Return who an endpoint is, as telemetry wants it."""
    namespace = endpoint.namespace or service.namespace
    return _description(endpoint.workload, namespace, endpoint.cluster, _told_by(endpoint.own))


def _told_by(labels: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    return tuple([pair for pair in labels if pair[0] in TOLD and pair[1]])


@functools.lru_cache(maxsize=16384)
def _description(
    workload: str, namespace: str, cluster: ClusterId, labels: tuple[tuple[str, str], ...]
) -> str:
    """Return one text for all that it describes."""
    told = dict(labels)
    name = _first(told, CANONICAL_NAME) or workload
    revision = _first(told, CANONICAL_REVISION)
    shown = "" if revision == LATEST else revision
    return f"{workload};{namespace};{name};{shown};{cluster}"


def _first(labels: Mapping[str, str], keys: Sequence[str]) -> str:
    for key in keys:
        if key in labels:
            return labels[key]
    return ""
