"""Whoever does not read, or does not answer, is told what is newest, and delays nobody."""

import asyncio

from fakes.discovery_streams import GOOD, NODE, Stream
from isthmus.resources.snapshot import (
    CLUSTERS,
    ENDPOINTS,
)
from isthmus.testing import pace
from isthmus.wire import talks


async def test_a_proxy_that_does_not_read_is_sent_away(serving, discovery):
    discovery.change({CLUSTERS: {str(each): "x" * 1_000_000 for each in range(40)}})
    async with serving(write_s=0.1) as (service, channel, _):
        stream = Stream(channel)
        await stream.say(CLUSTERS)
        watch = await discovery.watch()
        await asyncio.wait_for(watch.closed.wait(), pace.patience(5))
        stream.call.cancel()

        assert service.counters.write_timeouts.values == {(): 1}
        assert service.statuses() == ()


async def test_a_proxy_that_does_not_read_delays_no_other(serving, discovery):
    large = {str(each): "x" * 1_000_000 for each in range(40)}
    discovery.change({CLUSTERS: large, ENDPOINTS: {"e": "0"}})
    async with serving() as (service, channel, _):
        slow = Stream(channel)
        await slow.say(CLUSTERS)
        await discovery.watch()
        quick = Stream(channel, metadata=(("authorization", "Bearer other"), GOOD[1]))
        await quick.say(ENDPOINTS, "e", node=NODE.replace("sleep-1", "sleep-2"))
        await quick.hear()
        for number in range(1, 20):
            discovery.change({CLUSTERS: large, ENDPOINTS: {"e": str(number)}})
            told = await quick.hear()
            assert told.resources[0].resource.value == str(number).encode()
            await quick.say(ENDPOINTS, nonce=told.nonce, node="")

        assert [each.caller.pod for each in service.statuses()] == ["sleep-1", "sleep-2"]
        sent = service.counters.pushes.values
        assert (sent["cluster",], sent["endpoint",]) == (1, 20)
        for stream in (slow, quick):
            stream.call.cancel()


def told_of(message):
    return {each.name: each.resource.value.decode() for each in message.resources}


async def following(channel, discovery, world):
    """Return a stream of a proxy that has endpoints `a` and `b`, and has answered so."""
    discovery.change({ENDPOINTS: world})
    stream = Stream(channel)
    await stream.say(ENDPOINTS, *world)
    first = await stream.hear()
    await stream.say(ENDPOINTS, nonce=first.nonce, node="")
    await (await discovery.watch()).reports.get()
    return stream


async def test_a_proxy_that_has_not_answered_two_changes_hears_of_all_later_ones_at_once(
    serving, discovery
):
    async with serving(answer_s=60) as (_, channel, _):
        stream = await following(channel, discovery, {"a": "0", "b": "0"})
        heard = []
        for world in ({"a": "1", "b": "0"}, {"a": "2", "b": "0"}):
            discovery.change({ENDPOINTS: world})
            heard.append(await stream.hear())
        for world in ({"a": "3", "b": "0"}, {"a": "3", "b": "1"}, {"a": "4", "b": "1"}):
            discovery.change({ENDPOINTS: world})
            await asyncio.sleep(0)
        await stream.say(ENDPOINTS, nonce=heard[-1].nonce, node="")
        heard.append(await stream.hear())
        stream.call.cancel()

    assert [told_of(each) for each in heard] == [{"a": "1"}, {"a": "2"}, {"a": "4", "b": "1"}]


async def test_one_large_change_is_answered_before_the_next_is_told(serving, discovery):
    large = "x" * talks.MOST_AHEAD
    async with serving(answer_s=60) as (_, channel, _):
        stream = await following(channel, discovery, {"a": "0", "b": "0"})
        discovery.change({ENDPOINTS: {"a": large, "b": "0"}})
        first = await stream.hear()
        discovery.change({ENDPOINTS: {"a": "1", "b": "0"}})
        # What it asks for it is told meanwhile, and with that all else.
        await stream.say(ENDPOINTS, "c", node="")
        second = await stream.hear()
        stream.call.cancel()

    assert told_of(first) == {"a": large}
    assert told_of(second) == {"a": "1"}


async def test_who_never_answers_is_told_of_changes_all_the_same(serving, discovery):
    async with serving(answer_s=0.1) as (_, channel, _):
        stream = await following(channel, discovery, {"a": "0"})
        heard = []
        for number in range(1, 5):
            discovery.change({ENDPOINTS: {"a": str(number)}})
            heard.append(told_of(await stream.hear()))
        stream.call.cancel()

    assert heard == [{"a": str(number)} for number in range(1, 5)]
