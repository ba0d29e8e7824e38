"""Signs what a proven caller asks for, and says of what it does not sign why.

Who calls, and which identity that gives, was judged before. Every signature is written to the log
before it is made; keys never are. It loads no gRPC: it may run in a process of its own.

Source: spec sections 1.3.2 and 1.4; security rules CA-3, CA-4 and CA-8.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from isthmus.base import clock, logs
from isthmus.ca import authority as authorities
from isthmus.ca import pem, refusals, signing
from isthmus.mesh import identities
from isthmus.wire import tls

BAD_REQUEST: Final = "INVALID_ARGUMENT"
OUR_FAULT: Final = "INTERNAL"
COME_AGAIN: Final = "UNAVAILABLE"

_BAD_REQUESTS = (refusals.RequestRefused, refusals.KeyRefused, refusals.LifetimeRefused)

_LOG = logs.Log("isthmus.csr")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A certificate that somebody may have.

    Attributes:
        csr: The signing request, PEM; only its key counts.
        lifetime_s: How long it shall live; 0 for as long as usual.
        identity: Whose it will be.
        own_domain: The mesh's trust domain: others are signed only where the authority is
            expressly permitted to.
        cluster: Where the caller is; for the log alone, as `pod`.
    """

    csr: str
    lifetime_s: int
    identity: identities.SpiffeId
    own_domain: identities.TrustDomain
    cluster: str
    pod: str


@dataclass(frozen=True, slots=True)
class Signed:
    """The leaf, its chain, and the roots, each PEM."""

    chain: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unsigned:
    """Why there is no certificate.

    Attributes:
        status: Name of a gRPC status.
        counted_as: How Istio's metrics call it.
    """

    status: str
    counted_as: str
    reason: str


@dataclass(frozen=True, slots=True)
class Notary:
    """Signs with the authority of the moment, of which there may be none."""

    authority: Callable[[], authorities.Authority | None]
    clock: clock.Clock
    limits: signing.Lifetimes = field(default_factory=signing.Lifetimes)

    async def asked(self, wanted: Wanted) -> Signed | Unsigned:
        """Answer at once, for whoever would wait."""
        return self.sign(wanted)

    def sign(self, wanted: Wanted) -> Signed | Unsigned:
        """Sign, or say why not."""
        signer = self.authority()
        if signer is None:
            return Unsigned(OUR_FAULT, "CA_NOT_READY", "no signing certificate yet")
        try:
            return Signed(self._signed(wanted, signer))
        except _BAD_REQUESTS as error:
            too_long = isinstance(error, refusals.LifetimeRefused)
            kind = "TTL_ERROR" if too_long else "CSR_ERROR"
            return Unsigned(BAD_REQUEST, kind, error.happened)
        except refusals.CaRefusal as error:
            _LOG.error(
                "certificate not signed", identity=str(wanted.identity), reason=error.happened
            )
            return Unsigned(OUR_FAULT, "CERT_GEN_ERROR", error.happened)

    def _signed(self, wanted: Wanted, signer: authorities.Authority) -> tuple[str, ...]:
        signing.check_domain(wanted.identity.trust_domain, signer=signer, own=wanted.own_domain)
        key = signing.requested_key(wanted.csr)
        life = signing.lifetime(wanted.lifetime_s, limits=self.limits)
        stamp = tls.stamp(self.clock.now())
        _LOG.info(
            "certificate will be signed",
            identity=str(wanted.identity),
            cluster=wanted.cluster,
            pod=wanted.pod,
            serial=f"{stamp.serial:x}",
            lifetime_s=int(life.total_seconds()),
            issuer=pem.subject(signer.issuer.certificate),
        )
        leaf = signing.workload(
            key, identity=wanted.identity, signer=signer, stamp=stamp, life=life
        )
        return signing.answer(leaf, signer=signer)
