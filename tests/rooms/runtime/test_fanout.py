"""What a worker is told of scopes, however slow it is, and what it makes of that."""

import asyncio
import random

import msgspec
import pytest
import shop_objects

from isthmus.base import metrics
from isthmus.mesh.identities import ClusterId
from isthmus.resources.snapshot import CLUSTERS, ENDPOINTS, MEMBERS, ROUTES, Contents, Resource
from isthmus.runtime import authentication, catalog, framing, settings
from isthmus.runtime.fanout import counts, far, feeding, messages
from isthmus.wire import ads, callers

SCOPES = ("wide", "own", "other")
TYPES = (CLUSTERS, ENDPOINTS, ROUTES)
CALLER = callers.Caller(ClusterId("c1"), "shop", "default", "a-1", "u1")
NODE = shop_objects.node()


def put(shelves, scope, type_url, name, body, **more):
    made = None if body is None else Resource(type_url, name, f"v-{body}", body.encode(), **more)
    shelves.change([(far.Place(scope, name), type_url, made)])


def carried(feed, discovery):
    """Carry what the feed has to tell, byte by byte."""
    changed, forgotten = feed.take()
    decoder = msgspec.msgpack.Decoder(messages.Told)
    for part in (*feeding.parts(changed), messages.Forgotten(forgotten)):
        told = decoder.decode(framing.framed(part)[framing.LENGTH :])
        if isinstance(told, messages.Changed):
            discovery.changed(told)
        else:
            discovery.forgotten(told)


class Pair:
    """Both ends, without processes."""

    def __init__(self):
        self.shelves = catalog.Catalog()
        self.woken, self.said = [], []
        self.feed = feeding.Feed(self.shelves, wake=lambda: self.woken.append(1))
        self.far = far.Discovery(far.Line(self.said.append))

    def held(self, scopes, numbers):
        """Return what both sides hold of scopes."""
        near, there = self.shelves.snapshot(scopes), self.far.catalog.snapshot(numbers)
        kinds = (*TYPES, MEMBERS)
        return tuple({k: dict(one.of(k)) for k in kinds if one.of(k)} for one in (near, there))


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_a_worker_has_what_the_control_plane_has(seed):
    chance, pair = random.Random(seed), Pair()
    numbers = pair.feed.see(SCOPES[:2])
    for step in range(60):
        scope, kind, name = (chance.choice(some) for some in (SCOPES, TYPES, "abcd"))
        body = chance.choice((None, str(step)))
        put(pair.shelves, scope, kind, name, body, aliases=("x",), parts_of=("y",))
        if chance.random() < 0.3:
            carried(pair.feed, pair.far)
    carried(pair.feed, pair.far)

    near, there = pair.held(SCOPES[:2], numbers)
    assert near == there
    assert near


def test_a_worker_that_takes_nothing_is_owed_names_and_not_changes():
    pair = Pair()
    [number] = pair.feed.see(("wide",))
    for change in range(1000):
        put(pair.shelves, "wide", CLUSTERS, f"c{change % 3}", str(change))

    assert pair.feed.waiting == 3
    changed, _ = pair.feed.take()
    assert {(one.scope, one.name, one.resource.body) for one in changed} == {
        (number, "c0", b"999"),
        (number, "c1", b"997"),
        (number, "c2", b"998"),
    }


def test_what_no_proxy_of_a_worker_sees_any_more_is_forgotten_and_never_told_as_gone():
    pair = Pair()
    put(pair.shelves, "wide", CLUSTERS, "a", "1")
    [number] = pair.feed.see(("wide",))
    assert pair.feed.see(("wide",)) == (number,)
    carried(pair.feed, pair.far)

    put(pair.shelves, "wide", CLUSTERS, "a", None)
    pair.feed.leave(("wide",))
    pair.feed.leave(("wide",))
    changed, forgotten = pair.feed.take()

    assert (changed, forgotten, len(pair.feed)) == ([], (number,), 0)
    pair.far.forgotten(messages.Forgotten(forgotten))
    assert not pair.far.catalog.names((number,))


def collection(version):
    members = {"m1": Resource(MEMBERS, "m1", version, b"one")}
    return Resource(MEMBERS, "set", Contents.made(version, lambda: members), b"")


def test_members_of_collections_come_with_what_refers_to_them_or_alone():
    pair = Pair()
    [number] = pair.feed.see(("wide",))
    put(pair.shelves, "wide", ENDPOINTS, "a", "1", collections=(collection("one"),))
    assert pair.feed.waiting == 2
    carried(pair.feed, pair.far)
    first = pair.far.catalog.snapshot((number,)).of(MEMBERS)["set"]

    put(pair.shelves, "wide", ENDPOINTS, "a", "1", collections=(collection("two"),))
    [alone] = pair.feed.take()[0]
    [part] = feeding.parts([alone])
    pair.far.changed(part)
    second = pair.far.catalog.snapshot((number,)).of(MEMBERS)["set"]
    put(pair.shelves, "wide", ENDPOINTS, "a", "2")
    carried(pair.feed, pair.far)

    assert (alone.type_url, alone.name) == (MEMBERS, "set")
    assert [one.version for one in (first, second)] == ["one", "two"]
    assert second.version.members()["m1"].version == "two"
    assert not pair.far.catalog.snapshot((number,)).of(MEMBERS)


def test_what_has_changed_at_once_is_seen_at_once():
    pair = Pair()
    [number] = pair.feed.see(("wide",))
    for name in range(feeding.MOST_IN_PART + 1):
        put(pair.shelves, "wide", CLUSTERS, f"c{name}", "1")
    first, last = feeding.parts(pair.feed.take()[0])

    pair.far.changed(first)
    assert not pair.far.catalog.names((number,))
    pair.far.changed(last)
    assert len(pair.far.catalog.names((number,))[CLUSTERS]) == feeding.MOST_IN_PART + 1


async def test_a_proxy_that_sees_other_scopes_is_told_the_difference():
    pair = Pair()
    put(pair.shelves, "wide", CLUSTERS, "a", "1")
    put(pair.shelves, "own", CLUSTERS, "b", "1")
    wide, own = pair.feed.see(("wide", "own"))
    carried(pair.feed, pair.far)
    async with asyncio.TaskGroup() as group:
        opening = group.create_task(pair.far.open(CALLER, NODE))
        await asyncio.sleep(0)
        [asked] = pair.said
        pair.far.opened(messages.Opened(asked.number, (wide,), ()))
    watch, woken = opening.result(), []
    watch.on_change(woken.append)

    pair.far.moved(messages.Moved(asked.number, (own,), ("node",)))

    assert woken == [{CLUSTERS: frozenset({"a", "b"})}]
    assert watch.snapshot().of(CLUSTERS).keys() == {"b"}
    assert watch.snapshot().leads_of(CLUSTERS).implied == {"node"}
    watch.close()
    assert pair.said[-1] == messages.Close(asked.number)


async def test_who_goes_before_it_was_answered_is_no_longer_followed():
    pair = Pair()
    async with asyncio.TaskGroup() as group:
        opening = group.create_task(pair.far.open(CALLER, NODE))
        await asyncio.sleep(0)
        opening.cancel()
    [asked, closed] = pair.said

    pair.far.opened(messages.Opened(asked.number, (), ()))

    assert closed == messages.Close(asked.number)
    assert not pair.far.ended((asked.number,))


async def test_who_is_told_to_go_before_it_knows_that_it_may_come_goes():
    pair = Pair()

    async def refused():
        with pytest.raises(ads.NotReady):
            await pair.far.open(CALLER, NODE)

    async with asyncio.TaskGroup() as group:
        group.create_task(refused())
        await asyncio.sleep(0)
        [asked] = pair.said
        pair.far.opened(messages.Opened(asked.number, (), ()))
        assert not pair.far.ended((asked.number,))

    assert pair.said[-1] == messages.Close(asked.number)


def test_what_workers_count_is_one_sum_and_those_who_end_are_no_longer_connected():
    def counted():
        registered = metrics.Metrics()
        return registered, (
            registered.gauge("connected", "", "version"),
            registered.counter("pushes", "", "type"),
            registered.histogram("size", "", bounds=(10.0,)),
        )

    whole, (connected, pushes, size) = counted()
    shares = [counts.Share(whole), counts.Share(whole)]
    for share, many in zip(shares, (2, 3), strict=True):
        own, (its_connected, its_pushes, its_size) = counted()
        its_connected.set(many, "1.29")
        its_pushes.add(many, "cluster")
        its_size.observe(many)
        share.take(counts.told(own, 0))
        its_pushes.add(1, "cluster")
        share.take(counts.told(own, 0))

    assert connected.values == {("1.29",): 5}
    shares[0].leave()
    assert connected.values == {("1.29",): 3}
    shares[1].leave()
    assert connected.values == {}
    assert pushes.values == {("cluster",): 7}
    assert (size.counts[()], size.sums[()]) == ([2, 0], 5)


def test_the_number_of_workers_is_a_setting():
    assert settings.read({}, []).push_workers == 0
    assert settings.read({"ISTHMUS_PUSH_WORKERS": "3"}, []).push_workers == 3
    for wrong in ("-1", "many", "65", "0" * 20 + "65", "0" * 5000):
        with pytest.raises(settings.SettingRefused, match="ISTHMUS_PUSH_WORKERS"):
            settings.read({"ISTHMUS_PUSH_WORKERS": wrong}, [])


async def test_who_is_not_answered_in_time_is_told_to_come_again_and_is_forgotten():
    said = []
    silent = far.Discovery(far.Line(said.append, patience_s=0.0))

    with pytest.raises(authentication.NobodyJudges):
        await silent.authenticator.authenticate(callers.Credentials("token", "c1"))
    with pytest.raises(ads.NotReady, match="does not answer"):
        await silent.open(CALLER, NODE)

    asked, given_up = said[1:]
    silent.opened(messages.Opened(asked.number, (1,), ()))
    assert given_up == messages.Close(asked.number)
    assert not silent.ended((asked.number,))
