"""The proxy subresources: one HTTP request, passed on over a connection into a pod.

It decides which headers pass. It refuses to know how the connection was made.
"""

import asyncio
import contextlib

from aiohttp import web

from isthmus.lab.apiserver import errors, relay

_HOP_BY_HOP = frozenset(
    {
        "connection",
        "content-length",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_PRIVATE = frozenset({"authorization", "cookie", "impersonate-user", "impersonate-group"})


async def relayed(
    request: web.Request,
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    *,
    path: str,
) -> web.StreamResponse:
    """Send `request` on with `path`, and its answer back."""
    reader, writer = connection
    query = f"?{request.query_string}" if request.query_string else ""
    headers = [
        (key, value)
        for key, value in request.headers.items()
        if key.lower() not in _HOP_BY_HOP | _PRIVATE
    ]
    try:
        await relay.send(
            writer,
            method=request.method,
            target=f"/{path.lstrip('/')}{query}",
            headers=headers,
            body=await request.read(),
        )
        head = await relay.read_head(reader)
        return await _answer(request, reader, head)
    except (OSError, relay.BrokenAnswerError) as error:
        raise unreachable(error) from error
    finally:
        writer.close()


def unreachable(error: Exception) -> errors.ApiError:
    """Say that nothing answers behind the proxy."""
    why = "connection refused" if isinstance(error, ConnectionRefusedError) else str(error)
    return errors.ApiError(503, "ServiceUnavailable", f"error trying to reach service: {why}")


async def _answer(
    request: web.Request, reader: asyncio.StreamReader, head: relay.Head
) -> web.StreamResponse:
    response = web.StreamResponse(status=head.status, reason=head.reason)
    for key, value in head.headers:
        if key.lower() not in _HOP_BY_HOP:
            response.headers.add(key, value)
    await response.prepare(request)
    with contextlib.suppress(ConnectionError, relay.BrokenAnswerError):
        async for part in relay.body(reader, head, method=request.method):
            await response.write(part)
        await response.write_eof()
    return response
