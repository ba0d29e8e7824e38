"""Which headers a request may have, and those of our answers, ready to be sent.

Source: RFC 9113 section 8; gRPC over HTTP/2, "Requests" and "Responses".
"""

import base64
import binascii
import functools
from collections.abc import Iterable
from typing import Final
from urllib import parse

from isthmus.wire.h2 import frames

STATUS_200: Final = b"\x88"
"""`:status: 200` of the table that everybody has."""

GRPC: Final = "application/grpc"
ANSWER: Final = STATUS_200 + frames.header("content-type", GRPC)
NOT_GRPC: Final = frames.header(":status", "415")

_PSEUDO: Final = frozenset({":method", ":scheme", ":path", ":authority"})
_NEEDED: Final = frozenset({":method", ":scheme", ":path"})
_OF_CONNECTIONS: Final = frozenset(
    {"connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade"}
)
_OUR_OWN: Final = frozenset({"te", "content-type", "grpc-encoding", "grpc-accept-encoding"})
_PRINTABLE: Final = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


def fault_of(headers: Iterable[tuple[str, str]]) -> str:
    """Return what is wrong with a request's headers, or nothing."""
    seen: set[str] = set()
    is_past = False
    for name, value in headers:
        if not name or name != name.lower():
            return "a header's name is not in small letters"
        if name.startswith(":"):
            if is_past or name in seen or name not in _PSEUDO:
                return "a request names what it is for once, and first"
            seen.add(name)
            continue
        is_past = True
        if name in _OF_CONNECTIONS or (name == "te" and value != "trailers"):
            return f"header `{name}` has no meaning here"
    return "" if seen >= _NEEDED else "a request says method, scheme and path"


def metadata(headers: Iterable[tuple[str, str]]) -> tuple[tuple[str, str | bytes], ...]:
    """Return what a caller tells beside the request, as gRPC counts it."""
    found: list[tuple[str, str | bytes]] = []
    for name, value in headers:
        if name.startswith(":") or name in _OUR_OWN:
            continue
        if name.endswith("-bin"):
            found += [(name, content) for content in _decoded(value)]
        else:
            found.append((name, value))
    return tuple(found)


@functools.lru_cache(maxsize=256)
def trailers(status: int, text: str, *, alone: bool) -> bytes:
    """Return how a call ends; `alone` when nothing was answered before."""
    before = ANSWER if alone else b""
    said = frames.header("grpc-message", parse.quote(text, safe=_PRINTABLE)) if text else b""
    return before + frames.header("grpc-status", str(status)) + said


def _decoded(value: str) -> list[bytes]:
    contents = []
    for part in value.split(","):
        try:
            contents.append(base64.b64decode(part + "=" * (-len(part) % 4), validate=True))
        except (binascii.Error, ValueError):
            return []
    return contents
