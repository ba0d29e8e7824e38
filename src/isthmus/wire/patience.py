"""Lets proxies that come too early wait, and then in: a few at a time, as they have come.

A control plane that starts anew knows the mesh some seconds after it can be called. Whoever is sent
away meanwhile comes again, each time with a handshake and a proof, and later each time: Envoy waits up
to half a minute in the end. Who waits here costs nothing until then.

Source: security rule XA-5; docs/decisions/0064.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Final

LOOK_S: Final = 0.02
LET_IN: Final = 4
"""So many are let in before others have the event loop."""
MOST: Final = 20_000
"""Of all who wait at one time."""


class Patience:
    """Those who wait.

    Attributes:
        is_ready: Says whether they may come in.
    """

    def __init__(self, *, each: int, seconds: float) -> None:
        """Prepare.

        Args:
            each: How many streams of one pod may wait.
            seconds: For how long.
        """
        self.is_ready: Callable[[], bool] = lambda: True
        self._each = each
        self._seconds = seconds
        self._waiting: dict[asyncio.Future[None], None] = {}
        self._of_pods: Counter[Hashable] = Counter()
        self._look_again: asyncio.Handle | None = None

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    async def wait(self, pod: Hashable) -> None:
        """Return when a stream of a pod may come in, or has waited long enough."""
        if not self._waiting and self.is_ready():
            return
        if len(self._waiting) >= MOST or self._of_pods[pod] >= self._each:
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[turn] = None
        self._of_pods[pod] += 1
        self._look_later(LOOK_S)
        try:
            async with asyncio.timeout(self._seconds):
                await turn
        except TimeoutError:
            return
        finally:
            self._waiting.pop(turn, None)
            self._of_pods[pod] -= 1
            if not self._of_pods[pod]:
                del self._of_pods[pod]

    def _look_later(self, seconds: float) -> None:
        if self._look_again is None:
            loop = asyncio.get_running_loop()
            self._look_again = loop.call_later(seconds, self._look)

    def _look(self) -> None:
        self._look_again = None
        is_ready = self.is_ready()
        if is_ready:
            for turn in list(itertools.islice(self._waiting, LET_IN)):
                del self._waiting[turn]
                if not turn.done():
                    turn.set_result(None)
        if self._waiting:
            self._look_later(0.0 if is_ready else LOOK_S)
