"""Whose turn it is to be told: answers at once, changes together, and nobody before all others.

The first change goes out in the next turn of the event loop. Those that follow wait for a window,
in which each stream keeps a set of names and no queue: as long as the last push took, and as much
again, but never much longer than a push. Who was told last hears what has changed since then at its
next turn, so that the window is how late anybody can be. A push of many streams lets others have
the loop in between.

Source: performance rule 6.
"""

import asyncio
from collections import deque
from typing import Final, Protocol

from isthmus.base import clock
from isthmus.wire import counting, printing

SHORTEST_S: Final = 0.01
"""Between the beginnings of two pushes."""
MOST_REST_S: Final = 0.1
"""Between the end of a push and the beginning of the next; a shorter push rests as long as it took.

Short ones are put together, which spares half of the work. Long ones gain nothing by that: they
tell of most that changes as it is, and others have had the loop meanwhile.
"""
SLICE_S: Final = 0.02
"""After so long others have the event loop for once."""
TOLD_AT_ONCE: Final = 16
"""Streams that are told before anybody looks at the clock again."""


def window_s(took_s: float) -> float:
    """Return how long after its beginning a push that took so long is followed by the next."""
    return max(SHORTEST_S, took_s + min(took_s, MOST_REST_S))


class Told(Protocol):
    """A stream that has something to tell its proxy, or may have."""

    def tell(self, turn: "Turns") -> None:
        """Tell it; this must not raise."""


class Turns:
    """Gives each stream its turn."""

    def __init__(self, counters: counting.Counters, *, system_clock: clock.Clock) -> None:
        self._counters = counters
        self._clock = system_clock
        self._asked: dict[Told, None] = {}
        self._changed: dict[Told, None] = {}
        self._asking: deque[Told] = deque()
        self._batch: deque[Told] = deque()
        self._push_began = 0.0
        self._push_took = 0.0
        self._not_before = 0.0
        self._timer: asyncio.Handle | None = None
        self._is_soon = False
        self._now: clock.Instant | None = None
        self._noted: float | None = None
        self._sent: dict[printing.Print, int] = {}
        self._converged: list[float] = []

    def answer(self, stream: Told) -> None:
        """Let a stream answer in this turn of the event loop, after all that arrived with it."""
        self._asked[stream] = None
        self._soon()

    def change(self, stream: Told) -> float:
        """Let a stream tell of a change, together with those that come within a window.

        Returns when that was, by the loop's time; what one call of the loop changes is of one time.
        """
        self._changed[stream] = None
        if self._is_soon and self._noted is not None:
            return self._noted
        now = asyncio.get_running_loop().time()
        if not self._is_soon and self._timer is None:
            self._wait(now)
        if self._is_soon:
            self._noted = now
        return now

    def leave(self, stream: Told) -> None:
        """Forget a stream that is over."""
        self._asked.pop(stream, None)
        self._changed.pop(stream, None)

    # What streams say while they have their turn.

    def now(self) -> clock.Instant:
        """Return the time of this turn."""
        if self._now is None:
            self._now = self._clock.now()
            self._soon()
        return self._now

    def sent(self, offer: printing.Print) -> None:
        """Count a message."""
        self._sent[offer] = self._sent.get(offer, 0) + 1

    def converged(self, since: float) -> None:
        """Count that a proxy was told of all that had changed since a moment of the loop's."""
        self._converged.append(since)

    # How turns follow each other.

    def _soon(self) -> None:
        if not self._is_soon:
            self._is_soon = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _wait(self, now: float) -> None:
        if now >= self._not_before:
            self._soon()
        else:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(self._not_before, self._window_over)

    def _window_over(self) -> None:
        self._timer = None
        self._soon()

    def _turn(self) -> None:
        self._is_soon = False
        self._now = self._noted = None
        self._answer()
        self._push()
        self._count()
        self._now = None
        if self._asking or self._asked or self._batch:
            self._soon()
        elif self._changed and self._timer is None:
            self._wait(asyncio.get_running_loop().time())

    def _answer(self) -> None:
        if not self._asking and self._asked:
            asked, self._asked = self._asked, {}
            self._asking.extend(asked)
        if self._asking:
            self._tell(self._asking)

    def _push(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        if not self._batch:
            if not self._changed or began < self._not_before:
                return
            self._push_began, self._push_took = began, 0.0
            changed, self._changed = self._changed, {}
            self._batch.extend(changed)
        self._tell(self._batch)
        self._push_took += loop.time() - began
        if not self._batch:
            self._not_before = self._push_began + window_s(self._push_took)

    def _tell(self, streams: deque[Told]) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + SLICE_S
        while streams:
            for _ in range(min(TOLD_AT_ONCE, len(streams))):
                streams.popleft().tell(self)
            if loop.time() > until:
                return

    def _count(self) -> None:
        counters = self._counters
        for offer, times in self._sent.items():
            counters.pushes.add(times, offer.kind)
            counters.size.observe(offer.message.size, offer.kind, times=times)
        self._sent.clear()
        if self._converged:
            now, converged = asyncio.get_running_loop().time(), self._converged
            self._converged = []
            counters.convergence.observe_each([now - since for since in converged])
