"""The table of legal talk, and the bounds of a stream."""

import itertools

import pytest

from isthmus.resources.snapshot import CLUSTERS, ENDPOINTS, LISTENERS, TypeUrl
from isthmus.testing import playbook
from isthmus.testing.playbook import (
    Spoken,
    answer_strange,
    ask,
    closed,
    given,
    heard,
    offer,
    play,
    said,
)
from isthmus.xds import bounds, session, table
from isthmus.xds.messages import Close, Flavour, Request

FLAVOURS = pytest.mark.parametrize("flavour", list(Flavour))


@FLAVOURS
def test_refusing_nothing_ends_the_stream(flavour):
    play(
        session.Session(flavour),
        heard(ask(CLUSTERS)),
        heard(Spoken(CLUSTERS, error="no")),
        said(closed("INVALID_ARGUMENT")),
    )


@FLAVOURS
def test_refusing_what_was_never_offered_ends_the_stream(flavour):
    play(
        session.Session(flavour),
        heard(ask(CLUSTERS)),
        heard(answer_strange(CLUSTERS, error="no")),
        said(closed("INVALID_ARGUMENT")),
    )


@FLAVOURS
def test_a_refusal_left_over_from_another_stream_begins_the_talk(flavour):
    play(
        session.Session(flavour),
        given({CLUSTERS: {"a": "1"}}),
        heard(Spoken(CLUSTERS, error="left over")),
        said(offer(CLUSTERS, {"a": "1"})),
    )


@FLAVOURS
def test_a_request_without_a_type_ends_the_stream(flavour):
    play(
        session.Session(flavour),
        heard(ask(TypeUrl(""))),
        said(closed("INVALID_ARGUMENT")),
    )


@FLAVOURS
def test_a_stream_has_a_bounded_number_of_types(flavour):
    held = session.Session(flavour)
    for number in range(bounds.MOST_TYPES):
        assert held.heard(Request(TypeUrl(f"t{number}"))) == []

    assert held.heard(Request(TypeUrl("one too many"))) == [
        Close("RESOURCE_EXHAUSTED", f"more than {bounds.MOST_TYPES} types")
    ]


@FLAVOURS
def test_a_type_has_a_bounded_number_of_names(flavour):
    held = session.Session(flavour)
    names = tuple(str(number) for number in range(bounds.MOST_NAMES + 1))

    [close] = held.heard(Request(ENDPOINTS, names=names, subscribe=names))

    assert isinstance(close, Close)
    assert close.code == "RESOURCE_EXHAUSTED"
    assert close.message.endswith(f"more than {bounds.MOST_NAMES} names")


@FLAVOURS
def test_who_sees_more_than_that_may_name_all_of_it_and_what_is_gone(flavour):
    held = session.Session(flavour)
    names = tuple(str(number) for number in range(bounds.MOST_NAMES + 1000))
    held.given(playbook.snapshot_of({ENDPOINTS: dict.fromkeys(names[: len(names) // 2], "1")}))

    assert held.heard(Request(ENDPOINTS, names=names, subscribe=names)) == []

    one_more = (*names, "one too many")
    [close] = held.heard(Request(ENDPOINTS, names=one_more, subscribe=one_more))
    assert isinstance(close, Close)


@FLAVOURS
def test_only_a_bounded_number_of_offers_waits_for_an_answer(flavour):
    held = session.Session(flavour)
    held.heard(Request(LISTENERS))
    for number in range(bounds.MOST_OUTSTANDING + 5):
        held.given(playbook.snapshot_of({LISTENERS: {"a": str(number)}}))
        assert held.next() is not None

    assert held.waiting(LISTENERS) == bounds.MOST_OUTSTANDING


@FLAVOURS
def test_nonces_follow_from_the_conversation_alone(flavour):
    def nonces():
        held = session.Session(flavour)
        held.heard(Request(CLUSTERS))
        for number in range(3):
            held.given(playbook.snapshot_of({CLUSTERS: {"a": str(number)}}))
            yield held.next().nonce

    assert list(nonces()) == list(nonces())
    assert len(set(nonces())) == 3


@FLAVOURS
def test_the_session_knows_what_is_subscribed(flavour):
    held = session.Session(flavour)
    held.heard(Request(CLUSTERS))

    assert held.subscribed(CLUSTERS) == {"*"}
    assert held.subscribed(ENDPOINTS) == frozenset()


@FLAVOURS
def test_types_that_nobody_asked_for_are_not_told(flavour):
    held = session.Session(flavour)

    held.given(playbook.snapshot_of({CLUSTERS: {"a": "1"}}), {CLUSTERS: frozenset({"a"})})

    assert held.next() is None


@FLAVOURS
def test_every_state_and_input_of_the_table_leads_to_a_known_state(flavour):
    rows = table.TABLES[flavour]
    for state, spoken in itertools.product(table.State, table.Input):
        row = rows.get((state, spoken))
        assert row is None or row[1] is not table.State.NEW


def test_a_conversation_that_goes_another_way_shows_both():
    with pytest.raises(AssertionError, match=r"(?s)- < offer Cluster a=2.*\+ < offer Cluster a=1"):
        play(
            session.Session(Flavour.DELTA),
            heard(ask(CLUSTERS)),
            given({CLUSTERS: {"a": "1"}}),
            said(offer(CLUSTERS, {"a": "2"})),
        )
