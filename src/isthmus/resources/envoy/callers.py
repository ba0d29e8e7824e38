"""How a proxy knows who calls: by the certificate of the connection, or by what a tunnel's end noted.

Source: spec section 7.4.
"""

from collections.abc import Iterable
from typing import Final

from envoy.extensions.filters.common.set_filter_state.v3 import value_pb2
from envoy.extensions.filters.http.set_filter_state.v3 import set_filter_state_pb2

from isthmus.resources.envoy import messages

Value = value_pb2.FilterStateValue

PEER: Final = "io.istio.peer_principal"
"""Under this key the end of a tunnel notes who began it."""

NOTES: Final = "envoy.filters.http.set_filter_state"
PLAIN: Final = "envoy.string"
ORIGIN: Final = "envoy.filters.listener.original_dst.remote_ip"
TARGET: Final = "envoy.filters.listener.original_dst.local_ip"
PEER_TEXT: Final = f"%FILTER_STATE({PEER}:PLAIN)%"
IDENTITY: Final = "spiffe://[^/,]+/ns/[^/,]+/sa/[^/,]+"
"""Just one identity. Of a certificate with several all are noted, with commas between."""


def by_certificate(matcher: messages.Fields) -> messages.Fields:
    """Return the principal whose certificate holds an identity like this."""
    return {"authenticated": {"principal_name": matcher}}


def by_state(matcher: messages.Fields) -> messages.Fields:
    """Return the principal who began the tunnel, if his identity is like this."""
    return {"filter_state": {"key": PEER, "string_match": matcher}}


def from_noted(block: messages.Fields) -> messages.Fields:
    """Return the principal who began the tunnel from an address in a range.

    What came out of it has inside the proxy no address that its connection would tell.
    """
    return {"filter_state": {"key": ORIGIN, "address_match": {"ranges": [block]}}}


def noted() -> messages.Fields:
    """Return the filter of a tunnel's end that notes who began it, from where, and where to.

    What is inside the proxy learns it, and who began it no other connection: that keeps no pools
    of connections apart.
    """
    facts = (
        (PEER, PLAIN, "%DOWNSTREAM_PEER_URI_SAN%", Value.ONCE),
        (ORIGIN, ORIGIN, "%DOWNSTREAM_REMOTE_ADDRESS%", Value.ONCE),
        # Tunnels to pods go on to that very address; to services, to where an endpoint is.
        (TARGET, TARGET, "%REQ(:AUTHORITY)%", Value.TRANSITIVE),
    )
    return messages.extension(NOTES, _noting(facts))


def leading_to(target: str) -> messages.Fields:
    """Return what the same filter notes on a route instead, where tunnels lead to `target`."""
    return {NOTES: messages.packed(_noting([(TARGET, TARGET, target, Value.ONCE)]))}


def _noting(facts: Iterable[tuple[str, str, str, int]]) -> set_filter_state_pb2.Config:
    values = [
        Value(
            object_key=key,
            factory_key=kind,
            format_string={"text_format_source": {"inline_string": text}},
            shared_with_upstream=shared,
        )
        for key, kind, text, shared in facts
    ]
    return set_filter_state_pb2.Config(on_request_headers=values)
