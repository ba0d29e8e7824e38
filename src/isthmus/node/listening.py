"""Takes the questions for names that are redirected to an agent, by datagram and by stream.

Bounds what a pod can use up: open streams, idle time, questions on their way.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any, cast

from typing_extensions import override

from isthmus.base import dns, logs, namespaces, tasks
from isthmus.node import answering, marking, settings

MOST_STREAMS = 64
IDLE_S = 10.0

_LOG = logs.Log("isthmus.dns")


@contextlib.asynccontextmanager
async def serving(
    answers: answering.Answering,
    *,
    at: settings.Address,
    nursery: tasks.Nursery,
    network: int | None = None,
) -> AsyncIterator[tuple[str, int]]:
    """Listen on one port with UDP and TCP; yield the address and port.

    In the network namespace of a descriptor, if one is given, where another process may listen on
    the same port: one that takes over, or that is taken over from.
    """
    if network is None:
        stream, datagrams = _listening(at, shared=False)
    else:
        with namespaces.entered(network):
            stream, datagrams = _listening(at, shared=True)
    place = stream.getsockname()[:2]
    with stream, datagrams:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(answers, nursery), sock=datagrams
        )
        server = await asyncio.start_server(_Streams(answers).converse, sock=stream)
        _LOG.info("names are answered", host=place[0], port=place[1])
        try:
            yield place
        finally:
            transport.close()
            server.close()


def _listening(at: settings.Address, *, shared: bool) -> tuple[socket.socket, socket.socket]:
    stream = socket.create_server((at.host, at.port), backlog=MOST_STREAMS, reuse_port=shared)
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        if shared:
            datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # By the mark the packet rules know whose replies these are.
        marking.mark(datagrams)
        datagrams.bind(stream.getsockname()[:2])
    except BaseException:
        stream.close()
        datagrams.close()
        raise
    return stream, datagrams


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, answers: answering.Answering, nursery: tasks.Nursery) -> None:
        self._answers = answers
        self._nursery = nursery
        self._transport: asyncio.DatagramTransport | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # The selector loop's own class does not derive from the one that it documents.
        self._transport = cast("asyncio.DatagramTransport", transport)

    @override
    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        reply = self._answers.at_once(data)
        if reply is None:
            _ = self._nursery.start("question for a name", self._passed_on(data, addr))
        elif reply:
            self._send(reply, addr)

    @override
    def error_received(self, exc: Exception) -> None:
        """Nothing: a client that has gone does not hear its answer."""

    async def _passed_on(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self._send(await self._answers.asked(data, by_stream=False), addr)

    def _send(self, reply: bytes, addr: tuple[str | Any, int]) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(reply, addr)


class _Streams:
    def __init__(self, answers: answering.Answering) -> None:
        self._answers = answers
        self._open = 0

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= MOST_STREAMS:
                await self._answered(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            # Gone, or silent for too long.
            pass
        finally:
            self._open -= 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answered(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            async with asyncio.timeout(IDLE_S):
                size = int.from_bytes(await reader.readexactly(2), "big")
                message = await reader.readexactly(size)
            reply = self._answers.at_once(message, longest=dns.LONGEST)
            if reply is None:
                reply = await self._answers.asked(message, by_stream=True)
            if not reply:
                return
            async with asyncio.timeout(IDLE_S):
                writer.write(dns.framed(reply))
                await writer.drain()
