"""Which control planes of other clusters may hear what this cluster shares.

A control plane proves itself by a certificate of the mesh's authorities that names the account of
control planes in the namespace of control planes: nobody gets it who is none. Of this cluster's own
trust domain each is a member of the mesh. Of another trust domain only those are heard that somebody
here has listed: by a link to that cluster, or among the trust domains that are accepted.

Source: security rules XA-2 and TD; decision 0028.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Final

from isthmus.mesh import peering
from isthmus.mesh.identities import ClusterId, SpiffeId, TrustDomain
from isthmus.registry import links

ACCOUNT: Final = "istiod"
"""What the account of a control plane is called, or begins with before its revision."""


@dataclass(frozen=True, slots=True)
class House:
    """This cluster, and whom it knows.

    Attributes:
        accepted: Trust domains of others that are listed here.
    """

    cluster: ClusterId
    namespace: str
    trust_domain: TrustDomain
    links: Iterable[peering.Link] = ()
    accepted: Collection[TrustDomain] = field(default=frozenset())


def objection(identity: SpiffeId, claimed: str, *, house: House) -> str:
    """Say why a caller may hear nothing; empty when it may.

    Args:
        identity: That it has proven.
        claimed: The cluster that it says it is in.
        house: This cluster.
    """
    if identity.namespace != house.namespace or not is_control_plane(identity.service_account):
        return "is no control plane"
    if not links.is_cluster(ClusterId(claimed)):
        return "does not say which cluster it is in"
    if claimed == house.cluster:
        return f"says that it is in cluster `{claimed}`, as we are: two clusters have one name"
    linked = {one.peer: one.trust_domain for one in house.links}
    if identity.trust_domain != linked.get(ClusterId(claimed), identity.trust_domain):
        return f"is not of the trust domain that the link to cluster `{claimed}` names"
    known = {house.trust_domain, *linked.values(), *house.accepted}
    if identity.trust_domain not in known:
        return (
            f"trust domain `{identity.trust_domain}` is not accepted here: "
            f"link cluster `{claimed}`, or list its trust domain"
        )
    return ""


def is_control_plane(account: str) -> bool:
    """Say whether an account is one that control planes run as."""
    return account == ACCOUNT or account.startswith(f"{ACCOUNT}-")
