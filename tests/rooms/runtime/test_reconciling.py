"""What is brought to a wanted state, whatever goes wrong meanwhile."""

import gc
import weakref

import pytest

from fakes import kube_server
from isthmus.base import clock, errors, tasks
from isthmus.runtime import reconciling


@pytest.mark.parametrize("fault", [errors.IsthmusError("no"), ValueError("a fault of ours")])
async def test_a_key_that_fails_is_tried_again_and_keeps_no_other_waiting(fault):
    tried = []

    async def reconcile(key):
        tried.append(key)
        if key.startswith("bad") and tried.count(key) < 4:
            raise fault
        return False

    queue = reconciling.Reconciler("keys", reconcile, system_clock=clock.SystemClock())
    async with tasks.Nursery() as nursery:
        _ = nursery.keep("bring about", queue.run)
        queue.mark(*(f"bad{number}" for number in range(reconciling.WORKERS)))
        await kube_server.eventually(lambda: len(tried) >= reconciling.WORKERS)
        queue.mark("good")
        await kube_server.eventually(lambda: tried.count("bad0") == 4)

    assert "good" in tried
    assert tried.count("bad1") == 4


class Racing(clock.SystemClock):
    """A clock by which whatever is due some time is due."""

    def __init__(self):
        self._now = 0.0

    def monotonic(self):
        self._now += 2 * reconciling.LONGEST_DELAY_S
        return self._now


async def test_a_key_that_fails_for_hours_is_tried_again_all_the_same():
    tried, enough = [], 1100

    async def reconcile(key):
        tried.append(key)
        if len(tried) < enough:
            raise errors.IsthmusError("no")
        return False

    queue = reconciling.Reconciler("keys", reconcile, system_clock=Racing())
    async with tasks.Nursery() as nursery:
        _ = nursery.keep("bring about", queue.run)
        queue.mark("bad")
        await kube_server.eventually(lambda: len(tried) == enough)


class Key:
    """A name that is known as long as somebody keeps it."""


async def test_nothing_is_kept_of_what_was_written_long_ago():
    alive, written = weakref.WeakSet(), []

    async def reconcile(key):
        del key
        written.append(1)
        return True

    queue = reconciling.Reconciler("keys", reconcile, system_clock=Racing())
    async with tasks.Nursery() as nursery:
        _ = nursery.keep("bring about", queue.run)
        for _number in range(100):
            key = Key()
            alive.add(key)
            queue.mark(key)
        await kube_server.eventually(lambda: len(written) == 100)
        gc.collect()
        # The last one, and those that the workers have in hand.
        assert len(alive) <= 2 + reconciling.WORKERS
