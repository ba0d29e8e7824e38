"""Which keys are good enough, and how keys are written down.

Refuses to make keys: randomness belongs to the doors.
"""

from cryptography import exceptions
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from isthmus.ca import refusals

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

SMALLEST_RSA_BITS = 2048
LARGEST_RSA_BITS = 8192
"""Larger keys only make a server spend its time."""

CURVES = ("secp256r1", "secp384r1")
"""What Envoy accepts in a certificate by default."""

ACCEPTED = "EC P-256, EC P-384, or RSA of 2048 to 8192 bits"


def accepted(key: object) -> PublicKey:
    """Return `key` when it is of a kind and size that proxies accept.

    Raises:
        KeyRefused: It is not (ISM-CA-008).
    """
    match key:
        case ec.EllipticCurvePublicKey() if key.curve.name in CURVES:
            return key
        case rsa.RSAPublicKey() if SMALLEST_RSA_BITS <= key.key_size <= LARGEST_RSA_BITS:
            return key
        case _:
            raise refusals.KeyRefused(
                f"key is not accepted: {_described(key)}",
                hint=f"use {ACCEPTED}",
            )


def private_from_pem(pem: str, *, file: str) -> PrivateKey:
    """Read a private key that is not encrypted.

    Raises:
        PemMalformed: `pem` holds no such key (ISM-CA-002).
        KeyRefused: The key is too weak or of another kind (ISM-CA-008).
    """
    try:
        key = serialization.load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, exceptions.UnsupportedAlgorithm):
        # The cause is left out: its text may quote what it could not read.
        raise refusals.PemMalformed(
            f"cannot read the private key in `{file}`",
            hint="write an unencrypted PEM key (PKCS#8, or the traditional form of RSA and EC)",
        ) from None
    accepted(key.public_key())
    assert isinstance(key, PrivateKey)
    return key


def private_pem(key: PrivateKey) -> str:
    """Write a private key as PKCS#8."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def _described(key: object) -> str:
    match key:
        case ec.EllipticCurvePublicKey():
            return f"EC {key.curve.name}"
        case rsa.RSAPublicKey():
            return f"RSA {key.key_size} bits"
        case _:
            return type(key).__name__.removesuffix("PublicKey").lstrip("_")
