"""Asks the control plane to sign a key; the other end of `wire.csr`.

IsthmusError
└── NotSigned
"""

import grpc

from isthmus.base import errors
from isthmus.wire import csr, dialing
from isthmus_proto.istio.v1.auth import ca_pb2

FEWEST_ELEMENTS = 2
"""A leaf and the roots; anything less is no answer (spec section 1.3)."""


class NotSigned(errors.IsthmusError):
    """The control plane did not sign our key."""

    code = "ISM-CA-014"


async def request(
    target: dialing.Target,
    *,
    csr_pem: str,
    lifetime_s: int,
    deadline_s: float,
    on_behalf_of: str = "",
) -> tuple[str, ...]:
    """Have a key signed; return the leaf, its chain and, last, the roots as one text.

    Args:
        target: Where the control plane is, and who we are.
        csr_pem: The key.
        lifetime_s: For how long the certificate shall be valid.
        deadline_s: How long to wait.
        on_behalf_of: The identity of a pod of this node; empty for our own.

    Raises:
        NotSigned: No usable answer came within `deadline_s` (ISM-CA-014).
    """
    message = ca_pb2.IstioCertificateRequest(csr=csr_pem, validity_duration=lifetime_s)
    if on_behalf_of:
        message.metadata.update({csr.IMPERSONATED: on_behalf_of})
    async with dialing.channel(target) as channel:
        call = channel.unary_unary(f"/{csr.SERVICE}/{csr.METHOD}")
        try:
            answer = await call(
                message.SerializeToString(), metadata=target.metadata(), timeout=deadline_s
            )
        except grpc.aio.AioRpcError as error:
            raise NotSigned(
                "the control plane did not sign our key",
                detail=f"{target.server_name}: {error.code().name}: {error.details()}",
                hint=_hint(error.code()),
            ) from error
    elements = tuple(ca_pb2.IstioCertificateResponse.FromString(answer).cert_chain)
    if len(elements) < FEWEST_ELEMENTS:
        raise NotSigned(
            "the control plane's answer holds no chain",
            detail=f"elements: {len(elements)}, needed: {FEWEST_ELEMENTS}",
        )
    return elements


def _hint(status: grpc.StatusCode) -> str:
    match status:
        case grpc.StatusCode.UNAUTHENTICATED:
            return (
                "the control plane must know this cluster: check its remote secret with "
                "`isthmus remote-clusters`"
            )
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.DEADLINE_EXCEEDED:
            return "check that the control plane runs and that its address can be reached from here"
        case _:
            return ""
