"""Talks on a server that knows no callbacks, such as gRPC's own: two tasks for each stream.

It is the reference that our own server is held against; nothing many proxies connect to uses it.
"""

import asyncio
import contextlib
from collections import deque
from typing import Final

import grpc
from typing_extensions import override

from isthmus.base import tasks
from isthmus.wire import talks
from isthmus.wire.h2 import calls, outlet

LAST_WRITE_S: Final = 1.0


class Polled(talks.Way):
    """A stream of gRPC's own server."""

    def __init__(self, context: grpc.aio.ServicerContext) -> None:
        self._context = context
        self._said: deque[bytes] = deque()
        self._woken = asyncio.Event()
        self._writes = asyncio.Lock()
        self._ended: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()

    @override
    def say(self, message: outlet.Message) -> bool:
        """Let a message be written."""
        self._said.append(message.body[calls.PREFIX_BYTES :])
        self._woken.set()
        return False

    @override
    def send(self, message: outlet.Message) -> bool:
        """Let a message be written."""
        return self.say(message)

    @override
    def flush(self) -> None:
        """Nothing: what was said is written as soon as it can be."""

    @override
    def close(self, status: str, text: str) -> None:
        """Let `run` return this."""
        if not self._ended.done():
            self._ended.set_result((status, text))

    async def run(self, talk: talks.Talk) -> tuple[str, str]:
        """Carry messages both ways until the talk is over; return how it ends."""
        try:
            async with tasks.Nursery() as nursery:
                _ = nursery.start("read", self._read(talk))
                _ = nursery.start("write", self._write(talk))
                ended = await self._ended
                # What is on its way cannot be taken back, and nothing else is said before it is out.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._writes.acquire(), LAST_WRITE_S)
                return ended
        finally:
            talk.lost()

    async def _read(self, talk: talks.Talk) -> None:
        try:
            while (content := await self._context.read()) is not grpc.aio.EOF:
                talk.heard(bytes(content))
            talk.heard_out()
        finally:
            self.close(*talks.FAILED)

    async def _write(self, talk: talks.Talk) -> None:
        try:
            while True:
                self._woken.clear()
                while self._said:
                    async with self._writes:
                        await self._context.write(self._said.popleft())
                    talk.drained()
                await self._woken.wait()
        finally:
            self.close(*talks.FAILED)
