"""A worker as a program: takes clients that were accepted for it, and tells proxies.

It serves with what it was told last, and ends when the control plane does, by whatever that ends.

Source: docs/decisions/0051.
"""

import asyncio
import itertools
import signal
import socket
from typing import Final

import msgspec

from isthmus.base import clock, logs, memory, metrics, tasks
from isthmus.runtime import framing
from isthmus.runtime.fanout import counts, far, messages, shown
from isthmus.wire import ads, listening, tls

ALIVE_EVERY_S: Final = 0.5
TIDY_EVERY_S, TIDY_TIMES = 5.0, 6
"""For how long proxies that have come may still be told what they asked for."""

FULL_S: Final = 0.1
TAKEN_AT_ONCE: Final = 32

_LOG = logs.Log("isthmus.fanout")


class Worker:
    """One worker, from its own side."""

    def __init__(
        self, writer: asyncio.StreamWriter, door: socket.socket, *, system_clock: clock.Clock
    ) -> None:
        self._writer = writer
        self._door = door
        self._clock = system_clock
        self._metrics = metrics.Metrics()
        self._line = far.Line(self.send)
        self._discovery = far.Discovery(self._line)
        self._serving: tls.Serving | None = None
        self._service: ads.Service | None = None
        self._server: listening.Server | None = None
        self._counted: messages.Figures | None = None
        self._is_ready = False

    def send(self, message: messages.Said) -> None:
        """Say something to the control plane."""
        self._writer.write(framing.framed(message))

    async def run(self, reader: asyncio.StreamReader, nursery: tasks.Nursery) -> None:
        """Serve until the control plane is gone, or says that it is enough."""
        decoder = msgspec.msgpack.Decoder[messages.Told](messages.Told)
        told = framing.heard(reader, decoder, most_bytes=messages.MOST_BYTES, leaves_out=False)
        async for message in told:
            match message:
                case messages.State():
                    self._serve(message, nursery)
                case messages.Ask():
                    _ = nursery.start("say how far proxies are", self._say(message))
                case messages.Drain():
                    _ = nursery.start("end", self._drain(message.grace_s))
                case _:
                    self._take(message)

    def _take(self, message: messages.Told) -> None:
        match message:
            case messages.Changed():
                self._discovery.changed(message)
            case messages.Opened():
                self._discovery.opened(message)
            case messages.Moved():
                self._discovery.moved(message)
            case messages.Forgotten():
                self._discovery.forgotten(message)
            case messages.End():
                if self._service is not None:
                    those = self._discovery.ended(message.numbers)
                    self._service.end_those(those, status=message.status, reason=message.reason)
            case (
                messages.Proven() | messages.Certified() | messages.Answered() | messages.Refused()
            ):
                _ = self._line.take(message)
            case messages.State() | messages.Ask() | messages.Drain():
                raise AssertionError("taken before")

    # Serving.

    def _serve(self, state: messages.State, nursery: tasks.Nursery) -> None:
        self._is_ready = state.is_ready
        certificate = tls.Certificate(
            chain_pem=state.chain_pem,
            key_pem=state.key_pem,
            roots_pem="",
            renew_at=self._clock.now(),
        )
        if self._serving is not None and self._service is not None:
            self._serving.replace(certificate)
            return
        self._serving = tls.Serving(certificate)
        service = self._service = ads.Service(
            self._discovery,
            limits=state.limits,
            system_clock=self._clock,
            registered=self._metrics,
        )
        service.patience.is_ready = lambda: self._is_ready
        service.asides = far.Asides(self._line, own_cluster=state.own_cluster)
        service.numbers = itertools.count(state.first, state.step)
        signing = far.certify(self._line, registered=self._metrics)
        self._server = listening.opened((service.handler(), signing))
        self._door.setblocking(False)
        self._open()
        _ = nursery.keep("say what is counted", self._report)
        _ = nursery.keep("give memory back", self._tidy)

    def _open(self) -> None:
        asyncio.get_running_loop().add_reader(self._door.fileno(), self._accept)

    def _accept(self) -> None:
        assert self._server is not None
        assert self._serving is not None
        loop = asyncio.get_running_loop()
        for _ in range(TAKEN_AT_ONCE):
            if self._server.free <= 0:
                loop.remove_reader(self._door.fileno())
                loop.call_later(FULL_S, self._open)
                return
            try:
                content, numbers, _flags, _address = socket.recv_fds(self._door, 1, 1)
            except (BlockingIOError, InterruptedError):
                return
            if not content:
                loop.remove_reader(self._door.fileno())
                return
            for number in numbers:
                client = socket.socket(fileno=number)
                client.set_inheritable(False)
                self._server.take(client, tls=self._serving.discovery_context)

    async def _drain(self, grace_s: float) -> None:
        asyncio.get_running_loop().remove_reader(self._door.fileno())
        if self._server is not None:
            await self._server.stop(grace_s)
        self._writer.close()

    # What the control plane is told.

    async def _say(self, asked: messages.Ask) -> None:
        if self._service is not None and asked.with_streams:
            found = self._discovery.numbered(self._service.followed())
            for part in shown.told(found, asked.number):
                self.send(part)
                await asyncio.sleep(0)
        self.send(counts.told(self._metrics, asked.number))

    async def _report(self) -> None:
        while True:
            assert self._server is not None
            counted = counts.told(self._metrics, 0)
            if counted != self._counted:
                self._counted = counted
                self.send(counted)
            self.send(messages.Alive(self._server.connections))
            await self._clock.sleep(ALIVE_EVERY_S)

    async def _tidy(self) -> None:
        known, left = 0, 0
        while True:
            await self._clock.sleep(TIDY_EVERY_S)
            opened = self._service.opened if self._service is not None else 0
            if opened != known:
                known, left = opened, TIDY_TIMES
            if left:
                left -= 1
                memory.trim()


async def run(talk: socket.socket, door: socket.socket, *, system_clock: clock.Clock) -> None:
    """Serve until the other side of `talk` is gone; clients come by `door`."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # Whole groups of processes may be asked to end; the control plane says when.
        asyncio.get_running_loop().add_signal_handler(number, lambda: None)
    reader, writer = await asyncio.open_connection(sock=talk, limit=messages.PART_BYTES)
    async with tasks.Nursery(system_clock=system_clock) as nursery:
        await Worker(writer, door, system_clock=system_clock).run(reader, nursery)
    writer.close()
