"""Certificates as text: splitting, reading, writing."""

from collections.abc import Iterable

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from isthmus.ca import refusals

BEGIN = "-----BEGIN CERTIFICATE-----"
END = "-----END CERTIFICATE-----"


def certificates(text: str, *, file: str) -> tuple[x509.Certificate, ...]:
    """Read every certificate of `text`, in order; text around them is ignored.

    Raises:
        PemMalformed: There is none, or one of them cannot be read (ISM-CA-002).
    """
    try:
        found = tuple(x509.load_pem_x509_certificates(text.encode()))
    except ValueError as error:
        raise refusals.PemMalformed(
            f"cannot read the certificates in `{file}`",
            # The library's sentence goes on with the address of its own manual.
            detail=str(error).partition(". See ")[0][:200],
            hint="write PEM certificates, each between BEGIN CERTIFICATE and END CERTIFICATE",
        ) from error
    return found


def written(certificate: x509.Certificate) -> str:
    """Write one certificate; the text ends with one line break."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def joined(chain: Iterable[x509.Certificate]) -> str:
    """Write certificates one after the other."""
    return "".join(written(certificate) for certificate in chain)


def fingerprint(certificate: x509.Certificate) -> str:
    """Return the SHA-256 fingerprint, as openssl prints it."""
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def subject(certificate: x509.Certificate) -> str:
    """Return the subject for people; a certificate without one is named by its serial number."""
    return certificate.subject.rfc4514_string() or f"serial {certificate.serial_number:x}"
