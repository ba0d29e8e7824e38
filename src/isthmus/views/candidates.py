"""A service's endpoints with what the mesh's policies say of them, whoever looks.

Source: spec sections 3.4 and 4.7.
"""

from collections.abc import Callable, Sequence

from isthmus.mesh.identities import ClusterId, SpiffeId, TrustDomain
from isthmus.mesh.packs import Packs
from isthmus.mesh.policies import MtlsMode, PeerAuthentication
from isthmus.mesh.services import ServiceKey
from isthmus.mesh.settings import MeshSettings
from isthmus.mesh.workloads import Endpoint, Likeness
from isthmus.views import bunches, modes


def candidates_of(
    endpoints: Packs,
    *,
    service: ServiceKey,
    found: Sequence[PeerAuthentication],
    settings: MeshSettings,
    domain_of: Callable[[ClusterId], TrustDomain],
) -> bunches.Candidates:
    """Return the endpoints, each with whether mutual TLS is spoken to it unless a rule objects.

    `found` are all policies that may hold for workloads of the service's namespace, and `domain_of`
    says under which name a cluster's identities go.
    """
    may_refuse = any(_disables(policy) for policy in found)

    def accepts(endpoint: Endpoint) -> bool:
        accepted = modes.modes_of(
            found,
            namespace=service.namespace,
            labels=dict(endpoint.labels),
            root=settings.root_namespace,
        )
        return accepted.of(endpoint.port) is not MtlsMode.DISABLE

    kinds = {id(like): like for like in endpoints.kinds()}
    speaks = {key: settings.auto_mtls and like.accepts_mtls for key, like in kinds.items()}
    ends = {key: _tunnel_end(like, domain_of=domain_of) for key, like in kinds.items()}
    speaking = bytes([speaks[id(like)] for like in endpoints.each_like()])
    if may_refuse:
        each = zip(endpoints, speaking, strict=True)
        speaking = bytes([bool(said) and accepts(one) for one, said in each])
    return bunches.Candidates(
        endpoints,
        speaking,
        tuple([ends[id(like)] for like in endpoints.each_like()]) if any(ends.values()) else (),
    )


def _tunnel_end(endpoint: Likeness, *, domain_of: Callable[[ClusterId], TrustDomain]) -> str:
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
