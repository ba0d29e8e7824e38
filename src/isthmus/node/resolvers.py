"""Asks the servers that a pod would ask for names by itself, in its place.

Questions go on as they came, byte for byte, and so do the replies. A datagram's sender is checked
by the kernel, its number and question here.

Source: spec section 5.4.
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from typing_extensions import override

from isthmus.base import dns
from isthmus.node import marking

PATIENCE_S = 2.0
"""Below the 5 seconds after which a pod's own resolver loses its patience."""


class Upstream(Protocol):
    """Whoever is asked for names that are not known here."""

    async def ask(self, message: bytes, question: dns.Question, *, by_stream: bool) -> bytes:
        """Return the reply.

        Raises:
            OSError: Nobody answered, or not in time.
        """


@dataclass(frozen=True, slots=True)
class Servers(Upstream):
    """Asks one server after the other."""

    addresses: tuple[str, ...]
    port: int = dns.PORT
    patience_s: float = PATIENCE_S

    @override
    async def ask(self, message: bytes, question: dns.Question, *, by_stream: bool) -> bytes:
        failed = OSError("no server to ask")
        for address in self.addresses:
            try:
                async with asyncio.timeout(self.patience_s):
                    if by_stream:
                        return await self._by_stream(address, message)
                    return await self._by_datagram(address, message, question)
            except (OSError, asyncio.IncompleteReadError) as error:
                failed = OSError(f"{address}: {str(error) or type(error).__name__}")
        raise failed

    async def _by_datagram(self, address: str, message: bytes, question: dns.Question) -> bytes:
        loop = asyncio.get_running_loop()
        with self._connecting(address, socket.SOCK_DGRAM) as asking:
            await loop.sock_connect(asking, (address, self.port))
            await loop.sock_sendall(asking, message)
            while True:
                reply = await loop.sock_recv(asking, dns.LONGEST)
                if dns.answers(reply, question):
                    return reply

    async def _by_stream(self, address: str, message: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        with self._connecting(address, socket.SOCK_STREAM) as asking:
            await loop.sock_connect(asking, (address, self.port))
            await loop.sock_sendall(asking, dns.framed(message))
            size = int.from_bytes(await _exactly(asking, 2), "big")
            return await _exactly(asking, size)

    @contextlib.contextmanager
    def _connecting(self, address: str, kind: int) -> Iterator[socket.socket]:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, kind | socket.SOCK_NONBLOCK) as asking:
            # Or the packet rules would send the question back here.
            marking.mark(asking)
            yield asking


async def _exactly(asking: socket.socket, size: int) -> bytes:
    loop = asyncio.get_running_loop()
    content = bytearray()
    while len(content) < size:
        chunk = await loop.sock_recv(asking, size - len(content))
        if not chunk:
            raise asyncio.IncompleteReadError(bytes(content), size)
        content += chunk
    return bytes(content)
