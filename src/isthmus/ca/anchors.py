"""Certificates by which a trust domain is known, as proxies can start from them.

A proxy ends a chain only at a certificate that names itself as its issuer. An intermediate does
not; so it is written anew as one that does: same subject, same key, same limits. What signs that
is of no account, since nobody verifies the signature of what he starts from (RFC 5280, 6.1.1):
name, key and limits are all that counts. Equal certificates give equal bytes.

Source: security rules CA-2 and TD-1; decision 0030.
"""

import datetime
from collections.abc import Iterable
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519

from isthmus.ca import keys, pem, refusals

MOST: Final = 20
"""So many certificates a trust domain may be known by: old and new ones of several clusters."""

_NOBODY: Final = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))
"""Fills the place of a signature that nobody verifies."""


def listed(text: str, *, file: str) -> tuple[x509.Certificate, ...]:
    """Read the certificates of a bundle, each once.

    Raises:
        PemMalformed: There is none, one cannot be read, or there are too many (ISM-CA-002).
        NotAnAuthority: One may not sign (ISM-CA-004).
        KeyRefused: A key is too weak (ISM-CA-008).
    """
    found = tuple(dict.fromkeys(pem.certificates(text, file=file)))
    if len(found) > MOST:
        raise refusals.PemMalformed(
            f"`{file}` holds more than {MOST} certificates",
            hint="leave only what signs for this trust domain now, or did a moment ago",
        )
    for each in found:
        _check(each)
    return found


def of(certificates: Iterable[x509.Certificate]) -> tuple[str, ...]:
    """Return certificates as proxies can start from them: PEM texts, sorted, each once."""
    return tuple(sorted({pem.written(_anchored(each)) for each in certificates}))


def valid(
    certificates: Iterable[x509.Certificate], *, now: datetime.datetime
) -> tuple[x509.Certificate, ...]:
    """Return those that have not ended."""
    return tuple(each for each in certificates if now < each.not_valid_after_utc)


def _check(certificate: x509.Certificate) -> None:
    keys.accepted(certificate.public_key())
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        may_sign = constraints.ca
    except (x509.ExtensionNotFound, ValueError):
        may_sign = False
    if not may_sign:
        raise refusals.NotAnAuthority(
            f"certificate is none of an authority: {pem.subject(certificate)}",
            hint="a bundle holds what signs workloads' certificates: `ca-cert.pem`, or a root",
        )


def _anchored(certificate: x509.Certificate) -> x509.Certificate:
    """Return a certificate that names itself as its issuer, and says the same otherwise."""
    if certificate.issuer == certificate.subject:
        return certificate
    builder = (
        x509.CertificateBuilder()
        .subject_name(certificate.subject)
        .issuer_name(certificate.subject)
        .public_key(keys.accepted(certificate.public_key()))
        .serial_number(certificate.serial_number)
        .not_valid_before(certificate.not_valid_before_utc)
        .not_valid_after(certificate.not_valid_after_utc)
    )
    for extension in certificate.extensions:
        if extension.oid != x509.AuthorityKeyIdentifier.oid:
            builder = builder.add_extension(extension.value, critical=extension.critical)
    return builder.sign(_NOBODY, None)
