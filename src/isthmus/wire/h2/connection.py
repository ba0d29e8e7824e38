"""One HTTP/2 connection from a server's side, as a state table without a socket.

Bytes go in and events come out; what is to be written is `outlet`'s to take. Whoever breaks the
protocol, or asks for more work than any honest client does, ends the connection, with the reason
in the frame that says so. Knows no gRPC.

Source: RFC 9113; for floods, its section 10.5.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, NamedTuple

from isthmus.wire.h2 import contents, frames, headers, inlet, outlet
from isthmus.wire.h2.contents import Fault, Headers
from isthmus.wire.h2.frames import Code
from isthmus.wire.h2.inlet import Limits as Limits
from isthmus.wire.h2.stream import Stream


@dataclass(frozen=True, slots=True)
class Opened:
    """A client began a stream."""

    stream: int
    headers: Headers


class Heard(NamedTuple):
    """Content of a stream arrived; `Connection.taken` gives its room back."""

    stream: int
    content: bytes


@dataclass(frozen=True, slots=True)
class Finished:
    """The client has said all that it has to say on a stream."""

    stream: int


@dataclass(frozen=True, slots=True)
class Broken:
    """A stream is over before its end: the client took it back, or broke its rules."""

    stream: int


Event = Opened | Heard | Finished | Broken


@dataclass(slots=True)
class _Block:
    stream: int
    ends_stream: bool
    content: bytearray
    pieces: int = 1


MOST_PIECES: Final = 16
"""Frames that the headers of one request may come in."""


class Connection:
    """What has been said on one connection, and what may come next.

    Attributes:
        is_over: Nothing that arrives counts any more.
        newest: The stream that was begun last; 0 before the first.
        why: What ended it, if it was a fault.
    """

    __slots__ = (
        "_awaits_pong",
        "_block",
        "_buffer",
        "_decoder",
        "_expected",
        "_inlet",
        "_is_leaving",
        "_now",
        "_streams",
        "is_over",
        "limits",
        "newest",
        "outlet",
        "why",
    )

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._streams: dict[int, Stream] = {}
        """Those that are open, and those that have something left to send."""
        self.outlet = outlet.Outlet(self._streams)
        self.is_over = False
        self.why = ""
        self._buffer = b""
        self._decoder: contents.Decoder | None = contents.decoder(self.limits.header_bytes)
        """What a client may refer to of headers before, until it knows that nothing is kept."""
        self._inlet = inlet.Inlet(self.limits, self.outlet.say)
        self.newest = 0
        self._block: _Block | None = None
        self._is_leaving = False
        self._expected: Callable[[Connection, list[Event]], bool] = Connection._preface
        self._awaits_pong = False
        self._now = 0.0
        self._greet()

    # What the server says.

    def answer(self, stream: int, block: bytes) -> None:
        """Send the headers of an answer."""
        if self.stream(stream).is_open:
            head = frames.head(
                frames.HEADERS, size=len(block), flags=frames.END_HEADERS, stream=stream
            )
            self.outlet.say(head + block)

    def end(self, stream: int, block: bytes) -> None:
        """Send the trailers of an answer, after its content, and be done with the stream."""
        found = self.stream(stream)
        if not found.is_open:
            return
        found.is_open = False
        flags = frames.END_HEADERS | frames.END_STREAM
        ending = frames.head(frames.HEADERS, size=len(block), flags=flags, stream=stream) + block
        if not found.is_heard_out:
            # The client need not go on: the answer is whole.
            ending += frames.reset(stream, Code.NO_ERROR)
        self.outlet.end(found, ending)
        self._inlet.close(found)

    def reset(self, stream: int, code: Code) -> None:
        """End one stream at once."""
        found = self.stream(stream)
        if self._forget(found):
            self.outlet.say(frames.reset(stream, code))

    def taken(self, stream: int, size: int) -> None:
        """Let the client send as much again as was taken from a stream."""
        if (found := self.stream(stream)).is_open:
            self._inlet.taken(found, size)

    def stream(self, number: int) -> Stream:
        """Return a stream; of one that is not known, one that is over."""
        return self._streams.get(number) or Stream(number, is_open=False)

    def ask_whether_alive(self) -> bool:
        """Send a ping; return whether the one before was answered."""
        was_answered, self._awaits_pong = not self._awaits_pong, True
        self.outlet.say(frames.ping(b"isthmus?"))
        return was_answered

    def leave(self, text: str = "") -> None:
        """Take no further streams; those that are open go on."""
        if not self._is_leaving and not self.is_over:
            self._is_leaving = True
            self.outlet.say(frames.goaway(self.newest, Code.NO_ERROR, text))

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return sum(each.is_open for each in self._streams.values())

    # What the client says.

    def receive(self, content: bytes, *, now: float) -> list[Event]:
        """Take in bytes that arrived at `now`, in seconds; return what they mean."""
        if self.is_over:
            return []
        self._now = now
        self._buffer += content
        events: list[Event] = []
        try:
            while self._expected(self, events):
                pass
        except Fault as fault:
            events += self._fail(fault)
        return events

    def passes(self, stream: Stream, size: int) -> bool:
        """Take in one whole frame of content that is taken at once, without padding or an end.

        Returns whether that was all; if not, nothing was noted, and `receive` knows what it means.
        """
        if self._buffer or self._block is not None or stream.is_heard_out or not stream.is_open:
            return False
        return self._inlet.passes(stream, size)

    def _fail(self, fault: Fault) -> list[Event]:
        self.is_over, self.why = True, fault.text
        self.outlet.say(frames.goaway(self.newest, fault.code, fault.text))
        open_ = [each for each in self._streams.values() if each.is_open]
        for each in open_:
            each.is_open = False
        self._buffer = b""
        return [Broken(each.number) for each in open_]

    def _greet(self) -> None:
        limits = self.limits
        told = (
            (frames.HEADER_TABLE_SIZE, 0),
            (frames.MAX_CONCURRENT_STREAMS, limits.streams),
            (frames.INITIAL_WINDOW_SIZE, limits.window),
            (frames.MAX_HEADER_LIST_SIZE, limits.header_bytes),
        )
        self.outlet.say(frames.settings(told))
        more = limits.connection_window - frames.USUAL_WINDOW
        self.outlet.say(frames.window_update(0, more=more))

    def _preface(self, _events: list[Event]) -> bool:
        size = min(len(self._buffer), len(frames.PREFACE))
        if self._buffer[:size] != frames.PREFACE[:size]:
            raise Fault(Code.PROTOCOL_ERROR, "this port speaks HTTP/2")
        if size < len(frames.PREFACE):
            return False
        self._buffer = self._buffer[size:]
        self._expected = Connection._first_settings
        return True

    def _first_settings(self, events: list[Event]) -> bool:
        if len(self._buffer) < frames.HEAD_BYTES:
            return False
        _, kind, flags, _ = frames.head_at(self._buffer, 0)
        if kind != frames.SETTINGS or flags & frames.ACK:
            raise Fault(Code.PROTOCOL_ERROR, "settings come first")
        self._expected = Connection._frames
        return self._frames(events)

    def _frames(self, events: list[Event]) -> bool:
        buffer, offset = self._buffer, 0
        while len(buffer) - offset >= frames.HEAD_BYTES:
            size, kind, flags, stream = frames.head_at(buffer, offset)
            if size > frames.LARGEST:
                raise Fault(Code.FRAME_SIZE_ERROR, f"a frame of {size} bytes")
            end = offset + frames.HEAD_BYTES + size
            if end > len(buffer):
                break
            if self._block is not None and kind != frames.CONTINUATION:
                raise Fault(Code.PROTOCOL_ERROR, "the headers before are not complete")
            content = buffer[offset + frames.HEAD_BYTES : end]
            offset = end
            if kind == frames.DATA:
                self._on_data(stream, flags, content, events)
            elif (on_kind := self._ON.get(kind)) is None:
                self._count_odd()
            else:
                events.extend(on_kind(self, stream, flags, content))
        self._buffer = buffer[offset:]
        return False

    def _on_data(self, stream: int, flags: int, content: bytes, events: list[Event]) -> None:
        size = len(content)
        if stream == 0 or stream > self.newest:
            raise Fault(Code.PROTOCOL_ERROR, "content of no stream")
        found = self._streams.get(stream)
        if found is not None and not found.is_open:
            found = None
        try:
            self._inlet.arrived(found, size)
        except inlet.Exceeded:
            raise Fault(Code.FLOW_CONTROL_ERROR, "more content than a window") from None
        if found is None:
            return
        if found.is_heard_out:
            events.extend(self._break(stream, Code.STREAM_CLOSED))
            return
        body = contents.unpadded(flags, content)
        if len(body) < size:
            self._inlet.taken(found, size - len(body))
        if body:
            events.append(Heard(stream, body))
        elif not flags & frames.END_STREAM:
            self._count_odd()
        if flags & frames.END_STREAM:
            found.is_heard_out = True
            events.append(Finished(stream))

    def _on_headers(self, stream: int, flags: int, content: bytes) -> Iterator[Event]:
        if stream % 2 == 0:
            raise Fault(Code.PROTOCOL_ERROR, f"no client begins stream {stream}")
        content = contents.unpadded(flags, content)
        if flags & frames.WITH_PRIORITY:
            content = contents.without_priority(stream, content)
        self._block = _Block(stream, bool(flags & frames.END_STREAM), bytearray(content))
        if flags & frames.END_HEADERS:
            yield from self._on_block()

    def _on_continuation(self, stream: int, flags: int, content: bytes) -> Iterator[Event]:
        block = self._block
        if block is None or block.stream != stream:
            raise Fault(Code.PROTOCOL_ERROR, "headers go on that have not begun")
        block.content += content
        block.pieces += 1
        if len(block.content) > self.limits.header_bytes or block.pieces > MOST_PIECES:
            raise Fault(Code.ENHANCE_YOUR_CALM, "headers of a request are too large")
        if flags & frames.END_HEADERS:
            yield from self._on_block()

    def _on_block(self) -> Iterator[Event]:
        block, self._block = self._block, None
        assert block is not None  # both callers have just seen it
        found = contents.decoded(
            bytes(block.content),
            self._decoder or contents.decoder(self.limits.header_bytes, table_bytes=0),
        )
        known = self.stream(block.stream)
        if known.is_open:
            yield from self._on_trailers(block, known)
            return
        if block.stream <= self.newest:
            # Trailers of a stream that we have ended; as a new stream it would be no client's.
            self._count_odd()
            return
        self.newest = block.stream
        if self._is_leaving or len(self._streams) >= self.limits.streams:
            self._count_odd()
            self.outlet.say(frames.reset(block.stream, Code.REFUSED_STREAM))
            return
        if fault := headers.fault_of(found):
            self._count_odd()
            self.outlet.say(frames.reset(block.stream, Code.PROTOCOL_ERROR))
            self.why = self.why or fault
            return
        self.outlet.open(block.stream).is_heard_out = block.ends_stream
        yield Opened(block.stream, found)
        if block.ends_stream:
            yield Finished(block.stream)

    def _on_trailers(self, block: _Block, stream: Stream) -> Iterator[Event]:
        if stream.is_heard_out or not block.ends_stream:
            yield from self._break(block.stream, Code.PROTOCOL_ERROR)
            return
        stream.is_heard_out = True
        yield Finished(block.stream)

    def _on_priority(self, stream: int, _flags: int, content: bytes) -> Iterator[Event]:
        self._count_odd()
        if stream == 0:
            raise Fault(Code.PROTOCOL_ERROR, "priority of no stream")
        if len(content) != contents.PRIORITY_BYTES:
            yield from self._break(stream, Code.FRAME_SIZE_ERROR)

    def _on_reset(self, stream: int, _flags: int, content: bytes) -> Iterator[Event]:
        self._count_odd()
        contents.of_size(content, 4)
        if stream == 0 or stream > self.newest:
            raise Fault(Code.PROTOCOL_ERROR, "a stream that has not begun cannot end")
        if self._forget(self.stream(stream)):
            yield Broken(stream)

    def _on_settings(self, stream: int, flags: int, content: bytes) -> Iterator[Event]:
        if stream:
            raise Fault(Code.PROTOCOL_ERROR, "settings of a stream")
        if flags & frames.ACK:
            contents.of_size(content, 0)
            # What it refers to from now on stands in the same request (RFC 7541 section 4.2), and
            # what was shown in earlier ones, such as its token, is forgotten.
            self._decoder = None
            return
        self._count_odd()
        if len(content) % 6:
            raise Fault(Code.FRAME_SIZE_ERROR, "settings of odd size")
        for name, value in frames.settings_in(content):
            self._set(name, value)
        self.outlet.say(frames.SETTINGS_ACK)
        self.outlet.advance()
        yield from ()

    def _set(self, name: int, value: int) -> None:
        if name == frames.INITIAL_WINDOW_SIZE:
            if value > frames.MOST_WINDOW:
                raise Fault(Code.FLOW_CONTROL_ERROR, "no window is that wide")
            self._widen(lambda: self.outlet.begin_with(value))
        elif name == frames.ENABLE_PUSH and value > 1:
            raise Fault(Code.PROTOCOL_ERROR, "push is either on or off")
        elif name == frames.MAX_FRAME_SIZE and not frames.LARGEST <= value < 2**24:
            raise Fault(Code.PROTOCOL_ERROR, "no frame is of that size")

    def _on_promise(self, _stream: int, _flags: int, _content: bytes) -> Iterator[Event]:
        raise Fault(Code.PROTOCOL_ERROR, "clients promise nothing")

    def _on_ping(self, stream: int, flags: int, content: bytes) -> Iterator[Event]:
        contents.of_size(content, 8)
        if stream:
            raise Fault(Code.PROTOCOL_ERROR, "a ping on a stream")
        if flags & frames.ACK:
            self._awaits_pong = False
            return
        self._count_odd()
        self.outlet.say(frames.pong(content))
        yield from ()

    def _on_goaway(self, stream: int, _flags: int, _content: bytes) -> Iterator[Event]:
        self._count_odd()
        if stream:
            raise Fault(Code.PROTOCOL_ERROR, "a stream cannot leave")
        yield from ()

    def _on_window(self, stream: int, _flags: int, content: bytes) -> Iterator[Event]:
        contents.of_size(content, 4)
        more = frames.number_in(content)
        if stream > self.newest:
            raise Fault(Code.PROTOCOL_ERROR, "the window of no stream")
        if more == 0:
            if stream == 0:
                raise Fault(Code.PROTOCOL_ERROR, "a window that grows by nothing")
            yield from self._break(stream, Code.PROTOCOL_ERROR)
            return
        found = self._streams.get(stream)
        if stream and found is None:
            # Of a stream that has ended it means nothing.
            self._count_odd()
            return
        try:
            self.outlet.widen(more, found)
        except outlet.Overflow:
            if stream == 0:
                raise Fault(Code.FLOW_CONTROL_ERROR, "no window is that wide") from None
            yield from self._break(stream, Code.FLOW_CONTROL_ERROR)

    # What both have in common.

    def _widen(self, change: Callable[[], None]) -> None:
        try:
            change()
        except outlet.Overflow:
            raise Fault(Code.FLOW_CONTROL_ERROR, "no window is that wide") from None

    def _break(self, stream: int, code: Code) -> Iterator[Event]:
        self._count_odd()
        if self.stream(stream).is_open:
            self.reset(stream, code)
            yield Broken(stream)

    def _forget(self, stream: Stream) -> bool:
        """Drop a stream and what it still had to send; return whether it was open."""
        was_open, stream.is_open = stream.is_open, False
        self.outlet.drop(stream)
        self._inlet.close(stream)
        return was_open

    _ON: ClassVar[Mapping[int, Callable[..., Iterator[Event]]]] = {
        frames.HEADERS: _on_headers,
        frames.PRIORITY: _on_priority,
        frames.RST_STREAM: _on_reset,
        frames.SETTINGS: _on_settings,
        frames.PUSH_PROMISE: _on_promise,
        frames.PING: _on_ping,
        frames.GOAWAY: _on_goaway,
        frames.WINDOW_UPDATE: _on_window,
        frames.CONTINUATION: _on_continuation,
    }

    def _count_odd(self) -> None:
        if self._inlet.is_too_odd(self._now):
            raise Fault(Code.ENHANCE_YOUR_CALM, "too many frames that bring nothing")
