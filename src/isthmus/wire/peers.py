"""What a gRPC connection shows of its caller: token, claimed cluster, verified certificate.

Proves nothing itself; it only collects what an authenticator then judges.

Source: spec section 1.3.1; security rule XA-1.
"""

from collections.abc import Iterable, Mapping

import grpc

from isthmus.mesh import identities
from isthmus.wire import callers

BEARER = "bearer "


def credentials(context: grpc.aio.ServicerContext) -> callers.Credentials:
    """Collect the credentials of the connection behind `context`.

    Raises:
        CallerRefused: A client certificate without exactly one SPIFFE name (ISM-WIRE-001).
    """
    return shown(
        tuple((str(key), value) for key, value in context.invocation_metadata() or ()),
        verified=context.auth_context() or {},
        peer=str(context.peer() or ""),
    )


def shown(
    metadata: Iterable[tuple[str, str | bytes]],
    *,
    verified: Mapping[str, Iterable[bytes]],
    peer: str,
) -> callers.Credentials:
    """Collect credentials from gRPC metadata and the facts of the TLS handshake.

    Raises:
        CallerRefused: A client certificate without exactly one SPIFFE name (ISM-WIRE-001).
    """
    found: dict[str, list[str]] = {}
    for key, value in metadata:
        if isinstance(value, str):
            found.setdefault(key.lower(), []).append(value)
    tokens = [
        text[len(BEARER) :].strip()
        for text in found.get("authorization", [])
        if text.lower().startswith(BEARER)
    ]
    clusters = found.get("clusterid", [])
    return callers.Credentials(
        token=tokens[0] if len(tokens) == 1 else "",
        # More than one claim is no claim.
        claimed_cluster=clusters[0] if len(clusters) == 1 else "",
        peer_identities=_identities(verified),
        peer=peer,
        peer_chain=_chain(verified),
    )


def _chain(verified: Mapping[str, Iterable[bytes]]) -> str:
    names = ("x509_pem_cert", "x509_pem_cert_chain")
    return "".join(
        text.decode(errors="replace") for name in names for text in verified.get(name, ())
    )


def _identities(verified: Mapping[str, Iterable[bytes]]) -> tuple[str, ...]:
    if not list(verified.get("x509_pem_cert", ())):
        return ()
    names = [name.decode(errors="replace") for name in verified.get("peer_uri", ())]
    if len(names) != 1:
        raise callers.CallerRefused(
            "the client certificate must carry exactly one URI name",
            detail=f"it carries {len(names)}",
        )
    try:
        identities.parse_spiffe_id(names[0])
    except identities.IdentityMalformed as error:
        raise callers.CallerRefused(
            "the client certificate names no workload", detail=error.happened
        ) from error
    return tuple(names)
