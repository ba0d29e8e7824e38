"""As much of HTTP/2 as a client of one gRPC stream needs: bytes in, messages out, no sockets.

What a server may do to such a client is answered: settings, pings, windows. Headers of answers are
not read, only whether they end the stream.
"""

import struct
from collections.abc import Iterable, Iterator
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW = 0, 1, 3, 4, 6, 7, 8
ACK, END_STREAM, END_HEADERS = 1, 1, 4
INITIAL_WINDOW: Final = 4
LARGEST: Final = 2**31 - 1
USUAL: Final = 65535
STREAM: Final = 1
FRAME: Final = 16384
WIDEN: Final = 1 << 30
"""After so much content the server is told that there is room again."""

HEAD: Final = struct.Struct(">HBBBI")
PREFIX: Final = 5


class Ended(Exception):  # noqa: N818  # how a stream ends
    """The server has ended the stream."""


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return a frame."""
    size = len(payload)
    return HEAD.pack(size >> 8, size & 255, kind, flags, stream) + payload


def message(content: bytes) -> bytes:
    """Return the frame of a message that fits into one."""
    return frame(DATA, 0, STREAM, _prefixed(content))


def _prefixed(content: bytes) -> bytes:
    return b"\0" + struct.pack(">I", len(content)) + content


class Stream:
    """One connection with one stream.

    Attributes:
        is_between: Whether what was heard ends where a message ends.
        orders: How many frames were heard that say something of the connection or the stream.
        content: How many bytes of messages were heard.
    """

    __slots__ = (
        "_at_first",
        "_given",
        "_has",
        "_left",
        "_out",
        "_own",
        "_own_window",
        "_parts",
        "_rest",
        "_size",
        "_waiting",
        "_window",
        "content",
        "is_between",
        "orders",
    )

    def __init__(self, path: str, headers: Iterable[tuple[str, str]]) -> None:
        self.is_between = True
        self.orders = self.content = 0
        self._rest = b""
        self._parts: list[bytes | memoryview] = []
        self._has, self._size, self._left, self._own = 0, -1, 0, 0
        self._given = 0
        self._waiting = bytearray()
        self._window = USUAL
        self._own_window = USUAL
        self._at_first = USUAL
        settings = struct.pack(">HI", INITIAL_WINDOW, LARGEST)
        fields = [
            (":method", "POST"),
            (":scheme", "https"),
            (":path", path),
            (":authority", "istiod.istio-system.svc"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            *headers,
        ]
        self._out = [
            PREFACE,
            frame(SETTINGS, 0, 0, settings),
            frame(WINDOW, 0, 0, struct.pack(">I", LARGEST - USUAL)),
            frame(HEADERS, END_HEADERS, STREAM, b"".join(_literal(*one) for one in fields)),
        ]

    def send(self, content: bytes) -> None:
        """Send a message as soon as the server's window lets it."""
        self._waiting += _prefixed(content)
        self._flow()

    def share(self, content: bytes, framed: bytes) -> None:
        """Send a message of which the frame is there already."""
        size = len(content) + PREFIX
        if self._waiting or size > self._window or size > self._own_window:
            self.send(content)
            return
        self._window -= size
        self._own_window -= size
        self._out.append(framed)

    def take(self) -> bytes:
        """Return what is to be written now."""
        out, self._out = self._out, []
        return out[0] if len(out) == 1 else b"".join(out)

    def skip(self, size: int) -> None:
        """Take in content that is known already."""
        self.content += size
        if self.content - self._given >= WIDEN:
            self._widen()

    def hear(self, heard: bytes | memoryview) -> Iterator[bytes]:
        """Take in what was read; yield the messages in it. Nothing of it is kept that is not copied.

        Raises:
            Ended: The server has ended the stream.
        """
        if self._rest:
            heard, self._rest = self._rest + heard, b""
        at, known, view = 0, len(heard), memoryview(heard)
        while at < known:
            if self._left:
                end = min(known, at + self._left)
                self._left -= end - at
                yield from self._data(view[at:end])
                at = end
                continue
            if known - at < HEAD.size:
                break
            high, low, kind, flags, stream = HEAD.unpack_from(view, at)
            size = high << 8 | low
            if kind == DATA and not flags:
                self._left = size
            elif known - at - HEAD.size < size:
                break
            else:
                payload = view[at + HEAD.size : at + HEAD.size + size]
                if kind == DATA:
                    yield from self._data(payload)
                self._order(kind, flags, stream & LARGEST, bytes(payload))
                at += size
            at += HEAD.size
        self._rest = bytes(view[at:])
        if len(self._parts) > self._own:
            self._parts[self._own :] = [b"".join(self._parts[self._own :])]
            self._own = len(self._parts)
        self.is_between = not (self._rest or self._parts or self._left)

    def _data(self, payload: memoryview) -> Iterator[bytes]:
        """Put messages together from what frames hold of them."""
        self.skip(len(payload))
        self._parts.append(payload)
        self._has += len(payload)
        while self._size >= 0 or self._has >= PREFIX:
            if self._size < 0:
                self._begin()
            more = self._has - self._size
            if more < 0:
                return
            last = self._parts.pop()
            end = len(last) - more
            content = b"".join((*self._parts, last[:end]))
            self._parts = [last[end:]] if more else []
            self._has, self._size, self._own = more, -1, 0
            yield content

    def _begin(self) -> None:
        """Take the prefix off a message."""
        if len(self._parts[0]) < PREFIX:
            self._parts, self._own = [b"".join(self._parts)], 0
        first = self._parts[0]
        self._size = int.from_bytes(first[1:PREFIX])
        self._parts[0] = first[PREFIX:]
        self._has -= PREFIX

    def _order(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        self.orders += 1
        if kind in {RESET, GOAWAY} or (kind in {DATA, HEADERS} and flags & END_STREAM):
            raise Ended(f"frame {kind}: {payload[:200]!r}")
        if kind == SETTINGS and not flags & ACK:
            self._settings(payload)
            self._out.append(frame(SETTINGS, ACK, 0, b""))
        elif kind == PING and not flags & ACK:
            self._out.append(frame(PING, ACK, 0, payload))
        elif kind == WINDOW:
            if stream:
                self._own_window += int.from_bytes(payload)
            else:
                self._window += int.from_bytes(payload)
            self._flow()

    def _settings(self, payload: bytes) -> None:
        for at in range(0, len(payload), 6):
            name, value = struct.unpack_from(">HI", payload, at)
            if name == INITIAL_WINDOW:
                self._own_window += value - self._at_first
                self._at_first = value
        self._flow()

    def _widen(self) -> None:
        """Give back the room that was used."""
        more, self._given = struct.pack(">I", self.content - self._given), self.content
        self._out += [frame(WINDOW, 0, 0, more), frame(WINDOW, 0, STREAM, more)]

    def _flow(self) -> None:
        while self._waiting:
            size = min(len(self._waiting), FRAME, self._window, self._own_window)
            if size <= 0:
                return
            self._out.append(frame(DATA, 0, STREAM, bytes(self._waiting[:size])))
            del self._waiting[:size]
            self._window -= size
            self._own_window -= size


def _literal(name: str, value: str) -> bytes:
    """Return a header that is not to be remembered, without compression."""
    return b"\0" + _text(name) + _text(value)


def _text(text: str) -> bytes:
    raw = text.encode()
    size = len(raw)
    if size < 127:
        return bytes([size]) + raw
    head, rest = bytearray([127]), size - 127
    while rest >= 128:
        head.append(rest & 127 | 128)
        rest >>= 7
    return bytes([*head, rest]) + raw
