"""Deadlines of many streams, by the step of time that each falls into: one timer for all of them.

Never early, and late by one step at most; what is due in a long time by a longer step, so that many
of those that came one by one are due together.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Final, NewType

STEP_S: Final = 0.05
FAR_S: Final = 600.0
FAR_STEPS: Final = 200
"""What is due after so long is so many steps late at most."""

Token = NewType("Token", tuple[int, Callable[[], None]])
"""By which a deadline is taken back."""


class Wheel:
    """Calls what is due."""

    def __init__(self) -> None:
        self._due: dict[int, dict[Callable[[], None], None]] = {}
        self._timer: tuple[int, asyncio.TimerHandle] | None = None

    def __len__(self) -> int:
        return sum(map(len, self._due.values()))

    def after(self, delay_s: float, act: Callable[[], None]) -> Token:
        """Call `act`, which must not raise, once after `delay_s`."""
        step = math.ceil((asyncio.get_running_loop().time() + delay_s) / STEP_S)
        if delay_s >= FAR_S:
            step += -step % FAR_STEPS
        self._due.setdefault(step, {})[act] = None
        if self._timer is None or step < self._timer[0]:
            self._arm(step)
        return Token((step, act))

    def drop(self, token: Token) -> None:
        """Take a deadline back; one that is over is none any more."""
        step, act = token
        due = self._due.get(step)
        if due is not None:
            due.pop(act, None)
            if not due:
                # Its timer finds nothing, which does no harm.
                del self._due[step]

    def _arm(self, step: int) -> None:
        if self._timer is not None:
            self._timer[1].cancel()
        self._timer = (step, asyncio.get_running_loop().call_at(step * STEP_S, self._turn))

    def _turn(self) -> None:
        assert self._timer is not None  # it has called
        now, self._timer = self._timer[0], None
        for step in sorted(each for each in self._due if each <= now):
            for act in self._due.pop(step, {}):
                act()
        if self._due:
            self._arm(min(self._due))
