"""Clients that want the same share what they want, what they have and what they hear."""

import gc
import sys
import tracemalloc

import pytest

from isthmus.resources import snapshot
from isthmus.resources.snapshot import CLUSTERS, ENDPOINTS
from isthmus.testing import playbook
from isthmus.xds import commons, session, standings
from isthmus.xds.messages import Flavour, Request

NAMES = tuple(f"outbound|80||s{number}" for number in range(1000))


def world(version="1", **more):
    versions = dict.fromkeys(NAMES, version)
    return {CLUSTERS: {**versions, **more}, ENDPOINTS: versions}


def told(client):
    offers = []
    while (offer := client.next()) is not None:
        offers.append(offer)
        client.heard(Request(offer.type_url, nonce=offer.nonce))
    return offers


def connected(seen):
    client = session.Session(Flavour.DELTA)
    client.given(seen)
    client.heard(Request(CLUSTERS))
    first = told(client)
    client.heard(Request(ENDPOINTS, subscribe=tuple(str(name) for name in NAMES)))
    return client, first + told(client)


def test_those_who_want_the_same_are_given_the_same_objects():
    seen = playbook.snapshot_of(world())
    (one, to_one), (two, to_two) = connected(seen), connected(seen)

    assert [len(offer.resources) for offer in to_one] == [1000, 1000]
    assert all(mine is yours for mine, yours in zip(to_one, to_two, strict=True))
    assert one.subscribed(ENDPOINTS) is two.subscribed(ENDPOINTS)


def test_a_change_is_the_same_message_for_all_of_them_whenever_they_came():
    first, later = (
        world(),
        {CLUSTERS: world()[CLUSTERS], ENDPOINTS: world()[ENDPOINTS] | {NAMES[3]: "2"}},
    )
    one, _ = connected(playbook.snapshot_of(first))
    changed = playbook.difference(first, later)
    one.given(playbook.snapshot_of(later), changed)
    told(one)
    two, _ = connected(playbook.snapshot_of(later))
    last = {CLUSTERS: later[CLUSTERS], ENDPOINTS: later[ENDPOINTS] | {NAMES[5]: "2"}}

    for client in (one, two):
        client.given(playbook.snapshot_of(last), playbook.difference(later, last))

    [mine], [yours] = told(one), told(two)
    assert mine is yours
    assert [each.name for each in mine.resources] == [NAMES[5]]


def test_a_change_that_is_told_in_one_step_is_the_same_message_as_well_and_all_is_told():
    first = world()
    later = {CLUSTERS: first[CLUSTERS], ENDPOINTS: first[ENDPOINTS] | {NAMES[3]: "2"}}
    (one, _), (two, _) = (connected(playbook.snapshot_of(first)) for _ in range(2))
    seen, changed = playbook.snapshot_of(later), playbook.difference(first, later)

    mine, yours = (client.next_of(seen, changed) for client in (one, two))

    assert mine is yours
    assert [each.name for each in mine.resources] == [NAMES[3]]
    assert (one.is_told, two.is_told) == (True, True)


def test_one_more_client_takes_a_thousandth_of_what_it_knows():
    seen = playbook.snapshot_of(world())
    kept = [connected(seen) for _ in range(5)]
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        kept += [connected(seen) for _ in range(20)]
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    # Of 2,000 names, each of which would take some tens of bytes of its own.
    assert (after - before) / 20 < 3_000


def test_those_who_were_told_alike_by_different_ways_stand_alike_again():
    first, last = world(), world("2")
    one, _ = connected(playbook.snapshot_of(first))
    two, _ = connected(playbook.snapshot_of(first))
    kinds = (CLUSTERS, ENDPOINTS)
    one.given(playbook.snapshot_of(last), playbook.difference(first, last))
    told(one)
    two.given(playbook.snapshot_of(world("3")), playbook.difference(first, world("3")))
    told(two)
    assert one.talks is not two.talks
    two.given(playbook.snapshot_of(last), playbook.difference(world("3"), last))
    told(two)

    assert one.talks is two.talks
    assert [one.talks[kind].acked for kind in kinds] == [one.talks[kind].newest for kind in kinds]


@pytest.mark.parametrize(
    ("said", "acked", "refused", "offers"),
    [
        ({"error": "s3 is odd"}, 1, {NAMES[3]}, 0),
        ({"error": "no"}, 1, {NAMES[3]}, 0),
        ({"subscribe": ("another",)}, 2, set(), 1),
        ({"unsubscribe": NAMES}, 2, set(), 0),
    ],
)
def test_who_answers_otherwise_than_those_who_stood_with_it_stands_elsewhere(
    said, acked, refused, offers
):
    first, last = world(), {CLUSTERS: world()[CLUSTERS], ENDPOINTS: world()[ENDPOINTS]}
    last[ENDPOINTS] = last[ENDPOINTS] | {NAMES[3]: "2", "another": "1"}
    clients = [connected(playbook.snapshot_of(first))[0] for _ in range(3)]
    before = clients[0].talks[ENDPOINTS].newest
    seen, changed = playbook.snapshot_of(last), playbook.difference(first, last)
    nonces = {client.next_of(seen, changed).nonce for client in clients}
    (nonce,) = nonces

    for client, more in zip(clients, ({}, said, {}), strict=True):
        client.heard(Request(ENDPOINTS, nonce=nonce, **more))

    talks = [client.talks[ENDPOINTS] for client in clients]
    assert [each.acked for each in talks] == [nonce, (before, nonce)[acked - 1], nonce]
    assert [set(each.refused) for each in talks] == [set(), refused, set()]
    assert [each.error for each in talks] == ["", said.get("error", ""), ""]
    assert [len(told(client)) for client in clients] == [0, offers, 0]


def test_each_is_shown_with_its_own_words_when_all_refuse_the_same():
    first = world()
    last = {CLUSTERS: first[CLUSTERS], ENDPOINTS: first[ENDPOINTS] | {NAMES[3]: "2"}}
    clients = [connected(playbook.snapshot_of(first))[0] for _ in range(2)]
    seen, changed = playbook.snapshot_of(last), playbook.difference(first, last)

    for number, client in enumerate(clients):
        nonce = client.next_of(seen, changed).nonce
        client.heard(Request(ENDPOINTS, nonce=nonce, error=f"{NAMES[3]}: word {number}"))

    errors = [client.talks[ENDPOINTS].error for client in clients]
    assert errors == [f"{NAMES[3]}: word 0", f"{NAMES[3]}: word 1"]


def test_where_nobody_stands_is_forgotten_with_what_was_told_there():
    one, _ = connected(playbook.snapshot_of(world()))
    before = world()
    counted = []
    for number in range(40):
        now = {CLUSTERS: before[CLUSTERS], ENDPOINTS: before[ENDPOINTS] | {NAMES[3]: f"{number}x"}}
        edition = snapshot.Edition()
        seen = snapshot.Snapshot(
            playbook.snapshot_of(now).resources, stamp_of=lambda _, made=edition: (made,)
        )
        offer = one.next_of(seen, playbook.difference(before, now))
        one.heard(Request(ENDPOINTS, nonce=offer.nonce))
        before = now
        gc.collect()
        counted.append(sum(isinstance(each, standings.Standing) for each in gc.get_objects()))

    assert max(counted[5:]) <= counted[5]


def test_the_same_said_twice_before_an_answer_has_two_nonces():
    client = session.Session(Flavour.DELTA)
    client.given(playbook.snapshot_of({ENDPOINTS: {"a": "1"}}))
    offers = []
    for _ in range(3):
        client.heard(Request(ENDPOINTS, subscribe=("a",)))
        offers.append(client.next())

    assert len({offer.nonce for offer in offers}) == 3
    assert client.waiting(ENDPOINTS) == 3


def test_only_so_much_is_remembered_and_never_what_is_too_large():
    steps, computed = commons.Steps(100), []

    def step(key, weight):
        def compute():
            computed.append(key)
            return key, weight

        return steps.taken(key, compute)

    for key in range(30):
        assert step(key, 10) == key
    assert len(steps) == 10
    assert step(29, 10) == 29
    assert computed == list(range(30))
    step("large", 60)
    step("large", 60)
    assert computed[30:] == ["large", "large"]
    assert len(steps) == 10


def test_who_asks_for_one_name_after_the_other_leaves_no_trail_of_sets():
    client = session.Session(Flavour.DELTA)
    client.given(playbook.snapshot_of({}))
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(2000):
            client.heard(Request(ENDPOINTS, subscribe=(f"no-{number}",)))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    # Each of these sets alone takes up to 131 KB.
    assert after - before < 2 * commons.MOST_BYTES


def test_what_was_told_is_forgotten_with_the_edition_that_it_was_told_of():
    seen = playbook.snapshot_of({ENDPOINTS: {"a": "1"}})
    client = session.Session(Flavour.DELTA)
    client.given(seen)
    client.heard(Request(ENDPOINTS, subscribe=("a",)))
    told = client.next().resources[0]
    before = sys.getrefcount(told)

    [edition] = seen.stamp_of(ENDPOINTS)
    edition.kept = None

    assert sys.getrefcount(told) < before
