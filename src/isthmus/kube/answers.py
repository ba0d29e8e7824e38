"""Reads what an API server answers: objects, refusals, and how a command ended."""

from collections.abc import AsyncIterable, AsyncIterator, Mapping
from typing import Any

import msgspec

from isthmus.kube import problems

LONGEST_WAIT_S = 20.0
MOST_LINE_BYTES = 32 * 1024 * 1024
MOST_BYTES = 512 * 1024 * 1024
"""Of one answer; a whole list of the largest cluster that is asked for in one piece."""


def document(content: bytes) -> dict[str, Any]:
    """Return the object that an answer holds."""
    try:
        decoded = msgspec.json.decode(content)
    except (ValueError, RecursionError) as error:
        raise problems.ApiError(
            502, "", "the answer cannot be read as JSON", request=str(error)
        ) from error
    if not isinstance(decoded, dict):
        raise problems.ApiError(502, "", "the answer is not an object")
    return decoded


def refusal(status: int, content: bytes, *, request: str) -> problems.ApiError:
    """Return the server's refusal in its own words."""
    try:
        said = msgspec.json.decode(content)
        reason, message = str(said.get("reason", "")), str(said.get("message", ""))
        details = said.get("details") or {}
    except (ValueError, RecursionError, AttributeError):
        reason, message, details = "", content[:200].decode(errors="replace").strip(), {}
    return problems.ApiError(status, reason, message, request=request, details=details)


def next_page(page: Mapping[str, Any]) -> str:
    """Return what asks for the page after this one of a list; empty after the last."""
    return str((page.get("metadata") or {}).get("continue") or "")


def wait_asked_for(headers: Mapping[str, str], *, status: int) -> float | None:
    """Return how long the server wants us to wait before we try again, or None."""
    asked = headers.get("Retry-After", "")
    if status == 429 or (status in (500, 503, 504) and asked):
        return min(float(asked), LONGEST_WAIT_S) if asked.isdecimal() else 1.0
    return None


def exit_code(content: bytes) -> int:
    """Return how a command ended, from the status that its stream ends with."""
    status = msgspec.json.decode(content)
    if status.get("status") == "Success":
        return 0
    for cause in (status.get("details") or {}).get("causes") or []:
        if cause.get("reason") == "ExitCode":
            return int(cause["message"])
    raise problems.ApiError(500, str(status.get("reason", "")), str(status.get("message", "")))


async def whole(chunks: AsyncIterable[bytes], *, most: int = MOST_BYTES) -> bytes:
    """Return all of an answer, up to a bound."""
    parts, size = list[bytes](), 0
    async for chunk in chunks:
        size += len(chunk)
        if size > most:
            raise OSError(f"its answer is larger than {most >> 20} MiB")
        parts.append(chunk)
    return b"".join(parts)


async def lines(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Split a stream into lines of any length up to a bound; a cut last line is dropped."""
    rest = bytearray()
    async for chunk in chunks:
        rest += chunk
        if b"\n" not in chunk:
            if len(rest) > MOST_LINE_BYTES:
                raise OSError("an event is larger than any object may be")
            continue
        *whole, tail = bytes(rest).split(b"\n")
        rest = bytearray(tail)
        for line in whole:
            if line.strip():
                yield line
