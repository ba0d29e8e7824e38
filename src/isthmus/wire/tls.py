"""The control plane's own certificate: made from its authority, replaced without a restart.

One `Serving` holds what is served now; gRPC servers and the webhook's TLS context follow it, so
that a new authority or a renewal takes effect with the next connection.

gRPC's Python library can require client certificates or not ask for them; it cannot ask for one
and accept none. Proxies prove themselves with tokens, so by default none is asked for.

Source: spec section 1.7; security rules CA-2 and section 4.10.
"""

import contextlib
import datetime
import os
import secrets
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from isthmus.base import clock
from isthmus.ca import authority, keys, pem, renewal, shapes, signing
from isthmus.mesh import identities

LIFETIME = datetime.timedelta(days=90)
"""Istio's own serving certificate lives as long as its authority; a shorter one is renewed."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate that is served, with its key.

    Attributes:
        chain_pem: The leaf first, then what leads to the roots.
        roots_pem: What a client's certificate is verified against.
        names: Under which it may be served.
        renew_at: When it should be replaced.
    """

    chain_pem: str
    key_pem: str = field(repr=False)
    roots_pem: str
    renew_at: clock.Instant
    names: tuple[str, ...] = ()


def issue(
    signer: authority.Authority,
    *,
    names: tuple[str, ...],
    now: clock.Instant,
    lifetime: datetime.timedelta = LIFETIME,
) -> Certificate:
    """Make a key and sign its certificate for `names`.

    Raises:
        AuthorityExpired: The signing certificate has ended (ISM-CA-006).
    """
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = signing.serving(
        key.public_key(), names=names, signer=signer, stamp=stamp(now), life=lifetime
    )
    return _certificate(leaf, key, signer=signer, now=now, names=names)


def prove(
    signer: authority.Authority,
    *,
    identity: identities.SpiffeId,
    now: clock.Instant,
    lifetime: datetime.timedelta,
) -> Certificate:
    """Make a key and sign the certificate by which the control plane proves itself to others.

    Raises:
        AuthorityExpired: The signing certificate has ended (ISM-CA-006).
        DomainNotPermitted: Nobody would accept the result (ISM-CA-015).
    """
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = signing.workload(
        key.public_key(), identity=identity, signer=signer, stamp=stamp(now), life=lifetime
    )
    return _certificate(leaf, key, signer=signer, now=now)


def _certificate(
    leaf: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    *,
    signer: authority.Authority,
    now: clock.Instant,
    names: tuple[str, ...] = (),
) -> Certificate:
    return Certificate(
        chain_pem=pem.joined((leaf, *signer.chain)),
        key_pem=keys.private_pem(key),
        roots_pem=signer.roots_pem,
        renew_at=renewal.renewal_time(
            now, ends=leaf.not_valid_after_utc, chance=secrets.randbelow(1000) / 1000
        ),
        names=names,
    )


def stamp(now: clock.Instant) -> shapes.Stamp:
    """Draw a serial number for a signature made `now`."""
    return shapes.Stamp(now, secrets.randbits(127) + 1)


class Serving:
    """What is served at this moment; whoever serves follows it."""

    def __init__(self, certificate: Certificate) -> None:
        self._certificate = certificate
        self._contexts: list[ssl.SSLContext] = []
        self._discovery: tuple[Certificate, ssl.SSLContext] | None = None

    @property
    def certificate(self) -> Certificate:
        """The certificate that the next connection gets."""
        return self._certificate

    def replace(self, certificate: Certificate) -> None:
        """Serve another certificate from the next connection on."""
        for context in self._contexts:
            _load(context, certificate)
        self._certificate = certificate

    def web_context(self) -> ssl.SSLContext:
        """Make the context of an HTTPS server that follows this certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        _load(context, self._certificate)
        self._contexts.append(context)
        return context

    def discovery_context(self) -> ssl.SSLContext:
        """Return the context for the next connection of HTTP/2; it is replaced, never changed."""
        certificate, context = self._discovery or (None, None)
        if context is None or certificate is not self._certificate:
            context = _discovery_context(self._certificate)
            self._discovery = (self._certificate, context)
        return context


def _discovery_context(certificate: Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_NO_TICKET
    # Each stream proves itself anew; a session that is taken up again would save a proof only.
    context.num_tickets = 0
    context.set_alpn_protocols(["h2"])
    _load(context, certificate)
    return context


def _load(context: ssl.SSLContext, certificate: Certificate) -> None:
    # The library reads certificates from files only; this one never touches a disk.
    with _in_memory(certificate.key_pem + certificate.chain_pem) as path:
        context.load_cert_chain(path)


@contextlib.contextmanager
def _in_memory(text: str) -> Iterator[str]:
    number = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        os.write(number, text.encode())
        os.lseek(number, 0, os.SEEK_SET)
        yield f"/proc/self/fd/{number}"
    finally:
        os.close(number)


def client_context(proof: Certificate, *, alpn: tuple[str, ...]) -> ssl.SSLContext:
    """Make the context of a client of the mesh, who looks at identities himself.

    Any certificate that stands in the roots counts as one, be it a root itself or not.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=proof.roots_pem)
    context.set_alpn_protocols(list(alpn))
    _load(context, proof)
    return context
