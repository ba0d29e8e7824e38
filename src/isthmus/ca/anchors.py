"""Certificates by which a trust domain is known, as proxies can start from them.

A proxy ends a chain only at a certificate that names itself as its issuer. An intermediate does
not; so it is written anew as one that does: same subject, same key, same limits. What signs that
is of no account, since nobody verifies the signature of what he starts from (RFC 5280, 6.1.1):
name, key and limits are all that counts. Equal certificates give equal bytes.

Source: security rules CA-2 and TD-1; decision 0030.
"""

import datetime
from collections.abc import Iterable, Sequence
from typing import Final

from cryptography import exceptions, x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import NameOID

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


def nobody() -> str:
    """Return an anchor that vouches for nobody, for whoever must name one."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "nobody")])
    began = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(_NOBODY.public_key())
        .serial_number(1)
        .not_valid_before(began)
        .not_valid_after(began + datetime.timedelta(days=1))
    )
    return pem.written(builder.sign(_NOBODY, None))


def vouch(anchored: Iterable[str], chain: Sequence[x509.Certificate]) -> bool:
    """Say whether one of the anchors has signed the first of `chain`, or who signed that.

    For chains whose handshake has verified them by other roots: limits and dates are not looked at.
    """
    known = [x509.load_pem_x509_certificate(text.encode()) for text in anchored]
    current, others = chain[0], [one for one in chain[1:] if _is_authority(one)]
    while not any(_signed(current, by) for by in known):
        above = next((one for one in others if _signed(current, one)), None)
        if above is None:
            return False
        others.remove(above)
        current = above
    return True


def _signed(certificate: x509.Certificate, by: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(by)
    except (ValueError, TypeError, exceptions.InvalidSignature, exceptions.UnsupportedAlgorithm):
        return False
    return True


def valid(
    certificates: Iterable[x509.Certificate], *, now: datetime.datetime
) -> tuple[x509.Certificate, ...]:
    """Return those that have not ended."""
    return tuple(each for each in certificates if now < each.not_valid_after_utc)


def _check(certificate: x509.Certificate) -> None:
    keys.accepted(certificate.public_key())
    if not _is_authority(certificate):
        raise refusals.NotAnAuthority(
            f"certificate is none of an authority: {pem.subject(certificate)}",
            hint="a bundle holds what signs workloads' certificates: `ca-cert.pem`, or a root",
        )


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


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
