"""Whoever owes the server nothing knows within a second what has changed, whatever others do.

Time is pretended: half a minute in which nothing happens takes none.
"""

import asyncio
import random
from dataclasses import replace

import patient_clients
import pytest
from patient_clients import ANSWERING, FOREVER, READING, WIDENING, Habits

from fakes import pretended_time
from isthmus.base import clock
from isthmus.mesh.identities import ClusterId
from isthmus.resources import snapshot
from isthmus.resources.snapshot import ENDPOINTS, Resource, Snapshot
from isthmus.wire import ads, callers
from isthmus.wire.h2 import lines, server

SOON_S = 1.0
"""Within so long whoever owes nothing must know."""

LONG_S = 120.0
"""Whoever went away, or does not read, is forgotten by then."""

LIMITS = ads.Limits(first_message_s=600.0)


class LoopsClock(clock.SystemClock):
    def monotonic(self):
        return asyncio.get_running_loop().time()


class Mesh:
    """Sets of endpoints, each of a size, that change; it judges nobody, and tells everybody of all."""

    def __init__(self, sizes):
        self.authenticator = self
        self.sizes = sizes
        self.changes = {name: [(0.0, 0)] for name in sizes}
        """By name when it has changed, and the number of the change."""
        self._count = 0
        self._wakes = {}
        self._held = {name: Resource(ENDPOINTS, name, "0", b"0") for name in sizes}
        self._edition = snapshot.Edition()

    async def authenticate(self, credentials):
        number = credentials.token
        return callers.Caller(ClusterId("c1"), "default", "p", f"p{number}", f"u{number}")

    def open(self, caller, node):
        del caller, node
        return Watch(self, self._wakes)

    @property
    def followed(self):
        return len(self._wakes)

    def snapshot(self):
        edition = self._edition
        return Snapshot({ENDPOINTS: dict(self._held)}, stamp_of=lambda _: (edition,))

    def change(self, name):
        self._count += 1
        body = b"%d " % self._count + b"x" * self.sizes[name]
        self._held[name] = Resource(ENDPOINTS, name, str(self._count), body)
        self._edition = snapshot.Edition()
        self.changes[name].append((asyncio.get_running_loop().time(), self._count))
        for wake in list(self._wakes.values()):
            wake({ENDPOINTS: frozenset((name,))})

    def due(self, name, *, since, within_s):
        """Return the number of the change that whoever was free since then must know by now."""
        now = asyncio.get_running_loop().time()
        due = [count for at, count in self.changes[name] if now - max(at, since) >= within_s]
        return due[-1] if due else -1


class Watch:
    def __init__(self, mesh, wakes):
        self.snapshot = mesh.snapshot
        self._wakes = wakes

    def on_change(self, wake):
        self._wakes[self] = wake

    def heeds(self, type_url, names):
        """Nothing: every change is told."""

    def status(self, report):
        """Nothing: nobody asks."""

    def close(self):
        self._wakes.pop(self, None)


class World:
    """A mesh, its server, and clients with some habits."""

    def __init__(self, sizes, habits):
        self.mesh = Mesh(sizes)
        self.service = ads.Service(self.mesh, limits=LIMITS, system_clock=LoopsClock())
        self.server = server.Server((self.service.handler(),))
        self.clients = [
            patient_clients.Client(number, each, self.server.take, names=tuple(sizes))
            for number, each in enumerate(habits)
        ]

    async def live(self, steps, *, until_s):
        """Change sets at some moments, and look time and again whether all know what they must."""
        loop = asyncio.get_running_loop()
        looks = [number / 2 for number in range(1, int(2 * until_s) + 1)]
        for at_s, name in sorted([*steps, *((at_s, "") for at_s in looks)]):
            await asyncio.sleep(max(0.0, at_s - loop.time()))
            if name:
                self.mesh.change(name)
            else:
                self.look()
        for client in self.clients:
            client.close()
        await asyncio.sleep(LONG_S)
        assert (self.service.statuses(), self.mesh.followed, self.server.connections) == ((), 0, 0)
        await self.server.stop(None)

    def look(self):
        """Say who does not know what it must, and what it has done."""
        now = asyncio.get_running_loop().time()
        for client in self.clients:
            # Of who never answers it is known after some time that it does not.
            for debts, more_s in (
                ((READING, WIDENING, ANSWERING), 0.0),
                ((READING, WIDENING), LIMITS.answer_s),
            ):
                since = max(client.debts.free_since(*debts), client.came_at)
                for name in self.mesh.sizes:
                    due = self.mesh.due(name, since=since, within_s=SOON_S + more_s)
                    known = client.known.get(name, (-1, ""))[0]
                    assert known >= due, (now, client.number, name, client.habits)


def lived(sizes, habits, steps, *, until_s=60.0, look_s=pretended_time.LOOK_S):
    """Return the clients of a world in which something has happened."""

    async def live():
        world = World(sizes, habits)
        await world.live(steps, until_s=until_s)
        return world.clients

    with pretended_time.pretending(look_s=look_s) as run:
        return run(live())


QUICK = [Habits()] * 20
LARGE = {"a": lines.HIGH_BYTES * 3 // 2, "b": 20}
OFTEN = [(0.5 + number / 20, "ab"[number % 4 > 0]) for number in range(40)]


@pytest.mark.parametrize(
    "habits",
    [
        Habits(answers_s=2.0),
        Habits(answers_s=FOREVER),
        Habits(answers_one_in=3),
        Habits(window=5_000),
        Habits(of_all=1 << 16, widens_s=0.05),
        Habits(deaf=(1.0, 30.0)),
        Habits(shrinks_at_s=1.0),
        Habits(leaves_at_s=1.5),
        Habits(room_bytes=1 << 13, chunk_bytes=1 << 10),
    ],
    ids=str,
)
def test_who_is_slow_in_one_way_is_kept_and_told_and_nobody_else_waits(habits):
    *_, slow = lived(LARGE, [*QUICK, habits], OFTEN)

    assert slow.sent_away == []


def test_who_reads_nothing_for_too_long_is_sent_away_and_told_when_it_comes_again():
    *quick, deaf = lived(LARGE, [*QUICK, Habits(deaf=(1.0, 50.0))], OFTEN)

    assert len(deaf.sent_away) == 1
    assert {client.known["a"] for client in (*quick, deaf)} == {deaf.known["a"]}


def test_who_is_sent_away_and_reads_nothing_keeps_no_connection():
    async def live():
        world = World(LARGE, [Habits(), Habits(deaf=(1.0, 2 * LONG_S))])
        for at_s, name in OFTEN:
            await asyncio.sleep(at_s - asyncio.get_running_loop().time())
            world.mesh.change(name)
        await asyncio.sleep(LONG_S)
        left = world.server.connections
        for client in world.clients:
            client.close()
        await world.server.stop(None)
        return left

    with pretended_time.pretending() as run:
        assert run(live()) == 1


def some_habits(chance):
    """Return the habits of a client that is slow in some ways, or in none."""
    some = (
        {"answers_s": chance.choice((0.001, 0.05, 0.5, 3.0, 6.0, 20.0, FOREVER))},
        {"answers_one_in": chance.choice((2, 3, 5))},
        {"window": chance.choice((1_000, 5_000, 65_535, 1 << 17))},
        {"of_all": chance.choice((1 << 16, 1 << 18))},
        {"widens_s": chance.choice((0.001, 0.1, 2.0))},
        {"deaf": (chance.uniform(0, 2), chance.uniform(2, 45))},
        {"shrinks_at_s": chance.uniform(0, 4)},
        {"leaves_at_s": chance.uniform(0, 4)},
        {"room_bytes": chance.choice((1 << 13, 1 << 14, 1 << 18)), "chunk_bytes": 1 << 10},
    )
    habits = Habits()
    for each in chance.sample(some, chance.choice((0, 1, 1, 2, 3))):
        habits = replace(habits, **each)
    return habits


@pytest.mark.parametrize("seed", range(8))
def test_whatever_clients_do_those_who_owe_nothing_are_told_soon(seed):
    chance = random.Random(seed)
    names = "abcdef"[: chance.choice((1, 3, 6))]
    sizes = {name: chance.choice((20, 3_000, 20_000, 70_000)) for name in names}
    odd = chance.choice((0.1, 0.3, 0.7))
    habits = [some_habits(chance) if chance.random() < odd else Habits() for _ in range(24)]
    rate, at_s, steps = chance.choice((2, 20, 100, 300)), 0.2, list[tuple[float, str]]()
    while at_s < 4.0 and len(steps) < 60:
        steps.append((at_s, chance.choice(names)))
        at_s += chance.expovariate(rate)

    # Whoever computes for longer between two looks at the clock has longer pushes.
    lived(sizes, habits, steps, look_s=chance.choice((2e-6, 2e-5)))
