"""Which sets of endpoints change so often that each endpoint is told by itself (LEDS).

Told whole, a set costs a fraction of what its endpoints take one by one, each with its name; told
one by one, a change costs the same however large the set is. So sets are told whole, to whoever
comes or comes back as well, until they have changed so often that turning has paid; then they are
told in parts, and whole again once nothing has happened to them for a while. The turn from one form
to the other is never urgent: the proxies of one place take it for some sets together, since most of
what it costs is its messages, then rest, and then those of the next place.

Which Envoys can be told in parts is decided elsewhere: sets are counted where one of them looks.

Source: docs/decisions/0048.
"""

import asyncio
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from isthmus.base import clock
from isthmus.engine import changes
from isthmus.resources import snapshot
from isthmus.runtime import assembly
from isthmus.views import view

USUAL_AFTER: Final = 4
"""After so many changes the largest sets turn: they were told as much by then as the turn takes."""

MESSAGES_BYTES: Final = 200_000
"""So many bytes cost as much as the messages of a turn: a smaller set must change more often."""

LEAST_BYTES: Final = 5_000
"""A smaller set is always told whole: there is nothing to gain, a message costs ten times as much."""

QUIET_S: Final = 600.0
"""For so long a change counts, about; after so long without one a set is told whole again."""

TOGETHER_S: Final = 1.0
"""Changes within so long count once: where many come, they are told together. So no rollout turns."""

SWEEP_S: Final = 30.0

TURN: Final = 3
"""What a set takes in parts, against what it takes whole."""

TOGETHER_BYTES: Final = 100_000
"""So much, told whole, turns together: a proxy is told three times as much at once."""

MESSAGES_S: Final = 200e-6
"""What the messages of a turn cost for a proxy, those that it says included."""

BYTE_S: Final = 1.5e-9
"""What a byte costs in addition."""

REST: Final = 2.0
"""How many times what a turn costs there is a rest after it: it takes a third of a core."""


@dataclass(slots=True)
class _Set:
    """What is known of a set: how large it is, how often it has changed of late, and when last."""

    size: int
    changes: float = 0.0
    counted: float = -math.inf
    last: float = 0.0

    def note(self, now: float) -> None:
        """Count a change; those before fade."""
        self.last = now
        if now - self.counted >= TOGETHER_S:
            self.changes = self.changes * math.exp((self.counted - now) / QUIET_S) + 1
            self.counted = now


class Restlessness:
    """Turns sets of endpoints from one form to the other."""

    def __init__(
        self,
        mesh: assembly.Mesh,
        *,
        readers: Callable[[view.Scope], int],
        after: int = USUAL_AFTER,
        system_clock: clock.Clock | None = None,
    ) -> None:
        self._mesh = mesh
        self._readers = readers
        self._after = after
        self._clock = system_clock or clock.SystemClock()
        self._sets: dict[view.SliceKey, _Set] = {}
        self._due: dict[view.Scope, dict[view.SliceKey, None]] = {}
        self._woken = asyncio.Event()
        mesh.graph.listen(self._published)

    async def run(self) -> None:
        """Turn sets until cancelled."""
        while True:
            rest_s = self.step()
            if rest_s is not None:
                await self._clock.sleep(rest_s)
                continue
            self._woken.clear()
            try:
                async with asyncio.timeout(SWEEP_S):
                    await self._woken.wait()
            except TimeoutError:
                continue

    def step(self) -> float | None:
        """Turn some sets of a place; return how long to rest, or None when there was nothing to do."""
        if self._due:
            scope = next(iter(self._due))
            waiting = self._due.pop(scope)
            keys = list(self._together(waiting))
            for key in keys:
                del waiting[key]
            if waiting:
                self._due[scope] = waiting  # After all other places.
            return self._turned(keys, is_in_parts=True)
        now, told = self._clock.monotonic(), self._mesh.graph.items(self._mesh.restless)
        quiet = [key for key, one in self._sets.items() if now - one.last >= QUIET_S]
        for key in quiet:
            if key in told:
                return self._turned([key], is_in_parts=False)
            del self._sets[key]
        return None

    def _together(self, waiting: dict[view.SliceKey, None]) -> Iterator[view.SliceKey]:
        left = TOGETHER_BYTES
        for key in waiting:
            if left < TOGETHER_BYTES and self._sets[key].size > left:
                return
            left -= self._sets[key].size
            yield key

    def _turned(self, keys: list[view.SliceKey], *, is_in_parts: bool) -> float:
        size = sum(self._sets[key].size for key in keys)
        with self._mesh.graph.transaction() as transaction:
            for key in keys:
                if is_in_parts:
                    transaction.put(self._mesh.restless, key, self._sets[key].size)
                else:
                    transaction.delete(self._mesh.restless, key)
        if not is_in_parts:
            # What came of this was no change of the set's own.
            for key in keys:
                del self._sets[key]
                self._forget_due(key)
        cost_s = MESSAGES_S + size * (TURN if is_in_parts else 1) * BYTE_S
        return self._readers(keys[0].scope) * cost_s * REST

    def _forget_due(self, key: view.SliceKey) -> None:
        waiting = self._due.get(key.scope, {})
        waiting.pop(key, None)
        if not waiting:
            self._due.pop(key.scope, None)

    def _published(self, batch: changes.Changes) -> None:
        changed = {
            key: change.new
            for key, change in batch.of(self._mesh.resources).items()
            if isinstance(key.scope, view.HorizonScope)
            and key.scope.is_apart
            and change.old is not None
            and change.new is not None
        }
        if changed:
            now, told = self._clock.monotonic(), self._mesh.graph.items(self._mesh.restless)
            for key, resource in changed.items():
                self._note(key, resource, now=now, is_told=key in told)

    def _note(
        self, key: view.SliceKey, resource: snapshot.Resource, *, now: float, is_told: bool
    ) -> None:
        known = self._sets.setdefault(key, _Set(len(resource.body)))
        known.note(now)
        if is_told:
            return
        known.size = len(resource.body)
        if known.size >= LEAST_BYTES and known.changes >= enough(known.size, after=self._after):
            self._due.setdefault(key.scope, {})[key] = None
            self._woken.set()


def enough(size: int, *, after: int = USUAL_AFTER) -> int:
    """Return after how many changes of late a set of so many bytes turns.

    Told whole so often, it has cost about as much as the turn will.
    """
    return after + MESSAGES_BYTES // size
