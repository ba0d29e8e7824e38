"""Which of many sockets can be read, asked of the kernel at once and told without a detour.

The event loop watches one file that stands for all of them; what it does for each file that it
watches itself costs more than reading a short message does. Whoever is told something answers, and
nobody waits for that: while many are told, and when they have been, what arrives may gather, so
that the loop is entered once for many answers and not once for each.

What many do is done step by step: some read, then the same take in what they have read; some say
what they have to say, then it is written. A processor is quicker at what it has just done.

Source: performance rule 1; docs/decisions/0066.
"""

import asyncio
import select
from collections import deque
from typing import Final, Protocol

from isthmus.base import tasks

SLICE_S: Final = 0.02
"""After so long others have the event loop: a handshake takes longer than a reading."""
MANY: Final = 16
"""Answers that are worth waiting for together."""
GATHER_S: Final = 0.01
PATIENCE_S: Final = 0.1
"""What has arrived while many are told is left alone for so long at most; a push may be longer."""


AT_A_TIME: Final = 64
"""So many do one thing, then the same ones do the next."""


class Socket(Protocol):
    """One of the sockets, with whoever is behind it. None of this may block."""

    def read(self, now: float) -> bytes:
        """Read; return what it should `take` when others have read, or nothing."""

    def take(self, content: bytes, now: float) -> None:
        """Take in what was read; it may have been closed since."""

    def write(self) -> None:
        """Write what was said, unless that has happened."""

    def close(self) -> None:
        """End, and be removed: something of this has failed, and would fail again and again."""


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
        self._door: select.epoll | None = None
        """What the event loop watches: it can be read when the other can, unless that is shut off.

        To take a file that stands for thousands away from the loop, and to bring it back, would be
        a hundred times as dear.
        """
        self._sockets: dict[int, Socket] = {}
        self._named: deque[int] = deque()
        """Files that the kernel named, and that had no turn yet: they come before others do."""
        self._found = 0
        self._heard: deque[tuple[Socket, bytes]] = deque()
        """What was read and not taken in yet."""
        self._said: deque[Socket] = deque()
        """Those that have said something and not written it."""
        self._writes_soon = False
        self._reading: Socket | None = None
        self._writing: Socket | None = None
        self._urgent: set[int] = set()
        """Files that somebody waits for."""
        self._owed = 0
        """Answers that are expected, about: not everybody gives one."""
        self._left_since: float | None = None
        """Since when what may have arrived was left alone."""
        self._timer: asyncio.TimerHandle | None = None
        """Set while answers gather; then the event loop watches nothing."""

    def add(self, number: int, added: Socket) -> None:
        """Have a socket read, with the time of the loop, when the file of this number can be."""
        if self._epoll is None:
            self._epoll, self._door = select.epoll(), select.epoll()
            self._door.register(self._epoll.fileno(), select.EPOLLIN)
            asyncio.get_running_loop().add_reader(self._door.fileno(), self._tell)
        self._epoll.register(number, select.EPOLLIN)
        self._sockets[number] = added

    def remove(self, number: int) -> None:
        """Forget a file, before it is closed."""
        if self._sockets.pop(number, None) is None or self._epoll is None:
            return
        self._urgent.discard(number)
        self._epoll.unregister(number)
        if not self._sockets:
            self._end_watch()

    def _end_watch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._door is not None and self._epoll is not None:
            asyncio.get_running_loop().remove_reader(self._door.fileno())
            self._door.close()
            self._epoll.close()
        self._door = self._epoll = None

    def hurry(self, number: int) -> None:
        """Leave nothing alone while many are told, since somebody waits for what a file brings."""
        if number in self._sockets:
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
                self._gather()
                return
            self._left_since = None
            self._named.extend(number for number, _ in self._epoll.poll(0, len(self._sockets)))
        self._go_on(self._read(now))

    def _go_on(self, found: int) -> None:
        """Let answers gather that are still due, or watch again; so many were just read."""
        self._owed = min(max(self._owed - found, 0), len(self._sockets))
        if self._epoll is None:
            return
        if found and self._owed >= MANY and not self._named:
            self._gather()
        elif self._timer is not None:
            # What was named and has not had its turn can still be read.
            self._timer = None
            self._shut_off(is_shut=False)

    def _may_wait(self, now: float) -> bool:
        if self._urgent:
            return False
        if self._left_since is None:
            self._left_since = now
        return now - self._left_since < self._patience_s

    def _read(self, now: float) -> int:
        """Let those that were named read, for one slice; return how many did."""
        self._found, until = 0, now + self._slice_s
        while not tasks.attempt("read", self._read_some, until):
            if self._reading is not None:
                tasks.attempt("end a connection", self._reading.close)
        self._reading = None
        return self._found

    def _read_some(self, until: float) -> None:
        clock = asyncio.get_running_loop().time
        named, sockets, heard = self._named, self._sockets, self._heard
        while True:
            now = clock()
            while heard:
                self._reading, content = heard.popleft()
                self._reading.take(content, now)
            if not named or (self._found and now >= until):
                return
            for _ in range(min(len(named), AT_A_TIME)):
                # One that was called before may have closed this one.
                if (found := sockets.get(named.popleft())) is not None:
                    self._found += 1
                    self._reading = found
                    if content := found.read(now):
                        heard.append((found, content))
                    elif (now := clock()) >= until:
                        # What brings nothing to be taken in is what may take long.
                        break

    # Writing.

    def write_soon(self, said: Socket) -> None:
        """Have what was said written, with what others say before and after it."""
        self._said.append(said)
        if len(self._said) >= AT_A_TIME:
            self._write()
        elif not self._writes_soon:
            self._writes_soon = True
            asyncio.get_running_loop().call_soon(self._write_now)

    def _write_now(self) -> None:
        self._writes_soon = False
        self._write()

    def _write(self) -> None:
        while not tasks.attempt("write", self._write_some):
            if self._writing is not None:
                tasks.attempt("end a connection", self._writing.close)
        self._writing = None

    def _write_some(self) -> None:
        said = self._said
        while said:
            self._writing = said.popleft()
            self._writing.write()

    # How the event loop comes to call.

    def _gather(self) -> None:
        """Look again after a while; until then whatever arrives wakes nobody."""
        if self._timer is None:
            self._shut_off(is_shut=True)
        self._timer = asyncio.get_running_loop().call_later(self._gather_s, self._tell)

    def _shut_off(self, *, is_shut: bool) -> None:
        if self._door is not None and self._epoll is not None:
            self._door.modify(self._epoll.fileno(), 0 if is_shut else select.EPOLLIN)
