"""Bytes both ways: over a socket, inside of TLS, inside of a tunnel, and these in each other.

Just enough of HTTP/2 to ask for one tunnel and to use it. It is for looking whether there is a way,
not for carrying anything: one stream, small messages, no flow control beyond the first window.

Source: RFC 9113, RFC 7541.
"""

import asyncio
import contextlib
import ssl
from typing import Final, Protocol

from isthmus.base import errors

CHUNK: Final = 16 * 1024
MOST_FRAME: Final = 1 << 20
HEADER: Final = 9
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, AWAY = 0, 1, 3, 4, 6, 7
ACK, END_STREAM, END_HEADERS, PADDED, PRIORITY = 1, 1, 4, 8, 32

STATUSES: Final = {8: 200, 9: 204, 10: 206, 11: 304, 12: 400, 13: 404, 14: 500}
"""Statuses that stand in HPACK's table, by their place."""

STATUS_NAME: Final = 8
DIGITS: Final = {
    **{f"{number:05b}": str(number) for number in range(3)},
    **{f"{number + 22:06b}": str(number) for number in range(3, 10)},
}
"""Huffman's codes of digits."""


class Broken(errors.IsthmusError):
    """The other side does not speak as it should, or has hung up."""

    code = "ISM-WIRE-020"


class HungUp(Broken):
    """The other side has hung up."""


class Pipe(Protocol):
    """Bytes both ways."""

    async def read(self) -> bytes:
        """Return what came; empty at the end."""

    async def write(self, content: bytes) -> None:
        """Send bytes."""


class SocketPipe:
    """Bytes over a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self) -> bytes:
        """Return what came; empty at the end."""
        return await self._reader.read(CHUNK)

    async def write(self, content: bytes) -> None:
        """Send bytes."""
        self._writer.write(content)
        await self._writer.drain()

    async def close(self) -> None:
        """Hang up, for whatever reason."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


class TlsPipe:
    """A client's TLS over another pipe."""

    def __init__(self, inner: Pipe, context: ssl.SSLContext, *, server_name: str = "") -> None:
        self._inner = inner
        self._there, self._here = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._there, self._here, server_hostname=server_name or None)

    @property
    def certificate(self) -> bytes:
        """The other side's certificate, as DER."""
        return self._tls.getpeercert(binary_form=True) or b""

    async def handshake(self) -> None:
        """Begin.

        Raises:
            SSLError: One of both refuses.
            Broken: The other side has hung up (ISM-WIRE-020).
        """
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            else:
                await self._flush()
                return

    async def read(self) -> bytes:
        """Return what came; empty at the end."""
        while True:
            try:
                return self._tls.read(CHUNK)
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    async def write(self, content: bytes) -> None:
        """Send bytes."""
        self._tls.write(content)
        await self._flush()

    async def _flush(self) -> None:
        if self._here.pending:
            await self._inner.write(self._here.read())

    async def _fill(self) -> None:
        content = await self._inner.read()
        if not content:
            raise HungUp("it hung up")
        self._there.write(content)


class Tunnel:
    """One stream of HTTP/2 over another pipe, asked for with CONNECT."""

    def __init__(self, inner: Pipe) -> None:
        self._inner = inner
        self._rest = b""

    async def begin(self, *, listens_s: float = 0.0) -> None:
        """Say hello, and wait until the other side does.

        Who refuses a client's certificate says so and hangs up, and what is written meanwhile makes
        that unreadable: with `listens_s` the other side may speak first for so long.

        Raises:
            Broken: It says something else (ISM-WIRE-020).
        """
        if listens_s:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(listens_s):
                    self._rest = await self._inner.read()
                    if not self._rest:
                        raise HungUp("it hung up")
        await self._inner.write(PREFACE + _frame(SETTINGS))
        kind, _, _ = await self._frame()
        if kind != SETTINGS:
            raise Broken("it does not speak HTTP/2")
        await self._inner.write(_frame(SETTINGS, flags=ACK))

    async def ask(self, authority: str) -> int:
        """Ask for a tunnel to `authority`; return the status that is answered.

        Raises:
            Broken: Nothing is answered (ISM-WIRE-020).
        """
        name = authority.encode()
        if len(name) >= 127:  # longer lengths are written otherwise
            raise Broken("its name is too long to ask for")
        head = b"\x02\x07CONNECT\x01" + bytes((len(name),)) + name
        await self._inner.write(_frame(HEADERS, head, flags=END_HEADERS, stream=1))
        while True:
            kind, flags, payload = await self._next()
            if kind == HEADERS:
                return status_of(_unpadded(payload, flags))
            if kind in {RESET, AWAY}:
                raise Broken("it refuses the stream")

    async def read(self) -> bytes:
        """Return what comes through the tunnel; empty at its end."""
        while True:
            kind, flags, payload = await self._next()
            content = _unpadded(payload, flags) if kind == DATA else b""
            if content:
                return content
            if kind in {RESET, AWAY} or (kind in {DATA, HEADERS} and flags & END_STREAM):
                return b""

    async def write(self, content: bytes) -> None:
        """Send bytes through the tunnel."""
        for start in range(0, len(content), CHUNK):
            await self._inner.write(_frame(DATA, content[start : start + CHUNK], stream=1))

    async def _next(self) -> tuple[int, int, bytes]:
        """Return the next frame that is about the stream."""
        while True:
            kind, flags, payload = await self._frame()
            if kind == PING and not flags & ACK:
                await self._inner.write(_frame(PING, payload, flags=ACK))
            elif kind in {DATA, HEADERS, RESET, AWAY}:
                return kind, flags, payload

    async def _frame(self) -> tuple[int, int, bytes]:
        head = await self._exactly(HEADER)
        size = int.from_bytes(head[:3], "big")
        if size > MOST_FRAME:
            raise Broken("it does not speak HTTP/2")
        return head[3], head[4], await self._exactly(size)

    async def _exactly(self, size: int) -> bytes:
        while len(self._rest) < size:
            content = await self._inner.read()
            if not content:
                raise HungUp("it hung up")
            self._rest += content
        found, self._rest = self._rest[:size], self._rest[size:]
        return found


def _frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags))
    return head + stream.to_bytes(4, "big") + payload


def _unpadded(payload: bytes, flags: int) -> bytes:
    if flags & PADDED:
        payload = payload[1 : len(payload) - payload[0]]
    return payload


def status_of(block: bytes) -> int:
    """Return the status in a block of headers; servers put it first.

    Raises:
        Broken: There is none that can be read (ISM-WIRE-020).
    """
    while block and block[0] & 0xE0 == 0x20:  # a change of the table's size
        block = block[1:]
    if not block:
        raise Broken("it answers without a status")
    first = block[0]
    if first & 0x80:
        found = STATUSES.get(first & 0x7F)
    else:
        index = first & (0x3F if first & 0x40 else 0x0F)
        is_status = index in {STATUS_NAME, *STATUSES} and len(block) > 1
        found = _literal(block[1:]) if is_status else None
    if found is None:
        raise Broken("it answers without a status")
    return found


def _literal(value: bytes) -> int | None:
    size = value[0] & 0x7F
    text = value[1 : 1 + size]
    if not value[0] & 0x80:
        return int(text) if text.isdigit() else None
    bits = "".join(f"{one:08b}" for one in text)
    digits = ""
    while bits and len(digits) < 3:  # that many a status has
        size = next((length for length in (5, 6) if bits[:length] in DIGITS), 0)
        if not size:
            return None
        digits, bits = digits + DIGITS[bits[:size]], bits[size:]
    return int(digits) if len(digits) == 3 else None  # as above
