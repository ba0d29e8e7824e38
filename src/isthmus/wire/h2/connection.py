"""One HTTP/2 connection from a server's side, as a state table without a socket.

Bytes go in and events come out; what is to be written is `outlet`'s to take. Whoever breaks the
protocol, or asks for more work than any honest client does, ends the connection, with the reason
in the frame that says so. Knows no gRPC.

Source: RFC 9113; for floods, its section 10.5.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, NamedTuple

import hpack

from isthmus.wire.h2 import frames, headers, inlet, outlet
from isthmus.wire.h2.frames import Code
from isthmus.wire.h2.inlet import Limits as Limits

Headers = tuple[tuple[str, str], ...]


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


class _Fault(Exception):  # noqa: N818  # how a connection ends, no fault of ours
    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


@dataclass(slots=True)
class _Block:
    stream: int
    ends_stream: bool
    content: bytearray
    pieces: int = 1


PRIORITY_BYTES: Final = 5
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
        self.outlet = outlet.Outlet()
        self.is_over = False
        self.why = ""
        self._buffer = bytearray()
        self._decoder: hpack.Decoder | None = _decoder(self.limits)
        """What a client may refer to of headers before, until it knows that nothing is kept."""
        self._inlet = inlet.Inlet(self.limits, self.outlet.say)
        self._streams: dict[int, bool] = {}
        """Those that are open, with whether the client has said all that it has to say."""
        self.newest = 0
        self._block: _Block | None = None
        self._is_leaving = False
        self._expected: Callable[[list[Event]], bool] = self._preface
        self._awaits_pong = False
        self._now = 0.0
        self._greet()

    # What the server says.

    def answer(self, stream: int, block: bytes) -> None:
        """Send the headers of an answer."""
        if stream in self._streams:
            head = frames.head(
                frames.HEADERS, size=len(block), flags=frames.END_HEADERS, stream=stream
            )
            self.outlet.say(head + block)

    def end(self, stream: int, block: bytes) -> None:
        """Send the trailers of an answer, after its content, and be done with the stream."""
        is_heard_out = self._streams.pop(stream, None)
        if is_heard_out is None:
            return
        flags = frames.END_HEADERS | frames.END_STREAM
        ending = frames.head(frames.HEADERS, size=len(block), flags=flags, stream=stream) + block
        if not is_heard_out:
            # The client need not go on: the answer is whole.
            ending += frames.reset(stream, Code.NO_ERROR)
        self.outlet.end(stream, ending)
        self._inlet.close(stream)

    def reset(self, stream: int, code: Code) -> None:
        """End one stream at once."""
        self.outlet.drop(stream)
        if self._streams.pop(stream, None) is not None:
            self.outlet.say(frames.reset(stream, code))
            self._inlet.close(stream)

    def taken(self, stream: int, size: int) -> None:
        """Let the client send as much again as was taken from a stream."""
        self._inlet.taken(stream, size)

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
        return len(self._streams)

    # What the client says.

    def receive(self, content: bytes, *, now: float) -> list[Event]:
        """Take in bytes that arrived at `now`, in seconds; return what they mean."""
        if self.is_over:
            return []
        self._now = now
        self._buffer += content
        events: list[Event] = []
        try:
            while self._expected(events):
                pass
        except _Fault as fault:
            events += self._fail(fault)
        return events

    def passes(self, stream: int, size: int, *, now: float) -> bool:
        """Take in one whole frame of content that is taken at once, without padding or an end.

        Returns whether that was all; if not, nothing was noted, and `receive` knows what it means.
        """
        if self._buffer or self._block is not None or self._streams.get(stream, True):
            return False
        self._now = now
        return self._inlet.passes(stream, size)

    def _fail(self, fault: _Fault) -> list[Event]:
        self.is_over, self.why = True, fault.text
        self.outlet.say(frames.goaway(self.newest, fault.code, fault.text))
        lost = [Broken(stream) for stream in self._streams]
        self._streams.clear()
        self._buffer.clear()
        return list[Event](lost)

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
            raise _Fault(Code.PROTOCOL_ERROR, "this port speaks HTTP/2")
        if size < len(frames.PREFACE):
            return False
        del self._buffer[:size]
        self._expected = self._first_settings
        return True

    def _first_settings(self, events: list[Event]) -> bool:
        if len(self._buffer) < frames.HEAD_BYTES:
            return False
        _, kind, flags, _ = frames.head_at(self._buffer, 0)
        if kind != frames.SETTINGS or flags & frames.ACK:
            raise _Fault(Code.PROTOCOL_ERROR, "settings come first")
        self._expected = self._frames
        return self._frames(events)

    def _frames(self, events: list[Event]) -> bool:
        buffer, offset = self._buffer, 0
        while len(buffer) - offset >= frames.HEAD_BYTES:
            size, kind, flags, stream = frames.head_at(buffer, offset)
            if size > frames.LARGEST:
                raise _Fault(Code.FRAME_SIZE_ERROR, f"a frame of {size} bytes")
            end = offset + frames.HEAD_BYTES + size
            if end > len(buffer):
                break
            if self._block is not None and kind != frames.CONTINUATION:
                raise _Fault(Code.PROTOCOL_ERROR, "the headers before are not complete")
            content = bytes(buffer[offset + frames.HEAD_BYTES : end])
            offset = end
            if kind == frames.DATA:
                self._on_data(stream, flags, content, events)
            elif (on_kind := self._ON.get(kind)) is None:
                self._count_odd()
            else:
                events.extend(on_kind(self, stream, flags, content))
        del buffer[:offset]
        return False

    def _on_data(self, stream: int, flags: int, content: bytes, events: list[Event]) -> None:
        size = len(content)
        if stream == 0 or stream > self.newest:
            raise _Fault(Code.PROTOCOL_ERROR, "content of no stream")
        try:
            is_open = self._inlet.arrived(stream, size)
        except inlet.Exceeded:
            raise _Fault(Code.FLOW_CONTROL_ERROR, "more content than a window") from None
        if not is_open:
            return
        if self._streams[stream]:
            events.extend(self._break(stream, Code.STREAM_CLOSED))
            return
        body = _unpadded(flags, content)
        if len(body) < size:
            self._inlet.taken(stream, size - len(body))
        if body:
            events.append(Heard(stream, body))
        elif not flags & frames.END_STREAM:
            self._count_odd()
        if flags & frames.END_STREAM:
            self._streams[stream] = True
            events.append(Finished(stream))

    def _on_headers(self, stream: int, flags: int, content: bytes) -> Iterator[Event]:
        if stream % 2 == 0:
            raise _Fault(Code.PROTOCOL_ERROR, f"no client begins stream {stream}")
        content = _unpadded(flags, content)
        if flags & frames.WITH_PRIORITY:
            content = _without_priority(stream, content)
        self._block = _Block(stream, bool(flags & frames.END_STREAM), bytearray(content))
        if flags & frames.END_HEADERS:
            yield from self._on_block()

    def _on_continuation(self, stream: int, flags: int, content: bytes) -> Iterator[Event]:
        block = self._block
        if block is None or block.stream != stream:
            raise _Fault(Code.PROTOCOL_ERROR, "headers go on that have not begun")
        block.content += content
        block.pieces += 1
        if len(block.content) > self.limits.header_bytes or block.pieces > MOST_PIECES:
            raise _Fault(Code.ENHANCE_YOUR_CALM, "headers of a request are too large")
        if flags & frames.END_HEADERS:
            yield from self._on_block()

    def _on_block(self) -> Iterator[Event]:
        block, self._block = self._block, None
        assert block is not None  # both callers have just seen it
        found = self._decoded(bytes(block.content))
        if block.stream in self._streams:
            yield from self._on_trailers(block)
            return
        if block.stream <= self.newest:
            # Trailers of a stream that we have ended; as a new stream it would be no client's.
            self._count_odd()
            return
        self.newest = block.stream
        if self._is_leaving or self.outlet.lanes >= self.limits.streams:
            self._count_odd()
            self.outlet.say(frames.reset(block.stream, Code.REFUSED_STREAM))
            return
        if fault := headers.fault_of(found):
            self._count_odd()
            self.outlet.say(frames.reset(block.stream, Code.PROTOCOL_ERROR))
            self.why = self.why or fault
            return
        self._streams[block.stream] = block.ends_stream
        self._inlet.open(block.stream)
        self.outlet.open(block.stream)
        yield Opened(block.stream, found)
        if block.ends_stream:
            yield Finished(block.stream)

    def _on_trailers(self, block: _Block) -> Iterator[Event]:
        if self._streams[block.stream] or not block.ends_stream:
            yield from self._break(block.stream, Code.PROTOCOL_ERROR)
            return
        self._streams[block.stream] = True
        yield Finished(block.stream)

    def _decoded(self, content: bytes) -> Headers:
        try:
            decoder = self._decoder or _decoder(self.limits, table_bytes=0)
            found = decoder.decode(content, raw=False)
            return tuple((str(name), str(value)) for name, value in found)
        except hpack.OversizedHeaderListError:
            text = f"headers of a request are larger than {self.limits.header_bytes} bytes"
            raise _Fault(Code.ENHANCE_YOUR_CALM, text) from None
        except (hpack.HPACKError, UnicodeDecodeError):
            raise _Fault(Code.COMPRESSION_ERROR, "headers that cannot be read") from None

    def _on_priority(self, stream: int, _flags: int, content: bytes) -> Iterator[Event]:
        self._count_odd()
        if stream == 0:
            raise _Fault(Code.PROTOCOL_ERROR, "priority of no stream")
        if len(content) != PRIORITY_BYTES:
            yield from self._break(stream, Code.FRAME_SIZE_ERROR)

    def _on_reset(self, stream: int, _flags: int, content: bytes) -> Iterator[Event]:
        self._count_odd()
        _of_size(content, 4)
        if stream == 0 or stream > self.newest:
            raise _Fault(Code.PROTOCOL_ERROR, "a stream that has not begun cannot end")
        self.outlet.drop(stream)
        if self._streams.pop(stream, None) is not None:
            self._inlet.close(stream)
            yield Broken(stream)

    def _on_settings(self, stream: int, flags: int, content: bytes) -> Iterator[Event]:
        if stream:
            raise _Fault(Code.PROTOCOL_ERROR, "settings of a stream")
        if flags & frames.ACK:
            _of_size(content, 0)
            # What it refers to from now on stands in the same request (RFC 7541 section 4.2), and
            # what was shown in earlier ones, such as its token, is forgotten.
            self._decoder = None
            return
        self._count_odd()
        if len(content) % 6:
            raise _Fault(Code.FRAME_SIZE_ERROR, "settings of odd size")
        for name, value in frames.settings_in(content):
            self._set(name, value)
        self.outlet.say(frames.SETTINGS_ACK)
        self.outlet.advance()
        yield from ()

    def _set(self, name: int, value: int) -> None:
        if name == frames.INITIAL_WINDOW_SIZE:
            if value > frames.MOST_WINDOW:
                raise _Fault(Code.FLOW_CONTROL_ERROR, "no window is that wide")
            self._widen(lambda: self.outlet.begin_with(value))
        elif name == frames.ENABLE_PUSH and value > 1:
            raise _Fault(Code.PROTOCOL_ERROR, "push is either on or off")
        elif name == frames.MAX_FRAME_SIZE and not frames.LARGEST <= value < 2**24:
            raise _Fault(Code.PROTOCOL_ERROR, "no frame is of that size")

    def _on_promise(self, _stream: int, _flags: int, _content: bytes) -> Iterator[Event]:
        raise _Fault(Code.PROTOCOL_ERROR, "clients promise nothing")

    def _on_ping(self, stream: int, flags: int, content: bytes) -> Iterator[Event]:
        _of_size(content, 8)
        if stream:
            raise _Fault(Code.PROTOCOL_ERROR, "a ping on a stream")
        if flags & frames.ACK:
            self._awaits_pong = False
            return
        self._count_odd()
        self.outlet.say(frames.pong(content))
        yield from ()

    def _on_goaway(self, stream: int, _flags: int, _content: bytes) -> Iterator[Event]:
        self._count_odd()
        if stream:
            raise _Fault(Code.PROTOCOL_ERROR, "a stream cannot leave")
        yield from ()

    def _on_window(self, stream: int, _flags: int, content: bytes) -> Iterator[Event]:
        _of_size(content, 4)
        more = frames.number_in(content)
        if stream > self.newest:
            raise _Fault(Code.PROTOCOL_ERROR, "the window of no stream")
        if more == 0:
            if stream == 0:
                raise _Fault(Code.PROTOCOL_ERROR, "a window that grows by nothing")
            yield from self._break(stream, Code.PROTOCOL_ERROR)
            return
        if stream and not self.outlet.has(stream):
            self._count_odd()
        try:
            self.outlet.widen(stream, more=more)
        except outlet.Overflow:
            if stream == 0:
                raise _Fault(Code.FLOW_CONTROL_ERROR, "no window is that wide") from None
            yield from self._break(stream, Code.FLOW_CONTROL_ERROR)

    # What both have in common.

    def _widen(self, change: Callable[[], None]) -> None:
        try:
            change()
        except outlet.Overflow:
            raise _Fault(Code.FLOW_CONTROL_ERROR, "no window is that wide") from None

    def _break(self, stream: int, code: Code) -> Iterator[Event]:
        self._count_odd()
        if stream in self._streams:
            self.reset(stream, code)
            yield Broken(stream)

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
            raise _Fault(Code.ENHANCE_YOUR_CALM, "too many frames that bring nothing")


def _decoder(limits: Limits, *, table_bytes: int | None = None) -> hpack.Decoder:
    """Return what reads headers, and keeps as much of them as a client may refer to later."""
    made = hpack.Decoder(max_header_list_size=limits.header_bytes)
    if table_bytes is not None:
        made.header_table_size = made.max_allowed_table_size = table_bytes
    return made


def _of_size(content: bytes, size: int) -> None:
    if len(content) != size:
        raise _Fault(Code.FRAME_SIZE_ERROR, f"a frame of {len(content)} bytes that has {size}")


def _unpadded(flags: int, content: bytes) -> bytes:
    if not flags & frames.PADDED:
        return content
    if not content or content[0] >= len(content):
        raise _Fault(Code.PROTOCOL_ERROR, "more padding than content")
    return content[1 : len(content) - content[0]]


def _without_priority(stream: int, content: bytes) -> bytes:
    if len(content) < PRIORITY_BYTES:
        raise _Fault(Code.FRAME_SIZE_ERROR, "headers that end within their priority")
    if frames.number_in(content[:4]) == stream:
        raise _Fault(Code.PROTOCOL_ERROR, "a stream that depends on itself")
    return content[PRIORITY_BYTES:]
