"""Keeps certificates: makes the key, has it signed, replaces it at half its life.

The private key never leaves this process except to the Envoy beside it.

    IsthmusError
    └── AnswerUnfit
"""

import dataclasses
import pathlib
import secrets
from collections.abc import Iterable
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf import message as protobuf_message

from isthmus.base import clock, errors, logs
from isthmus.ca import keys, pem, refusals, renewal
from isthmus.mesh import trust
from isthmus.mesh.identities import TrustDomain
from isthmus.node import settings
from isthmus.resources.envoy import secrets as envoy_secrets
from isthmus.wire import csrclient, dialing, sds

DEADLINE_S = 10.0
FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 3.0

_LOG = logs.Log("isthmus.certificates")


class AnswerUnfit(errors.IsthmusError):
    """The control plane signed something else than our key."""

    code = "ISM-NODE-006"


class Target(Protocol):
    """Knows where certificates come from."""

    def authority(self) -> dialing.Target:
        """Return it, with the proof of who we are at this moment."""


class Keeper:
    """Keeps one certificate on a shelf of secrets, and the roots.

    Args:
        shelf: Where they are found.
        target: Who signs.
        renewing: When.
        system_clock: Says when that is.
        on_behalf_of: The identity of a pod of this node, by which its certificate is found; empty
            for our own. Whoever asks for others has the roots from elsewhere.
    """

    def __init__(
        self,
        shelf: sds.Shelf,
        *,
        target: Target,
        renewing: settings.Renewing,
        system_clock: clock.Clock,
        on_behalf_of: str = "",
    ) -> None:
        self._shelf = shelf
        self._on_behalf_of = on_behalf_of
        self._target = target
        self._renewing = renewing
        self._clock = system_clock
        self.ends: clock.Instant | None = None

    @property
    def is_valid(self) -> bool:
        """Whether there is a certificate that has not ended."""
        return self.ends is not None and self._clock.now() < self.ends

    async def keep(self) -> None:
        """Have certificates signed for ever, each in time."""
        while True:
            began = self._clock.now()
            ends = await self._obtained()
            renew = renewal.renewal_time(
                began,
                ends=ends,
                chance=secrets.randbelow(1000) / 1000,
                share=self._renewing.share,
                spread=self._renewing.spread,
            )
            await self._clock.sleep(max(0.1, (renew - self._clock.now()).total_seconds()))

    async def _obtained(self) -> clock.Instant:
        delay_s = FIRST_DELAY_S
        while True:
            try:
                return await self._renewed()
            except errors.IsthmusError as error:
                _LOG.warning(
                    "no certificate; will ask again",
                    reason=error.happened,
                    detail=error.detail,
                    hint=error.hint,
                    delay_s=round(delay_s, 2),
                )
            # Scattered, so that many proxies do not return to a new control plane at once.
            await self._clock.sleep(delay_s * (0.75 + secrets.randbelow(500) / 1000))
            delay_s = min(delay_s * 2, LONGEST_DELAY_S)

    async def _renewed(self) -> clock.Instant:
        key = ec.generate_private_key(ec.SECP256R1())
        elements = await csrclient.request(
            self._target.authority(),
            csr_pem=_request(key),
            lifetime_s=self._renewing.lifetime_s,
            deadline_s=DEADLINE_S,
            on_behalf_of=self._on_behalf_of,
        )
        name = self._on_behalf_of or sds.CERTIFICATE
        leaf = checked(elements, key=key.public_key())
        version = f"{leaf.not_valid_before_utc:%Y%m%dT%H%M%S}-{leaf.serial_number:x}"
        certificate = sds.certificate(
            name,
            chain_pem="".join(elements[:-1]),
            key_pem=keys.private_pem(key),
            version=version,
        )
        roots = sds.roots(sds.ROOTS, roots_pem=elements[-1], version=_digest(elements[-1]))
        of_roots = {} if self._on_behalf_of else {sds.ROOTS: roots}
        self._shelf.add({name: certificate, **of_roots})
        self.ends = leaf.not_valid_after_utc
        _LOG.info(
            "certificate received",
            identity=_identity(leaf),
            serial=f"{leaf.serial_number:x}",
            ends=f"{self.ends:%Y-%m-%dT%H:%M:%SZ}",
        )
        return self.ends


class Roots:
    """By what the peers of a node's pods are believed.

    The control plane says it for each trust domain. Until it has, the roots that are mounted
    vouch for our own domains. What was told once holds until something else is told.
    """

    def __init__(self, trust_domains: Iterable[TrustDomain]) -> None:
        self._domains = tuple(trust_domains)
        self._is_told = False

    def mounted(self, roots_pem: str) -> sds.Secret | None:
        """Return the secret by the mounted roots; None where something else was told."""
        if self._is_told:
            return None
        # No names: whoever wants a certain one would be content with any of these as well.
        listed = [trust.Bundle(domain, (roots_pem,)) for domain in self._domains]
        body = envoy_secrets.bundles(sds.ROOTS, listed).body
        return sds.renamed(body, name=sds.ROOTS, version=_digest(roots_pem))

    def told(self, body: bytes | None) -> sds.Secret | None:
        """Return the secret that the control plane tells; None where it says nothing.

        Raises:
            AnswerUnfit: It is no secret (ISM-NODE-006).
        """
        if body is None:
            return None
        try:
            secret = sds.renamed(body, name=sds.ROOTS, version=_digest(body.hex()))
        except protobuf_message.DecodeError as error:
            raise AnswerUnfit(
                "the control plane told of trust domains what is no secret"
            ) from error
        self._is_told = True
        return secret


class Targets:
    """Where the control plane is, with the token and the roots of this moment.

    Both are projected into the pod and replaced there, so they are read for every connection.
    """

    def __init__(self, wanted: settings.Settings, *, discovery: str, authority: str) -> None:
        self._wanted = wanted
        self._discovery = discovery
        self._authority = authority

    def discovery(self) -> dialing.Target:
        """Return where configuration comes from.

        Raises:
            SettingRefused: Token or roots cannot be read (ISM-NODE-002).
        """
        return self._target(self._discovery, self._wanted.xds_headers)

    def authority(self) -> dialing.Target:
        """Return where certificates come from.

        Raises:
            SettingRefused: Token or roots cannot be read (ISM-NODE-002).
        """
        return self._target(self._authority, self._wanted.ca_headers)

    def _target(self, address: str, headers: tuple[tuple[str, str], ...]) -> dialing.Target:
        found = target(
            address,
            server_name=self._wanted.server_name,
            files=(self._wanted.roots_file, self._wanted.token_file),
            cluster=self._wanted.cluster,
        )
        return dataclasses.replace(found, headers=headers)


def target(
    address: str, *, server_name: str, files: tuple[pathlib.Path, pathlib.Path], cluster: str
) -> dialing.Target:
    """Return the control plane at an address; `files` hold its roots and our token.

    Raises:
        SettingRefused: One of them cannot be read (ISM-NODE-002).
    """
    roots_file, token_file = files
    return dialing.Target(
        address=address,
        server_name=server_name,
        roots_pem=settings.mounted(roots_file),
        token=settings.mounted(token_file).strip(),
        cluster=cluster,
    )


def checked(elements: tuple[str, ...], *, key: keys.PublicKey) -> x509.Certificate:
    """Read the leaf of an answer and make sure that it is ours.

    Raises:
        AnswerUnfit: It certifies another key, or is no certificate (ISM-NODE-006).
    """
    try:
        leaf = pem.certificates(elements[0], file="answer")[0]
    except refusals.PemMalformed as error:
        raise AnswerUnfit("the control plane's answer is no certificate") from error
    if leaf.public_key() != key:
        raise AnswerUnfit(
            "the control plane signed another key than ours",
            hint="something between here and the control plane changes messages",
        )
    return leaf


def _request(key: ec.EllipticCurvePrivateKey) -> str:
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    signed = request.sign(key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def _digest(text: str) -> str:
    digest = hashes.Hash(hashes.SHA256())
    digest.update(text.encode())
    return digest.finalize().hex()[:16]


def _identity(leaf: x509.Certificate) -> str:
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return ",".join(names.get_values_for_type(x509.UniformResourceIdentifier))
