"""One gRPC call on a stream of HTTP/2: its messages in order, and how it ends.

Offers what services use of `grpc.aio.ServicerContext`, so that they run behind this server and
behind gRPC's own. Room for what arrives is given back as the service reads, so that a caller
cannot make us hold more than one window and one message of a size that is allowed. A call that
lasts may be followed instead: then what happens on it is told at once, and no task waits.

Source: gRPC over HTTP/2; security rule XA-5.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn, Protocol

import grpc

from isthmus.wire.h2 import connection, frames, headers, outlet, singles
from isthmus.wire.h2.stream import Stream

PREFIX_BYTES: Final = singles.PREFIX_BYTES
TIMEOUT_HEADER: Final = "grpc-timeout"
_UNITS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_MOST_DIGITS: Final = 8
FLUSHED_BYTES: Final = 64 * 1024
"""A message of this size is not kept until those after it are there as well."""


class Line(Protocol):
    """The connection that a call is on, with its socket."""

    state: connection.Connection

    def flush(self) -> None:
        """Write what is ready."""

    def send(self, stream: Stream, message: outlet.Message) -> bool:
        """Write a message; return whether nothing of the stream waits, as `is_free`."""

    async def drained(self, stream: Stream) -> None:
        """Wait until nothing of a stream waits any more."""

    def is_free(self, stream: Stream) -> bool:
        """Say whether nothing of a stream waits; if something does, `Call.drained` follows."""

    def ended(self, stream: Stream) -> None:
        """Take note that we have ended a stream."""


class Follower(Protocol):
    """Told of what happens on a call, by the event loop itself: it must be quick, and not raise."""

    def heard(self, content: bytes) -> None:
        """Take in a message."""

    def heard_out(self) -> None:
        """Take note that the caller says nothing more."""

    def drained(self) -> None:
        """Go on, since nothing waits for the caller any more."""

    def lost(self) -> None:
        """Take note that the call is over, and not by us."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What a connection shows of who is at its other end.

    Attributes:
        verified: As gRPC gives them: `peer_uri`, `x509_pem_cert`; empty without a certificate.
    """

    peer: str
    verified: Mapping[str, Sequence[bytes]]


class Call:
    """One call, as the service that answers it sees it."""

    __slots__ = (
        "_fault",
        "_follower",
        "_given",
        "_headers",
        "_is_answered",
        "_is_heard_out",
        "_is_over",
        "_line",
        "_messages",
        "_most",
        "_partial",
        "_reader",
        "_shown",
        "_way",
        "task",
    )

    def __init__(self, line: Line, opened: connection.Opened, *, shown: Shown, most: int) -> None:
        self._way = line.state.stream(opened.stream)
        self._headers = opened.headers
        self._line = line
        self._shown = shown
        self._most = most
        self._messages: deque[tuple[bytes, int]] | None = None
        """Those that nobody has read yet; most calls have none at most times."""
        self._partial: bytearray | None = None
        """What has arrived of a message that is not whole."""
        self._given = 0
        self._is_heard_out = False
        self._reader: asyncio.Future[None] | None = None
        self._is_answered = False
        self._is_over = False
        self._fault: tuple[grpc.StatusCode, str] | None = None
        self._follower: Follower | None = None
        self.task: asyncio.Task[None] | None = None
        """What answers it, unless it is followed."""

    @property
    def stream(self) -> int:
        """The number of its stream."""
        return self._way.number

    # What the service asks and says.

    @property
    def path(self) -> str:
        """Which method is called."""
        return self._header(":path")

    @property
    def timeout_s(self) -> float | None:
        """How long the caller waits, if it said so."""
        text = self._header(TIMEOUT_HEADER)
        digits, unit = text[:-1], text[-1:]
        if unit not in _UNITS or not digits.isdecimal() or len(digits) > _MOST_DIGITS:
            return None
        return int(digits) * _UNITS[unit]

    @property
    def is_grpc(self) -> bool:
        """Whether this is a call at all, and no other request."""
        kind = self._header("content-type")
        return kind == headers.GRPC or kind.startswith((f"{headers.GRPC}+", f"{headers.GRPC};"))

    def peer(self) -> str:
        """Return the caller's address."""
        return self._shown.peer

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """Return what the caller told beside its messages."""
        return headers.metadata(self._headers)

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        """Return what the caller's certificate says; empty without one."""
        return self._shown.verified

    async def read(self) -> object:
        """Return the next message, or `grpc.aio.EOF` when there is none to come."""
        while not self._messages:
            if self._fault is not None:
                await self.abort(*self._fault)
            if self._is_heard_out:
                return grpc.aio.EOF
            self._reader = asyncio.get_running_loop().create_future()
            self._take_partial()
            self._line.flush()
            try:
                await self._reader
            finally:
                self._reader = None
        content, owed = self._messages.popleft()
        self._line.state.taken(self.stream, owed)
        self._line.flush()
        return content

    async def write(self, content: bytes) -> None:
        """Send a message; wait until the caller has let us send all of it."""
        if self._is_over:
            raise asyncio.InvalidStateError("the call is over")
        state = self._line.state
        if not self._is_answered:
            self._is_answered = True
            state.answer(self.stream, headers.ANSWER)
        state.outlet.send(self._way, (b"\0" + len(content).to_bytes(4, "big"), content))
        self._line.flush()
        await self._line.drained(self._way)

    @property
    def is_followed(self) -> bool:
        """Whether somebody is told of what happens, and nobody waits for it."""
        return self._follower is not None

    def follow(self, follower: Follower) -> None:
        """Tell of all that happens from now on; `read` and `write` are no more."""
        self._follower = follower
        # Who lasts keeps no secrets, nor what it said of itself.
        self._headers = ()
        if self._is_over:
            follower.lost()
        messages, self._messages = self._messages, None
        while messages and not self._is_over:
            content, owed = messages.popleft()
            self._line.state.taken(self.stream, owed)
            follower.heard(content)
        self._wake()

    def say(self, message: outlet.Message) -> bool:
        """Send a message, with the next `flush` at the latest; return whether nothing waits.

        If something does, the follower is told when it waits no longer.
        """
        if self._is_over:
            return False
        state = self._line.state
        if not self._is_answered:
            self._is_answered = True
            state.answer(self.stream, headers.ANSWER)
        state.outlet.share(self._way, message)
        if message.size >= FLUSHED_BYTES:
            self._line.flush()
        return self._line.is_free(self._way)

    def send(self, message: outlet.Message) -> bool:
        """Send a message now, as `say` and `flush`."""
        if self._is_answered and not self._is_over:
            return self._line.send(self._way, message)
        is_free = self.say(message)
        self._line.flush()
        return is_free

    def flush(self) -> None:
        """Write what was said."""
        self._line.flush()

    def close(self, status: str, text: str) -> None:
        """End the call with the status of this name."""
        self.end(grpc.StatusCode[status], text)

    async def abort(self, code: grpc.StatusCode, details: str = "") -> NoReturn:
        """End the call with a status.

        Raises:
            AbortError: Always, for the service to end as well.
        """
        self.end(code, details)
        raise grpc.aio.AbortError

    def end(self, code: grpc.StatusCode, details: str = "") -> None:
        """End the call, unless it is over."""
        if self._is_over:
            return
        self._is_over = True
        state = self._line.state
        if code is not grpc.StatusCode.OK and self._way.waiting:
            # A status behind content that nobody reads would arrive never, and be kept for ever.
            state.reset(self.stream, frames.Code.ENHANCE_YOUR_CALM)
        else:
            number = int(code.value[0])
            state.end(self.stream, headers.trailers(number, details, alone=not self._is_answered))
        self._line.ended(self._way)
        self._line.flush()

    def refuse(self) -> None:
        """Answer a request that is no call."""
        self._is_over = True
        self._line.state.end(self.stream, headers.NOT_GRPC)
        self._line.ended(self._way)
        self._line.flush()

    # What the connection tells.

    def passes(self, size: int) -> Follower | None:
        """Take note of one whole message in one frame; return who is to be told of it at once.

        Returns None where that is nobody: then nothing was noted, and `heard` follows.
        """
        if self._partial or size > self._most + PREFIX_BYTES or self._follower is None:
            return None
        return self._follower if self._line.state.passes(self._way, size) else None

    def heard(self, content: bytes) -> None:
        """Take in content that has arrived."""
        size = len(content)
        if (
            self._follower is not None
            and not self._partial
            and size > PREFIX_BYTES
            and content[:1] == b"\0"
            and int.from_bytes(content[1:PREFIX_BYTES], "big") == size - PREFIX_BYTES <= self._most
        ):
            # One message and nothing else, beside other frames.
            self._line.state.taken(self.stream, size)
            self._follower.heard(content[PREFIX_BYTES:])
            return
        partial = self._partial = self._partial or bytearray()
        partial += content
        self._take_messages(partial)
        if not partial:
            self._partial = None
        self._wake()

    def _take_messages(self, partial: bytearray) -> None:
        while self._fault is None and not self._is_over and len(partial) >= PREFIX_BYTES:
            size = int.from_bytes(partial[1:PREFIX_BYTES], "big")
            if not self._is_allowed(size, is_compressed=partial[0] != 0):
                break
            whole = PREFIX_BYTES + size
            if len(partial) < whole:
                break
            owed, self._given = whole - self._given, 0
            with memoryview(partial) as held:
                message = bytes(held[PREFIX_BYTES:whole])
            del partial[:whole]
            if self._follower is None:
                self._messages = self._messages or deque()
                self._messages.append((message, owed))
            else:
                self._line.state.taken(self.stream, owed)
                self._follower.heard(message)

    def heard_out(self) -> None:
        """Take note that the caller says nothing more."""
        self._is_heard_out = True
        if self._partial and self._fault is None:
            self._fault = (grpc.StatusCode.INTERNAL, "the last message is not complete")
        self._wake()

    def drained(self) -> None:
        """Take note that nothing waits for the caller any more."""
        if self._follower is not None and not self._is_over:
            self._follower.drained()

    def lost(self) -> None:
        """Take note that nobody is there any more."""
        self._is_over = True
        if self.task is not None:
            self.task.cancel()
        if self._follower is not None:
            self._follower.lost()

    def expire(self) -> None:
        """End a call that is followed, since the caller waits no longer."""
        if not self._is_over:
            self.end(grpc.StatusCode.DEADLINE_EXCEEDED, "the caller waits no longer")
            self.lost()

    def _is_allowed(self, size: int, *, is_compressed: bool) -> bool:
        if is_compressed:
            self._fault = (grpc.StatusCode.UNIMPLEMENTED, "messages are not compressed here")
        elif size > self._most:
            text = f"message of {size} bytes; the most is {self._most}"
            self._fault = (grpc.StatusCode.RESOURCE_EXHAUSTED, text)
        return self._fault is None

    def _wake(self) -> None:
        if self._follower is not None:
            self._tell_follower(self._follower)
            return
        reader = self._reader
        if reader is None or reader.done():
            return
        if self._messages or self._is_heard_out or self._fault is not None:
            reader.set_result(None)
        else:
            self._take_partial()

    def _tell_follower(self, follower: Follower) -> None:
        if self._is_over:
            return
        if self._fault is not None:
            self.end(*self._fault)
            follower.lost()
        elif self._is_heard_out:
            follower.heard_out()
        else:
            self._take_partial()

    def _take_partial(self) -> None:
        """Let the rest of a message come that is larger than a window, since somebody waits."""
        more = len(self._partial or b"") - self._given
        if more:
            self._given += more
            self._line.state.taken(self.stream, more)

    def _header(self, wanted: str) -> str:
        return next((value for name, value in self._headers if name == wanted), "")
