"""State of the world: each message about clusters or listeners is all of them."""

from isthmus.resources.snapshot import CLUSTERS, ENDPOINTS, LISTENERS, ROUTES, SECRETS
from isthmus.testing.playbook import (
    accept,
    accepted,
    answer_strange,
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
from isthmus.xds.messages import Flavour


def sotw():
    return session.Session(Flavour.STATE_OF_THE_WORLD)


def test_nothing_is_said_before_there_is_something_to_say():
    play(sotw(), heard(ask(CLUSTERS)), said())


def test_a_first_request_is_answered_in_full():
    play(
        sotw(),
        given({CLUSTERS: {"a": "1", "b": "1"}}),
        said(),
        heard(ask(CLUSTERS)),
        said(offer(CLUSTERS, {"a": "1", "b": "1"})),
    )


def test_a_first_request_is_answered_even_when_there_is_nothing():
    play(sotw(), given({}), heard(ask(LISTENERS)), said(offer(LISTENERS)))


def test_the_same_content_is_never_offered_twice():
    play(
        sotw(),
        heard(ask(CLUSTERS)),
        given({CLUSTERS: {"a": "1"}}),
        said(offer(CLUSTERS, {"a": "1"})),
        given({CLUSTERS: {"a": "1"}}, is_difference_known=False),
        said(),
        heard(accept(CLUSTERS)),
        said(accepted(CLUSTERS)),
        given({CLUSTERS: {"a": "1"}}, is_difference_known=False),
        said(),
    )


def test_one_changed_cluster_repeats_all_of_them():
    play(
        sotw(),
        heard(ask(CLUSTERS)),
        given({CLUSTERS: {"a": "1", "b": "1"}}),
        said(offer(CLUSTERS, {"a": "1", "b": "1"})),
        given({CLUSTERS: {"a": "2", "b": "1"}}),
        said(offer(CLUSTERS, {"a": "2", "b": "1"})),
        given({CLUSTERS: {"b": "1"}}),
        said(offer(CLUSTERS, {"b": "1"})),
    )


def test_one_changed_endpoint_set_is_offered_alone():
    play(
        sotw(),
        heard(ask(ENDPOINTS, "a", "b")),
        given({ENDPOINTS: {"a": "1", "b": "1", "c": "1"}}),
        said(offer(ENDPOINTS, {"a": "1", "b": "1"})),
        given({ENDPOINTS: {"a": "2", "b": "1", "c": "2"}}),
        said(offer(ENDPOINTS, {"a": "2"})),
    )


def test_an_endpoint_set_that_is_not_there_is_left_out_and_told_once_it_is():
    play(
        sotw(),
        heard(ask(ENDPOINTS, "a", "b")),
        given({ENDPOINTS: {"a": "1"}}),
        said(offer(ENDPOINTS, {"a": "1"})),
        given({ENDPOINTS: {"a": "1", "b": "1"}}),
        said(offer(ENDPOINTS, {"b": "1"})),
        given({ENDPOINTS: {"b": "1"}}),
        said(),
        given({ENDPOINTS: {"a": "1", "b": "1"}}),
        said(offer(ENDPOINTS, {"a": "1"})),
    )


def test_types_are_told_in_the_order_in_which_they_refer_to_each_other():
    play(
        sotw(),
        heard(ask(SECRETS, "s")),
        heard(ask(ROUTES, "r")),
        heard(ask(LISTENERS)),
        heard(ask(ENDPOINTS, "e")),
        heard(ask(CLUSTERS)),
        given(
            {
                SECRETS: {"s": "1"},
                ROUTES: {"r": "1"},
                LISTENERS: {"l": "1"},
                ENDPOINTS: {"e": "1"},
                CLUSTERS: {"c": "1"},
            }
        ),
        said(
            offer(CLUSTERS, {"c": "1"}),
            offer(ENDPOINTS, {"e": "1"}),
            offer(LISTENERS, {"l": "1"}),
            offer(ROUTES, {"r": "1"}),
            offer(SECRETS, {"s": "1"}),
        ),
    )


def test_a_changed_cluster_hears_its_endpoints_again_because_it_waits_for_them():
    play(
        sotw(),
        heard(ask(CLUSTERS)),
        heard(ask(ENDPOINTS, "a", "b")),
        given({CLUSTERS: {"a": "1", "b": "1"}, ENDPOINTS: {"a": "1", "b": "1"}}),
        said(
            offer(CLUSTERS, {"a": "1", "b": "1"}),
            offer(ENDPOINTS, {"a": "1", "b": "1"}),
        ),
        given({CLUSTERS: {"a": "2", "b": "1"}, ENDPOINTS: {"a": "1", "b": "1"}}),
        said(offer(CLUSTERS, {"a": "2", "b": "1"}), offer(ENDPOINTS, {"a": "1"})),
    )


def test_a_removed_cluster_does_not_hear_its_endpoints_again():
    play(
        sotw(),
        heard(ask(CLUSTERS)),
        heard(ask(ENDPOINTS, "a")),
        given({CLUSTERS: {"a": "1"}, ENDPOINTS: {"a": "1"}}),
        said(offer(CLUSTERS, {"a": "1"}), offer(ENDPOINTS, {"a": "1"})),
        given({ENDPOINTS: {"a": "1"}}),
        said(offer(CLUSTERS)),
    )


def test_only_added_names_are_answered():
    play(
        sotw(),
        given({ENDPOINTS: {"a": "1", "b": "1"}}),
        heard(ask(ENDPOINTS, "a")),
        said(offer(ENDPOINTS, {"a": "1"})),
        heard(accept(ENDPOINTS, "a", "b")),
        said(accepted(ENDPOINTS), offer(ENDPOINTS, {"b": "1"})),
        heard(accept(ENDPOINTS, "b")),
        said(accepted(ENDPOINTS)),
        given({ENDPOINTS: {"a": "2", "b": "1"}}),
        said(),
    )


def test_a_dropped_name_is_answered_when_it_is_wanted_again():
    play(
        sotw(),
        given({ENDPOINTS: {"a": "1"}}),
        heard(ask(ENDPOINTS, "a")),
        said(offer(ENDPOINTS, {"a": "1"})),
        heard(accept(ENDPOINTS)),
        said(accepted(ENDPOINTS)),
        heard(accept(ENDPOINTS, "a")),
        said(offer(ENDPOINTS, {"a": "1"})),
    )


def test_a_stale_answer_is_ignored():
    play(
        sotw(),
        heard(ask(ENDPOINTS, "a")),
        given({ENDPOINTS: {"a": "1", "b": "1"}}),
        said(offer(ENDPOINTS, {"a": "1"})),
        given({ENDPOINTS: {"a": "2", "b": "1"}}),
        said(offer(ENDPOINTS, {"a": "2"})),
        heard(accept(ENDPOINTS, "a", "b", back=2)),
        said(accepted(ENDPOINTS)),
        heard(answer_strange(ENDPOINTS, "a", "b")),
        said(),
        heard(answer_strange(ENDPOINTS, "a", "b", error="old")),
        said(),
        heard(accept(ENDPOINTS, "a", "b")),
        said(accepted(ENDPOINTS), offer(ENDPOINTS, {"b": "1"})),
    )


def test_an_older_offer_that_is_refused_late_is_still_reported():
    play(
        sotw(),
        heard(ask(CLUSTERS)),
        given({CLUSTERS: {"a": "1"}}),
        said(offer(CLUSTERS, {"a": "1"})),
        given({CLUSTERS: {"a": "2"}}),
        said(offer(CLUSTERS, {"a": "2"})),
        heard(refuse(CLUSTERS, "a is odd", back=2)),
        said(refused(CLUSTERS, "a is odd", "a")),
        heard(accept(CLUSTERS)),
        said(accepted(CLUSTERS)),
    )


def test_a_refused_offer_is_not_repeated_until_it_changes():
    play(
        sotw(),
        heard(ask(CLUSTERS)),
        given({CLUSTERS: {"a": "1"}}),
        said(offer(CLUSTERS, {"a": "1"})),
        heard(refuse(CLUSTERS, "unknown filter")),
        said(refused(CLUSTERS, "unknown filter")),
        given({CLUSTERS: {"a": "1"}}, is_difference_known=False),
        said(),
        given({CLUSTERS: {"a": "2"}}),
        said(offer(CLUSTERS, {"a": "2"})),
    )


def test_what_was_refused_along_with_a_culprit_is_offered_again_without_it():
    play(
        sotw(),
        heard(ask(ENDPOINTS, "a", "b")),
        given({ENDPOINTS: {"a": "1", "b": "1"}}),
        said(offer(ENDPOINTS, {"a": "1", "b": "1"})),
        heard(refuse(ENDPOINTS, "bad endpoint in a: port 0", "a", "b")),
        said(
            refused(ENDPOINTS, "bad endpoint in a: port 0", "a"),
            offer(ENDPOINTS, {"b": "1"}),
        ),
    )


def test_a_refusal_can_change_the_names():
    play(
        sotw(),
        heard(ask(ENDPOINTS, "a")),
        given({ENDPOINTS: {"a": "1", "b": "1"}}),
        said(offer(ENDPOINTS, {"a": "1"})),
        heard(refuse(ENDPOINTS, "no", "a", "b")),
        said(refused(ENDPOINTS, "no"), offer(ENDPOINTS, {"b": "1"})),
        heard(refuse(ENDPOINTS, "no", "a", "b")),
        said(refused(ENDPOINTS, "no")),
        heard(refuse(ENDPOINTS, "no, again", "a", "b")),
        said(),
    )


def test_a_request_without_a_nonce_is_answered_anew():
    play(
        sotw(),
        given({CLUSTERS: {"a": "1"}}),
        heard(ask(CLUSTERS)),
        heard(ask(CLUSTERS)),
        said(offer(CLUSTERS, {"a": "1"})),
        heard(ask(CLUSTERS)),
        said(offer(CLUSTERS, {"a": "1"})),
        heard(accept(CLUSTERS)),
        said(accepted(CLUSTERS)),
        heard(ask(CLUSTERS)),
        said(offer(CLUSTERS, {"a": "1"})),
    )


def test_a_client_that_comes_from_another_stream_is_answered_in_full():
    play(
        sotw(),
        given({CLUSTERS: {"a": "1"}}),
        heard(answer_strange(CLUSTERS)),
        heard(answer_strange(CLUSTERS)),
        said(offer(CLUSTERS, {"a": "1"})),
    )


def test_clusters_can_be_asked_for_by_name_and_then_an_empty_list_means_none():
    play(
        sotw(),
        given({CLUSTERS: {"a": "1", "b": "1"}}),
        heard(ask(CLUSTERS, "a")),
        said(offer(CLUSTERS, {"a": "1"})),
        heard(accept(CLUSTERS)),
        said(accepted(CLUSTERS)),
        given({CLUSTERS: {"a": "2", "b": "2"}}),
        said(),
        heard(accept(CLUSTERS, "*")),
        said(offer(CLUSTERS, {"a": "2", "b": "2"})),
        heard(accept(CLUSTERS, "b")),
        said(accepted(CLUSTERS), offer(CLUSTERS, {"b": "2"})),
    )


def test_a_slow_reader_hears_the_latest_state_once():
    play(
        sotw(),
        heard(ask(ENDPOINTS, "a", "b")),
        given({ENDPOINTS: {"a": "1", "b": "1"}}),
        given({ENDPOINTS: {"a": "2", "b": "1"}}),
        given({ENDPOINTS: {"a": "3", "b": "1"}}),
        said(offer(ENDPOINTS, {"a": "3", "b": "1"})),
        given({ENDPOINTS: {"a": "4", "b": "1"}}),
        given({ENDPOINTS: {"a": "3", "b": "1"}}),
        said(),
    )


def test_types_that_are_not_known_are_told_last_and_by_wildcard():
    play(
        sotw(),
        given({"type.googleapis.com/istio.networking.nds.v1.NameTable": {"n": "1"}}),
        heard(ask("type.googleapis.com/istio.networking.nds.v1.NameTable")),
        heard(ask(CLUSTERS)),
        said(
            offer(CLUSTERS),
            offer("type.googleapis.com/istio.networking.nds.v1.NameTable", {"n": "1"}),
        ),
    )
