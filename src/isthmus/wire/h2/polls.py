"""Which of many sockets can be read, asked of the kernel at once and told without a detour.

The event loop watches one file that stands for all of them; what it does for each file that it
watches itself costs more than reading a short message does.

Source: performance rule 1.
"""

import asyncio
import select
from collections import deque
from collections.abc import Callable
from typing import Final

from isthmus.base import tasks

MOST_AT_ONCE: Final = 256
SLICE_S: Final = 0.02
"""After so many, or so long, others have the event loop: a handshake takes longer than a reading."""


class Polls:
    """Calls whoever can read; it watches as long as there is somebody to call."""

    def __init__(self, *, slice_s: float = SLICE_S) -> None:
        self._slice_s = slice_s
        self._epoll: select.epoll | None = None
        self._readers: dict[int, tuple[Callable[[float], None], Callable[[], None]]] = {}
        self._named: deque[int] = deque()
        """Files that the kernel named, and that had no turn yet: they come before others do."""

    def add(
        self, number: int, on_readable: Callable[[float], None], *, on_failure: Callable[[], None]
    ) -> None:
        """Call `on_readable` with the time of the loop when the file of this number can be read.

        If that raises, `on_failure` is called: it should remove the file, which the kernel would
        call readable again and again.
        """
        if self._epoll is None:
            self._epoll = select.epoll()
            asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._tell)
        self._epoll.register(number, select.EPOLLIN)
        self._readers[number] = on_readable, on_failure

    def remove(self, number: int) -> None:
        """Forget a file, before it is closed."""
        if self._readers.pop(number, None) is None or self._epoll is None:
            return
        self._epoll.unregister(number)
        if not self._readers:
            asyncio.get_running_loop().remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None

    def _tell(self) -> None:
        if self._epoll is None:
            return
        clock = asyncio.get_running_loop().time
        until = (now := clock()) + self._slice_s
        if not self._named:
            self._named.extend(number for number, _ in self._epoll.poll(0, MOST_AT_ONCE))
        while self._named:
            # One that was called before may have closed this one.
            if (reader := self._readers.get(self._named.popleft())) is not None:
                on_readable, on_failure = reader
                if not tasks.attempt("read", on_readable, now):
                    tasks.attempt("end a connection", on_failure)
                if (now := clock()) >= until:
                    return
