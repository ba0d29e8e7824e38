"""Sockets that can be read take turns, and others have the event loop in between."""

import asyncio
import contextlib
import itertools
import socket

from isthmus.testing import pace
from isthmus.wire.h2 import polls


async def test_who_is_slow_to_read_keeps_neither_other_sockets_nor_the_event_loop():
    called, turns = [], []
    polled = polls.Polls(slice_s=0.0)
    with contextlib.ExitStack() as stack:
        for name in "abc":
            near, far = (stack.enter_context(one) for one in socket.socketpair())
            far.send(b"x")
            # Nobody reads: each can be read for ever.
            polled.add(
                near.fileno(), lambda _, name=name: called.append(name), on_failure=near.close
            )
            stack.callback(polled.remove, near.fileno())
        while len(called) < 6:
            await asyncio.sleep(0)
            turns.append(len(called))

    assert sorted(called[:3]) == sorted(called[3:6]) == ["a", "b", "c"]
    assert all(later - sooner <= 1 for sooner, later in itertools.pairwise(turns))


async def test_a_reader_that_fails_is_ended_and_the_others_go_on():
    watched = polls.Polls()
    ours, theirs = socket.socketpair()
    own, others = socket.socketpair()
    heard, failures = asyncio.Queue(), []

    def fail(_):
        failures.append("failed")
        raise ValueError("what nobody has thought of")

    with ours, theirs, own, others:
        watched.add(ours.fileno(), fail, on_failure=lambda: watched.remove(ours.fileno()))
        watched.add(own.fileno(), lambda _: heard.put_nowait(own.recv(9)), on_failure=own.close)
        for word in (b"one", b"two"):
            theirs.send(word)
            others.send(word)
            async with asyncio.timeout(pace.patience(5)):
                assert await heard.get() == word
        watched.remove(own.fileno())

    assert failures == ["failed"]
