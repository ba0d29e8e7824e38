"""Names of what carries trust between clusters, and who vouches for a trust domain.

Source: spec sections 1.1 and 1.6; security rule TD-1.
"""

from dataclasses import dataclass

from isthmus.mesh.identities import TrustDomain

SECRET = "cacerts"
"""The Secret that holds a cluster's signing authority."""

CERTIFICATE = "ca-cert.pem"
KEY = "ca-key.pem"
ROOTS = "root-cert.pem"
CHAIN = "cert-chain.pem"
FILES = (CERTIFICATE, KEY, ROOTS, CHAIN)
"""The files of that Secret, as the walkthroughs make it."""

TLS_CERTIFICATE = "tls.crt"
TLS_KEY = "tls.key"
TLS_ROOTS = "ca.crt"
TLS_FILES = (TLS_CERTIFICATE, TLS_KEY, TLS_ROOTS)
"""The files of a Secret of type kubernetes.io/tls, as cert-manager makes it."""

DOMAIN_LABEL = "isthmus.dev/trust-domain"
"""On a ConfigMap: it lists who signs for this trust domain. On a system namespace: its cluster's."""

BUNDLE = "ca-bundle.pem"
BUNDLE_KEYS = (BUNDLE, ROOTS)
"""Under which of a ConfigMap's keys the list is."""

LONGEST_DOMAIN = 253


@dataclass(frozen=True, slots=True, order=True)
class Bundle:
    """Who vouches for the identities of a trust domain, and nobody else does.

    Attributes:
        anchors: Certificates as PEM texts, sorted, each once; never none.
    """

    domain: TrustDomain
    anchors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OwnAuthority:
    """Who signs here.

    Attributes:
        roots: What everybody in the mesh trusts, as anchors.
        issuer: What signs, as an anchor.
    """

    roots: tuple[str, ...]
    issuer: tuple[str, ...]


def is_domain(text: str) -> bool:
    """Say whether a text can be the name of a trust domain."""
    parts = text.split(".")
    return (
        0 < len(text) <= LONGEST_DOMAIN
        and text == text.lower()
        and all(
            part.isascii() and part.replace("-", "").replace("_", "").isalnum() for part in parts
        )
    )
