"""Who comes before the mesh is known waits, is let in in order, and is not kept for ever."""

import asyncio

import pytest

from isthmus.base import tasks
from isthmus.testing import pace
from isthmus.wire import patience


class Waiting:
    """Streams that wait, and the order in which they go on."""

    def __init__(self, nursery):
        self.is_ready = False
        self.nursery = nursery
        self.begin()
        self.done = []
        self.tasks = []

    def begin(self, *, each=2, seconds=30.0):
        self.patience = patience.Patience(each=each, seconds=seconds)
        self.patience.is_ready = lambda: self.is_ready

    async def come(self, *pods):
        for number, pod in enumerate(pods, start=len(self.tasks)):
            self.tasks.append(self.nursery.start(f"stream {number}", self._wait(pod, number)))
        await asyncio.sleep(0)

    async def _wait(self, pod, number):
        await self.patience.wait(pod)
        self.done.append(number)

    async def all_in(self):
        await asyncio.wait(self.tasks, timeout=pace.patience(10))


@pytest.fixture
async def waiting():
    async with tasks.Nursery() as nursery:
        yield Waiting(nursery)


async def test_who_comes_in_time_does_not_wait(waiting):
    waiting.is_ready = True
    await waiting.come("a")

    assert waiting.done == [0]


async def test_those_who_wait_are_let_in_in_order(waiting):
    await waiting.come(*range(50))
    assert waiting.done == []
    waiting.is_ready = True
    await waiting.come("late")
    await waiting.all_in()

    assert waiting.done == list(range(51))


async def test_nobody_waits_for_ever(waiting):
    waiting.begin(seconds=0.01)
    await waiting.come("a")
    await waiting.all_in()

    assert waiting.done == [0]


async def test_of_one_pod_only_so_many_streams_wait(waiting):
    await waiting.come("a", "a", "a", "b")

    assert waiting.done == [2]


async def test_who_goes_away_leaves_its_place_to_others(waiting):
    waiting.begin(each=1)
    await waiting.come("a")
    waiting.tasks[0].cancel()
    await asyncio.wait(waiting.tasks)
    await waiting.come("a")
    assert waiting.done == []
    waiting.is_ready = True
    await waiting.all_in()

    assert waiting.done == [1]
