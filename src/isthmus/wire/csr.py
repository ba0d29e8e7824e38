"""The certificate service that proxies call: proves the caller, signs its key, answers.

A thin driver: who calls is the authenticator's judgement, what a certificate looks like is `ca`'s.
Tokens are never written to the log. What signs may be another process.

A node proxy may have certificates of others, if the judge of that agrees: those of its own node's
pods.

Source: spec sections 1.3, 1.3.2, 1.4 and 1.8; security rules CA-3, CA-4 and CA-8.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, NoReturn, TypeAlias

import grpc
from google.protobuf import message as protobuf_message

from isthmus.base import clock, errors, logs, metrics
from isthmus.ca import authority, signing
from isthmus.mesh import identities
from isthmus.mesh.identities import ClusterId
from isthmus.wire import callers, notary, peers
from isthmus_proto.istio.v1.auth import ca_pb2

SERVICE = "istio.v1.auth.IstioCertificateService"
METHOD = "CreateCertificate"
LARGEST_MESSAGE_BYTES = signing.LARGEST_REQUEST_BYTES + 4096
"""A request of the largest size, and some room for its metadata."""

_LOG = logs.Log("isthmus.csr")

Handler: TypeAlias = grpc.GenericRpcHandler
"""A service to be added to a server."""

IMPERSONATED: Final = "ImpersonatedIdentity"
"""Where a node proxy says for which of its pods it asks."""

Impersonation: TypeAlias = Callable[[callers.Caller, identities.SpiffeId], str]
"""Says why a caller may not have a certificate of another identity; empty when it may."""


def nobody(caller: callers.Caller, identity: identities.SpiffeId) -> str:
    """Let nobody have certificates of others."""
    del caller, identity
    return "certificates of others are for node proxies, and none is trusted here"


Sign: TypeAlias = Callable[[notary.Wanted], Awaitable[notary.Signed | notary.Unsigned]]
"""Has a certificate signed, here or elsewhere."""


class Counters:
    """What Istio's own metrics count about signing."""

    def __init__(self, registered: metrics.Metrics) -> None:
        count = registered.counter
        self.requests = count("citadel_server_csr_count", "Signing requests received.")
        self.unauthenticated = count(
            "citadel_server_authentication_failure_count", "Callers that proved nothing."
        )
        self.unreadable = count(
            "citadel_server_csr_parsing_err_count", "Signing requests that cannot be used."
        )
        self.failed = count(
            "citadel_server_csr_sign_err_count", "Signatures that were not made.", "error"
        )
        self.issued = count(
            "citadel_server_success_cert_issuance_count", "Certificates that were issued."
        )


@dataclass(frozen=True, slots=True)
class Signatory:
    """What answering needs beside the request.

    Attributes:
        trust_domain: Gives the trust domain of a cluster, which its workloads' identities bear.
        own_domain: Gives that of the mesh.
        impersonation: Judges those who ask for others.
    """

    authenticator: callers.Authenticator
    sign: Sign
    trust_domain: Callable[[ClusterId], identities.TrustDomain]
    own_domain: Callable[[], identities.TrustDomain]
    counters: Counters
    impersonation: Impersonation = nobody


class RefusedError(Exception):
    """A request that is answered with a gRPC status."""

    def __init__(self, status: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def refusal(status: str, text: str) -> RefusedError:
    """Return the refusal with a gRPC status of this name."""
    return RefusedError(grpc.StatusCode[status], text)


def handler(
    authenticator: callers.Authenticator,
    *,
    authority: Callable[[], authority.Authority | None],
    trust_domain: Callable[[], identities.TrustDomain],
    system_clock: clock.Clock,
    registered: metrics.Metrics,
    limits: signing.Lifetimes | None = None,
) -> Handler:
    """Make the service without certificates of others, to be added to a gRPC server."""
    return service(
        Signatory(
            authenticator,
            notary.Notary(authority, system_clock, limits or signing.Lifetimes()).asked,
            lambda _: trust_domain(),
            trust_domain,
            Counters(registered),
        )
    )


def service(signatory: Signatory) -> Handler:
    """Make the service of one signatory."""

    async def create(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        try:
            chain = await answered(request, shown=_shown(context), signatory=signatory)
        except RefusedError as refusal:
            await _end(context, refusal)
        return bytes(ca_pb2.IstioCertificateResponse(cert_chain=chain).SerializeToString())

    return _handler(create)


def elsewhere(
    ask: Callable[[bytes, callers.Credentials], Awaitable[tuple[str, ...]]], *, counters: Counters
) -> Handler:
    """Make the service of which somebody else is the signatory, who may raise `RefusedError`.

    That one counts what it is asked, and what is refused before is counted here.
    """

    async def create(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        try:
            chain = await ask(request, _worth_asking(request, _shown(context), counters))
        except RefusedError as refusal:
            await _end(context, refusal)
        return bytes(ca_pb2.IstioCertificateResponse(cert_chain=chain).SerializeToString())

    return _handler(create)


def _worth_asking(request: bytes, shown: "Shown", counters: Counters) -> callers.Credentials:
    """Return what a caller shows, if anybody need be asked at all."""
    try:
        if isinstance(shown, Unproven):
            raise _unproven(shown, shown.error, counters)
        _check_size(request, counters)
    except RefusedError:
        counters.requests.add()
        raise
    return shown


def _handler(create: Callable[..., Awaitable[bytes]]) -> Handler:
    return grpc.method_handlers_generic_handler(
        SERVICE, {METHOD: grpc.unary_unary_rpc_method_handler(create)}
    )


async def _end(context: grpc.aio.ServicerContext, refusal: RefusedError) -> NoReturn:
    await context.abort(refusal.status, refusal.text)
    raise AssertionError("abort raises")


@dataclass(frozen=True, slots=True)
class Unproven:
    """A connection that shows what can be no proof, and why."""

    peer: str
    error: callers.CallerRefused


Shown: TypeAlias = callers.Credentials | Unproven
"""What a connection shows of its caller, or why that is nothing."""


def _shown(context: grpc.aio.ServicerContext) -> Shown:
    try:
        return peers.credentials(context)
    except callers.CallerRefused as error:
        return Unproven(str(context.peer() or ""), error)


async def answered(request: bytes, *, shown: Shown, signatory: Signatory) -> tuple[str, ...]:
    """Answer one call: the leaf, its chain, and the roots.

    Raises:
        RefusedError: The caller gets a status instead.
    """
    signatory.counters.requests.add()
    caller = await _caller(shown, signatory)
    identity = identities.SpiffeId(
        signatory.trust_domain(caller.cluster), caller.namespace, caller.service_account
    )
    wanted = _parsed(request, signatory)
    if IMPERSONATED in wanted.metadata.fields:
        identity = _impersonated(wanted, caller=caller, signatory=signatory)
    return await _signed(wanted, identity=identity, caller=caller, signatory=signatory)


async def _caller(shown: Shown, signatory: Signatory) -> callers.Caller:
    if isinstance(shown, Unproven):
        raise _unproven(shown, shown.error, signatory.counters)
    try:
        return await signatory.authenticator.authenticate(shown)
    except callers.CallerRefused as error:
        raise _unproven(shown, error, signatory.counters) from error
    except errors.IsthmusError as error:
        # Nobody could judge: the caller should come again, with the same proof.
        _LOG.warning("caller cannot be judged now", peer=shown.peer, reason=error.happened)
        raise RefusedError(
            grpc.StatusCode.UNAVAILABLE, "request cannot be authenticated now"
        ) from error


def _unproven(shown: Shown, error: callers.CallerRefused, counters: Counters) -> RefusedError:
    """Count and log a caller who proves nothing; return the refusal."""
    counters.unauthenticated.add()
    _LOG.warning("caller refused", peer=shown.peer, reason=error.happened, detail=error.detail)
    return RefusedError(grpc.StatusCode.UNAUTHENTICATED, "request authenticate failure")


def _check_size(request: bytes, counters: Counters) -> None:
    if len(request) > LARGEST_MESSAGE_BYTES:
        counters.unreadable.add()
        text = f"message is larger than {LARGEST_MESSAGE_BYTES} bytes"
        raise refusal("INVALID_ARGUMENT", f"CSR signing error ({text})")


def _parsed(request: bytes, signatory: Signatory) -> ca_pb2.IstioCertificateRequest:
    _check_size(request, signatory.counters)
    try:
        return ca_pb2.IstioCertificateRequest.FromString(request)
    except protobuf_message.DecodeError as error:
        signatory.counters.unreadable.add()
        raise RefusedError(
            grpc.StatusCode.INVALID_ARGUMENT, f"CSR signing error ({error})"
        ) from error


def _impersonated(
    wanted: ca_pb2.IstioCertificateRequest, *, caller: callers.Caller, signatory: Signatory
) -> identities.SpiffeId:
    text = wanted.metadata.fields[IMPERSONATED].string_value
    try:
        identity = identities.parse_spiffe_id(text)
    except identities.IdentityMalformed as error:
        reason = error.happened
    else:
        domain = signatory.trust_domain(caller.cluster)
        reason = (
            signatory.impersonation(caller, identity)
            if identity.trust_domain == domain
            else f"the trust domain of its cluster is `{domain}`"
        )
        if not reason:
            return identity
    signatory.counters.unauthenticated.add()
    _LOG.warning(
        "certificate of another refused",
        identity=text[:200],
        cluster=str(caller.cluster),
        namespace=caller.namespace,
        pod=caller.pod,
        reason=reason,
    )
    raise RefusedError(
        grpc.StatusCode.UNAUTHENTICATED, "request impersonation authentication failure"
    )


async def _signed(
    wanted: ca_pb2.IstioCertificateRequest,
    *,
    identity: identities.SpiffeId,
    caller: callers.Caller,
    signatory: Signatory,
) -> tuple[str, ...]:
    outcome = await signatory.sign(
        notary.Wanted(
            csr=wanted.csr,
            lifetime_s=wanted.validity_duration,
            identity=identity,
            own_domain=signatory.own_domain(),
            cluster=caller.cluster,
            pod=caller.pod,
        )
    )
    if isinstance(outcome, notary.Unsigned):
        signatory.counters.failed.add(1, outcome.counted_as)
        status = grpc.StatusCode[outcome.status]
        raise RefusedError(status, f"CSR signing error ({outcome.reason})")
    signatory.counters.issued.add()
    return outcome.chain
