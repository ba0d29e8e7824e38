"""Sockets that can be read take turns, and others have the event loop in between."""

import asyncio
import contextlib
import itertools
import socket

from isthmus.wire.h2 import polls


async def test_who_is_slow_to_read_keeps_neither_other_sockets_nor_the_event_loop():
    called, turns = [], []
    polled = polls.Polls(slice_s=0.0)
    with contextlib.ExitStack() as stack:
        for name in "abc":
            near, far = (stack.enter_context(one) for one in socket.socketpair())
            far.send(b"x")
            # Nobody reads: each can be read for ever.
            polled.add(near.fileno(), lambda name=name: called.append(name))
            stack.callback(polled.remove, near.fileno())
        while len(called) < 6:
            await asyncio.sleep(0)
            turns.append(len(called))

    assert sorted(called[:3]) == sorted(called[3:6]) == ["a", "b", "c"]
    assert all(later - sooner <= 1 for sooner, later in itertools.pairwise(turns))
