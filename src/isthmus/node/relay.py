"""Carries bytes between a Unix socket and the control plane over a marked connection.

The agent's own connections must not be redirected into the proxy that it looks after. Where the
proxy has no user of its own, only the mark tells them apart, and gRPC cannot mark its sockets.
"""

import asyncio
import contextlib
import pathlib
import socket

from isthmus.base import logs, tasks
from isthmus.node import marking, settings

CHUNK_BYTES = 64 * 1024
CONNECT_S = 5.0

# A control plane that vanishes without a word is noticed within about half a minute.
LIVENESS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 20_000),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
)

_LOG = logs.Log("isthmus.relay")


async def serve(path: pathlib.Path, *, to: settings.Address) -> asyncio.Server:
    """Listen on a Unix socket; every connection to it leads to `to`.

    `path` must not exist.
    """

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await _carried(reader, writer, to=to)
        except (OSError, TimeoutError) as error:
            _LOG.warning(
                "control plane cannot be reached",
                host=to.host,
                port=to.port,
                reason=str(error) or type(error).__name__,
            )
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    return await asyncio.start_unix_server(connected, str(path))


async def _carried(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, to: settings.Address
) -> None:
    async with asyncio.timeout(CONNECT_S):
        there, back = await _dialed(to)
    try:
        async with tasks.Nursery() as nursery:
            _ = nursery.start("bytes to the control plane", _pumped(reader, back))
            await _pumped(there, writer)
    finally:
        back.close()
        with contextlib.suppress(OSError):
            await back.wait_closed()


async def _pumped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


async def _dialed(
    to: settings.Address,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(to.host, to.port, type=socket.SOCK_STREAM)
    refused: OSError = OSError(f"`{to.host}` has no address")
    for family, kind, protocol, _, address in found:
        connection = socket.socket(family, kind, protocol)
        try:
            connection.setblocking(False)
            marking.mark(connection)
            for level, option, value in LIVENESS:
                connection.setsockopt(level, option, value)
            await loop.sock_connect(connection, address)
            return await asyncio.open_connection(sock=connection)
        except OSError as error:
            connection.close()
            refused = error
        except BaseException:
            connection.close()
            raise
    raise refused
