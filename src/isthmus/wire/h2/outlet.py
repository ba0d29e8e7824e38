"""What a connection has to say, as far as the other side lets it.

Content waits here, stream by stream, until both windows have room for it; streams that wait take
turns. Knows nothing of what arrives, and no socket: whoever has one takes what is `ready`.

Source: RFC 9113 section 5.2.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from isthmus.wire.h2 import frames


class Overflow(Exception):  # noqa: N818  # the other side's fault, which the connection answers
    """A window was widened beyond what a window can be."""


@dataclass(slots=True)
class _Lane:
    window: int
    waiting: list[bytes | memoryview] = field(default_factory=list)
    size: int = 0
    ending: bytes = b""


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

    __slots__ = ("_first_window", "_lanes", "_turns", "_window", "said")

    def __init__(self) -> None:
        self.said: list[bytes | memoryview] = []
        self._lanes: dict[int, _Lane] = {}
        self._turns: list[int] = []
        self._window = frames.USUAL_WINDOW
        self._first_window = frames.USUAL_WINDOW

    def ready(self) -> list[bytes | memoryview]:
        """Take what can be written now."""
        ready, self.said = self.said, []
        return ready

    def say(self, frame: bytes) -> None:
        """Send a frame that no window holds back."""
        self.said.append(frame)

    def open(self, stream: int) -> None:
        """Let a stream send."""
        self._lanes[stream] = _Lane(self._first_window)

    @property
    def lanes(self) -> int:
        """How many streams are open, or have something left to send."""
        return len(self._lanes)

    def has(self, stream: int) -> bool:
        """Say whether a stream may still have something to send."""
        return stream in self._lanes

    def drop(self, stream: int) -> None:
        """Forget a stream, and what it still had to send."""
        self._lanes.pop(stream, None)

    def send(self, stream: int, parts: Sequence[bytes]) -> None:
        """Send content of a stream; parts that several streams send are not copied."""
        lane = self._lanes.get(stream)
        if lane is None:
            return
        size = sum(map(len, parts))
        if lane.waiting or size > min(self._window, lane.window, frames.LARGEST):
            if not lane.waiting:
                self._turns.append(stream)
            lane.waiting.extend(part for part in parts if part)
            lane.size += size
            self.advance()
            return
        self._window -= size
        lane.window -= size
        self.said.append(frames.head(frames.DATA, size=size, stream=stream))
        self.said.extend(parts)

    def share(self, stream: int, message: Message) -> None:
        """Send a message that other streams send as well."""
        framed = self.alone(stream, message)
        if framed is not None:
            self.said.append(framed)
        else:
            self.send(stream, (message.body,))

    def alone(self, stream: int, message: Message) -> bytes | None:
        """Return the frames of a message, to be written after all that was said.

        None where a window holds it back; then nothing is counted as sent.
        """
        lane, size = self._lanes.get(stream), message.size
        if lane is None or lane.waiting or size > self._window or size > lane.window:
            return None
        self._window -= size
        lane.window -= size
        return message.framed(stream)

    def end(self, stream: int, frame: bytes) -> None:
        """Send the frame that ends a stream, after all that it still has to send."""
        lane = self._lanes.get(stream)
        if lane is None:
            return
        if lane.waiting:
            lane.ending = frame
            return
        self.said.append(frame)
        self.drop(stream)

    def waiting(self, stream: int) -> int:
        """Return how many bytes of a stream wait for a window."""
        lane = self._lanes.get(stream)
        return lane.size if lane is not None else 0

    def widen(self, stream: int, *, more: int) -> None:
        """Take note that the other side takes `more` bytes; of a closed stream it means nothing.

        Raises:
            Overflow: No window is that wide.
        """
        if stream == 0:
            self._window = _widened(self._window, more)
        elif (lane := self._lanes.get(stream)) is not None:
            lane.window = _widened(lane.window, more)
        self.advance()

    def begin_with(self, window: int) -> None:
        """Take note of the window that each stream has at first.

        What that lets through goes out with `advance`, after the settings were acknowledged: a
        client may hold us to its old ones until then.

        Raises:
            Overflow: It makes that of an open one too wide.
        """
        more, self._first_window = window - self._first_window, window
        for lane in self._lanes.values():
            lane.window = _widened(lane.window, more)

    def advance(self) -> None:
        """Send what waits, as far as the windows let it."""
        stuck = 0
        while self._turns and stuck < len(self._turns) and self._window > 0:
            stream = self._turns.pop(0)
            lane = self._lanes.get(stream)
            if lane is None or not lane.waiting:
                continue
            if lane.window > 0:
                stuck = 0
                self._send_some(stream, lane)
            else:
                stuck += 1
            if lane.waiting:
                self._turns.append(stream)
            elif lane.ending:
                self.said.append(lane.ending)
                self.drop(stream)

    def _send_some(self, stream: int, lane: _Lane) -> None:
        room = left = min(self._window, lane.window, frames.LARGEST, lane.size)
        place = len(self.said)
        while left:
            part = lane.waiting.pop(0)
            if len(part) > left:
                view = memoryview(part)
                lane.waiting.insert(0, view[left:])
                part = view[:left]
            self.said.append(part)
            left -= len(part)
        self.said.insert(place, frames.head(frames.DATA, size=room, stream=stream))
        lane.size -= room
        lane.window -= room
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
