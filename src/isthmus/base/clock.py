"""Time as a value that is handed in, so that pure code needs none and tests can turn it."""

import datetime
import time
from typing import Protocol

from typing_extensions import override

Instant = datetime.datetime
"""A moment, always in UTC and aware."""


class Clock(Protocol):
    """Tells the time and waits."""

    def now(self) -> Instant:
        """Return this moment in UTC."""

    def monotonic(self) -> float:
        """Return seconds that never go backwards; only differences mean anything."""

    async def sleep(self, delay_s: float) -> None:
        """Wait for `delay_s` seconds."""


class SystemClock(Clock):
    """The machine's own time."""

    @override
    def now(self) -> Instant:
        return datetime.datetime.now(datetime.UTC)  # noqa: TID251  # this is the clock

    @override
    def monotonic(self) -> float:
        return time.monotonic()

    @override
    async def sleep(self, delay_s: float) -> None:
        import asyncio  # many commands only ask for the time

        await asyncio.sleep(delay_s)
