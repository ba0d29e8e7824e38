"""Certificates of gateways, and who is believed, as Envoy's Secrets.

Keys are built for the gateways that may have them, and for nobody else, and never shown.
"""

import hashlib
from collections.abc import Iterable

from envoy.extensions.transport_sockets.tls.v3 import (
    secret_pb2,
    tls_spiffe_validator_config_pb2,
)

from isthmus.mesh.trust import Bundle
from isthmus.resources import snapshot
from isthmus.resources.envoy import messages

VERSION_BYTES = 12
VALIDATOR = "envoy.tls.cert_validator.spiffe"


def certificate(name: str, *, chain_pem: str, key_pem: str) -> snapshot.Resource:
    """Return a certificate with its key under the name by which it is asked for."""
    return _resource(
        secret_pb2.Secret(
            name=name,
            tls_certificate={
                "certificate_chain": {"inline_bytes": chain_pem.encode()},
                "private_key": {"inline_bytes": key_pem.encode()},
            },
        )
    )


def authorities(name: str, *, roots_pem: str, revoked_pem: str = "") -> snapshot.Resource:
    """Return who may sign certificates of clients, and which of these count no more."""
    context = {"trusted_ca": {"inline_bytes": roots_pem.encode()}}
    if revoked_pem:
        context["crl"] = {"inline_bytes": revoked_pem.encode()}
    return _resource(secret_pb2.Secret(name=name, validation_context=context))


def bundles(name: str, listed: Iterable[Bundle]) -> snapshot.Resource:
    """Return who vouches for which trust domain: nobody else is believed for it.

    Envoy picks the bundle by the trust domain in the peer's certificate, verifies the chain with it
    alone, and compares names afterwards as it would otherwise.
    """
    config = tls_spiffe_validator_config_pb2.SPIFFECertValidatorConfig(
        trust_domains=[
            {
                "name": bundle.domain,
                "trust_bundle": {"inline_bytes": "".join(bundle.anchors).encode()},
            }
            for bundle in listed
        ]
    )
    validator = messages.extension(VALIDATOR, config)
    return _resource(
        secret_pb2.Secret(name=name, validation_context={"custom_validator_config": validator})
    )


def without_key(body: bytes) -> bytes:
    """Return an encoded Secret as it may be shown."""
    secret = secret_pb2.Secret.FromString(body)
    if secret.tls_certificate.HasField("private_key"):
        secret.tls_certificate.private_key.inline_bytes = b"[redacted]"
    shown: bytes = secret.SerializeToString(deterministic=True)
    return shown


def _resource(secret: secret_pb2.Secret) -> snapshot.Resource:
    encoded = secret.SerializeToString(deterministic=True)
    # Versions are shown: nobody may learn by trying whether he has guessed a key.
    told = without_key(encoded)
    version = hashlib.blake2b(told, digest_size=VERSION_BYTES).hexdigest()
    return snapshot.Resource(snapshot.SECRETS, secret.name, version, encoded)
