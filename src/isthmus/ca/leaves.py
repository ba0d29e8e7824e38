"""How a certificate that signs nothing is written and signed, byte for byte.

A control plane writes thousands that differ in key, number, names and times alone; what they have
in common is encoded once for each authority. The bytes are those that the library's own builder
would write, which costs several times as much. Refuses to know who may have which certificate.

Source: RFC 5280, section 4.1; docs/decisions/0052.
"""

import datetime
from dataclasses import dataclass
from typing import Final

from cryptography import exceptions, x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import SignatureAlgorithmOID

from isthmus.ca import der, keys, shapes

_VERSION_3: Final = b"\xa0\x03\x02\x01\x02"
_NOBODY: Final = b"\x30\x00"
"""A subject without a name."""
_EXTENSIONS: Final = 0xA3

_ECDSA_SHA256: Final = (
    SignatureAlgorithmOID.ECDSA_WITH_SHA256,
    bytes.fromhex("300a06082a8648ce3d040302"),
)
_RSA_SHA256: Final = (
    SignatureAlgorithmOID.RSA_WITH_SHA256,
    bytes.fromhex("300d06092a864886f70d01010b0500"),
)
"""What says by which algorithm a certificate is signed: RFC 5758, 3.2 and RFC 4055, 5."""

_HASH: Final = hashes.SHA256()
_BY_CURVE: Final = ec.ECDSA(_HASH)
_PADDING: Final = padding.PKCS1v15()


@dataclass(frozen=True, slots=True)
class Blank:
    """What all leaves of one authority have in common, encoded.

    Attributes:
        verified_by: The key that verifies their signatures.
        algorithm: By which they are signed, and `algorithm_id` how that is called.
        issuer: The name of the authority.
        extensions: Those that come first.
    """

    verified_by: keys.PublicKey
    algorithm_id: x509.ObjectIdentifier
    algorithm: bytes
    issuer: bytes
    extensions: bytes


def blank(issuer: x509.Certificate) -> Blank:
    """Return what all leaves of an authority have in common."""
    first = (
        extension(shapes.LEAF_LIMITS, critical=True),
        extension(shapes.LEAF_USAGE, critical=True),
        extension(shapes.issuer_identifier(issuer), critical=False),
    )
    key = keys.accepted(issuer.public_key())
    algorithm_id, algorithm = _algorithm(key)
    return Blank(key, algorithm_id, algorithm, issuer.subject.public_bytes(), b"".join(first))


def extension(value: x509.ExtensionType, *, critical: bool) -> bytes:
    """Encode one extension."""
    last = int(value.oid.dotted_string.removeprefix("2.5.29."))
    name = bytes((0x06, 3, 0x55, 0x1D, last))  # all that leaves carry lie in one arc, 2.5.29
    flag = der.TRUE if critical else b""
    return der.tagged(der.SEQUENCE, name + flag + der.tagged(der.OCTETS, value.public_bytes()))


def signed(
    common: Blank,
    *,
    key: keys.PublicKey,
    serial: int,
    valid: tuple[datetime.datetime, datetime.datetime],
    extensions: bytes,
    by: keys.PrivateKey,
) -> x509.Certificate:
    """Write a certificate for `key`, sign it, and read it as a stranger would."""
    parts = (
        _VERSION_3,
        der.integer(serial),
        common.algorithm,
        common.issuer,
        der.tagged(der.SEQUENCE, der.moment(valid[0]) + der.moment(valid[1])),
        _NOBODY,
        key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
        der.tagged(_EXTENSIONS, der.tagged(der.SEQUENCE, common.extensions + extensions)),
    )
    content = der.tagged(der.SEQUENCE, b"".join(parts))
    signature = der.tagged(der.BITS, b"\x00" + _signature(content, by=by))
    return x509.load_der_x509_certificate(
        der.tagged(der.SEQUENCE, content + common.algorithm + signature)
    )


def _algorithm(key: keys.PublicKey) -> tuple[x509.ObjectIdentifier, bytes]:
    return _RSA_SHA256 if isinstance(key, rsa.RSAPublicKey) else _ECDSA_SHA256


def _signature(content: bytes, *, by: keys.PrivateKey) -> bytes:
    if isinstance(by, rsa.RSAPrivateKey):
        return by.sign(content, _PADDING, _HASH)
    return by.sign(content, _BY_CURVE)


def is_signed(leaf: x509.Certificate, common: Blank) -> bool:
    """Say whether a leaf names this authority as its issuer, and is signed as it signs leaves."""
    content = leaf.tbs_certificate_bytes
    is_named = _after_number(content).startswith(common.algorithm + common.issuer)
    if not is_named or leaf.signature_algorithm_oid != common.algorithm_id:
        return False
    try:
        _verify(common.verified_by, leaf.signature, content)
    except exceptions.InvalidSignature:
        return False
    return True


def _after_number(content: bytes) -> bytes:
    """Return what follows version and number in what was signed: algorithm, issuer, and the rest."""
    numbered = der.content_of(content).removeprefix(_VERSION_3)
    return der.content_of(numbered)[numbered[1] :]


def _verify(key: keys.PublicKey, signature: bytes, content: bytes) -> None:
    if isinstance(key, rsa.RSAPublicKey):
        key.verify(signature, content, _PADDING, _HASH)
    else:
        key.verify(signature, content, _BY_CURVE)
