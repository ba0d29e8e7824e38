"""HTTP/1.1 over a connection that somebody else has opened.

It decides how one request and its answer are framed. It refuses to know where the connection
leads: into a pod's network, or through TLS to a webhook.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

_LONGEST_LINE = 64 * 1024
_MOST_HEADERS = 200
_CHUNK = 64 * 1024

Headers = tuple[tuple[str, str], ...]


class BrokenAnswerError(Exception):
    """The other side does not speak HTTP/1.1, or stopped in the middle."""


@dataclass(frozen=True, slots=True)
class Head:
    """The first part of an answer."""

    status: int
    reason: str
    headers: Headers

    def header(self, name: str) -> str:
        """Return the first header called `name`, in lower case, or nothing."""
        return next((value for key, value in self.headers if key.lower() == name), "")


async def send(
    writer: asyncio.StreamWriter,
    *,
    method: str,
    target: str,
    headers: Iterable[tuple[str, str]],
    body: bytes,
) -> None:
    """Send one request; the connection ends after its answer."""
    kept = [
        (key, value)
        for key, value in headers
        if key.lower() not in {"connection", "content-length", "transfer-encoding"}
    ]
    if body or method in {"POST", "PUT", "PATCH"}:
        kept.append(("Content-Length", str(len(body))))
    kept.append(("Connection", "close"))
    lines = [f"{method} {target} HTTP/1.1", *(f"{key}: {value}" for key, value in kept), "", ""]
    writer.write("\r\n".join(lines).encode("latin-1") + body)
    await writer.drain()


async def read_head(reader: asyncio.StreamReader) -> Head:
    """Read the status and headers of an answer, passing over interim ones."""
    while True:
        parts = (await _line(reader)).split(" ", 2)
        if len(parts) < 2 or not parts[0].startswith("HTTP/1.") or not parts[1].isdigit():
            raise BrokenAnswerError("malformed HTTP response")
        headers = await _headers(reader)
        if int(parts[1]) >= 200:  # 1xx announces that the answer is yet to come
            return Head(int(parts[1]), "".join(parts[2:]), headers)


async def body(reader: asyncio.StreamReader, head: Head, *, method: str) -> AsyncIterator[bytes]:
    """Yield the body that follows `head`."""
    if method == "HEAD" or head.status in {204, 304}:
        return
    if "chunked" in head.header("transfer-encoding").lower():
        while size := _size(await _line(reader), base=16):
            async for part in _exactly(reader, size):
                yield part
            await _line(reader)
        await _headers(reader)
    elif length := head.header("content-length"):
        async for part in _exactly(reader, _size(length, base=10)):
            yield part
    else:
        while part := await reader.read(_CHUNK):
            yield part


async def whole_body(
    reader: asyncio.StreamReader, head: Head, *, method: str, limit_bytes: int
) -> bytes:
    """Return the whole body, which may have at most `limit_bytes`."""
    found = bytearray()
    async for part in body(reader, head, method=method):
        found += part
        if len(found) > limit_bytes:
            raise BrokenAnswerError(f"response is larger than {limit_bytes} bytes")
    return bytes(found)


async def _line(reader: asyncio.StreamReader) -> str:
    try:
        raw = await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        raise BrokenAnswerError("unexpected EOF" if error.partial else "EOF") from error
    except asyncio.LimitOverrunError as error:
        raise BrokenAnswerError(f"a line is longer than {_LONGEST_LINE} bytes") from error
    return raw.decode("latin-1").rstrip("\r\n")


async def _headers(reader: asyncio.StreamReader) -> Headers:
    found: list[tuple[str, str]] = []
    while line := await _line(reader):
        key, separator, value = line.partition(":")
        if not separator or len(found) >= _MOST_HEADERS:
            raise BrokenAnswerError("malformed HTTP header")
        found.append((key.strip(), value.strip()))
    return tuple(found)


async def _exactly(reader: asyncio.StreamReader, size: int) -> AsyncIterator[bytes]:
    left = size
    while left:
        part = await reader.read(min(left, _CHUNK))
        if not part:
            raise BrokenAnswerError("unexpected EOF")
        left -= len(part)
        yield part


def _size(text: str, *, base: int) -> int:
    try:
        size = int(text.partition(";")[0].strip(), base)
    except ValueError as error:
        raise BrokenAnswerError("malformed length") from error
    if size < 0:
        raise BrokenAnswerError("malformed length")
    return size
