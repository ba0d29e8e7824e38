"""From the files of a signing authority to one that is known to work, or to the reason why not.

Never repairs and never falls back to a root of its own: material that is incomplete or does not
fit together is an error, so that no cluster ever starts to trust something else.

Source: spec section 1.1; security rules CA-2, CA-10 and section 4.10.
"""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography import exceptions, x509

from isthmus.ca import keys, leaves, pem, refusals, shapes
from isthmus.mesh import trust

CERTIFICATE, KEY, ROOTS, CHAIN = trust.FILES
FILES = trust.FILES
TLS_CERTIFICATE, TLS_KEY, TLS_ROOTS = trust.TLS_FILES
TLS_FILES = trust.TLS_FILES

SAMPLES = frozenset(
    {
        "63:72:7A:17:85:CA:B4:7A:CE:C5:C2:4C:C0:66:9C:20:82:4E:8A:E1:AC:28:07:9A:4D:2F:8C:83:05:92:E7:B0",
        "F8:67:17:4E:4A:31:F1:79:2F:8C:03:54:A2:3F:8F:04:9B:D4:01:97:29:CD:2E:E5:79:D6:70:33:06:5B:2D:C2",
    }
)
"""Istio's sample root and intermediate, whose keys are published; valid until 2117."""

LONGEST_CHAIN = 8


@dataclass(frozen=True, slots=True)
class Authority:
    """An authority whose parts fit together.

    Attributes:
        issuer: What signs.
        chain: What a leaf is sent with: the signing certificate first; empty when a root signs.
        roots: What everybody in the mesh trusts.
        roots_pem: The file of the roots as it was written, to be handed on unsplit.
        chain_pems: The chain as it is handed on with each leaf, written once.
        trust_domains: Those whose identities everybody accepts from it; None for all.
        begins, ends: When the signing certificate is worth something.
        blank: What all its leaves have in common.
    """

    issuer: shapes.Issuer
    chain: tuple[x509.Certificate, ...]
    roots: tuple[x509.Certificate, ...]
    roots_pem: str
    chain_pems: tuple[str, ...]
    trust_domains: frozenset[str] | None
    begins: datetime.datetime
    ends: datetime.datetime
    blank: leaves.Blank


def load(files: Mapping[str, str], *, now: datetime.datetime) -> Authority:
    """Build the authority that `files` (name to text) describe.

    The layout of kubernetes.io/tls is looked for first, as Istio does.

    Raises:
        BundleIncomplete: Files are missing or empty (ISM-CA-001).
        PemMalformed: A file holds something else (ISM-CA-002).
        KeyMismatch: Key and certificate are no pair (ISM-CA-003).
        NotAnAuthority: A certificate of the chain may not sign (ISM-CA-004).
        ChainBroken: The chain leads to no root (ISM-CA-005).
        AuthorityExpired: A certificate of the chain is not valid now (ISM-CA-006).
        SampleMaterial: The key is public knowledge (ISM-CA-007).
        KeyRefused: A key is too weak (ISM-CA-008).
    """
    tls_layout = TLS_CERTIFICATE in files
    layout = TLS_FILES if tls_layout else FILES
    _check_complete(files, layout)
    certificate_file, key_file, roots_file = layout[:3]
    signing = pem.certificates(files[certificate_file], file=certificate_file)[0]
    key = keys.private_from_pem(files[key_file], file=key_file)
    roots = pem.certificates(files[roots_file], file=roots_file)
    chain_file = TLS_CERTIFICATE if tls_layout else CHAIN
    chain = _chain(files.get(chain_file, ""), file=chain_file, signing=signing, roots=roots)
    if tls_layout:
        chain = (*chain, *(root for root in roots if root not in chain))
    _check_samples((signing, *chain, *roots))
    _check_pair(signing, key, files=(certificate_file, key_file))
    _check_path(signing, chain=chain, roots=roots, now=now)
    return Authority(
        shapes.Issuer(signing, key),
        chain,
        roots,
        files[roots_file],
        chain_pems=tuple(pem.written(each) for each in chain),
        trust_domains=_permitted((signing, *chain)),
        begins=signing.not_valid_before_utc,
        ends=signing.not_valid_after_utc,
        blank=leaves.blank(signing),
    )


def _permitted(chain: tuple[x509.Certificate, ...]) -> frozenset[str] | None:
    limits = [shapes.limits_of(each) for each in chain]
    found = [each for each in limits if each is not None]
    return frozenset.intersection(*found) if found else None


def _check_complete(files: Mapping[str, str], layout: tuple[str, ...]) -> None:
    # A root that signs by itself has no chain, so this one file may be empty, yet it must exist.
    missing = [
        name for name in layout if name not in files or (name != CHAIN and not files[name].strip())
    ]
    if not missing:
        return
    named = ", ".join(f"`{name}`" for name in missing)
    what = "no signing certificate" if len(missing) == len(layout) else "it is incomplete"
    raise refusals.BundleIncomplete(
        f"cannot load the signing certificate of this cluster: {what}",
        detail=f"missing or empty: {named}",
        hint="put all of "
        + ", ".join(f"`{name}`" for name in layout)
        + " into Secret `cacerts`, as `isthmus ca push` does",
    )


def _chain(
    text: str,
    *,
    file: str,
    signing: x509.Certificate,
    roots: tuple[x509.Certificate, ...],
) -> tuple[x509.Certificate, ...]:
    chain = pem.certificates(text, file=file) if text.strip() else ()
    if signing in roots or chain[:1] == (signing,):
        return chain
    raise refusals.ChainBroken(
        f"`{file}` does not begin with the signing certificate",
        detail=f"the signing certificate is: {pem.subject(signing)}",
        hint=f"write `{CERTIFICATE}` into `{file}` first, then each certificate up to the root",
    )


def _check_samples(certificates: tuple[x509.Certificate, ...]) -> None:
    for certificate in certificates:
        if pem.fingerprint(certificate) in SAMPLES:
            raise refusals.SampleMaterial(
                "the material is Istio's public sample: anybody can sign with its key",
                detail=f"it is: {pem.subject(certificate)}",
                hint="make your own with `isthmus ca root` and `isthmus ca intermediate`",
            )


def _check_pair(signing: x509.Certificate, key: keys.PrivateKey, *, files: tuple[str, str]) -> None:
    if key.public_key() != signing.public_key():
        raise refusals.KeyMismatch(
            f"the private key in `{files[1]}` belongs to another certificate",
            detail=f"`{files[0]}` is: {pem.subject(signing)}",
            hint="take both files from the same directory",
        )


def _check_path(
    signing: x509.Certificate,
    *,
    chain: tuple[x509.Certificate, ...],
    roots: tuple[x509.Certificate, ...],
    now: datetime.datetime,
) -> None:
    """Follow issuers from the signing certificate up to a root."""
    current, below = signing, 0
    while True:
        _check_may_sign(current, below=below)
        _check_valid(current, now=now)
        if current in roots:
            return
        above = next(
            (each for each in (*roots, *chain) if each != current and _signed_by(current, each)),
            None,
        )
        below += 1
        if above is None or below > LONGEST_CHAIN:
            raise refusals.ChainBroken(
                "the signing certificate does not lead to a root",
                detail=f"no certificate here signed: {pem.subject(current)}\n"
                f"it names as its issuer: {current.issuer.rfc4514_string()}",
                hint=f"`{ROOTS}` and `{CHAIN}` must come from the root that signed `{CERTIFICATE}`",
            )
        current = above


def _signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, exceptions.InvalidSignature, exceptions.UnsupportedAlgorithm):
        return False
    return True


def _check_may_sign(certificate: x509.Certificate, *, below: int) -> None:
    keys.accepted(certificate.public_key())
    extensions = certificate.extensions
    try:
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        constraints = x509.BasicConstraints(ca=False, path_length=None)
    try:
        may_sign = extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        may_sign = True
    # The path length counts authorities below this one.
    deep_enough = constraints.path_length is None or constraints.path_length >= below
    if not (constraints.ca and may_sign and deep_enough):
        raise refusals.NotAnAuthority(
            f"certificate is not authorized to sign other certificates: {pem.subject(certificate)}",
            detail=f"CA: {constraints.ca}, may sign certificates: {may_sign}, "
            f"path length: {constraints.path_length}, authorities below it here: {below}",
            hint=f"`{CERTIFICATE}` must be an intermediate authority, such as "
            "`isthmus ca intermediate` makes",
        )


def _check_valid(certificate: x509.Certificate, *, now: datetime.datetime) -> None:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if begins <= now < ends:
        return
    word = "has expired" if now >= ends else "is not valid yet"
    raise refusals.AuthorityExpired(
        f"certificate {word}: {pem.subject(certificate)}",
        detail=f"it is valid from {begins:%Y-%m-%d %H:%M} to {ends:%Y-%m-%d %H:%M} UTC, "
        f"and now is {now:%Y-%m-%d %H:%M}",
        still_working="workloads keep the certificates that they have until those end",
        hint="make a new intermediate with `isthmus ca intermediate` and install it with "
        "`isthmus ca push`; check this machine's clock",
    )
