"""Thousands of requests for one name each are little more work than one for all of them."""

import asyncio

import pytest
from envoy.service.discovery.v3 import discovery_pb2

from isthmus.base import clock, metrics
from isthmus.mesh.identities import ClusterId
from isthmus.resources.snapshot import CLUSTERS, ENDPOINTS
from isthmus.testing import playbook
from isthmus.wire import callers, counting, nodes, streams, talks
from isthmus.wire.limits import Limits
from isthmus.xds.messages import Flavour, Request

MANY = [f"c{number}" for number in range(300)]


class Watch:
    """What a proxy should have; counts how often it is asked for something else."""

    def __init__(self):
        self.heeded = []

    def snapshot(self):
        return playbook.snapshot_of({ENDPOINTS: dict.fromkeys(MANY, "1")})

    def heeds(self, type_url, names):
        self.heeded.append((type_url, names))

    def on_change(self, wake):
        """Nothing changes."""

    status = close = on_change


class Way:
    """Takes whatever is said at once."""

    def __init__(self):
        self.said, self.closed = [], None

    def say(self, message):
        parsed = discovery_pb2.DeltaDiscoveryResponse.FromString(message.body[5:])
        self.said.append(parsed)
        return True

    send = say

    def flush(self):
        """Nothing waits."""

    def close(self, status, text):
        self.closed = (status, text)


class World:
    def __init__(self):
        system = clock.SystemClock()
        ground = talks.Ground(Limits(), counting.Counters(metrics.Metrics()), system_clock=system)
        caller = callers.Caller(ClusterId("c1"), "shop", "default")
        node = nodes.parse(
            nodes.Claim("sidecar~10.0.0.1~a-1.shop~shop.svc.cluster.local", {}, speaks_delta=True)
        )
        record = streams.Record(
            id="a-1",
            node=node,
            caller=caller,
            peer="",
            flavour=Flavour.DELTA,
            connected_at=system.now(),
        )
        self.watch, self.way = Watch(), Way()
        self.talk = talks.Talk(
            ground, way=self.way, watch=self.watch, record=record, gone=lambda _: None
        )
        self.talk.begin(Request(CLUSTERS))

    def say(self, *names, without=(), kind=ENDPOINTS, nonce=""):
        said = discovery_pb2.DeltaDiscoveryRequest(type_url=kind, response_nonce=nonce)
        said.resource_names_subscribe.extend(names)
        said.resource_names_unsubscribe.extend(without)
        self.talk.heard(said.SerializeToString())

    def wants(self):
        return self.talk.status().watches[ENDPOINTS]


@pytest.fixture
async def world():
    return World()


async def turns():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_requests_for_one_name_each_are_heard_together(world):
    for name in MANY:
        world.say(name)
    await turns()

    assert len([kind for kind, _ in world.watch.heeded if kind == ENDPOINTS]) <= 3
    told = [one.name for said in world.way.said for one in said.resources]
    assert sorted(told) == sorted(MANY)


async def test_what_is_taken_back_is_not_wanted_and_what_is_wanted_again_is(world):
    world.say("c0")
    world.say("c1", "c2")
    world.say(without=["c1"])
    world.say("c3")
    world.say("c1", without=["c2"])
    await turns()

    assert world.wants() == {"c0", "c1", "c3"}


async def test_an_answer_is_heard_after_what_was_asked_before_it(world):
    world.say("c0")
    await turns()
    world.say("c1")
    world.say(without=["c0"], nonce=world.way.said[-1].nonce)
    assert world.wants() == {"c1"}


async def test_a_stream_that_ends_hears_no_more(world):
    world.say("c0")
    world.say("c1")
    world.talk.heard_out()
    await turns()

    assert world.way.closed == ("OK", "")
    assert world.wants() == {"c0"}
