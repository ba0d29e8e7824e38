"""Which of many sockets can be read, asked of the kernel at once and told without a detour.

The event loop watches one file that stands for all of them; what it does for each file that it
watches itself costs more than reading a short message does. Whoever is told something answers, and
nobody waits for that: while many are told, and when they have been, what arrives may gather, so
that the loop is entered once for many answers and not once for each.

Source: performance rule 1; docs/decisions/0066.
"""

import asyncio
import select
from collections import deque
from collections.abc import Callable
from typing import Final

from isthmus.base import tasks

MOST_AT_ONCE: Final = 1023
SLICE_S: Final = 0.02
"""After so many, or so long, others have the event loop: a handshake takes longer than a reading."""
MANY: Final = 16
"""Answers that are worth waiting for together."""
GATHER_S: Final = 0.005
PATIENCE_S: Final = 0.1
"""What has arrived while many are told is left alone for so long at most; a push may be longer."""


class Polls:
    """Calls whoever can read; it watches as long as there is somebody to call.

    Attributes:
        told: Messages that were written since anybody looked, each of which will be answered.
    """

    def __init__(
        self,
        *,
        slice_s: float = SLICE_S,
        gather_s: float = GATHER_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.told = 0
        self._slice_s = slice_s
        self._gather_s = gather_s
        self._patience_s = patience_s
        self._epoll: select.epoll | None = None
        self._readers: dict[int, tuple[Callable[[float], None], Callable[[], None]]] = {}
        self._named: deque[int] = deque()
        """Files that the kernel named, and that had no turn yet: they come before others do."""
        self._found = 0
        self._on_failure: Callable[[], None] = _nobody
        """Of whom is reading."""
        self._urgent: set[int] = set()
        """Files that somebody waits for."""
        self._owed = 0
        """Answers that are expected, about: not everybody gives one."""
        self._left_since: float | None = None
        """Since when what may have arrived was left alone."""
        self._timer: asyncio.TimerHandle | None = None
        """Set while answers gather; then the event loop watches nothing."""

    def add(
        self, number: int, on_readable: Callable[[float], None], *, on_failure: Callable[[], None]
    ) -> None:
        """Call `on_readable` with the time of the loop when the file of this number can be read.

        If that raises, `on_failure` is called: it should remove the file, which the kernel would
        call readable again and again.
        """
        if self._epoll is None:
            self._epoll = select.epoll()
            self._watch(self._epoll)
        self._epoll.register(number, select.EPOLLIN)
        self._readers[number] = on_readable, on_failure

    def remove(self, number: int) -> None:
        """Forget a file, before it is closed."""
        if self._readers.pop(number, None) is None or self._epoll is None:
            return
        self._urgent.discard(number)
        self._epoll.unregister(number)
        if not self._readers:
            self._unwatch(self._epoll)
            self._epoll.close()
            self._epoll = None

    def hurry(self, number: int) -> None:
        """Leave nothing alone while many are told, since somebody waits for what a file brings."""
        if number in self._readers:
            self._urgent.add(number)

    def calm(self, number: int) -> None:
        """Take note that nobody waits for what a file brings any more."""
        self._urgent.discard(number)

    # Reading.

    def _tell(self) -> None:
        if self._epoll is None:
            return
        now = asyncio.get_running_loop().time()
        told, self.told = self.told, 0
        self._owed += told
        if not self._named:
            if told >= MANY and self._may_wait(now):
                self._gather(self._epoll)
                return
            self._left_since = None
            self._named.extend(number for number, _ in self._epoll.poll(0, MOST_AT_ONCE))
        self._go_on(self._read(now))

    def _go_on(self, found: int) -> None:
        """Let answers gather that are still due, or watch again; so many were just read."""
        self._owed = min(max(self._owed - found, 0), len(self._readers))
        if self._epoll is None:
            return
        if found and self._owed >= MANY and not self._named:
            self._gather(self._epoll)
        elif self._timer is not None:
            # What was named and has not had its turn can still be read.
            self._watch(self._epoll)

    def _may_wait(self, now: float) -> bool:
        if self._urgent:
            return False
        if self._left_since is None:
            self._left_since = now
        return now - self._left_since < self._patience_s

    def _read(self, now: float) -> int:
        """Let those that were named read, for one slice; return how many did."""
        self._found, until = 0, now + self._slice_s
        while not tasks.attempt("read", self._read_some, now, until):
            tasks.attempt("end a connection", self._on_failure)
        self._on_failure = _nobody
        return self._found

    def _read_some(self, now: float, until: float) -> None:
        clock = asyncio.get_running_loop().time
        named, readers = self._named, self._readers
        while named:
            # One that was called before may have closed this one.
            if (reader := readers.get(named.popleft())) is not None:
                self._found += 1
                on_readable, self._on_failure = reader
                on_readable(now)
                if (now := clock()) >= until:
                    return

    # How the event loop comes to call.

    def _watch(self, epoll: select.epoll) -> None:
        self._timer = None
        asyncio.get_running_loop().add_reader(epoll.fileno(), self._tell)

    def _unwatch(self, epoll: select.epoll) -> None:
        if self._timer is None:
            asyncio.get_running_loop().remove_reader(epoll.fileno())
        else:
            self._timer.cancel()
            self._timer = None

    def _gather(self, epoll: select.epoll) -> None:
        """Look again after a while; until then whatever arrives wakes nobody."""
        self._unwatch(epoll)
        self._timer = asyncio.get_running_loop().call_later(self._gather_s, self._tell)


def _nobody() -> None:
    """End nothing: nobody was reading."""
