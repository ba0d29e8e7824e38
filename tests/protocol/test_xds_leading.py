"""A client is led to new clusters, and away from others, when it can use the new ones."""

import functools

import pytest

from isthmus.resources.snapshot import (
    CLUSTERS,
    ENDPOINTS,
    LISTENERS,
    MEMBERS,
    ROUTES,
    SECRETS,
    Contents,
    Resource,
    Snapshot,
)
from isthmus.testing import playbook
from isthmus.testing.playbook import (
    accept,
    accepted,
    ask,
    given,
    heard,
    offer,
    play,
    refuse,
    refused,
    said,
)
from isthmus.xds import session
from isthmus.xds.messages import Flavour, Request

OLD = {CLUSTERS: {"old": "1"}, ENDPOINTS: {"old": "1"}, LISTENERS: {"all": "1"}}
NEW = {CLUSTERS: {"new": "1"}, ENDPOINTS: {"new": "1"}, LISTENERS: {"all": "2"}}


def settled(endpoints_version):
    """Return how a client comes to have what is old, its endpoints in this version."""
    return (
        heard(ask(CLUSTERS)),
        heard(ask(ENDPOINTS, "old")),
        heard(ask(LISTENERS)),
        given(OLD),
        said(
            offer(CLUSTERS, {"old": "1"}),
            offer(ENDPOINTS, {"old": endpoints_version}),
            offer(LISTENERS, {"all": "1"}),
        ),
        heard(accept(CLUSTERS)),
        said(accepted(CLUSTERS)),
    )


SETTLED, WHOLE = settled("1.1"), settled("1")
"""In delta, and in state of the world."""

LED = (
    offer(LISTENERS, {"all": "2"}),
    offer(ENDPOINTS, removed=("old",)),
    offer(CLUSTERS, removed=("old",)),
)


def delta():
    return session.Session(Flavour.DELTA)


def test_who_must_ask_for_the_endpoints_of_a_new_cluster_is_led_to_it_after_them():
    play(
        delta(),
        *SETTLED,
        given(NEW),
        said(offer(CLUSTERS, {"new": "1"})),
        heard(ask(ENDPOINTS, "new")),
        said(offer(ENDPOINTS, {"new": "1.1"}), *LED),
    )


def test_who_answers_that_it_has_the_new_clusters_is_led_to_them():
    play(
        delta(),
        *SETTLED,
        given(NEW),
        said(offer(CLUSTERS, {"new": "1"})),
        heard(accept(CLUSTERS)),
        said(accepted(CLUSTERS), *LED),
    )


def test_who_refuses_them_hears_the_rest_all_the_same():
    play(
        delta(),
        *SETTLED,
        given(NEW),
        said(offer(CLUSTERS, {"new": "1"})),
        heard(refuse(CLUSTERS, "odd: new")),
        said(refused(CLUSTERS, "odd: new", "new"), *LED),
    )


def test_several_new_clusters_are_waited_for_one_after_the_other():
    more = {CLUSTERS: {"new": "1", "more": "1"}, ENDPOINTS: {"new": "1", "more": "1"}}
    play(
        delta(),
        *SETTLED,
        given(NEW),
        said(offer(CLUSTERS, {"new": "1"})),
        given({**NEW, **more}),
        said(offer(CLUSTERS, {"more": "1"})),
        heard(ask(ENDPOINTS, "more")),
        said(offer(ENDPOINTS, {"more": "1.1"})),
        heard(ask(ENDPOINTS, "new")),
        said(offer(ENDPOINTS, {"new": "1.1"}), *LED),
    )


def test_a_cluster_that_has_changed_is_used_as_it_was_until_it_is_ready():
    changed = {**OLD, CLUSTERS: {"old": "2"}, LISTENERS: {"all": "2"}}
    play(
        delta(),
        *SETTLED,
        given(changed),
        said(
            offer(CLUSTERS, {"old": "2"}),
            offer(ENDPOINTS, {"old": "2.1"}),
            offer(LISTENERS, {"all": "2"}),
        ),
    )


def test_what_needs_no_endpoints_is_waited_for_by_nobody():
    play(
        delta(),
        *SETTLED,
        given({**OLD, CLUSTERS: {"old": "1", "fixed": "1"}, LISTENERS: {"all": "2"}}),
        said(offer(CLUSTERS, {"fixed": "1"}), offer(LISTENERS, {"all": "2"})),
    )


@pytest.mark.parametrize("kind", [LISTENERS, ROUTES, SECRETS])
def test_only_what_leads_to_clusters_waits(kind):
    world = {**OLD, CLUSTERS: {"old": "1", "new": "1"}, ENDPOINTS: {"old": "1", "new": "1"}}
    at_once = (offer(kind, {"a": "1"}),) if kind is SECRETS else ()
    play(
        delta(),
        *SETTLED,
        heard(ask(kind, "a")),
        given({**world, kind: {"a": "1", **world.get(kind, {})}}),
        said(offer(CLUSTERS, {"new": "1"}), *at_once),
        heard(accept(CLUSTERS)),
        said(accepted(CLUSTERS), *(() if at_once else (offer(kind, {"a": "1"}),))),
    )


def sotw():
    return session.Session(Flavour.STATE_OF_THE_WORLD)


@pytest.mark.parametrize("answers", [True, False])
def test_in_state_of_the_world_what_is_gone_is_told_on_until_what_is_new_can_be_used(answers):
    waits = (heard(accept(CLUSTERS)), said(accepted(CLUSTERS))) if answers else ()
    asks = heard(ask(ENDPOINTS, "old", "new"))
    play(
        sotw(),
        *WHOLE,
        given(NEW),
        said(offer(CLUSTERS, {"new": "1", "old": "1"})),
        *((*waits[:1], asks) if answers else (asks,)),
        said(
            *((accepted(CLUSTERS),) if answers else ()),
            offer(ENDPOINTS, {"new": "1"}),
            offer(LISTENERS, {"all": "2"}),
            offer(CLUSTERS, {"new": "1"}),
        ),
        given(NEW, is_difference_known=False),
        said(),
    )


def test_in_state_of_the_world_a_cluster_that_comes_back_is_told_as_it_is():
    back = {**NEW, CLUSTERS: {"new": "1", "old": "2"}}
    play(
        sotw(),
        *WHOLE,
        given(NEW),
        said(offer(CLUSTERS, {"new": "1", "old": "1"})),
        given(back),
        said(offer(CLUSTERS, {"new": "1", "old": "2"})),
        heard(accept(CLUSTERS)),
        said(accepted(CLUSTERS), offer(LISTENERS, {"all": "2"})),
    )


def test_in_state_of_the_world_what_is_gone_without_anything_new_is_told_last_and_once():
    play(
        sotw(),
        *WHOLE,
        given({LISTENERS: {"all": "2"}}),
        said(offer(LISTENERS, {"all": "2"}), offer(CLUSTERS)),
    )


@pytest.mark.parametrize("flavour", list(Flavour))
def test_of_who_never_answers_about_clusters_only_what_it_waits_for_is_kept(flavour):
    held = session.Session(flavour)
    for kind in (CLUSTERS, ENDPOINTS, LISTENERS):
        held.heard(Request(kind))
    for number in range(50):
        world = {CLUSTERS: {f"c{number}": "1"}, ENDPOINTS: {f"c{number}": "1"}}
        held.given(playbook.snapshot_of({**world, LISTENERS: {"all": str(number)}}))
        while held.next():
            pass

    assert len(held._at.facts.fresh) <= 1


# --- endpoints that are told in parts

PARTS = "xdstp://isthmus/envoy.config.endpoint.v3.LbEndpoint/web/a/*"


def in_parts():
    """Return a mesh of a listener and a service, the endpoints of which are a collection."""
    name = PARTS.replace("*", "one")
    members = {name: Resource(MEMBERS, name, "1", b"x")}
    edition = Contents.made("1", functools.partial(dict, members))
    parts = Resource(MEMBERS, PARTS, edition, b"")
    endpoints = Resource(
        ENDPOINTS, "web", "1-a", b"told in " + PARTS.encode(), collections=(parts,)
    )
    return Snapshot(
        {
            CLUSTERS: {"web": Resource(CLUSTERS, "web", "1", b"")},
            ENDPOINTS: {"web": endpoints},
            MEMBERS: {PARTS: parts},
            LISTENERS: {"all": Resource(LISTENERS, "all", "1", b"")},
        }
    )


def kinds(held):
    """Return the types of all that is told now."""
    found = []
    while said_now := held.next():
        found.append(said_now.type_url)
    return found


def test_endpoints_that_are_told_in_parts_are_told_when_their_parts_are():
    held = delta()
    held.given(in_parts())
    for kind in (CLUSTERS, LISTENERS):
        held.heard(Request(kind))

    assert kinds(held) == [CLUSTERS]
    held.heard(Request(ENDPOINTS, subscribe=("web",)))
    assert kinds(held) == [ENDPOINTS]
    held.heard(Request(MEMBERS, subscribe=(PARTS,)))
    assert kinds(held) == [MEMBERS, LISTENERS]
