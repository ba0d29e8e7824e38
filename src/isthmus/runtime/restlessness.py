"""Which sets of endpoints change so often that each endpoint is told by itself (LEDS).

Told whole, a set costs a fraction of what its endpoints take one by one, each with its name; told
one by one, a change costs the same however large the set is. So sets are told whole, to whoever
comes or comes back as well, until they have changed several times; then they are told in parts,
and whole again once nothing has happened to them for a while. The turn from one form to the other
is never urgent: one set after the other takes it, with rests as long as it may take to tell.

Which Envoys can be told in parts is decided elsewhere: sets are counted where one of them looks.

Source: docs/decisions/0048.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from isthmus.base import clock
from isthmus.engine import changes
from isthmus.resources import snapshot
from isthmus.runtime import assembly
from isthmus.views import view

USUAL_AFTER: Final = 4
"""So many changes, told whole, cost about what it costs to turn to parts."""

LEAST_BYTES: Final = 5_000
"""A smaller set is told whole sooner than in parts: at 3,000 bytes its parts took 1.4 times as long."""

QUIET_S: Final = 600.0
SWEEP_S: Final = 30.0

TURN: Final = 4
"""What a set takes in parts, against what it takes whole."""

BYTES_PER_S: Final = 64e6
"""So fast sets may turn; a core can tell some times as much."""


@dataclass(slots=True)
class _Set:
    """What is known of a set: how large it is, how often it has changed, and when last."""

    size: int
    changes: int = 0
    last: float = 0.0


class Restlessness:
    """Turns sets of endpoints from one form to the other."""

    def __init__(
        self,
        mesh: assembly.Mesh,
        *,
        readers: Callable[[], int],
        after: int = USUAL_AFTER,
        system_clock: clock.Clock | None = None,
    ) -> None:
        self._mesh = mesh
        self._readers = readers
        self._after = after
        self._clock = system_clock or clock.SystemClock()
        self._sets: dict[str, _Set] = {}
        self._due: dict[str, None] = {}
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
        """Turn one set; return how long to rest after it, or None when there was nothing to do."""
        if self._due:
            name = next(iter(self._due))
            del self._due[name]
            return self._turned(name, is_in_parts=True)
        now, told = self._clock.monotonic(), self._mesh.graph.items(self._mesh.restless)
        quiet = [name for name, one in self._sets.items() if now - one.last >= QUIET_S]
        for name in quiet:
            if name in told:
                return self._turned(name, is_in_parts=False)
            del self._sets[name]
        return None

    def _turned(self, name: str, *, is_in_parts: bool) -> float:
        size = self._sets[name].size
        with self._mesh.graph.transaction() as transaction:
            if is_in_parts:
                transaction.put(self._mesh.restless, name, size)
            else:
                transaction.delete(self._mesh.restless, name)
        if not is_in_parts:
            # What came of this was no change of the set's own.
            del self._sets[name]
            self._due.pop(name, None)
        return size * (TURN if is_in_parts else 1) * self._readers() / BYTES_PER_S

    def _published(self, batch: changes.Changes) -> None:
        changed = {
            key.name: change.new
            for key, change in batch.of(self._mesh.resources).items()
            if isinstance(key.scope, view.HorizonScope)
            and key.scope.is_apart
            and change.old is not None
            and change.new is not None
        }
        if changed:
            now, told = self._clock.monotonic(), self._mesh.graph.items(self._mesh.restless)
            for name, resource in changed.items():
                self._note(name, resource, now=now, is_told=name in told)

    def _note(self, name: str, resource: snapshot.Resource, *, now: float, is_told: bool) -> None:
        known = self._sets.setdefault(name, _Set(len(resource.body)))
        known.changes += 1
        known.last = now
        if is_told:
            return
        known.size = len(resource.body)
        if known.changes >= self._after and known.size >= LEAST_BYTES:
            self._due[name] = None
            self._woken.set()
