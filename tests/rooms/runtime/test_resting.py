"""When what proxies are told is folded."""

import asyncio

import pytest

from isthmus.base import clock
from isthmus.resources import building, snapshot
from isthmus.runtime import resting
from isthmus.views import view


class Counted(clock.SystemClock):
    """Has so many rests pass, each at once; how often others have their turn is not limited."""

    def __init__(self, times):
        self.left = times
        self.slept = []

    async def sleep(self, delay_s):
        self.slept.append(delay_s)
        if len([each for each in self.slept if each]) > self.left:
            raise asyncio.CancelledError


def told(number, size):
    hosts = tuple(view.VirtualHost(f"{number}-{n}", (f"{n}.shop",), ()) for n in range(size))
    return building.build(view.RouteSlice(str(number), hosts))


async def test_what_is_told_rests_after_a_while_and_again_when_it_was_asked_for():
    one = told(80, 50)
    body = bytes(one.body)
    for _ in range(2):
        with pytest.raises(asyncio.CancelledError):
            await resting.fold(Counted(times=1))

        assert one.rest() == 0
        assert snapshot._HELD.__get__(one) != body
        assert one.body == body


async def test_others_have_their_turn_while_much_is_folded():
    much = [told(number, 9000) for number in range(81, 87)]
    assert sum(len(one.body) for one in much) > 3 * resting.AT_ONCE
    passing = Counted(times=1)

    with pytest.raises(asyncio.CancelledError):
        await resting.fold(passing)

    assert passing.slept[0] == resting.EVERY_S
    assert passing.slept[1:4] == [0, 0, 0]
