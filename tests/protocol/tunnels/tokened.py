"""Tokens of an issuer, and the keys by which they are believed."""

import base64
import functools
import json

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

FAR_AWAY = 4_000_000_000


@functools.cache
def key(name):
    return rsa.generate_private_key(65537, 2048)


def encoded(content):
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def number(value):
    return encoded(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def keys(name):
    public = key(name).public_key().public_numbers()
    one = {"kty": "RSA", "alg": "RS256", "kid": "1", "n": number(public.n), "e": number(public.e)}
    return json.dumps({"keys": [one]})


KEYS = keys("issuer")


def token(*, key="issuer", exp=FAR_AWAY, **claims):
    """Return a token that says `claims`."""
    head = {"alg": "RS256", "typ": "JWT", "kid": "1"}
    parts = [encoded(json.dumps(one).encode()) for one in (head, {"exp": exp, **claims})]
    signed = ".".join(parts)
    sign = globals()["key"](key).sign
    signature = sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{signed}.{encoded(signature)}"
