"""Frames of HTTP/2 as bytes: how each begins, and those that a server sends.

Knows no state of a connection; what a frame means is `connection`'s.

Source: RFC 9113 sections 4 and 6, RFC 7541 section 6.2.2.
"""

import enum
import struct
from collections.abc import Iterable
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_BYTES: Final = 9
LARGEST: Final = 16_384
"""Bytes in a frame that everybody must take, and that we take."""

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0x0, 0x1, 0x2, 0x3, 0x4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0x5, 0x6, 0x7, 0x8, 0x9

END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS = 0x1, 0x2, 0x3
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 0x4, 0x5, 0x6

MOST_WINDOW: Final = 2**31 - 1
USUAL_WINDOW: Final = 65_535

_HEAD: Final = struct.Struct(">HBBBI")
_NUMBER: Final = struct.Struct(">I")
_SETTING: Final = struct.Struct(">HI")
_TWO: Final = struct.Struct(">II")
_SEVEN_BITS: Final = 0x7F
_STREAM_BITS: Final = 0x7FFF_FFFF


class Code(enum.IntEnum):
    """Why a stream or a connection ends."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB


def head_at(content: bytes | bytearray, offset: int) -> tuple[int, int, int, int]:
    """Return size, kind, flags and stream of the frame that begins at `offset`."""
    high, low, kind, flags, stream = _HEAD.unpack_from(content, offset)
    return (high << 8) | low, kind, flags, stream & _STREAM_BITS


def head(kind: int, *, size: int, flags: int = 0, stream: int = 0) -> bytes:
    """Return the head of a frame."""
    return _HEAD.pack(size >> 8, size & 0xFF, kind, flags, stream)


def settings(values: Iterable[tuple[int, int]]) -> bytes:
    """Return a frame that tells settings."""
    body = b"".join(_SETTING.pack(name, value) for name, value in values)
    return head(SETTINGS, size=len(body)) + body


def settings_in(content: bytes) -> list[tuple[int, int]]:
    """Return the settings in a frame's content, whose size is a multiple of six."""
    return list(_SETTING.iter_unpack(content))


SETTINGS_ACK: Final = head(SETTINGS, size=0, flags=ACK)


def pong(content: bytes) -> bytes:
    """Return the answer to a ping."""
    return head(PING, size=len(content), flags=ACK) + content


def ping(content: bytes) -> bytes:
    """Return a ping; its content is eight bytes."""
    return head(PING, size=len(content)) + content


def window_update(stream: int, *, more: int) -> bytes:
    """Return a frame that lets the other side send `more` bytes."""
    return head(WINDOW_UPDATE, size=4, stream=stream) + _NUMBER.pack(more)


def reset(stream: int, code: Code) -> bytes:
    """Return a frame that ends one stream."""
    return head(RST_STREAM, size=4, stream=stream) + _NUMBER.pack(code)


def goaway(last: int, code: Code, text: str = "") -> bytes:
    """Return a frame that ends the connection; streams up to `last` were served."""
    body = _TWO.pack(last, code) + text.encode()
    return head(GOAWAY, size=len(body)) + body


def number_in(content: bytes) -> int:
    """Return the number in a frame of four bytes, without its reserved bit."""
    return int(_NUMBER.unpack(content)[0]) & _STREAM_BITS


def header(name: str, value: str) -> bytes:
    """Return one header as a literal that no table remembers."""
    return b"\x00" + _literal(name.encode()) + _literal(value.encode())


def _literal(content: bytes) -> bytes:
    size, shown = len(content), bytearray()
    if size < _SEVEN_BITS:
        shown.append(size)
    else:
        shown.append(_SEVEN_BITS)
        size -= _SEVEN_BITS
        while size > _SEVEN_BITS:
            shown.append(size & _SEVEN_BITS | 0x80)
            size >>= 7
        shown.append(size)
    return bytes(shown) + content
