"""When what clusters say is computed: the first change at once, and many together.

A change costs something for each of those who are told, however small it is. So the mesh rests
after a change, several times as long as that took, and what is said meanwhile, in whichever
clusters, is one transaction. Under many changes a second a small share of the time is left to
computing, and the rest is for telling; a mesh of a few proxies rests a few milliseconds.

Source: docs/decisions/0060.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from isthmus.base import tasks
from isthmus.fleet import generations

RESTS: Final = 5.0
"""How many times as long as a change has taken nothing is computed after it."""
MOST_REST_S: Final = 0.1
"""But never longer than this: it is how much later a change can be known."""


class Pace:
    """Hands on what changes in all clusters."""

    def __init__(self, write: Callable[[generations.Changes], None]) -> None:
        self._write = write
        self._waiting: list[generations.Take] = []
        self._not_before = 0.0

    def soon(self, take: generations.Take) -> None:
        """Have it called once, when it is time, for what has changed by then."""
        if not self._waiting:
            loop = asyncio.get_running_loop()
            if loop.time() < self._not_before:
                loop.call_at(self._not_before, self._hand_on)
            else:
                # What arrives in one read of the connection goes together.
                loop.call_soon(self._hand_on)
        self._waiting.append(take)

    def _hand_on(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        waiting, self._waiting = self._waiting, []
        parts = list[generations.Changes]()
        for take in waiting:
            # Of a cluster whose changes cannot be had no other's are lost: it would say none again.
            tasks.attempt("take changes", _take_into, parts, take)
        changes = generations.joined(parts)
        try:
            if any(changes.values()):
                self._write(changes)
        finally:
            ended = loop.time()
            self._not_before = ended + min(MOST_REST_S, RESTS * (ended - began))


def _take_into(parts: list[generations.Changes], take: generations.Take) -> None:
    parts.append(take())
