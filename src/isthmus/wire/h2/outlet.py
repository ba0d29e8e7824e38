"""What a connection has to say, as far as the other side lets it.

Content waits here, stream by stream, until both windows have room for it; streams that wait take
turns. Knows nothing of what arrives, and no socket: whoever has one takes what is `ready`.

Source: RFC 9113 section 5.2.
"""

from collections import deque
from collections.abc import Sequence

from isthmus.wire.h2 import frames
from isthmus.wire.h2.stream import NOTHING, Parts, Stream


class Overflow(Exception):  # noqa: N818  # the other side's fault, which the connection answers
    """A window was widened beyond what a window can be."""


class Message:
    """One message of gRPC that goes out on many streams, and is framed but once for most of them.

    Of a large one only the frames are kept, once there are any.

    Attributes:
        size: In bytes, with its prefix.
    """

    __slots__ = ("_body", "_framed", "_stream", "size")

    def __init__(self, content: bytes) -> None:
        self._body = b"".join((b"\0", len(content).to_bytes(4, "big"), content))
        self.size = len(self._body)
        self._stream = 0
        self._framed = b""

    @property
    def body(self) -> bytes:
        """Its content, with its prefix."""
        return self._body or _unframed(self._framed)

    def framed(self, stream: int) -> bytes:
        """Return the frames that carry it on a stream; clients of discovery use the same number."""
        if stream != self._stream:
            self._stream, self._framed = stream, _framed(self.body, stream)
            if self.size > frames.LARGEST:
                self._body = b""
        return self._framed


class Outlet:
    """Sends frames within the windows of the connection and of each stream.

    Attributes:
        said: What can be written now; whoever writes takes all of it with `ready`.
    """

    __slots__ = ("_first_window", "_streams", "_turns", "_window", "said")

    def __init__(self, streams: dict[int, Stream]) -> None:
        """Begin to speak.

        Args:
            streams: Those that are open or have something left to send, by number; what has none
                left is taken out.
        """
        self.said: Parts = NOTHING
        self._streams = streams
        self._turns: tuple[int, ...] = ()
        self._window = frames.USUAL_WINDOW
        self._first_window = frames.USUAL_WINDOW

    def ready(self) -> Parts:
        """Take what can be written now."""
        ready, self.said = self.said, NOTHING
        return ready

    def say(self, *some: bytes | memoryview) -> None:
        """Send frames that no window holds back."""
        if self.said:
            self.said.extend(some)
        else:
            self.said = [*some]

    def open(self, number: int) -> Stream:
        """Let a stream send."""
        fresh = self._streams[number] = Stream(number, window=self._first_window)
        return fresh

    def drop(self, stream: Stream) -> None:
        """Forget a stream, and what it still had to send."""
        self._streams.pop(stream.number, None)
        stream.waiting, stream.size, stream.ending = NOTHING, 0, b""

    def send(self, stream: Stream, parts: Sequence[bytes]) -> None:
        """Send content of a stream; parts that several streams send are not copied."""
        if not stream.is_open:
            return
        size = sum(map(len, parts))
        if stream.waiting or size > min(self._window, stream.window, frames.LARGEST):
            if not stream.waiting:
                stream.waiting = []
                self._turns = (*self._turns, stream.number)
            stream.waiting.extend(part for part in parts if part)
            stream.size += size
            self.advance()
            return
        self._window -= size
        stream.window -= size
        self.say(frames.head(frames.DATA, size=size, stream=stream.number), *parts)

    def share(self, stream: Stream, message: Message) -> None:
        """Send a message that other streams send as well."""
        framed = self.alone(stream, message)
        if framed is not None:
            self.say(framed)
        else:
            self.send(stream, (message.body,))

    def alone(self, stream: Stream, message: Message) -> bytes | None:
        """Return the frames of a message, to be written after all that was said.

        None where a window holds it back; then nothing is counted as sent.
        """
        size = message.size
        if size > self._window or size > stream.window or stream.waiting or not stream.is_open:
            return None
        self._window -= size
        stream.window -= size
        return message.framed(stream.number)

    def end(self, stream: Stream, frame: bytes) -> None:
        """Send the frame that ends a stream, after all that it still has to send."""
        if stream.waiting:
            stream.ending = frame
            return
        self.say(frame)
        self.drop(stream)

    def widen(self, more: int, stream: Stream | None = None) -> None:
        """Take note that the other side takes `more` bytes, of one stream or of all together.

        Raises:
            Overflow: No window is that wide.
        """
        if stream is None:
            self._window = _widened(self._window, more)
        else:
            stream.window = _widened(stream.window, more)
        self.advance()

    def begin_with(self, window: int) -> None:
        """Take note of the window that each stream has at first.

        What that lets through goes out with `advance`, after the settings were acknowledged: a
        client may hold us to its old ones until then.

        Raises:
            Overflow: It makes that of an open one too wide.
        """
        more, self._first_window = window - self._first_window, window
        for stream in self._streams.values():
            stream.window = _widened(stream.window, more)

    def advance(self) -> None:
        """Send what waits, as far as the windows let it."""
        if not self._turns or self._window <= 0:
            return
        stuck, turns = 0, deque(self._turns)
        while turns and stuck < len(turns) and self._window > 0:
            stream = self._streams.get(turns.popleft())
            if stream is None or not stream.waiting:
                continue
            if stream.window > 0:
                stuck = 0
                self._send_some(stream)
            else:
                stuck += 1
            if stream.waiting:
                turns.append(stream.number)
            elif stream.ending:
                self.say(stream.ending)
                self.drop(stream)
        self._turns = tuple(turns)

    def _send_some(self, stream: Stream) -> None:
        room = left = min(self._window, stream.window, frames.LARGEST, stream.size)
        sent = Parts()
        while left:
            part = stream.waiting.pop(0)
            if len(part) > left:
                view = memoryview(part)
                stream.waiting.insert(0, view[left:])
                part = view[:left]
            sent.append(part)
            left -= len(part)
        self.say(frames.head(frames.DATA, size=room, stream=stream.number), *sent)
        stream.size -= room
        stream.window -= room
        self._window -= room


def _framed(content: bytes, stream: int) -> bytes:
    parts = list[bytes | memoryview]()
    view = memoryview(content)
    for start in range(0, len(content), frames.LARGEST):
        part = view[start : start + frames.LARGEST]
        parts += (frames.head(frames.DATA, size=len(part), stream=stream), part)
    return b"".join(parts)


def _unframed(content: bytes) -> bytes:
    view, step = memoryview(content), frames.HEAD_BYTES + frames.LARGEST
    starts = range(0, len(content), step)
    return b"".join([view[start + frames.HEAD_BYTES : start + step] for start in starts])


def _widened(window: int, more: int) -> int:
    if window + more > frames.MOST_WINDOW:
        raise Overflow
    return window + more
