"""How much a client may send, and how much of that it has been told.

Room is given back as content is taken, and told in steps of half a window. Counts also what brings
nothing and asks for work all the same.

Source: RFC 9113 sections 5.2 and 10.5.
"""

from collections.abc import Callable
from dataclasses import dataclass

from isthmus.wire.h2 import frames


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


@dataclass(slots=True)
class _Window:
    size: int
    untold: int = 0

    def arrived(self, size: int) -> None:
        self.size -= size
        if self.size < 0:
            raise Exceeded

    def taken(self, size: int, *, whole: int) -> int:
        self.untold += size
        if self.untold < whole // 2:
            return 0
        told, self.untold = self.untold, 0
        self.size += told
        return told


class Inlet:
    """The windows by which a client may send."""

    __slots__ = ("_all", "_limits", "_odd", "_odd_at", "_say", "_windows")

    def __init__(self, limits: Limits, say: Callable[[bytes], None]) -> None:
        self._limits = limits
        self._say = say
        self._all = _Window(limits.connection_window)
        self._windows: dict[int, _Window] = {}
        self._odd = float(limits.odd_frames)
        self._odd_at = 0.0

    def open(self, stream: int) -> None:
        """Let a stream be sent to."""
        self._windows[stream] = _Window(self._limits.window)

    def close(self, stream: int) -> None:
        """Forget a stream; what arrived on it and was not taken counts as taken."""
        window = self._windows.pop(stream, None)
        if window is not None:
            self._give_back(self._limits.window - window.size - window.untold)

    def arrived(self, stream: int, size: int) -> bool:
        """Take note of content; return whether the stream is open.

        Raises:
            Exceeded: It is more than was allowed.
        """
        self._all.arrived(size)
        window = self._windows.get(stream)
        if window is None:
            # What was on its way when the stream ended.
            self._give_back(size)
            return False
        window.arrived(size)
        return True

    def taken(self, stream: int, size: int) -> None:
        """Give the room of content back."""
        self._give_back(size)
        window = self._windows.get(stream)
        if window is not None and (told := window.taken(size, whole=self._limits.window)):
            self._say(frames.window_update(stream, more=told))

    def passes(self, stream: int, size: int) -> bool:
        """Take note of content that arrives and is taken at once.

        Returns whether that was all; if not, nothing was noted: there is more to say of it.
        """
        window, all_ = self._windows.get(stream), self._all
        if window is None or size > window.size or size > all_.size:
            return False
        untold, untold_of_all = window.untold + size, all_.untold + size
        limits = self._limits
        if untold >= limits.window // 2 or untold_of_all >= limits.connection_window // 2:
            return False
        window.size -= size
        window.untold = untold
        all_.size -= size
        all_.untold = untold_of_all
        return True

    def is_too_odd(self, now: float) -> bool:
        """Count a frame that brings nothing, at `now`; return whether it is one too many."""
        passed, self._odd_at = max(now - self._odd_at, 0.0), now
        most = float(self._limits.odd_frames)
        self._odd = min(self._odd + passed * self._limits.odd_frames_per_s, most) - 1
        return self._odd < 0

    def _give_back(self, size: int) -> None:
        if told := self._all.taken(size, whole=self._limits.connection_window):
            self._say(frames.window_update(0, more=told))
