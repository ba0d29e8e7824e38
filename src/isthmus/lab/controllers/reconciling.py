"""The loop that every controller is: take a key, look at everything, make it right.

It decides order, repetition and delay. It refuses to know what is made right.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from isthmus.base import logs, tasks
from isthmus.lab.apiserver.errors import ApiError

K = TypeVar("K", bound=Hashable)

_LOG = logs.Log("isthmus.lab.controllers")
_FIRST_DELAY_S = 0.01
_LONGEST_DELAY_S = 10.0
_MOST_FAILURES = 64


class Reconciler(Generic[K]):
    """Makes one key right at a time; a key that is touched meanwhile comes round again."""

    def __init__(self, name: str, reconcile: Callable[[K], Awaitable[None]]) -> None:
        self._name = name
        self._reconcile = reconcile
        self._pending: dict[K, None] = {}
        self._wake = asyncio.Event()
        self._failures: dict[K, int] = {}

    def touch(self, key: K) -> None:
        """Look at `key` soon."""
        self._pending[key] = None
        self._wake.set()

    def touch_later(self, key: K, *, delay_s: float) -> None:
        """Look at `key` after `delay_s` seconds."""
        asyncio.get_running_loop().call_later(delay_s, self.touch, key)

    def start(self, nursery: tasks.Nursery) -> None:
        """Run in `nursery`, for ever."""
        _ = nursery.keep(self._name, self.run)

    async def run(self) -> None:
        """Make keys right, for ever."""
        while True:
            while not self._pending:
                self._wake.clear()
                await self._wake.wait()
            key = next(iter(self._pending))
            del self._pending[key]
            await self._once(key)

    async def _once(self, key: K) -> None:
        try:
            await self._reconcile(key)
        except ApiError as error:
            self._retry(key, error)
        except BaseException:
            # The task that owns this loop reports the failure; the key must not be lost by it.
            self._pending[key] = None
            raise
        else:
            self._failures.pop(key, None)

    def _retry(self, key: K, error: ApiError) -> None:
        count = self._failures[key] = min(self._failures.get(key, 0) + 1, _MOST_FAILURES)
        delay_s = min(_FIRST_DELAY_S * 2 ** (count - 1), _LONGEST_DELAY_S)
        # A conflict only says that somebody else was faster; it is not worth a line.
        write = _LOG.debug if error.code in {404, 409} else _LOG.warning
        write("will try again", controller=self._name, key=str(key), error=error.message)
        self.touch_later(key, delay_s=delay_s)
