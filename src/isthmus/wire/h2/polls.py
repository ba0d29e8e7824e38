"""Which of many sockets can be read, asked of the kernel at once and told without a detour.

The event loop watches one file that stands for all of them; what it does for each file that it
watches itself costs more than reading a short message does.

Source: performance rule 1.
"""

import asyncio
import select
from collections.abc import Callable
from typing import Final

from isthmus.base import tasks

MOST_AT_ONCE: Final = 256
"""After so many others have the event loop."""


class Polls:
    """Calls whoever can read; it watches as long as there is somebody to call."""

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._readers: dict[int, Callable[[], None]] = {}

    def add(self, number: int, on_readable: Callable[[], None]) -> None:
        """Call `on_readable` whenever the file of this number can be read."""
        if self._epoll is None:
            self._epoll = select.epoll()
            asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._tell)
        self._epoll.register(number, select.EPOLLIN)
        self._readers[number] = on_readable

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
        for number, _ in self._epoll.poll(0, MOST_AT_ONCE):
            # One that was called before may have closed this one.
            if (on_readable := self._readers.get(number)) is not None:
                tasks.attempt("read", on_readable)
