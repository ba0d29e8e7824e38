"""How much of everything a drill does, and how it goes on at once.

A drill has two acts. In the first no control plane is killed, so that what rotations cost in
memory can be seen; in the second they are killed at random moments, mostly while the API server of
another cluster fails.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Final

from drill import faults as doing
from drill import mesh as meshes
from drill import records

MODES: Final = ("refuse", "hang")


@dataclass(frozen=True, slots=True)
class Plan:
    """How much.

    Attributes:
        rotations: Of a cluster's credential, in both clusters that watch it.
        blackout_s: How long an API server fails.
        warm_up: The share of rotations after which memory is read first.
    """

    name: str
    rate: float
    rotations: int
    removals: int
    blackouts: int
    blackout_s: float
    kills: int
    warm_up: float = 0.25


LONG: Final = Plan("long", 50, 300, 50, 20, 30.0, 20)
"""300 rotations give each of three control planes 200 new credentials."""

SHORT: Final = Plan("short", 50, 12, 4, 2, 4.0, 3)


def _lanes(kills: int) -> tuple[int, int]:
    """Share kills between two who kill: one that waits for the next control plane is not enough."""
    return kills // 2, kills - kills // 2


class Acts:
    """Plays a plan."""

    def __init__(
        self, plan: Plan, *, mesh: meshes.Mesh, record: records.Record, faults: doing.Faults
    ) -> None:
        self._plan = plan
        self._mesh = mesh
        self._record = record
        self._faults = faults

    async def play(self) -> None:
        """Do everything; return when all is well again, or never will be."""
        plan = self._plan
        first = plan.blackouts // 2
        seconds = first * plan.blackout_s
        async with asyncio.TaskGroup() as group:
            for each in (
                self._rotations(plan.rotations, seconds),
                self._removals(plan.removals * 4 // 5, seconds, part="first"),
                self._blackouts(first, part="first"),
            ):
                group.create_task(each)
        await self._end_memory_phase()
        rest = plan.blackouts - first
        seconds = rest * plan.blackout_s
        async with asyncio.TaskGroup() as group:
            for each in (
                *(
                    self._kills(n, seconds, part=f"{lane}")
                    for lane, n in enumerate(_lanes(plan.kills))
                ),
                self._removals(plan.removals - plan.removals * 4 // 5, seconds, part="second"),
                self._blackouts(rest, part="second"),
                self._more_rotations(plan.kills, seconds),
            ):
                group.create_task(each)

    async def _rotations(self, count: int, seconds: float) -> None:
        """Rotate evenly, so that every control plane has as much to do, in a random order."""
        dice = self._faults.dice(records.ROTATION)
        names = [self._mesh.clusters[n % len(self._mesh.clusters)] for n in range(count)]
        dice.shuffle(names)
        warm = int(count * self._plan.warm_up)
        began = time.monotonic()
        for number, cluster in enumerate(names):
            if number == warm:
                self._record.memory_phase = (time.time(), 0.0)
            await self._faults.rotate(cluster)
            due = began + seconds * (number + dice.random()) / count
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _more_rotations(self, count: int, seconds: float) -> None:
        dice = self._faults.dice(records.ROTATION, part="second")
        for _ in range(count):
            await asyncio.sleep(seconds / count * dice.random())
            await self._faults.rotate(dice.choice(self._mesh.clusters))

    async def _removals(self, count: int, seconds: float, *, part: str) -> None:
        dice = self._faults.dice(records.REMOVAL, part=part)
        began = time.monotonic()
        for number in range(count):
            await self._faults.remove(dice, killing=part == "second")
            due = began + seconds * (number + dice.random()) / count
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _blackouts(self, count: int, *, part: str) -> None:
        dice = self._faults.dice(records.BLACKOUT, part=part)
        for _ in range(count):
            await asyncio.sleep(dice.random())
            await self._faults.black_out(
                dice.choice(self._mesh.clusters),
                seconds=self._plan.blackout_s,
                mode=dice.choice(MODES),
            )

    async def _kills(self, count: int, seconds: float, *, part: str) -> None:
        dice = self._faults.dice(records.KILL, part=part)
        for _ in range(count):
            await asyncio.sleep(seconds / count * dice.random())
            await self._faults.kill(dice)

    async def _end_memory_phase(self) -> None:
        """Let the last watches settle, then read what is held and what was taken up."""
        await asyncio.sleep(min(10.0, self._plan.blackout_s))
        self._record.memory_phase = (self._record.memory_phase[0], time.time())
        for cluster in self._mesh.clusters:
            text = await self._mesh.asked(cluster, "/metrics")
            for line in text.splitlines():
                if line.startswith('remote_cluster_secret_events_total{event="update"}'):
                    self._record.updates[cluster] = int(float(line.split()[-1]))
