"""A very small HTTP server that runs in a pod: it answers every request with its pod's name.

The same program answers in all cases that are compared, so that what differs is the way to it.
"""

import asyncio
import contextlib
import os
import signal
import socket

from typing_extensions import override

PORT = 8080
RAW_PORT = 8081
"""The same, for a Service that says that it is no HTTP: proxies pass its connections on."""

_END = b"\r\n\r\n"

GRACE_S = 2.0


class Answering(asyncio.Protocol):
    """Answers one connection; requests have no bodies."""

    body = os.environ.get("HOSTNAME", socket.gethostname()).encode()
    answer = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n" % len(body)
    ) + body

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._rest = b""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    @override
    def data_received(self, data: bytes) -> None:
        whole, found, self._rest = (self._rest + data).rpartition(_END)
        if found and self._transport is not None:
            self._transport.write(self.answer * (whole.count(_END) + 1))


async def main() -> None:
    """Serve until the process is told to end."""
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, told.set)
    async with contextlib.AsyncExitStack() as stack:
        for port in (PORT, RAW_PORT):
            server = await loop.create_server(Answering, "0.0.0.0", port, backlog=512)
            await stack.enter_async_context(server)
        await told.wait()
        # Who has not heard yet that this pod ends may still call, as with any careful program.
        await asyncio.sleep(GRACE_S)


if __name__ == "__main__":
    asyncio.run(main())
