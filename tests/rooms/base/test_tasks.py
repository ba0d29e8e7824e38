"""Tasks end when they are asked to, whatever they are at."""

import asyncio

import pytest

from isthmus.base import tasks


async def test_who_is_cancelled_while_a_nursery_closes_ends():
    closing, may_end = asyncio.Event(), asyncio.Event()

    async def slow():
        try:
            await asyncio.Event().wait()
        finally:
            closing.set()
            await may_end.wait()

    async def work():
        async with tasks.Nursery() as nursery:
            _ = nursery.start("slow", slow())
            await asyncio.sleep(0)
        raise AssertionError("it was cancelled, and goes on")

    async with asyncio.TaskGroup() as group:
        task = group.create_task(work())
        await closing.wait()
        task.cancel()
        may_end.set()
    with pytest.raises(asyncio.CancelledError):
        task.result()
