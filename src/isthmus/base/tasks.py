"""Tasks that have a name and an owner, and that are restarted when they should run for ever.

This is the only place that starts tasks and the only place with a broad `except`: a task that
fails is reported with its name and, where asked, started again after a growing, bounded delay.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Self, TypeVarTuple

from isthmus.base import clock, logs

_LOG = logs.Log("isthmus.tasks")

Given = TypeVarTuple("Given")


class Nursery:
    """Owns tasks: when it closes, every one of them is cancelled and awaited.

    Unlike a task group, one failing task does not end its siblings: the failure is logged, and
    a task started by `keep` runs again.
    """

    def __init__(self, *, system_clock: clock.Clock | None = None) -> None:
        self._clock = system_clock or clock.SystemClock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def start(self, name: str, work: Coroutine[object, object, None]) -> "asyncio.Task[None]":
        """Run `work` once; a failure is logged under `name`."""
        task = asyncio.get_running_loop().create_task(_reported(name, work), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # A task that is cancelled before its first step never touches `work`.
        task.add_done_callback(lambda _: work.close())
        return task

    def keep(
        self,
        name: str,
        work: Callable[[], Awaitable[None]],
        *,
        first_delay_s: float = 0.2,
        longest_delay_s: float = 30.0,
    ) -> "asyncio.Task[None]":
        """Run `work` again whenever it fails or returns, waiting longer each time it fails."""
        return self.start(name, self._kept(name, work, first_delay_s, longest_delay_s))

    async def _kept(
        self,
        name: str,
        work: Callable[[], Awaitable[None]],
        first_delay_s: float,
        longest_delay_s: float,
    ) -> None:
        delay_s = first_delay_s
        while True:
            began = self._clock.monotonic()
            try:
                await work()
            except Exception as error:
                _LOG.warning(
                    "task failed; will start again",
                    task=name,
                    error=_shown(error),
                    delay_s=round(delay_s, 2),
                )
            if self._clock.monotonic() - began > longest_delay_s:
                delay_s = first_delay_s
            await self._clock.sleep(delay_s)
            delay_s = min(delay_s * 2, longest_delay_s)

    async def close(self) -> None:
        """Cancel every task and wait until all have ended."""
        own = asyncio.current_task()
        before = own.cancelling() if own is not None else 0
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        for task in tasks:
            try:
                await task
            except asyncio.CancelledError:
                continue
        if own is not None and own.cancelling() > before:
            # Whoever closes was cancelled meanwhile, too: it must not go on as if it were not.
            raise asyncio.CancelledError


def attempt(name: object, act: Callable[[*Given], None], *given: *Given) -> bool:
    """Call `act`, which belongs to a task of its own but in name; return whether it did not fail.

    For what is called by the event loop many thousand times a second: a failure is logged, and
    ends nothing else. Nobody asks what the name reads like before.
    """
    try:
        act(*given)
    except Exception as error:
        _LOG.error("task failed", task=str(name), error=_shown(error))
        return False
    return True


async def attempted(name: str, work: Awaitable[None]) -> bool:
    """Await `work`, which others must not end with; return whether it did not fail."""
    try:
        await work
    except Exception as error:
        _LOG.error("task failed", task=name, error=_shown(error))
        return False
    return True


async def _reported(name: str, work: Coroutine[object, object, None]) -> None:
    _ = await attempted(name, work)


def _shown(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
