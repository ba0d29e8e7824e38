"""Takes the questions for names that are redirected to an agent, by datagram and by stream.

The sockets of a pod without a proxy of its own outlive the process that answers there: whoever comes
next goes on with them, and with the questions that were asked meanwhile.

Bounds what a pod can use up: open streams, idle time, questions on their way.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from typing_extensions import override

from isthmus.base import dns, logs, namespaces, tasks
from isthmus.node import answering, marking, settings

MOST_STREAMS = 64
IDLE_S = 10.0

_LOG = logs.Log("isthmus.dns")


@dataclass(frozen=True, slots=True)
class Sockets:
    """The two at which questions come; they live for as long as anybody has them open."""

    stream: socket.socket
    datagrams: socket.socket

    @property
    def descriptors(self) -> tuple[int, int]:
        """What another process needs to go on with them."""
        return self.stream.fileno(), self.datagrams.fileno()

    def close(self) -> None:
        """Have them open no longer."""
        self.stream.close()
        self.datagrams.close()


def alone(at: settings.Address) -> Sockets:
    """Listen where nobody else does.

    Raises:
        OSError: Somebody does.
    """
    return _listening(at, shared=False)


def beside(at: settings.Address, *, network: int) -> Sockets:
    """Listen in a network namespace, where another process may listen on the same port.

    Raises:
        OSError: Somebody listens there alone, or the network is gone.
    """
    with namespaces.entered(network):
        return _listening(at, shared=True)


def taken_over(descriptors: Sequence[int]) -> Sockets | None:
    """Go on with the sockets of another, with all that waits there; None if these are no two.

    The descriptors are ours to close, in any case.
    """
    opened: list[socket.socket] = []
    for each in descriptors:
        try:
            opened.append(socket.socket(fileno=each))
        except OSError:
            os.close(each)
    if [each.type for each in opened] == [socket.SOCK_STREAM, socket.SOCK_DGRAM]:
        for one in opened:
            one.setblocking(False)
        return Sockets(*opened)
    for one in opened:
        one.close()
    return None


@contextlib.asynccontextmanager
async def serving(
    answers: answering.Answering, *, sockets: Sockets, nursery: tasks.Nursery
) -> AsyncIterator[tuple[str, int]]:
    """Take questions while this is entered, and close the sockets then; yield address and port."""
    place = sockets.stream.getsockname()[:2]
    with contextlib.closing(sockets):
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(answers, nursery), sock=sockets.datagrams
        )
        server = await asyncio.start_server(_Streams(answers).converse, sock=sockets.stream)
        _LOG.info("names are answered", host=place[0], port=place[1])
        try:
            yield place
        finally:
            transport.close()
            server.close()


def _listening(at: settings.Address, *, shared: bool) -> Sockets:
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
    return Sockets(stream, datagrams)


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
