"""Just enough HTTP/1.1 for an agent: answer short requests, and ask on this machine.

Bodies are small and come whole. Whatever is malformed, too large or too slow is cut off.

    IsthmusError
    └── NoAnswer
"""

import asyncio
import contextlib
import http
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from isthmus.base import errors

LARGEST_HEAD_BYTES = 16 * 1024
LARGEST_BODY_BYTES = 64 << 20
IDLE_S = 60.0


class NoAnswer(errors.IsthmusError):
    """Nobody answered, or not in HTTP."""

    code = "ISM-NODE-003"


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked.

    Attributes:
        path: Without the query.
        is_local: Whether it came from this machine's loopback.
    """

    method: str
    path: str
    is_local: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered."""

    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Question:
    """What to ask, and how.

    Attributes:
        source: Address that the connection is to come from, or empty.
        tls: Speak HTTPS, without checking whose certificate it is, as kubelet's probes do.
        socket: A Unix socket, in place of host and port.
    """

    host: str
    port: int
    path: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    tls: bool = False
    deadline_s: float = 5.0
    socket: str = ""

    @property
    def place(self) -> str:
        """Who is asked."""
        return self.socket or f"{self.host}:{self.port}"


Answering = Callable[[Request], Awaitable[Answer]]


async def serve(answering: Answering, *, host: str, port: int) -> asyncio.Server:
    """Listen and answer until the returned server is closed."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername") or ("",)
        local = str(peer[0]).removeprefix("::ffff:").startswith("127.") or peer[0] == "::1"
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, ValueError):
            while await _one(reader, writer, answering=answering, is_local=local):
                pass
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    return await asyncio.start_server(connected, host, port, limit=LARGEST_HEAD_BYTES)


async def _one(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    *,
    answering: Answering,
    is_local: bool,
) -> bool:
    """Answer one request; say whether another may follow on the same connection."""
    head = await _head(reader, deadline_s=IDLE_S)
    method, target, protocol = head.first.split(" ", 2)
    length = int(head.headers.get("content-length", "0"))
    if length > LARGEST_HEAD_BYTES or "transfer-encoding" in head.headers:
        return False
    await asyncio.wait_for(reader.readexactly(length), IDLE_S)
    answer = await answering(Request(method, target.partition("?")[0], is_local))
    stays = protocol == "HTTP/1.1" and head.headers.get("connection", "").lower() != "close"
    phrase = http.HTTPStatus(answer.status).phrase
    lines = (
        f"HTTP/1.1 {answer.status} {phrase}",
        f"content-type: {answer.content_type}",
        f"content-length: {len(answer.body)}",
        f"connection: {'keep-alive' if stays else 'close'}",
    )
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n")
    if method != "HEAD":
        writer.write(answer.body)
    await asyncio.wait_for(writer.drain(), IDLE_S)
    return stays


async def ask(question: Question) -> Answer:
    """Ask somebody on this machine.

    Raises:
        NoAnswer: Nobody answered in time, or not in HTTP (ISM-NODE-003).
    """
    try:
        async with asyncio.timeout(question.deadline_s):
            return await _asked(question)
    except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
        raise NoAnswer(
            f"no answer from {question.place}",
            detail=f"{type(error).__name__}: {error}",
        ) from error


async def connect(host: str, *, port: int, source: str, deadline_s: float) -> None:
    """Connect and close again.

    Raises:
        NoAnswer: Nobody took the connection in time (ISM-NODE-003).
    """
    try:
        async with asyncio.timeout(deadline_s):
            _, writer = await asyncio.open_connection(host, port, local_addr=(source, 0))
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    except (OSError, TimeoutError) as error:
        raise NoAnswer(
            f"no answer from {host}:{port}", detail=f"{type(error).__name__}: {error}"
        ) from error


async def _asked(question: Question) -> Answer:
    reader, writer = await _connected(question)
    try:
        headers = {"host": f"{question.host}:{question.port}", "connection": "close"}
        headers |= {name.lower(): value for name, value in question.headers.items()}
        if question.method != "GET":
            headers["content-length"] = "0"
        lines = [f"{question.method} {question.path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n")
        await writer.drain()
        head = await _head(reader, deadline_s=question.deadline_s)
        status = int(head.first.partition(" ")[2][:3])
        return Answer(status, await _body(reader, head), head.headers.get("content-type", ""))
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _connected(question: Question) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if question.socket:
        return await asyncio.open_unix_connection(question.socket, limit=LARGEST_HEAD_BYTES)
    return await asyncio.open_connection(
        question.host,
        question.port,
        local_addr=(question.source, 0) if question.source else None,
        ssl=_unverified() if question.tls else None,
        limit=LARGEST_HEAD_BYTES,
    )


@dataclass(frozen=True, slots=True)
class _Head:
    first: str
    headers: Mapping[str, str]


async def _head(reader: asyncio.StreamReader, *, deadline_s: float) -> _Head:
    try:
        text = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), deadline_s)
    except asyncio.LimitOverrunError as error:
        raise ValueError("head is too large") from error
    first, *lines = text.decode("latin-1").strip().split("\r\n")
    pairs = (line.partition(":")[::2] for line in lines)
    return _Head(first, {name.strip().lower(): value.strip() for name, value in pairs})


async def _body(reader: asyncio.StreamReader, head: _Head) -> bytes:
    if head.headers.get("transfer-encoding", "").lower() == "chunked":
        return await _chunks(reader)
    if "content-length" in head.headers:
        return await reader.readexactly(_bounded(int(head.headers["content-length"])))
    return await reader.read(LARGEST_BODY_BYTES)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    parts = bytearray()
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        _bounded(len(parts) + size)
        parts += await reader.readexactly(size)
        await reader.readexactly(2)
    return bytes(parts)


def _bounded(size_bytes: int) -> int:
    if size_bytes > LARGEST_BODY_BYTES:
        raise ValueError("body is too large")
    return size_bytes


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
