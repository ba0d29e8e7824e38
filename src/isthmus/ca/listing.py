"""The ConfigMap by which a control plane learns who signs for a trust domain.

One for each cluster, so that clusters that share a trust domain add up. What it lists is only ever
added to: the old intermediate stays beside the new one until it ends, or until somebody takes it out.

Source: decision 0030.
"""

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509

from isthmus.ca import anchors, pem, refusals
from isthmus.mesh import trust
from isthmus.mesh.identities import ClusterId, TrustDomain

PREFIX: Final = "isthmus-trust-"
CLUSTER_LABEL: Final = "topology.istio.io/cluster"


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signs in a cluster, for its trust domain."""

    cluster: ClusterId
    domain: TrustDomain
    certificates: tuple[x509.Certificate, ...]


def name_of(cluster: ClusterId) -> str:
    """Return the name of a cluster's ConfigMap."""
    return f"{PREFIX}{cluster}"


def manifest(signer: Signer, *, namespace: str) -> dict[str, Any]:
    """Return the ConfigMap that lists who signs in a cluster."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name_of(signer.cluster),
            "namespace": namespace,
            "labels": {
                trust.DOMAIN_LABEL: str(signer.domain),
                CLUSTER_LABEL: str(signer.cluster),
            },
        },
        "data": {trust.BUNDLE: pem.joined(signer.certificates)},
    }


def namespace(signer: Signer, *, namespace: str) -> dict[str, Any]:
    """Return the system namespace of a cluster with its trust domain, for those who follow it."""
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": namespace, "labels": {trust.DOMAIN_LABEL: str(signer.domain)}},
    }


def with_next(signer: Signer, certificates: Iterable[x509.Certificate]) -> Signer:
    """Return a signer with what will sign there soon."""
    both = dict.fromkeys((*signer.certificates, *certificates))
    return Signer(signer.cluster, signer.domain, tuple(both))


def with_listed(
    signer: Signer, held: Mapping[str, Any] | None, *, now: datetime.datetime
) -> Signer:
    """Return a signer with what its ConfigMap lists by now and has not ended.

    A list for another trust domain counts for nothing, and so does one that cannot be read.
    """
    said = ((held or {}).get("metadata") or {}).get("labels") or {}
    if said.get(trust.DOMAIN_LABEL) != signer.domain:
        return signer
    text = ((held or {}).get("data") or {}).get(trust.BUNDLE, "")
    try:
        before = anchors.listed(text, file=trust.BUNDLE)
    except refusals.CaRefusal:
        return signer
    both = dict.fromkeys((*signer.certificates, *anchors.valid(before, now=now)))
    return Signer(signer.cluster, signer.domain, tuple(both))
