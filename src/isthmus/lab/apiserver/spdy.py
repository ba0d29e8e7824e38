"""SPDY/3.1 framing, as much of it as port-forward speaks, without a socket.

It decides how frames are written and read, and refuses what is malformed. It refuses to know what
the streams carry. Flow-control windows are not kept, as clients of port-forward keep none either.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

_NAMES = [
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
]
_REST = (
    b"100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    b"203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request"
    b"401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented"
    b"503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00"
    b" Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,"
    b"application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age="
    b"gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY = b"".join(struct.pack("!I", len(name)) + name.encode() for name in _NAMES) + _REST
"""What both sides' compressors know beforehand (SPDY/3, section 2.6.10.1)."""

_VERSION = 3
_CONTROL = 0x80000000
_HEADER = struct.Struct("!II")
_WORD = struct.Struct("!I")
_ID_MASK = 0x7FFFFFFF
_LARGEST_FRAME = 1 << 20
_LARGEST_HEADERS = 1 << 18
_FIN = 1

_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _HEADERS, _WINDOW_UPDATE = (
    1,
    2,
    3,
    4,
    6,
    7,
    8,
    9,
)

PROTOCOL_ERROR = 1
REFUSED_STREAM = 3
CANCEL = 5


class ProtocolError(Exception):
    """The other side broke the protocol; the connection cannot go on."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A stream begins (SYN_STREAM)."""

    stream: int
    headers: Mapping[str, str]
    is_last: bool = False


@dataclass(frozen=True, slots=True)
class Replied:
    """A stream was accepted (SYN_REPLY)."""

    stream: int
    headers: Mapping[str, str]
    is_last: bool = False


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes on a stream; `is_last` ends the sender's half."""

    stream: int
    content: bytes
    is_last: bool = False


@dataclass(frozen=True, slots=True)
class Reset:
    """A stream ends at once (RST_STREAM)."""

    stream: int
    status: int


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks for the same ping back."""

    number: int


@dataclass(frozen=True, slots=True)
class GoAway:
    """No further streams are taken."""

    last_stream: int
    status: int = 0


@dataclass(frozen=True, slots=True)
class WindowUpdate:
    """More may be sent on a stream; 0 is the connection."""

    stream: int
    delta: int


Frame: TypeAlias = Opened | Replied | Data | Reset | Ping | GoAway | WindowUpdate


class Connection:
    """One side of a connection: frames out of bytes, bytes out of frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._deflate = zlib.compressobj(zdict=DICTIONARY)
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)

    def receive(self, content: bytes) -> list[Frame]:
        """Take bytes from the other side and return the frames that they complete.

        Raises:
            ProtocolError: They make no sense.
        """
        self._buffer += content
        return list(self._frames())

    def send(self, frame: Frame) -> bytes:  # noqa: PLR0911  # one answer per kind of frame
        """Return the bytes of one frame. Frames must be sent in the order of these calls."""
        match frame:
            case Opened(stream, headers, is_last):
                body = struct.pack("!IIH", stream, 0, 0) + self._block(headers)
                return _control(_SYN_STREAM, body, is_last=is_last)
            case Replied(stream, headers, is_last):
                body = _WORD.pack(stream) + self._block(headers)
                return _control(_SYN_REPLY, body, is_last=is_last)
            case Data(stream, content, is_last):
                return _HEADER.pack(stream, (_FIN if is_last else 0) << 24 | len(content)) + content
            case Reset(stream, status):
                return _control(_RST_STREAM, _HEADER.pack(stream, status))
            case Ping(number):
                return _control(_PING, _WORD.pack(number))
            case GoAway(last_stream, status):
                return _control(_GOAWAY, _HEADER.pack(last_stream, status))
            case WindowUpdate(stream, delta):
                return _control(_WINDOW_UPDATE, _HEADER.pack(stream, delta))

    def _frames(self) -> Iterator[Frame]:
        while len(self._buffer) >= _HEADER.size:
            first, second = _HEADER.unpack_from(self._buffer)
            length = second & 0xFFFFFF
            if length > _LARGEST_FRAME:
                raise ProtocolError(f"a frame of {length} bytes is too large")
            end = _HEADER.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            frame = self._frame(first, flags=second >> 24, body=body)
            if frame is not None:
                yield frame

    def _frame(self, first: int, *, flags: int, body: bytes) -> Frame | None:
        is_last = bool(flags & _FIN)
        if not first & _CONTROL:
            return Data(first, body, is_last)
        if (first >> 16) & 0x7FFF != _VERSION:
            raise ProtocolError("only version 3 is spoken here")
        try:
            return self._control_frame(first & 0xFFFF, body, is_last=is_last)
        except struct.error as error:
            raise ProtocolError("a control frame is too short") from error

    def _control_frame(self, kind: int, body: bytes, *, is_last: bool) -> Frame | None:
        found: Frame | None = None
        match kind:
            case 1:
                stream, _, _ = struct.unpack_from("!IIH", body)
                found = Opened(stream & _ID_MASK, self._headers(body[10:]), is_last)
            case 2:
                (stream,) = _WORD.unpack_from(body)
                found = Replied(stream & _ID_MASK, self._headers(body[4:]), is_last)
            case 3:
                stream, status = _HEADER.unpack_from(body)
                found = Reset(stream & _ID_MASK, status)
            case 6:
                found = Ping(*_WORD.unpack_from(body))
            case 7:
                stream, status = _HEADER.unpack_from(body)
                found = GoAway(stream & _ID_MASK, status)
            case 8:
                # The compressor's state depends on every block, also on those nobody wants.
                self._headers(body[4:])
            case 9:
                stream, delta = _HEADER.unpack_from(body)
                found = WindowUpdate(stream & _ID_MASK, delta & _ID_MASK)
            case _:
                pass
        return found

    def _block(self, headers: Mapping[str, str]) -> bytes:
        pairs = [(key.lower().encode(), value.encode()) for key, value in headers.items()]
        plain = _WORD.pack(len(pairs)) + b"".join(map(_sized, _flat(pairs)))
        return self._deflate.compress(plain) + self._deflate.flush(zlib.Z_SYNC_FLUSH)

    def _headers(self, block: bytes) -> dict[str, str]:
        try:
            plain = self._inflate.decompress(block, _LARGEST_HEADERS)
        except zlib.error as error:
            raise ProtocolError("headers cannot be decompressed") from error
        if self._inflate.unconsumed_tail:
            raise ProtocolError("headers are too large")
        (count,) = _WORD.unpack_from(plain)
        texts = list(_texts(plain, at=_WORD.size, count=2 * count))
        return dict(zip(texts[::2], texts[1::2], strict=True))


def _control(kind: int, body: bytes, *, is_last: bool = False) -> bytes:
    first = _CONTROL | _VERSION << 16 | kind
    return _HEADER.pack(first, (_FIN if is_last else 0) << 24 | len(body)) + body


def _flat(pairs: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
    for pair in pairs:
        yield from pair


def _sized(text: bytes) -> bytes:
    return _WORD.pack(len(text)) + text


def _texts(plain: bytes, *, at: int, count: int) -> Iterator[str]:
    if count > len(plain):
        raise ProtocolError("headers are shorter than they say")
    for _ in range(count):
        (length,) = _WORD.unpack_from(plain, at)
        at += _WORD.size
        if at + length > len(plain):
            raise ProtocolError("headers are shorter than they say")
        yield plain[at : at + length].decode("utf-8", "replace")
        at += length
