"""A gRPC server of our own: listens, accepts, and gives each call to the service it names.

Takes the same services as `grpc.aio.server`, which stays the reference that this one is held
against. Counts connections that have not proven to speak the protocol, and closes those that
are silent.

Source: performance rule 1; security rules XA-5 and GW-6.
"""

import asyncio
import contextlib
import math
import socket
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import grpc

from isthmus.base import logs, tasks
from isthmus.wire.h2 import calls, connection, lines, polls

_LOG = logs.Log("isthmus.h2")

PROTOCOL: Final = "h2"
SWEEP_S: Final = 1.0
ACCEPTS_AT_ONCE: Final = 32


@dataclass(frozen=True, slots=True)
class Limits:
    """What all connections together, and each of them, may use up.

    Attributes:
        message_bytes: Of one message that a client sends.
        shaking: Connections that are in the middle of their handshake.
        shake_s: Seconds that a handshake may take.
        quiet_s: Seconds until the first call, and of silence until a client is asked whether it is
            there.
        answer_s: Seconds that it has to answer, and to read what its calls have left.
        idle_s: Seconds after which a connection without calls is closed.
        each: What one connection may use up.
    """

    message_bytes: int = 4 * 1024 * 1024
    shaking: int = 512
    shake_s: float = 10.0
    quiet_s: float = 30.0
    answer_s: float = 10.0
    idle_s: float = 600.0
    each: connection.Limits = field(default_factory=connection.Limits)


class _Details(grpc.HandlerCallDetails):  # type: ignore[misc]  # grpc has no types
    def __init__(self, call: calls.Call) -> None:
        self.method = call.path
        self.invocation_metadata = call.invocation_metadata()


class Server:
    """Serves gRPC on sockets of its own."""

    def __init__(
        self, handlers: Iterable[grpc.GenericRpcHandler], *, limits: Limits | None = None
    ) -> None:
        self._handlers = tuple(handlers)
        self._limits = limits or Limits()
        self._lines: dict[lines.Line, int] = {}
        """With the step at which each is looked after."""
        self._shaking: set[lines.Line] = set()
        self._due: dict[int, dict[lines.Line, None]] = {}
        self._polls = polls.Polls()
        # One method object for all connections, and not one for each.
        self._begins, self._forgets = self._begin, self._forget
        self._doors: dict[socket.socket, Callable[[], ssl.SSLContext] | None] = {}
        self._nursery = tasks.Nursery()
        self._is_empty = asyncio.Event()
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._lines)

    def listen(
        self,
        address: str,
        *,
        tls: Callable[[], ssl.SSLContext] | None = None,
        prepare: Callable[[socket.socket], None] | None = None,
    ) -> int:
        """Listen on `<host>:<port>`; return the port.

        Args:
            address: IPv6 addresses stand in brackets; port 0 is any that is free.
            tls: Gives the context for the next connection; without it there is no TLS.
            prepare: Sets on the socket what is to hold for all that it accepts.

        Raises:
            OSError: The address cannot be had.
        """
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        door = socket.create_server((host, int(port)), family=family, backlog=1024)
        door.setblocking(False)
        if prepare is not None:
            prepare(door)
        self._doors[door] = tls
        self._open(door)
        self._look_after_all()
        return int(door.getsockname()[1])

    def take(self, sock: socket.socket, *, tls: Callable[[], ssl.SSLContext] | None = None) -> None:
        """Serve a client whom somebody else has accepted."""
        self._look_after_all()
        self._begin_line(sock, tls)

    @property
    def free(self) -> int:
        """How many more clients may be in the middle of their handshake."""
        self._shaking = {line for line in self._shaking if not line.is_shaken}
        return self._limits.shaking - len(self._shaking)

    async def stop(self, grace: float | None) -> None:
        """Take no more calls; wait `grace` seconds for those that are open."""
        for door in self._doors:
            asyncio.get_running_loop().remove_reader(door.fileno())
            door.close()
        self._doors.clear()
        for line in list(self._lines):
            line.leave()
        with contextlib.suppress(TimeoutError):
            # `asyncio.timeout` ends nothing in a task that is cancelled already, in Python 3.11.
            await asyncio.wait_for(self._emptied(), grace or 0)
        for line in list(self._lines):
            line.close()
        await self._nursery.close()

    async def _emptied(self) -> None:
        while self._lines:
            self._is_empty.clear()
            await self._is_empty.wait()

    # Connections.

    def _open(self, door: socket.socket) -> None:
        if door in self._doors:
            asyncio.get_running_loop().add_reader(door.fileno(), self._accept, door)

    def _shut_for(self, door: socket.socket, *, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(door.fileno())
        loop.call_later(seconds, self._open, door)

    def _accept(self, door: socket.socket) -> None:
        free = self.free
        if free <= 0:
            self._shut_for(door, seconds=0.1)
            return
        for _ in range(min(free, ACCEPTS_AT_ONCE)):
            try:
                sock, _address = door.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                _LOG.warning("no further connections for now", reason=str(error))
                self._shut_for(door, seconds=1.0)
                return
            self._begin_line(sock, self._doors[door])

    def _begin_line(self, sock: socket.socket, tls: Callable[[], ssl.SSLContext] | None) -> None:
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is not None:
                sock = tls().wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        except OSError:
            # It has gone again.
            sock.close()
            return
        line = lines.Line(
            sock,
            limits=self._limits.each,
            most=self._limits.message_bytes,
            begin=self._begins,
            polled=self._polls,
            gone=self._forgets,
        )
        self._lines[line] = 0
        if not line.is_shaken:
            self._shaking.add(line)
        self._look_again(line, line.since + self._limits.shake_s)
        line.start()

    def _forget(self, line: lines.Line) -> None:
        # A client may come and go a thousand times before anybody would look.
        self._due.get(self._lines.pop(line, 0), {}).pop(line, None)
        self._shaking.discard(line)
        if not self._lines:
            self._is_empty.set()

    def _look_after_all(self) -> None:
        if self._sweeper is None:
            self._sweeper = self._nursery.keep("connections", self._sweep)

    async def _sweep(self) -> None:
        """Look after the connections that are due: each seldom, however many there are."""
        while True:
            await asyncio.sleep(SWEEP_S)
            now = asyncio.get_running_loop().time()
            for step in [one for one in self._due if one * SWEEP_S <= now]:
                for line in self._due.pop(step):
                    if line in self._lines:
                        self._look_again(line, self._looked_after(line, now))

    def _look_again(self, line: lines.Line, at: float) -> None:
        if line in self._lines:
            step = self._lines[line] = math.ceil(at / SWEEP_S)
            self._due.setdefault(step, {})[line] = None

    def _looked_after(self, line: lines.Line, now: float) -> float:
        """Ask a connection whether it lives, or end it; return when there may be more to do."""
        limits, quiet = self._limits, now - line.heard_at
        if not line.is_used:
            # Who was let in may have to wait for us: many come at once after a restart.
            most_s = limits.quiet_s if line.is_shaken else limits.shake_s
            if now - line.since >= most_s:
                line.close()
            return line.since + most_s
        if not line.calls and line.stuck_since is not None:
            # What its calls have left waits for nobody; a client that does not read would keep it.
            if now - line.stuck_since >= limits.answer_s:
                _LOG.info("client does not read", peer=line.peer)
                line.close()
            return line.stuck_since + limits.answer_s
        if line.asked_at is not None:
            if now - line.asked_at >= limits.answer_s:
                _LOG.info("client does not answer", peer=line.peer)
                line.close()
            return line.asked_at + limits.answer_s
        if not line.calls and quiet >= limits.idle_s:
            line.leave()
        elif line.calls and quiet >= limits.quiet_s:
            line.ask_whether_alive(now)
            return now + limits.answer_s
        # A call may begin at any time, of a client that then falls silent.
        return max(line.heard_at + min(limits.quiet_s, limits.idle_s), now + SWEEP_S)

    # Calls.

    def _begin(self, call: calls.Call) -> "asyncio.Task[None]":
        return self._nursery.start(f"call of {call.path}", self._serve(call))

    async def _serve(self, call: calls.Call) -> None:
        method = self._method(call)
        if method is None:
            call.end(grpc.StatusCode.UNIMPLEMENTED, "nothing of this name is served here")
            return
        deadline = asyncio.timeout(call.timeout_s)
        try:
            async with deadline:
                await _answer(call, method)
            if not call.is_followed:
                call.end(grpc.StatusCode.OK)
            elif (at := deadline.when()) is not None:
                asyncio.get_running_loop().call_at(at, call.expire)
        except grpc.aio.AbortError:
            return
        except TimeoutError:
            if not deadline.expired():
                raise
            call.end(grpc.StatusCode.DEADLINE_EXCEEDED, "the caller waits no longer")
        finally:
            call.task = None
            if not call.is_followed:
                # Whatever else it was, nobody shall wait for an answer that does not come.
                call.end(grpc.StatusCode.UNKNOWN, "the call has failed")

    def _method(self, call: calls.Call) -> Any:  # noqa: ANN401  # grpc has no types
        details = _Details(call)
        found = (handler.service(details) for handler in self._handlers)
        return next((method for method in found if method is not None), None)


async def _answer(call: calls.Call, method: Any) -> None:  # noqa: ANN401  # grpc has no types
    if method.stream_stream is not None:
        await method.stream_stream(None, call)
        return
    content = await call.read()
    if content is grpc.aio.EOF:
        await call.abort(grpc.StatusCode.INTERNAL, "a call without a message")
    try:
        request = method.request_deserializer(content) if method.request_deserializer else content
    except Exception:
        await call.abort(grpc.StatusCode.INTERNAL, "the message cannot be read")
    answer = await method.unary_unary(request, call)
    await call.write(method.response_serializer(answer) if method.response_serializer else answer)
