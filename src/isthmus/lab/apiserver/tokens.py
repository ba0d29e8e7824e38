"""Service account tokens: JSON web tokens signed with ES256.

It decides how a token is written and which signature and times it accepts. It refuses to know
which objects the claims speak of; `authn` looks those up.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography import exceptions
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

Claims = dict[str, Any]

ISSUER = "https://kubernetes.default.svc.cluster.local"
"""Who issues, and the audience of a token that asks for none."""

LEGACY_ISSUER = "kubernetes/serviceaccount"
"""Who issues the tokens that are kept in Secrets: they have no audience and never end."""

LEGACY_CLAIMS = "kubernetes.io/serviceaccount"
"""What the names of their claims begin with."""

_NUMBER_SIZE = 32


class UnacceptableError(Exception):
    """A token that is malformed, forged, not yet or no longer valid, or of a gone object."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What a bound token names besides its account: it ends with that object.

    Attributes:
        kind: `pod`, `secret` or `node`, as the claim spells it.
        name: Its name.
        uid: Its uid; another object of the same name does not keep the token alive.
    """

    kind: str
    name: str
    uid: str


class Signer:
    """Signs and checks one cluster's tokens."""

    def __init__(self, key_pem: str) -> None:
        key = serialization.load_pem_private_key(key_pem.encode(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError("tokens are signed with a key on an elliptic curve")
        self._key = key
        self._public = key.public_key()
        self.key_id = _key_id(self._public)

    def public_key_pem(self) -> str:
        """Return the key that checks the tokens."""
        return self._public.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ).decode()

    def key_set(self) -> Claims:
        """Return the key as a JSON web key set, as `/openid/v1/jwks` shows it."""
        numbers = self._public.public_numbers()
        return {
            "keys": [
                {
                    "use": "sig",
                    "kty": "EC",
                    "kid": self.key_id,
                    "crv": "P-256",
                    "alg": "ES256",
                    "x": _encoded(numbers.x.to_bytes(_NUMBER_SIZE, "big")),
                    "y": _encoded(numbers.y.to_bytes(_NUMBER_SIZE, "big")),
                }
            ]
        }

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Write `claims` as a signed token."""
        header = {"alg": "ES256", "kid": self.key_id}
        signed = f"{_encoded_json(header)}.{_encoded_json(claims)}"
        der = self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256()))
        r, s = utils.decode_dss_signature(der)
        raw = r.to_bytes(_NUMBER_SIZE, "big") + s.to_bytes(_NUMBER_SIZE, "big")
        return f"{signed}.{_encoded(raw)}"

    def claims_of(self, token: str, *, now_s: float) -> Claims:
        """Return what `token` claims.

        Raises:
            UnacceptableError: It is malformed or not signed here, or its time is not now.
        """
        signed, _, signature = token.rpartition(".")
        try:
            header, payload = (json.loads(_decoded(part)) for part in signed.split("."))
            raw = _decoded(signature)
        except ValueError as error:
            raise UnacceptableError("invalid bearer token") from error
        if not isinstance(header, dict) or not isinstance(payload, dict):
            raise UnacceptableError("invalid bearer token")
        if header.get("alg") != "ES256" or len(raw) != 2 * _NUMBER_SIZE:
            raise UnacceptableError("invalid bearer token: unexpected signature algorithm")
        self._check(signed, raw)
        _check_times(payload, now_s)
        return payload

    def _check(self, signed: str, raw: bytes) -> None:
        der = utils.encode_dss_signature(
            int.from_bytes(raw[:_NUMBER_SIZE], "big"), int.from_bytes(raw[_NUMBER_SIZE:], "big")
        )
        try:
            self._public.verify(der, signed.encode(), ec.ECDSA(hashes.SHA256()))
        except exceptions.InvalidSignature as error:
            raise UnacceptableError("invalid bearer token: signature does not match") from error


def bound_claims(
    *,
    namespace: str,
    account: tuple[str, str],
    audiences: Sequence[str],
    lifetime: tuple[int, int],
    token_id: str,
    bound: Bound | None = None,
) -> Claims:
    """Write the claims of a token that TokenRequest answers with.

    Args:
        namespace: The account's namespace.
        account: The account's name and uid.
        audiences: Who may accept it.
        lifetime: When it begins and ends, in seconds since 1970.
        token_id: A unique id, which shows as `credential-id`.
        bound: The object with which it ends.
    """
    name, uid = account
    begins, ends = lifetime
    inner: Claims = {"namespace": namespace, "serviceaccount": {"name": name, "uid": uid}}
    if bound is not None:
        inner[bound.kind] = {"name": bound.name, "uid": bound.uid}
    return {
        "aud": list(audiences),
        "exp": ends,
        "iat": begins,
        "iss": ISSUER,
        "jti": token_id,
        "kubernetes.io": inner,
        "nbf": begins,
        "sub": f"system:serviceaccount:{namespace}:{name}",
    }


def legacy_claims(*, namespace: str, account: tuple[str, str], secret: str) -> Claims:
    """Write the claims of a token that is kept in the Secret `secret`."""
    name, uid = account
    prefix = LEGACY_CLAIMS
    return {
        "iss": LEGACY_ISSUER,
        f"{prefix}/namespace": namespace,
        f"{prefix}/secret.name": secret,
        f"{prefix}/service-account.name": name,
        f"{prefix}/service-account.uid": uid,
        "sub": f"system:serviceaccount:{namespace}:{name}",
    }


def _check_times(claims: Claims, now_s: float) -> None:
    if claims.get("iss") == LEGACY_ISSUER:
        return
    if claims.get("iss") != ISSUER:
        raise UnacceptableError("invalid bearer token: unknown issuer")
    if not claims.get("nbf", 0) <= now_s + 60:
        raise UnacceptableError("service account token is not valid yet")
    if not now_s < claims.get("exp", 0):
        raise UnacceptableError("service account token has expired")


def _key_id(key: ec.EllipticCurvePublicKey) -> str:
    der = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return _encoded(hashlib.sha256(der).digest())


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _encoded_json(value: Mapping[str, Any]) -> str:
    return _encoded(json.dumps(value, separators=(",", ":")).encode())


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError("not base64") from error


def decoded_field(secret: Mapping[str, Any], field: str) -> str:
    """Return one field of a Secret's data as text; empty when it is missing."""
    return base64.b64decode((secret.get("data") or {}).get(field, "")).decode()
