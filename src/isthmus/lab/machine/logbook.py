"""What a container wrote, kept in memory within bounds.

Decides how output becomes lines with a time, and which lines a reader asked for. Refuses to know
who writes.
"""

import asyncio
import datetime
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

from isthmus.base import clock

MOST_BYTES = 4 << 20
LONGEST_LINE = 64 << 10


@dataclass(frozen=True, slots=True)
class Line:
    """One line, with its line break, and when it was written."""

    number: int
    moment: clock.Instant
    text: bytes

    def shown(self, *, timestamps: bool) -> bytes:
        """Return the line as `kubectl logs` shows it."""
        if not timestamps:
            return self.text
        return self.moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ ").encode() + self.text


class Logbook:
    """One run's output; the oldest lines go when there is too much."""

    def __init__(self, system_clock: clock.Clock) -> None:
        self._clock = system_clock
        self._lines: deque[Line] = deque()
        self._size = 0
        self._written = 0
        self._partial: dict[str, bytes] = {}
        self._closed = False
        self._news = asyncio.Event()

    def feed(self, stream: str, content: bytes) -> None:
        """Take what a stream gave; whole lines become visible."""
        *whole, rest = (self._partial.get(stream, b"") + content).split(b"\n")
        for text in whole:
            self._append(text + b"\n")
        if len(rest) > LONGEST_LINE:
            self._append(rest)
            rest = b""
        self._partial[stream] = rest
        if whole:
            self._wake()

    def close(self) -> None:
        """Nothing more will come; what is left without a line break becomes visible."""
        for text in self._partial.values():
            if text:
                self._append(text)
        self._partial.clear()
        self._closed = True
        self._wake()

    def tail(self, most_bytes: int) -> str:
        """Return the end of the output."""
        return b"".join(line.text for line in self._lines)[-most_bytes:].decode(errors="replace")

    async def read(
        self,
        *,
        follow: bool = False,
        tail: int | None = None,
        since_s: float | None = None,
        timestamps: bool = False,
    ) -> AsyncIterator[bytes]:
        """Yield lines, oldest first; with `follow` go on until the run ends."""
        for line in self._chosen(tail, since_s):
            yield line.shown(timestamps=timestamps)
        seen = self._written
        while follow:
            for line in [each for each in self._lines if each.number > seen]:
                yield line.shown(timestamps=timestamps)
            seen = self._written
            if self._closed:
                return
            await self._news.wait()

    def _chosen(self, tail: int | None, since_s: float | None) -> list[Line]:
        lines = list(self._lines)
        if since_s is not None:
            earliest = self._clock.now() - datetime.timedelta(seconds=since_s)
            lines = [line for line in lines if line.moment >= earliest]
        return lines if tail is None else lines[max(0, len(lines) - tail) :]

    def _append(self, text: bytes) -> None:
        self._written += 1
        self._lines.append(Line(self._written, self._clock.now(), text))
        self._size += len(text)
        while self._size > MOST_BYTES:
            self._size -= len(self._lines.popleft().text)

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
