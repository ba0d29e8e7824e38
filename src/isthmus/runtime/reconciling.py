"""Brings named things to a wanted state, one at a time each, until told that they are.

Level-triggered: a mark says only that something about a key may have changed. A key that fails is
tried again, later each time; one that must be written over and over (somebody else disagrees) is
written more and more rarely.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from isthmus.base import clock, errors, logs, tasks

K = TypeVar("K", bound=Hashable)

_LOG = logs.Log("isthmus.reconciling")
WORKERS = 4
FIRST_DELAY_S = 0.05
LONGEST_DELAY_S = 30.0
CALM_S = 10.0
DAMPED_S = max(CALM_S, LONGEST_DELAY_S)
"""For so long a write counts."""
FREE_WRITES = 3
MOST_FAILURES = 64


class Reconciler(Generic[K]):
    """Works on marked keys; `reconcile` returns whether it had to write."""

    def __init__(
        self,
        name: str,
        reconcile: Callable[[K], Awaitable[bool]],
        *,
        system_clock: clock.Clock,
    ) -> None:
        self._name = name
        self._reconcile = reconcile
        self._clock = system_clock
        self._due: dict[K, float] = {}
        self._busy: set[K] = set()
        self._failures: dict[K, int] = {}
        self._writes: dict[K, tuple[int, float]] = {}
        self._wake = asyncio.Event()

    def mark(self, *keys: K) -> None:
        """Say that something about these keys may have changed."""
        now = self._clock.monotonic()
        for key in keys:
            due = now + self._damping_s(key, now)
            self._due[key] = min(self._due.get(key, due), due)
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        async with tasks.Nursery(system_clock=self._clock) as nursery:
            for number in range(WORKERS):
                _ = nursery.keep(f"{self._name} {number}", self._work)
            await asyncio.Event().wait()

    async def _work(self) -> None:
        while True:
            key, wait_s = self._next()
            if key is None:
                await self._sleep(wait_s)
                continue
            del self._due[key]
            self._busy.add(key)
            try:
                if not await tasks.attempted(f"{self._name}: {key}", self._attempt(key)):
                    _ = self._put_off(key, self._clock.monotonic())
            finally:
                self._busy.discard(key)
                self._wake.set()

    def _next(self) -> tuple[K | None, float | None]:
        """Return a key that is due, or how long until one is."""
        now = self._clock.monotonic()
        waiting = [(due, key) for key, due in self._due.items() if key not in self._busy]
        if not waiting:
            return None, None
        due, key = min(waiting, key=lambda item: item[0])
        return (key, None) if due <= now else (None, due - now)

    async def _sleep(self, wait_s: float | None) -> None:
        self._wake.clear()
        try:
            async with asyncio.timeout(wait_s):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _attempt(self, key: K) -> None:
        now = self._clock.monotonic()
        try:
            wrote = await self._reconcile(key)
        except errors.IsthmusError as error:
            delay_s = self._put_off(key, now)
            if self._failures[key] > FREE_WRITES:
                _LOG.warning(
                    "cannot write; will try again",
                    what=self._name,
                    key=str(key),
                    error=error.happened,
                    delay_s=delay_s,
                )
            return
        self._failures.pop(key, None)
        if wrote:
            count, last = self._writes.pop(key, (0, now))
            self._forget_calm(now)
            self._writes[key] = (count + 1 if now - last < CALM_S else 1, now)

    def _forget_calm(self, now: float) -> None:
        """Forget writes that keep nothing back any more; the oldest stand first."""
        while self._writes:
            oldest = next(iter(self._writes))
            if now - self._writes[oldest][1] <= DAMPED_S:
                return
            del self._writes[oldest]

    def _put_off(self, key: K, now: float) -> float:
        """Let a key that has failed be tried again, later each time; return how much later."""
        failures = self._failures[key] = min(self._failures.get(key, 0) + 1, MOST_FAILURES)
        delay_s = float(min(FIRST_DELAY_S * 2.0 ** (failures - 1), LONGEST_DELAY_S))
        self._due[key] = now + delay_s
        return delay_s

    def _damping_s(self, key: K, now: float) -> float:
        count, last = self._writes.get(key, (0, now))
        if count <= FREE_WRITES or now - last > DAMPED_S:
            return 0.0
        return float(min(2.0 ** (count - FREE_WRITES) * FIRST_DELAY_S * 4, LONGEST_DELAY_S))
