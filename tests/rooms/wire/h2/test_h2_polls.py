"""Sockets that can be read take turns, and others have the event loop in between."""

import asyncio
import contextlib
import itertools
import socket

import pytest

from fakes import kube_server
from isthmus.testing import pace
from isthmus.wire.h2 import polls


class Socket:
    """Reads by a function, and takes in what that returns."""

    def __init__(self, read, *, take=None, write=None, close=None):
        self.read = read
        self.take = take
        self.write = write
        self.close = close


@pytest.mark.parametrize("told", [0, 1000])
async def test_who_is_slow_to_read_keeps_neither_other_sockets_nor_the_event_loop(told):
    called, turns = [], []
    polled = polls.Polls(slice_s=0.0, gather_s=0.0)
    polled.told = told
    with contextlib.ExitStack() as stack:
        for name in "abc":
            near, far = (stack.enter_context(one) for one in socket.socketpair())
            far.send(b"x")
            # Nobody reads: each can be read for ever.
            polled.add(near.fileno(), Socket(lambda _, name=name: called.append(name)))
            stack.callback(polled.remove, near.fileno())
        while len(called) < 6:
            await asyncio.sleep(0)
            turns.append(len(called))

    assert sorted(called[:3]) == sorted(called[3:6]) == ["a", "b", "c"]
    assert all(later - sooner <= 1 for sooner, later in itertools.pairwise(turns))


FOREVER_S = 1000.0


@contextlib.contextmanager
def watched(polled, *, count):
    """Watch some sockets; yield their other ends, and the numbers of those that were read."""
    heard = []
    with contextlib.ExitStack() as stack:
        far_ends = []
        for number in range(count):
            near, far = (stack.enter_context(one) for one in socket.socketpair())
            far_ends.append(far)

            def read(_, near=near, number=number):
                assert near.recv(1)
                heard.append(number)

            polled.add(near.fileno(), Socket(read))
            stack.callback(polled.remove, near.fileno())
        yield far_ends, heard


@contextlib.contextmanager
def in_a_hurry(polled):
    """Let somebody wait for what a file brings; yield what ends that."""
    near, far = socket.socketpair()
    with near, far:
        polled.add(near.fileno(), Socket(near.recv))
        polled.hurry(near.fileno())
        yield lambda: polled.calm(near.fileno())
        polled.remove(near.fileno())


async def turns_of_the_loop(count, *, telling=None):
    for _ in range(count):
        if telling is not None:
            telling.told += polls.MANY
        await asyncio.sleep(0)


async def until_heard(heard, numbers):
    await kube_server.eventually(lambda: sorted(heard) == sorted(numbers))


async def test_answers_wait_while_others_are_told_and_no_longer():
    polled = polls.Polls(gather_s=0.0, patience_s=FOREVER_S)
    with watched(polled, count=3) as (ends, heard):
        polled.told += polls.MANY
        for far in ends:
            far.send(b"x")
        await turns_of_the_loop(50, telling=polled)
        assert heard == []
        await until_heard(heard, [0, 1, 2])


async def test_who_tells_for_long_hears_answers_all_the_same():
    polled = polls.Polls(gather_s=0.0, patience_s=0.0)
    with watched(polled, count=3) as (ends, heard):
        polled.told += polls.MANY
        for far in ends:
            far.send(b"x")
        await turns_of_the_loop(10, telling=polled)
        assert sorted(heard) == [0, 1, 2]


async def test_nothing_waits_while_somebody_waits_for_what_a_file_brings():
    polled = polls.Polls(gather_s=0.0, patience_s=FOREVER_S)
    with watched(polled, count=2) as (ends, heard), in_a_hurry(polled) as calm:
        ends[1].send(b"x")
        await turns_of_the_loop(10, telling=polled)
        assert heard == [1]
        calm()
        ends[0].send(b"x")
        await turns_of_the_loop(10, telling=polled)
        assert heard == [1]


async def test_where_many_answers_are_due_they_gather_from_the_first_on():
    polled = polls.Polls(gather_s=FOREVER_S)
    with watched(polled, count=40) as (ends, heard), in_a_hurry(polled):
        polled.told = 40
        ends[0].send(b"x")
        await until_heard(heard, [0])
        for far in ends[1:]:
            far.send(b"x")
        await turns_of_the_loop(10)
        assert heard == [0]


async def test_answers_that_come_one_by_one_are_all_read():
    polled = polls.Polls(gather_s=0.0)
    with watched(polled, count=40) as (ends, heard):
        polled.told = 40
        for number, far in enumerate(ends):
            far.send(b"x")
            await until_heard(heard, range(number + 1))


async def test_who_says_something_of_his_own_accord_does_not_wait_for_others():
    polled = polls.Polls(gather_s=FOREVER_S)
    with watched(polled, count=40) as (ends, heard):
        polled.told = polls.MANY - 1
        for number in (0, 1, 0):
            ends[number].send(b"x")
            await until_heard(heard, [0, 1, 0][: len(heard) + 1])


async def test_when_all_have_answered_nobody_waits_for_others_any_more():
    polled = polls.Polls(gather_s=0.0)
    with watched(polled, count=40) as (ends, heard):
        polled.told = 40
        for far in ends:
            far.send(b"x")
        await until_heard(heard, range(40))
        polled._gather_s = FOREVER_S
        for number in (0, 1):
            ends[number].send(b"x")
            await until_heard(heard, [*range(40), *range(number + 1)])


@pytest.mark.parametrize("step", ["read", "take"])
async def test_whoever_fails_is_ended_and_the_others_go_on(step):
    watched = polls.Polls()
    ours, theirs = socket.socketpair()
    own, others = socket.socketpair()
    heard, failures = asyncio.Queue(), []

    def fail(*_):
        failures.append("failed")
        raise ValueError("what nobody has thought of")

    def end():
        watched.remove(ours.fileno())

    failing = Socket(fail, close=end)
    if step == "take":
        failing = Socket(lambda _: ours.recv(9), take=fail, close=end)
    with ours, theirs, own, others:
        watched.add(ours.fileno(), failing)
        good = Socket(lambda _: own.recv(9), take=lambda word, _: heard.put_nowait(word))
        watched.add(own.fileno(), good)
        for word in (b"one", b"two"):
            theirs.send(word)
            others.send(word)
            async with asyncio.timeout(pace.patience(5)):
                assert await heard.get() == word
        watched.remove(own.fileno())

    assert failures == ["failed"]


async def test_what_many_say_is_written_together_and_soon_and_a_failure_ends_one():
    watched, written, ended = polls.Polls(), [], []

    def fail():
        raise ValueError("what nobody has thought of")

    for number in range(2 * polls.AT_A_TIME + 2):
        write = fail if number == 1 else lambda number=number: written.append(number)
        watched.write_soon(Socket(None, write=write, close=lambda: ended.append("failed")))
    full = 2 * polls.AT_A_TIME
    assert written == [0, *range(2, full)]
    await kube_server.eventually(lambda: len(written) > full)
    assert written == [0, *range(2, full + 2)]
    assert ended == ["failed"]
