"""Whose turn it is, and when."""

import asyncio

import pytest

from isthmus.base import clock, metrics
from isthmus.testing import pace
from isthmus.wire import counting, turns, wheel


class Log(list):
    def __init__(self):
        self.grown = asyncio.Event()

    def append(self, entry):
        super().append(entry)
        self.grown.set()


class Stream:
    def __init__(self, log):
        self.log = log

    def tell(self, turn):
        del turn
        self.log.append((self, asyncio.get_running_loop().time()))


@pytest.fixture
def turn():
    return turns.Turns(counting.Counters(metrics.Metrics()), system_clock=clock.SystemClock())


async def until(log, *, count):
    async with asyncio.timeout(pace.patience(10)):
        while len(log) < count:
            log.grown.clear()
            await log.grown.wait()


def told(log):
    return [stream for stream, _ in log]


async def test_the_first_change_goes_out_at_once_and_the_next_ones_together(turn):
    log = Log()
    stream, last = Stream(log), Stream(log)
    turn.change(stream)
    await asyncio.sleep(0)
    assert told(log) == [stream]
    for _ in range(3):
        turn.change(stream)
        await asyncio.sleep(0)
    turn.change(last)
    await until(log, count=3)

    assert told(log) == [stream, stream, last]
    assert log[1][1] - log[0][1] >= turns.SHORTEST_S * 0.9


@pytest.mark.parametrize(
    ("took_s", "window_s"), [(0.0, turns.SHORTEST_S), (0.05, 0.1), (0.1, 0.2), (1.0, 1.1)]
)
def test_a_push_rests_as_long_as_it_took_and_a_long_one_only_briefly(took_s, window_s):
    assert turns.window_s(took_s) == pytest.approx(window_s)


async def test_an_answer_does_not_wait_for_the_window_of_changes(turn):
    log = Log()
    changed, asked = Stream(log), Stream(log)
    turn.change(changed)
    await asyncio.sleep(0)
    turn.change(changed)
    turn.answer(asked)
    await asyncio.sleep(0)

    assert told(log) == [changed, asked]


async def test_streams_have_their_turn_in_the_order_in_which_they_came(turn):
    log = Log()
    several = [Stream(log) for _ in range(100)]
    for stream in (*several, several[0]):
        turn.change(stream)
    await until(log, count=100)

    assert told(log) == several


async def test_a_stream_that_leaves_is_told_nothing(turn):
    log = Log()
    gone, stays = Stream(log), Stream(log)
    turn.change(gone)
    turn.answer(gone)
    turn.leave(gone)
    turn.change(stays)
    await until(log, count=1)

    assert told(log) == [stays]


async def test_deadlines_come_when_they_are_due_and_not_when_they_were_taken_back():
    loop, log, wheels = asyncio.get_running_loop(), Log(), wheel.Wheel()
    began = loop.time()

    def note(name):
        return lambda: log.append((name, loop.time() - began))

    wheels.after(0.12, note("late"))
    dropped = wheels.after(0.06, note("dropped"))
    wheels.after(0.01, note("early"))
    wheels.drop(dropped)
    wheels.drop(dropped)
    await until(log, count=2)

    assert told(log) == ["early", "late"]
    assert log[0][1] >= 0.01
    assert log[1][1] >= 0.12
    assert len(wheels) == 0
