"""The extensions that certificates of this mesh carry.

Source: spec sections 1.1.1 and 1.4.
"""

import datetime
from collections.abc import Iterable
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from isthmus.ca import keys

AUTHORITY_USAGE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=True,
    key_encipherment=True,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
"""What the seeds' Makefile gives to roots and intermediates."""

LEAF_USAGE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=True,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)

LEAF_LIMITS = x509.BasicConstraints(ca=False, path_length=None)

BACKDATED = datetime.timedelta(minutes=2)
"""Clocks of machines differ; a new certificate is valid on those that are a little behind."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What makes one signature differ from the next: a moment in UTC and a random number.

    Attributes:
        serial: Positive, at most 159 bits.
    """

    now: datetime.datetime
    serial: int


@dataclass(frozen=True, slots=True)
class Issuer:
    """A certificate that signs, and its key."""

    certificate: x509.Certificate
    key: keys.PrivateKey = field(repr=False)


def name(organization: str, common_name: str, *, locality: str = "") -> x509.Name:
    """Build the subject of an authority."""
    parts = [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
        x509.NameAttribute(NameOID.COMMON_NAME, common_name),
    ]
    if locality:
        parts.append(x509.NameAttribute(NameOID.LOCALITY_NAME, locality))
    return x509.Name(parts)


def authority(
    subject: x509.Name,
    *,
    issuer: x509.Name,
    key: keys.PublicKey,
    serial: int,
    valid: tuple[datetime.datetime, datetime.datetime],
    depth: int,
) -> x509.CertificateBuilder:
    """Begin a certificate that may sign others, `depth` of them below each other."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(valid[0])
        .not_valid_after(valid[1])
        .add_extension(x509.BasicConstraints(ca=True, path_length=depth), critical=True)
        .add_extension(AUTHORITY_USAGE, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def limited_to(trust_domains: Iterable[str]) -> x509.NameConstraints:
    """Limit what an authority signs to identities of these trust domains."""
    permitted = [x509.UniformResourceIdentifier(domain) for domain in trust_domains]
    return x509.NameConstraints(permitted_subtrees=permitted, excluded_subtrees=None)


def limits_of(certificate: x509.Certificate) -> frozenset[str] | None:
    """Return the trust domains that an authority is limited to; None when it is not."""
    try:
        limits = certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return None
    named = [
        each.value
        for each in limits.permitted_subtrees or ()
        if isinstance(each, x509.UniformResourceIdentifier)
    ]
    return frozenset(named) if named else None


def issuer_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """Name the key of `issuer`, as its own certificate names it where it does."""
    try:
        own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(
            keys.accepted(issuer.public_key())
        )
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own.value)


def signed(builder: x509.CertificateBuilder, *, key: keys.PrivateKey) -> x509.Certificate:
    """Sign with SHA-256."""
    return builder.sign(key, hashes.SHA256())
