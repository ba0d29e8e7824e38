"""How much a client may send, and how much of that it has been told.

Room is given back as content is taken, and told in steps of half a window. Counts also what brings
nothing and asks for work all the same.

Source: RFC 9113 sections 5.2 and 10.5.
"""

from collections.abc import Callable
from dataclasses import dataclass

from isthmus.wire.h2 import frames
from isthmus.wire.h2.stream import Stream


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may use up.

    Attributes:
        streams: Open at once.
        window: Bytes of one stream that may have arrived and not been read.
        connection_window: The same for all streams together.
        header_bytes: Of one request, as they arrive and when decoded.
        odd_frames_per_s: Frames that ask for work and bring nothing, such as pings and resets.
        odd_frames: How many of them may come at once.
    """

    streams: int = 100
    window: int = 256 * 1024
    connection_window: int = 1024 * 1024
    header_bytes: int = 32 * 1024
    odd_frames_per_s: float = 50.0
    odd_frames: int = 500


class Exceeded(Exception):  # noqa: N818  # the client's fault, which the connection answers
    """More arrived than a window has room for."""


class Inlet:
    """The windows by which a client may send: that of the connection, and those of its streams."""

    __slots__ = ("_limits", "_odd", "_odd_at", "_say", "_unread", "_untold")

    def __init__(self, limits: Limits, say: Callable[[bytes], None]) -> None:
        self._limits = limits
        self._say = say
        self._unread = 0
        self._untold = 0
        self._odd = float(limits.odd_frames)
        self._odd_at = 0.0

    def close(self, stream: Stream) -> None:
        """Forget a stream; what arrived on it and was not taken counts as taken."""
        self._give_back(stream.unread)
        stream.unread = 0

    def arrived(self, stream: Stream | None, size: int) -> None:
        """Take note of content, of no stream if it was on its way when that ended.

        Raises:
            Exceeded: It is more than was allowed.
        """
        limits = self._limits
        if size > limits.connection_window - self._unread - self._untold:
            raise Exceeded
        self._unread += size
        if stream is None:
            self._give_back(size)
        elif size > limits.window - stream.unread - stream.untold:
            raise Exceeded
        else:
            stream.unread += size

    def taken(self, stream: Stream, size: int) -> None:
        """Give the room of content back, of a stream that is open."""
        self._give_back(size)
        stream.unread -= size
        stream.untold += size
        if stream.untold >= self._limits.window // 2:
            told, stream.untold = stream.untold, 0
            self._say(frames.window_update(stream.number, more=told))

    def passes(self, stream: Stream, size: int) -> bool:
        """Take note of content that arrives and is taken at once.

        Returns whether that was all; if not, nothing was noted: there is more to say of it.
        """
        untold, untold_of_all = stream.untold + size, self._untold + size
        limits = self._limits
        if (
            untold >= limits.window // 2
            or untold_of_all >= limits.connection_window // 2
            or untold > limits.window - stream.unread
            or untold_of_all > limits.connection_window - self._unread
        ):
            return False
        stream.untold = untold
        self._untold = untold_of_all
        return True

    def is_too_odd(self, now: float) -> bool:
        """Count a frame that brings nothing, at `now`; return whether it is one too many."""
        passed, self._odd_at = max(now - self._odd_at, 0.0), now
        most = float(self._limits.odd_frames)
        self._odd = min(self._odd + passed * self._limits.odd_frames_per_s, most) - 1
        return self._odd < 0

    def _give_back(self, size: int) -> None:
        self._unread -= size
        self._untold += size
        if self._untold >= self._limits.connection_window // 2:
            told, self._untold = self._untold, 0
            self._say(frames.window_update(0, more=told))
