"""A socket with a connection of HTTP/2 on it: reads, writes, and tells its calls.

TLS is spoken by the socket itself and not by the event loop's own layer, whose buffers take ten
times the memory. A caller that does not read is waited for, never buffered for: each call has one
message on its way.

Source: performance rule 1; security rule XA-5.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from isthmus.base import logs
from isthmus.wire.h2 import backlog, calls, connection, outlet, polls, singles
from isthmus.wire.h2.stream import Stream

READ_BYTES: Final = 17 * 1024
"""More than a record of TLS has, so that nothing is left that was decrypted but not read."""
READS_AT_ONCE: Final = 8
"""After so many others have their turn."""
LONG_BYTES: Final = 8 * 1024
"""Who has sent so much at once is likely to have sent more."""
HIGH_BYTES: Final = 256 * 1024
"""With so much unwritten a caller counts as one that does not read."""
ALONE_BYTES: Final = 48 * 1024
"""Of a message that is written at once with its frames."""

_LOG = logs.Log("isthmus.h2")
# The library would write each header that it reads, and some of them are secrets.
logging.getLogger("hpack").setLevel(logging.CRITICAL)

_NONE: Final = frozenset[Stream]()
_NOBODY: Final[Mapping[str, Sequence[bytes]]] = MappingProxyType({})
_WAITS = (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError, InterruptedError)


class Line:
    """One connection of a client.

    Attributes:
        state: What was said on it.
        heard_at: When something last arrived, in seconds.
        is_shaken: Whether TLS is through its handshake, or there is none.
        stuck_since: Since when the client takes nothing of what waits for it, in seconds; None if
            nothing waits.
    """

    __slots__ = (
        "_backlog",
        "_begin",
        "_calls",
        "_gone",
        "_held_back",
        "_is_closed",
        "_is_leaving",
        "_is_watching_writes",
        "_loop",
        "_most",
        "_polls",
        "_shown",
        "_sock",
        "_soon",
        "_writers",
        "asked_at",
        "heard_at",
        "is_shaken",
        "since",
        "state",
        "stuck_since",
    )

    def __init__(
        self,
        sock: socket.socket,
        *,
        limits: connection.Limits,
        most: int,
        begin: Callable[[calls.Call], asyncio.Task[None]],
        polled: polls.Polls,
        gone: Callable[["Line"], None],
    ) -> None:
        self.state = connection.Connection(limits)
        self.asked_at: float | None = None
        self.stuck_since: float | None = None
        self.is_shaken = not isinstance(sock, ssl.SSLSocket)
        self._sock = sock
        self._most = most
        self._begin = begin
        self._polls = polled
        self._gone = gone
        self._loop = asyncio.get_running_loop()
        self.since = self.heard_at = self._loop.time()
        self._calls: dict[int, calls.Call] = {}
        self._soon: bytes | None = None
        """What is written before all else, with what others say."""
        self._backlog: backlog.Backlog | None = None
        self._writers: dict[Stream, asyncio.Future[None]] | None = None
        self._held_back = _NONE
        self._is_watching_writes = False
        self._is_closed = False
        self._is_leaving = False
        self._shown = calls.Shown(_address(sock), _NOBODY)

    @property
    def peer(self) -> str:
        """The client's address."""
        return self._shown.peer

    @property
    def calls(self) -> int:
        """How many calls are open."""
        return len(self._calls)

    @property
    def is_used(self) -> bool:
        """Whether any call was ever made on it."""
        return self.state.newest > 0

    def start(self) -> None:
        """Begin to listen to the client."""
        self._polls.add(self._sock.fileno(), self)
        # Until it calls, each side waits for the other.
        self._polls.hurry(self._sock.fileno())
        if self.is_shaken:
            self.flush()

    def leave(self) -> None:
        """Take no further calls; close when those that are open have ended."""
        self._is_leaving = True
        self.state.leave()
        self.flush()
        if not self.is_shaken:
            self.close()

    def ask_whether_alive(self, now: float) -> None:
        """Send a ping; whoever does not answer in time is gone."""
        self.asked_at = now
        self.state.ask_whether_alive()
        self.flush()

    def close(self) -> None:
        """Close the socket; calls that are open are lost."""
        if self._is_closed:
            return
        self._is_closed = True
        self._polls.remove(self._sock.fileno())
        if self._is_watching_writes:
            self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        self._soon = None
        lost, self._calls = self._calls, {}
        for call in lost.values():
            call.lost()
        self._wake_writers()
        self._gone(self)

    # What calls need.

    def flush(self) -> None:
        """Write what is ready, as far as the socket takes it."""
        if self._is_closed or not self.is_shaken:
            return
        ready = self.state.outlet.ready()
        if self._soon is not None:
            ready, self._soon = [self._soon, *ready], None
        if len(ready) == 1 and not self._backlog and len(ready[0]) <= backlog.JOINED_BYTES:
            self._write_one(ready[0])
        elif ready or self._backlog or self._is_leaving:
            if ready:
                self._wait_behind(*ready)
            if not self._is_watching_writes:
                self._write()

    def send(self, stream: Stream, message: outlet.Message) -> bool:
        """Write a message soon; return whether nothing of the stream waits, as `is_free`."""
        self._polls.told += 1
        said = self.state.outlet
        is_busy = (
            self._soon is not None
            or self._backlog
            or said.said
            or self._is_watching_writes
            or self._is_leaving
            or self._is_closed
        )
        if not is_busy and message.size < ALONE_BYTES:
            self._soon = said.alone(stream, message)
            if self._soon is not None:
                # As nearly always.
                self._polls.write_soon(self)
                return True
        said.share(stream, message)
        self.flush()
        return self.is_free(stream)

    async def drained(self, stream: Stream) -> None:
        """Wait until nothing of a stream waits for the client."""
        while not self._has_room(stream) and not self._is_closed:
            writers = self._writers = self._writers or {}
            waiter = writers[stream] = self._loop.create_future()
            self._hurry(stream)
            try:
                await waiter
            finally:
                writers.pop(stream, None)
                self._calm()

    def is_free(self, stream: Stream) -> bool:
        """Say whether nothing of a stream waits; if something does, its call is told later."""
        if self._has_room(stream):
            return True
        self._held_back |= {stream}
        self._hurry(stream)
        return False

    def ended(self, stream: Stream) -> None:
        """Take note that we have ended a stream."""
        self._calls.pop(stream.number, None)
        self._held_back -= {stream}
        self._calm()

    def _has_room(self, stream: Stream) -> bool:
        return (self._backlog is None or self._backlog.size < HIGH_BYTES) and not stream.waiting

    def _wake_writers(self) -> None:
        if not self._writers and not self._held_back:
            return
        for stream, waiter in list((self._writers or {}).items()):
            if not waiter.done() and (self._is_closed or self._has_room(stream)):
                waiter.set_result(None)
        for stream in [each for each in self._held_back if self._has_room(each)]:
            self._held_back -= {stream}
            if (call := self._calls.get(stream.number)) is not None:
                call.drained()
        self._calm()

    def _hurry(self, stream: Stream) -> None:
        """Have what the client says next read at once if it may widen a window that is awaited."""
        if stream.waiting:
            self._polls.hurry(self._sock.fileno())

    def _calm(self) -> None:
        if not self._writers and not self._held_back:
            self._polls.calm(self._sock.fileno())

    # What the socket tells.

    def read(self, now: float) -> bytes:
        """Read what has arrived; return what `take` should take in."""
        try:
            if not self.is_shaken and not self._shake():
                return b""
            for _ in range(READS_AT_ONCE):
                content = self._sock.recv(READ_BYTES)
                if not content:
                    self.close()
                    return b""
                if len(content) <= singles.SHORT:
                    # If there is more, the kernel says so again.
                    return content
                # What is longer may take its time, of which there is only so much at once.
                self.take(content, now)
                if len(content) < LONG_BYTES or self._is_closed:
                    break
        except _WAITS:
            return b""
        except OSError as error:
            self._lose(error)
        return b""

    def _read_on(self) -> None:
        now = self._loop.time()
        if not self._is_closed and (content := self.read(now)):
            self.take(content, now)

    def _shake(self) -> bool:
        sock = self._sock
        assert isinstance(sock, ssl.SSLSocket)  # others have nothing to shake
        self._unwatch_writes()
        try:
            sock.do_handshake()
        except ssl.SSLWantWriteError:
            self._watch_writes(self._read_on)
            return False
        if sock.selected_alpn_protocol() != "h2":
            self._lose(OSError("the client does not speak HTTP/2"))
            return False
        self.is_shaken = True
        self._shown = calls.Shown(self._shown.peer, _verified(sock))
        self.flush()
        return not self._is_closed

    def take(self, content: bytes, now: float) -> None:
        """Take in what was read."""
        if self._is_closed:
            return
        self.heard_at, self.asked_at = now, None
        if (single := singles.single(content)) is not None:
            stream, size, message = single
            call = self._calls.get(stream)
            if call is not None and (listener := call.passes(size)) is not None:
                # As nearly always. Nothing that others wait for has changed.
                listener.heard(message)
                if self.state.outlet.said:
                    self.flush()
                return
        for event in self.state.receive(content, now=now):
            self._tell(event)
        self.flush()
        self._wake_writers()
        if self.state.is_over:
            _LOG.warning("connection broken off", peer=self.peer, reason=self.state.why)
            self.close()

    def _tell(self, event: connection.Event) -> None:
        if isinstance(event, connection.Heard):
            if (call := self._calls.get(event.stream)) is not None:
                call.heard(event.content)
            else:
                self.state.taken(event.stream, len(event.content))
            return
        if isinstance(event, connection.Opened):
            call = calls.Call(self, event, shown=self._shown, most=self._most)
            if call.is_grpc:
                self._calls[event.stream] = call
                self._calm()
                call.task = self._begin(call)
            else:
                call.refuse()
            return
        found = self._calls.get(event.stream)
        if found is None:
            return
        match event:
            case connection.Finished():
                found.heard_out()
            case connection.Broken():
                del self._calls[event.stream]
                self._held_back = frozenset(
                    each for each in self._held_back if each.number != event.stream
                )
                found.lost()

    def _on_writable(self) -> None:
        self._unwatch_writes()
        self.flush()
        self._wake_writers()
        # TLS may have waited for room before it could read on.
        self._read_on()

    def write(self) -> None:
        """Write what was said, unless that has happened."""
        if self._soon is not None:
            part, self._soon = self._soon, None
            self._write_one(part)

    def _write_one(self, part: bytes | memoryview) -> None:
        """Write what nothing else waits before, as nearly always."""
        size, sent = len(part), 0
        if not self._is_watching_writes:
            try:
                sent = self._sock.send(part)
            except _WAITS:
                self._watch_writes(self._on_writable)
            except OSError as error:
                self._lose(error)
                return
        if sent < size:
            self._wait_behind(memoryview(part)[sent:] if sent else part)
        if not self._is_watching_writes and (self._backlog or self._is_leaving):
            self._write()

    def _wait_behind(self, *parts: bytes | memoryview) -> None:
        waiting = self._backlog = self._backlog or backlog.Backlog()
        waiting.add(*parts)

    def _write(self) -> None:
        while self._backlog:
            part = self._backlog.take()
            try:
                sent = self._sock.send(part)
            except _WAITS:
                # TLS wants the very same bytes again.
                self._backlog.put_back(part)
                self._watch_writes(self._on_writable)
                return
            except OSError as error:
                self._lose(error)
                return
            if sent < len(part):
                self._backlog.put_back(memoryview(part)[sent:])
        self._backlog = None
        if self._is_leaving and not self._calls:
            self.close()

    def _watch_writes(self, on_writable: Callable[[], None]) -> None:
        self._is_watching_writes = True
        self.stuck_since = self._loop.time()
        self._loop.add_writer(self._sock.fileno(), on_writable)

    def _unwatch_writes(self) -> None:
        if self._is_watching_writes:
            self._is_watching_writes = False
            self.stuck_since = None
            self._loop.remove_writer(self._sock.fileno())

    def _lose(self, error: OSError) -> None:
        if not self.is_shaken:
            _LOG.info("no connection", peer=self.peer, reason=str(error))
        self.close()


def _address(sock: socket.socket) -> str:
    """Return the other end as gRPC writes it."""
    try:
        place = sock.getpeername()
    except OSError:
        return "unknown"
    match sock.family:
        case socket.AF_INET:
            return f"ipv4:{place[0]}:{place[1]}"
        case socket.AF_INET6:
            return f"ipv6:[{place[0]}]:{place[1]}"
        case _:
            return f"unix:{place or ''}"


def _verified(sock: ssl.SSLSocket) -> dict[str, tuple[bytes, ...]]:
    """Return what a certificate says that was verified; nothing if none was shown."""
    told, shown = sock.getpeercert(), sock.getpeercert(binary_form=True)
    if not told or not shown:
        return {}
    names: Any = told.get("subjectAltName", ())
    uris = tuple(str(value).encode() for kind, value in names if kind == "URI")
    return {"x509_pem_cert": (ssl.DER_cert_to_PEM_cert(shown).encode(),), "peer_uri": uris}
