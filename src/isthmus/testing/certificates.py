"""Certificates for tests: a root, an intermediate per cluster, and requests to be signed.

Keys are made once per name and program, because making them is what takes time.
"""

import datetime
import functools
from collections.abc import Iterable

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from isthmus.ca import authority, intermediate, keys, pem, root, shapes
from isthmus.mesh import identities

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
SLEEP = identities.SpiffeId(identities.TrustDomain("cluster.local"), "sample", "sleep")


@functools.cache
def key(name: str) -> ec.EllipticCurvePrivateKey:
    """Make the EC key called `name`."""
    return ec.generate_private_key(ec.SECP256R1())


@functools.cache
def rsa_key(bits: int) -> rsa.RSAPrivateKey:
    """Make the RSA key of `bits`."""
    return rsa.generate_private_key(65537, bits)


@functools.cache
def root_certificate(name: str = "root", now: datetime.datetime = NOW) -> x509.Certificate:
    """Make the root called `name`."""
    return root.build(key(name), stamp=shapes.Stamp(now, 1))


@functools.cache
def intermediate_certificate(
    name: str = "cluster1",
    *,
    of: str = "root",
    now: datetime.datetime = NOW,
    lifetime: datetime.timedelta = intermediate.LIFETIME,
    trust_domains: tuple[str, ...] = (),
) -> x509.Certificate:
    """Make the intermediate called `name` below the root called `of`."""
    return intermediate.build(
        key(name).public_key(),
        cluster=name,
        issuer=shapes.Issuer(root_certificate(of, now), key(of)),
        stamp=shapes.Stamp(now, 2),
        lifetime=lifetime,
        trust_domains=trust_domains,
    )


def files(
    name: str = "cluster1",
    *,
    of: str = "root",
    now: datetime.datetime = NOW,
    trust_domains: tuple[str, ...] = (),
) -> dict[str, str]:
    """Make the four files of Secret `cacerts`."""
    top = root_certificate(of, now)
    below = intermediate_certificate(name, of=of, now=now, trust_domains=trust_domains)
    return {
        authority.CERTIFICATE: pem.written(below),
        authority.KEY: keys.private_pem(key(name)),
        authority.ROOTS: pem.written(top),
        authority.CHAIN: pem.joined((below, top)),
    }


def signer(
    name: str = "cluster1",
    *,
    of: str = "root",
    now: datetime.datetime = NOW,
    trust_domains: tuple[str, ...] = (),
) -> authority.Authority:
    """Make the authority of cluster `name`."""
    return authority.load(files(name, of=of, now=now, trust_domains=trust_domains), now=now)


def request(
    with_key: keys.PrivateKey | None = None,
    *,
    extensions: Iterable[x509.ExtensionType] = (),
    subject: x509.Name | None = None,
) -> str:
    """Make a signing request."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject or x509.Name([]))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    signed = builder.sign(with_key or key("leaf"), hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()
