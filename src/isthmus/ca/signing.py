"""Signing: which certificate a proven identity gets.

From a request only the public key counts, and only after the request's own signature proved that
the caller holds the private key. Subject, names and extensions are never copied: Istio's own
agents fill them in, so their presence is ignored, not refused.

Source: spec section 1.4; security rules CA-2, CA-3 and CA-8.
"""

import datetime
import ipaddress
from dataclasses import dataclass
from typing import Final

from cryptography import exceptions, x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, SignatureAlgorithmOID

from isthmus.ca import authority, keys, leaves, pem, refusals, shapes
from isthmus.mesh import identities

LARGEST_REQUEST_BYTES = 16 * 1024

BOTH_ROLES = x509.ExtendedKeyUsage(
    [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
)
SERVER_ROLE = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])

_ROLES: Final = {
    roles: leaves.extension(roles, critical=False) for roles in (BOTH_ROLES, SERVER_ROLE)
}

_ECDSA: Final = {
    SignatureAlgorithmOID.ECDSA_WITH_SHA256: ec.ECDSA(hashes.SHA256()),
    SignatureAlgorithmOID.ECDSA_WITH_SHA384: ec.ECDSA(hashes.SHA384()),
}
"""How nearly all requests are signed."""


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long workloads' certificates live; Istio's defaults."""

    usual: datetime.timedelta = datetime.timedelta(hours=24)
    longest: datetime.timedelta = datetime.timedelta(hours=2160)


def requested_key(request_pem: str) -> keys.PublicKey:
    """Take the public key out of a signing request.

    Raises:
        RequestRefused: It is too large, cannot be read, or its signature is wrong (ISM-CA-009).
        KeyRefused: The key is too weak or of another kind (ISM-CA-008).
    """
    if len(request_pem) > LARGEST_REQUEST_BYTES:
        raise refusals.RequestRefused(
            f"signing request is larger than {LARGEST_REQUEST_BYTES} bytes"
        )
    try:
        request = x509.load_pem_x509_csr(request_pem.encode())
        key = keys.accepted(request.public_key())
        genuine = _is_genuine(request, key)
    except (ValueError, TypeError, exceptions.UnsupportedAlgorithm) as error:
        raise refusals.RequestRefused("cannot read the signing request") from error
    if not genuine:
        raise refusals.RequestRefused(
            "signing request is not signed by its own key",
            hint="the caller must hold the private key of what it wants signed",
        )
    return key


def _is_genuine(request: x509.CertificateSigningRequest, key: keys.PublicKey) -> bool:
    """Say whether a request is signed by its own key; `key` was read from it."""
    algorithm = _ECDSA.get(request.signature_algorithm_oid)
    if algorithm is None or not isinstance(key, ec.EllipticCurvePublicKey):
        return request.is_signature_valid
    # The library would read the key once more and look for the algorithm by name.
    try:
        key.verify(request.signature, request.tbs_certrequest_bytes, algorithm)
    except exceptions.InvalidSignature:
        return False
    return True


def lifetime(requested_s: int, *, limits: Lifetimes) -> datetime.timedelta:
    """Choose the lifetime: the usual one unless some seconds were asked for.

    Raises:
        LifetimeRefused: More was asked for than is allowed (ISM-CA-010).
    """
    if requested_s <= 0:
        return limits.usual
    # Compared as numbers first: a timedelta of the largest number in a message overflows.
    if requested_s > limits.longest.total_seconds():
        raise refusals.LifetimeRefused(
            f"requested lifetime {requested_s} s is greater than the max allowed "
            f"{limits.longest.total_seconds():.0f} s",
            hint="set SECRET_TTL of the proxy lower, or MAX_WORKLOAD_CERT_TTL of istiod higher",
        )
    return datetime.timedelta(seconds=requested_s)


def workload(
    key: keys.PublicKey,
    *,
    identity: identities.SpiffeId,
    signer: authority.Authority,
    stamp: shapes.Stamp,
    life: datetime.timedelta,
) -> x509.Certificate:
    """Sign the certificate of a workload and check it before it is released.

    Raises:
        AuthorityExpired: The signing certificate has ended (ISM-CA-006).
        LeafUnfit: The result breaks the profile (ISM-CA-011).
        DomainNotPermitted: Nobody would accept the result (ISM-CA-015).
    """
    check_domain(identity.trust_domain, signer=signer)
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(identity))])
    leaf = _leaf(key, names=names, roles=BOTH_ROLES, signer=signer, stamp=stamp, life=life)
    check(leaf, identity=identity, signer=signer)
    return leaf


def serving(
    key: keys.PublicKey,
    *,
    names: tuple[str, ...],
    signer: authority.Authority,
    stamp: shapes.Stamp,
    life: datetime.timedelta,
) -> x509.Certificate:
    """Sign the certificate with which the control plane itself serves under `names`.

    Names are DNS names, or addresses for callers that know nothing better.

    Raises:
        AuthorityExpired: The signing certificate has ended (ISM-CA-006).
    """
    listed = x509.SubjectAlternativeName([_general_name(name) for name in names])
    return _leaf(key, names=listed, roles=SERVER_ROLE, signer=signer, stamp=stamp, life=life)


def check_domain(
    domain: identities.TrustDomain,
    *,
    signer: authority.Authority,
    own: identities.TrustDomain | None = None,
) -> None:
    """Make sure that an authority may sign identities of a trust domain.

    One without limits signs those of its `own` alone, if that is given: whoever shall sign for
    other clusters' domains, too, is made for it.

    Raises:
        DomainNotPermitted: Its certificates would be refused everywhere (ISM-CA-015).
    """
    limits = signer.trust_domains
    if limits is None and own is not None:
        limits = frozenset({own})
    if limits is None or domain in limits:
        return
    raise refusals.DomainNotPermitted(
        f"the signing certificate does not permit trust domain `{domain}`",
        detail=f"permitted: {', '.join(sorted(limits)) or 'none'}",
        still_working="workloads keep the certificates that they have until those end",
        hint=f"isthmus ca intermediate CLUSTER --trust-domain {domain} --force, then "
        "`isthmus ca push`",
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def answer(leaf: x509.Certificate, *, signer: authority.Authority) -> tuple[str, ...]:
    """List what a caller gets: its leaf, each certificate of the chain, then all roots as one."""
    return (
        pem.written(leaf),
        *signer.chain_pems,
        signer.roots_pem,
    )


def serving_names(
    namespace: str,
    *,
    revision: str = "",
    discovery_host: str = "",
    custom_hosts: tuple[str, ...] = (),
) -> tuple[str, ...]:
    """List the names and addresses under which the control plane is reached, each once.

    Source: spec section 1.7.
    """
    names = [
        discovery_host,
        *custom_hosts,
        *(f"{service}.{namespace}.svc" for service in ("istiod", "istiod-remote", "istio-pilot")),
    ]
    if revision not in ("", "default"):
        names.append(f"istiod-{revision}.{namespace}.svc")
    return tuple(dict.fromkeys(name for name in names if name))


def _leaf(
    key: keys.PublicKey,
    *,
    names: x509.SubjectAlternativeName,
    roles: x509.ExtendedKeyUsage,
    signer: authority.Authority,
    stamp: shapes.Stamp,
    life: datetime.timedelta,
) -> x509.Certificate:
    if signer.ends <= stamp.now:
        raise refusals.AuthorityExpired(
            f"the signing certificate has expired: {pem.subject(signer.issuer.certificate)}",
            still_working="workloads keep the certificates that they have until those end",
            hint="install a new intermediate with `isthmus ca push`",
        )
    # Without a subject the names must be critical (RFC 5280, 4.2.1.6).
    return leaves.signed(
        signer.blank,
        key=key,
        serial=stamp.serial,
        valid=(
            max(stamp.now - shapes.BACKDATED, signer.begins),
            min(stamp.now + life, signer.ends),
        ),
        extensions=leaves.extension(names, critical=True) + _ROLES[roles],
        by=signer.issuer.key,
    )


def check(
    leaf: x509.Certificate, *, identity: identities.SpiffeId, signer: authority.Authority
) -> None:
    """Compare a signed certificate with its profile.

    What it is asked for was read from its bytes, as a stranger would; none of it is what the
    bytes were written from.

    Raises:
        LeafUnfit: It breaks the profile (ISM-CA-011).
    """
    broken = [
        text for text, holds in _claims(leaf, identity=identity, signer=signer).items() if not holds
    ]
    if broken:
        raise refusals.LeafUnfit(
            f"a certificate for `{identity}` breaks its profile and is not released",
            detail="not true: " + "; ".join(broken),
            hint="this is a defect of Isthmus: report it with this text",
        )


def _claims(
    leaf: x509.Certificate, *, identity: identities.SpiffeId, signer: authority.Authority
) -> dict[str, bool]:
    found = {extension.oid: extension for extension in leaf.extensions}

    def has(value: x509.ExtensionType, *, critical: bool) -> bool:
        extension = found.get(value.oid)
        return extension is not None and (extension.value, extension.critical) == (value, critical)

    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(identity))])
    ends = leaf.not_valid_after_utc
    return {
        "its only name is the identity, critical": has(names, critical=True),
        "it may not sign": has(shapes.LEAF_LIMITS, critical=True),
        "its key usage is a leaf's": has(shapes.LEAF_USAGE, critical=True),
        "it is for servers and clients": has(BOTH_ROLES, critical=False),
        "it carries no further extension": len(found) == len(_EXTENSIONS)
        and set(found) == _EXTENSIONS,
        "it has no subject": not leaf.subject.rdns,
        "it ends no later than its issuer": ends <= signer.ends,
        "it ends after it begins": leaf.not_valid_before_utc < ends,
        "its serial number is positive": leaf.serial_number > 0,
        "its issuer is named and signed it": leaves.is_signed(leaf, signer.blank),
    }


_EXTENSIONS = {
    x509.SubjectAlternativeName.oid,
    x509.BasicConstraints.oid,
    x509.KeyUsage.oid,
    x509.ExtendedKeyUsage.oid,
    x509.AuthorityKeyIdentifier.oid,
}
