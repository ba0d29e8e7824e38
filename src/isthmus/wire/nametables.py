"""Asks for the table of names on a proxy's own discovery stream, and takes the answers out of it.

The proxy knows nothing of names; its agent speaks in between. A control plane sees one stream,
on which one more type is subscribed to.

Source: spec sections 4.5, 4.6 and 4.10.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import message

TYPE_URL: Final = "type.googleapis.com/istio.networking.nds.v1.NameTable"
_MARK: Final = TYPE_URL.encode()
DELTA: Final = "DeltaAggregatedResources"
INVALID_ARGUMENT: Final = 3

Take = Callable[[bytes], str]
"""Takes a new table; returns why it cannot be used, or nothing."""


@dataclass(slots=True)
class Talk:
    """The part of one discovery stream that is about names."""

    method: str
    take: Take

    def begin(self) -> bytes:
        """Return the request that asks for the table; it follows the stream's first request."""
        return self._said(self._request(type_url=TYPE_URL))

    def hear(self, content: bytes) -> bytes | None:
        """Take a table out of an answer and return what to say to it; None if it is none."""
        if _MARK not in content:
            return None
        parsed = self._answer(content)
        if parsed is None or parsed.type_url != TYPE_URL:
            return None
        request = self._request(type_url=TYPE_URL, response_nonce=parsed.nonce)
        fault = self._taken(parsed)
        if fault:
            request.error_detail.code = INVALID_ARGUMENT
            request.error_detail.message = fault
        elif self.method != DELTA:
            request.version_info = parsed.version_info
        return self._said(request)

    def _taken(self, parsed: Any) -> str:  # noqa: ANN401  # generated messages have no types
        # There is one table; an answer without any says that nothing changed.
        for resource in parsed.resources:
            wrapped = resource.resource if self.method == DELTA else resource
            return self.take(wrapped.value)
        return ""

    def _answer(self, content: bytes) -> Any:  # noqa: ANN401  # generated messages have no types
        is_delta = self.method == DELTA
        kind = discovery_pb2.DeltaDiscoveryResponse if is_delta else discovery_pb2.DiscoveryResponse
        try:
            return kind.FromString(content)
        except message.DecodeError:
            return None

    def _request(self, **fields: str) -> Any:  # noqa: ANN401  # generated messages have no types
        is_delta = self.method == DELTA
        kind = discovery_pb2.DeltaDiscoveryRequest if is_delta else discovery_pb2.DiscoveryRequest
        return kind(**fields)

    @staticmethod
    def _said(request: Any) -> bytes:  # noqa: ANN401  # generated messages have no types
        content: bytes = request.SerializeToString()
        return content
