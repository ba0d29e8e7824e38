"""Which certificates gateways may show to strangers, and whose they accept, from Secrets.

Takes the forms that Istio takes: `tls.crt` and `tls.key` (with or without `ca.crt`), or `cert`,
`key` and `cacert`. Refuses to know who asks, and whether anybody trusts the certificate.

Source: spec section 4.5; security rule CA-10.
"""

import base64
import binascii
import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509

from isthmus.ca import keys, pem, refusals

LAYOUTS: Final = (("tls.crt", "tls.key"), ("cert", "key"))
ROOTS: Final = ("ca.crt", "cacert")
REVOKED: Final = ("ca.crl", "crl")
LARGEST: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate chain with its key.

    Attributes:
        ends_at: When the certificate ends.
    """

    chain_pem: str
    key_pem: str = field(repr=False)
    ends_at: datetime.datetime


@dataclass(frozen=True, slots=True)
class Authorities:
    """Who may sign certificates of clients; `revoked_pem` says which count no more."""

    roots_pem: str
    revoked_pem: str = ""


def pair_of(content: Mapping[str, str]) -> Pair:
    """Return what a gateway shows, from the content of a Secret.

    Raises:
        BundleIncomplete: A part is missing (ISM-CA-001).
        PemMalformed: A part cannot be read (ISM-CA-002).
        KeyMismatch: They belong to different certificates (ISM-CA-003).
        KeyRefused: The key is too weak (ISM-CA-008).
    """
    layout = next((one for one in LAYOUTS if any(name in content for name in one)), LAYOUTS[0])
    chain, key = (_text(content, name) for name in layout)
    missing = [name for name, text in zip(layout, (chain, key), strict=True) if not text.strip()]
    if missing:
        raise refusals.BundleIncomplete(f"no `{missing[0]}` in it")
    leaf = pem.certificates(chain, file=layout[0])[0]
    private = keys.private_from_pem(key, file=layout[1])
    if private.public_key() != leaf.public_key():
        raise refusals.KeyMismatch(f"`{layout[1]}` belongs to another certificate")
    return Pair(chain, key, leaf.not_valid_after_utc)


def authorities_of(content: Mapping[str, str]) -> Authorities:
    """Return whose certificates of clients count, from the content of a Secret.

    Raises:
        BundleIncomplete: It says nothing about that (ISM-CA-001).
        PemMalformed: A part cannot be read (ISM-CA-002).
    """
    name = next((one for one in ROOTS if content.get(one)), "")
    if not name:
        raise refusals.BundleIncomplete(f"no `{ROOTS[0]}` in it")
    roots = _text(content, name)
    _ = pem.certificates(roots, file=name)
    list_name = next((one for one in REVOKED if content.get(one)), "")
    revoked = _text(content, list_name) if list_name else ""
    if revoked:
        _check_list(revoked, file=list_name)
    return Authorities(roots, revoked)


def names_authorities(content: Mapping[str, str]) -> bool:
    """Tell whether a Secret says whose certificates of clients count."""
    return any(content.get(one) for one in ROOTS)


def _check_list(text: str, *, file: str) -> None:
    try:
        _ = x509.load_pem_x509_crl(text.encode())
    except ValueError as error:
        raise refusals.PemMalformed(f"cannot read the list of revoked ones in `{file}`") from error


def _text(content: Mapping[str, str], name: str) -> str:
    encoded = content.get(name, "")
    try:
        return base64.b64decode(encoded[:LARGEST], validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        # The cause is left out: its text may quote what it could not read.
        raise refusals.PemMalformed(f"`{name}` is no text") from None
