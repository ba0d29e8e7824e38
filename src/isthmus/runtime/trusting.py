"""What the compiler knows of our own authority, and what callers may be told by trust domain.

Source: spec section 1.2; security rules CA-5 and TD-1; decision 0030.
"""

from isthmus.ca import anchors, authority, pem, refusals
from isthmus.mesh.identities import ClusterId, TrustDomain
from isthmus.mesh.trust import OwnAuthority
from isthmus.registry import trust
from isthmus.runtime import assembly


def tell(mesh: assembly.Mesh, fresh: authority.Authority) -> None:
    """Tell the compiler who signs here from now on."""
    own = OwnAuthority(anchors.of(fresh.roots), anchors.of([fresh.issuer.certificate]))
    with mesh.graph.transaction() as transaction:
        transaction.put(mesh.model.trust.own, trust.OWN, own)


def domain_of(mesh: assembly.Mesh, cluster: ClusterId) -> TrustDomain:
    """Return the trust domain whose identities the workloads of a cluster have."""
    said = mesh.graph.get(mesh.model.trust.domains, cluster)
    return said or mesh.graph.value(mesh.model.settings).trust_domain


def roots_of(mesh: assembly.Mesh, domain: TrustDomain) -> str:
    """Return by what a trust domain is believed, as PEM; empty where nothing is listed for any."""
    if not mesh.graph.value(mesh.model.settings).lists_domains:
        return ""
    return "".join(_anchors(mesh, domain)) or anchors.nobody()


def vouches(mesh: assembly.Mesh, domain: TrustDomain, chain_pem: str) -> bool:
    """Say whether what is listed for a trust domain has signed a chain that roots vouch for."""
    if not mesh.graph.value(mesh.model.settings).lists_domains:
        return True
    try:
        chain = pem.certificates(chain_pem, file="chain")
    except refusals.PemMalformed:
        return False
    return anchors.vouch(_anchors(mesh, domain), chain)


def _anchors(mesh: assembly.Mesh, domain: TrustDomain) -> tuple[str, ...]:
    bundles = mesh.graph.value(mesh.model.trust.trusted).bundles
    return next((one.anchors for one in bundles if one.domain == domain), ())


def sole_domain(mesh: assembly.Mesh) -> TrustDomain | None:
    """Return the trust domain of which every identity is of our own cluster; None for none.

    Whoever has peers shares a root with them as likely as not, and cannot tell by it alone whose
    authority has signed.
    """
    settings = mesh.graph.value(mesh.model.settings)
    has_peers = settings.lists_domains or settings.peer_domains
    is_linked = bool(mesh.graph.items(mesh.model.peers.links))
    return None if has_peers or is_linked else settings.trust_domain
