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


class Ended(Exception):  # noqa: N818  # how a stream ends
    """The server has ended the stream."""


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return a frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


class Stream:
    """One connection with one stream."""

    def __init__(self, path: str, headers: Iterable[tuple[str, str]]) -> None:
        self._rest = b""
        self._message = bytearray()
        self._waiting = bytearray()
        self._window = {0: USUAL, STREAM: USUAL}
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
        self._out = bytearray(
            PREFACE
            + frame(SETTINGS, 0, 0, settings)
            + frame(WINDOW, 0, 0, struct.pack(">I", LARGEST - USUAL))
            + frame(HEADERS, END_HEADERS, STREAM, b"".join(_literal(*one) for one in fields))
        )

    def send(self, message: bytes) -> None:
        """Send a message as soon as the server's window lets it."""
        self._waiting += b"\0" + struct.pack(">I", len(message)) + message
        self._flow()

    def take(self) -> bytes:
        """Return what is to be written now."""
        out, self._out = bytes(self._out), bytearray()
        return out

    def hear(self, heard: bytes) -> Iterator[bytes]:
        """Take in what was read; yield the messages in it.

        Raises:
            Ended: The server has ended the stream.
        """
        heard = self._rest + heard if self._rest else heard
        at, known = 0, len(heard)
        while known - at >= 9:
            size = int.from_bytes(heard[at : at + 3])
            if known - at < 9 + size:
                break
            kind, flags = heard[at + 3], heard[at + 4]
            payload = heard[at + 9 : at + 9 + size]
            stream = int.from_bytes(heard[at + 5 : at + 9]) & LARGEST
            at += 9 + size
            if kind == DATA:
                yield from self._data(payload)
            self._control(kind, flags, stream, payload)
        self._rest = heard[at:]

    def _data(self, payload: bytes) -> Iterator[bytes]:
        self._message += payload
        while len(self._message) >= 5:
            size = int.from_bytes(self._message[1:5])
            if len(self._message) < 5 + size:
                return
            with memoryview(self._message) as view:
                message = bytes(view[5 : 5 + size])
            if len(self._message) == 5 + size:
                self._message = bytearray()
            else:
                del self._message[: 5 + size]
            yield message

    def _control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind in {RESET, GOAWAY} or (kind in {DATA, HEADERS} and flags & END_STREAM):
            raise Ended(f"frame {kind}: {payload[:200]!r}")
        if kind == SETTINGS and not flags & ACK:
            self._settings(payload)
            self._out += frame(SETTINGS, ACK, 0, b"")
        elif kind == PING and not flags & ACK:
            self._out += frame(PING, ACK, 0, payload)
        elif kind == WINDOW:
            self._window[stream] = self._window.get(stream, 0) + int.from_bytes(payload)
            self._flow()

    def _settings(self, payload: bytes) -> None:
        for at in range(0, len(payload), 6):
            name, value = struct.unpack(">HI", payload[at : at + 6])
            if name == INITIAL_WINDOW:
                self._window[STREAM] += value - self._at_first
                self._at_first = value
        self._flow()

    def _flow(self) -> None:
        while self._waiting:
            size = min(len(self._waiting), FRAME, *self._window.values())
            if size <= 0:
                return
            self._out += frame(DATA, 0, STREAM, bytes(self._waiting[:size]))
            del self._waiting[:size]
            for name in self._window:
                self._window[name] -= size


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
