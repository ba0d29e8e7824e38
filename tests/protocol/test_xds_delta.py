"""Delta: each message is a difference."""

from isthmus.resources.snapshot import CLUSTERS, ENDPOINTS, LISTENERS, ROUTES
from isthmus.testing.playbook import (
    accept,
    accepted,
    answer_strange,
    ask,
    drop,
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


def delta():
    return session.Session(Flavour.DELTA)


def test_only_what_changed_is_told():
    play(
        delta(),
        heard(ask(CLUSTERS)),
        given({CLUSTERS: {"a": "1", "b": "1"}}),
        said(offer(CLUSTERS, {"a": "1", "b": "1"})),
        given({CLUSTERS: {"a": "2", "b": "1"}}),
        said(offer(CLUSTERS, {"a": "2"})),
        given({CLUSTERS: {"a": "2", "b": "1"}}, is_difference_known=False),
        said(),
    )


def test_a_first_request_is_answered_even_when_there_is_nothing():
    play(delta(), given({}), heard(ask(LISTENERS)), said(offer(LISTENERS)))
    play(delta(), given({}), heard(ask(CLUSTERS)), said(offer(CLUSTERS)))


def test_what_is_not_there_is_told_as_removed():
    play(
        delta(),
        given({ENDPOINTS: {"a": "1"}}),
        heard(ask(ENDPOINTS, "a", "b")),
        said(offer(ENDPOINTS, {"a": "1"}), offer(ENDPOINTS, removed=("b",))),
        heard(ask(ENDPOINTS, "c")),
        said(offer(ENDPOINTS, removed=("c",))),
        given({ENDPOINTS: {"a": "1", "c": "1"}}),
        said(offer(ENDPOINTS, {"c": "1"})),
        given({ENDPOINTS: {"c": "1"}}),
        said(offer(ENDPOINTS, removed=("a",))),
        given({ENDPOINTS: {"c": "1"}}, is_difference_known=False),
        said(),
    )


def test_routes_and_their_removal_are_one_message():
    play(
        delta(),
        given({ROUTES: {"80": "1"}}),
        heard(ask(ROUTES, "80", "81")),
        said(offer(ROUTES, {"80": "1"}, removed=("81",))),
    )


def test_clusters_go_only_after_everything_that_could_refer_to_them():
    play(
        delta(),
        heard(ask(CLUSTERS)),
        heard(ask(ENDPOINTS, "old", "new")),
        heard(ask(ROUTES, "80")),
        given({CLUSTERS: {"old": "1"}, ENDPOINTS: {"old": "1"}, ROUTES: {"80": "1"}}),
        said(
            offer(CLUSTERS, {"old": "1"}),
            offer(ENDPOINTS, {"old": "1.1"}),
            offer(ROUTES, {"80": "1"}),
            offer(ENDPOINTS, removed=("new",)),
        ),
        given({CLUSTERS: {"new": "1"}, ENDPOINTS: {"new": "1"}, ROUTES: {"80": "2"}}),
        said(
            offer(CLUSTERS, {"new": "1"}),
            offer(ENDPOINTS, {"new": "1.1"}),
            offer(ROUTES, {"80": "2"}),
            offer(ENDPOINTS, removed=("old",)),
            offer(CLUSTERS, removed=("old",)),
        ),
    )


def test_what_comes_back_before_its_removal_was_told_is_not_removed():
    held = delta()
    play(
        held,
        heard(ask(CLUSTERS)),
        heard(ask(LISTENERS)),
        given({CLUSTERS: {"a": "1"}}),
        said(offer(CLUSTERS, {"a": "1"}), offer(LISTENERS)),
        given({}),
        given({CLUSTERS: {"a": "1"}}),
        said(),
    )


def test_what_the_client_has_from_another_stream_is_not_repeated():
    play(
        delta(),
        given({LISTENERS: {"a": "1", "b": "2"}}),
        heard(ask(LISTENERS, has={"a": "1", "b": "1", "c": "1"})),
        said(offer(LISTENERS, {"b": "2"}, removed=("c",))),
    )


def test_names_that_the_client_has_are_wanted():
    play(
        delta(),
        given({ROUTES: {"a": "1", "b": "1"}}),
        heard(ask(ROUTES, "b", has={"a": "1", "b": "1"})),
        said(offer(ROUTES)),
        given({ROUTES: {"a": "2", "b": "1"}}),
        said(offer(ROUTES, {"a": "2"})),
    )


def test_who_has_clusters_with_the_endpoints_told_for_them_hears_nothing_on_another_stream():
    play(
        delta(),
        given({CLUSTERS: {"a": "2", "b": "1"}, ENDPOINTS: {"a": "1", "b": "1", "c": "1"}}),
        heard(ask(CLUSTERS, has={"a": "2", "b": "1"})),
        heard(ask(ENDPOINTS, "a", "b", has={"a": "2.1", "b": "1.1", "gone": "1.1"})),
        said(offer(CLUSTERS), offer(ENDPOINTS, removed=("gone",))),
    )


def test_endpoints_are_told_on_another_stream_to_a_cluster_that_waits_for_them_since_the_last():
    play(
        delta(),
        given({CLUSTERS: {"a": "2", "b": "1"}, ENDPOINTS: {"a": "1", "b": "1"}}),
        heard(ask(CLUSTERS, has={"a": "2", "b": "1"})),
        heard(ask(ENDPOINTS, "a", "b", has={"a": "1.1", "b": "1.1"})),
        said(offer(CLUSTERS), offer(ENDPOINTS, {"a": "2.1"})),
    )


def test_a_cluster_is_not_again_what_its_endpoints_were_told_for_before_it_has_some():
    play(
        delta(),
        given({CLUSTERS: {"a": "1"}, ENDPOINTS: {"a": "1"}}),
        heard(ask(CLUSTERS, has={"a": "2"})),
        # If these came after the cluster, and the stream broke between, nobody would know.
        said(),
        heard(ask(ENDPOINTS, "a", has={"a": "1.1"})),
        said(
            offer(ENDPOINTS, {"a": "2.1"}),
            offer(CLUSTERS, {"a": "1"}),
            offer(ENDPOINTS, {"a": "1.1"}),
        ),
    )


def test_an_explicit_wildcard_wants_everything_until_it_is_dropped():
    play(
        delta(),
        given({CLUSTERS: {"a": "1", "b": "1"}}),
        heard(ask(CLUSTERS, "*", "a")),
        said(offer(CLUSTERS, {"a": "1", "b": "1"})),
        heard(drop(CLUSTERS, "*")),
        said(),
        given({CLUSTERS: {"a": "2", "b": "2"}}),
        said(offer(CLUSTERS, {"a": "2"})),
    )


def test_naming_something_does_not_end_the_wildcard():
    play(
        delta(),
        given({CLUSTERS: {"a": "1", "b": "1"}}),
        heard(ask(CLUSTERS)),
        said(offer(CLUSTERS, {"a": "1", "b": "1"})),
        heard(ask(CLUSTERS, "a")),
        said(offer(CLUSTERS, {"a": "1"})),
        given({CLUSTERS: {"a": "1", "b": "2"}}),
        said(offer(CLUSTERS, {"b": "2"})),
    )


def test_dropping_a_name_under_a_wildcard_is_answered_because_the_client_cannot_know():
    play(
        delta(),
        given({CLUSTERS: {"a": "1"}}),
        heard(ask(CLUSTERS, "*", "a", "b")),
        said(offer(CLUSTERS, {"a": "1"}), offer(CLUSTERS, removed=("b",))),
        heard(drop(CLUSTERS, "a", "b")),
        said(offer(CLUSTERS, {"a": "1"}), offer(CLUSTERS, removed=("b",))),
    )


def test_a_dropped_name_is_never_told_again():
    play(
        delta(),
        given({ENDPOINTS: {"a": "1", "b": "1"}}),
        heard(ask(ENDPOINTS, "a", "b")),
        said(offer(ENDPOINTS, {"a": "1", "b": "1"})),
        given({ENDPOINTS: {"a": "2"}}),
        heard(drop(ENDPOINTS, "a", "b")),
        said(),
        given({ENDPOINTS: {"a": "3", "b": "3"}}, is_difference_known=False),
        said(),
    )


def test_asking_again_for_a_name_is_answered_because_the_client_may_have_lost_it():
    play(
        delta(),
        given({ENDPOINTS: {"a": "1"}}),
        heard(ask(ENDPOINTS, "a")),
        said(offer(ENDPOINTS, {"a": "1"})),
        heard(accept(ENDPOINTS)),
        said(accepted(ENDPOINTS)),
        heard(ask(ENDPOINTS, "a")),
        said(offer(ENDPOINTS, {"a": "1"})),
    )


def test_no_subscription_is_lost_however_stale_its_nonce():
    play(
        delta(),
        given({ENDPOINTS: {"a": "1", "b": "1", "c": "1", "d": "1"}}),
        heard(answer_strange(ENDPOINTS, "a")),
        heard(answer_strange(ENDPOINTS, "b")),
        said(offer(ENDPOINTS, {"a": "1", "b": "1"})),
        given({ENDPOINTS: {"a": "2", "b": "1", "c": "1", "d": "1"}}),
        said(offer(ENDPOINTS, {"a": "2"})),
        heard(accept(ENDPOINTS, "c", back=2)),
        said(accepted(ENDPOINTS), offer(ENDPOINTS, {"c": "1"})),
        heard(answer_strange(ENDPOINTS, "d")),
        said(offer(ENDPOINTS, {"d": "1"})),
    )


def test_a_changed_cluster_hears_its_endpoints_again_because_it_waits_for_them():
    play(
        delta(),
        heard(ask(CLUSTERS)),
        heard(ask(ENDPOINTS, "a", "b")),
        given({CLUSTERS: {"a": "1", "b": "1"}, ENDPOINTS: {"a": "1", "b": "1"}}),
        said(offer(CLUSTERS, {"a": "1", "b": "1"}), offer(ENDPOINTS, {"a": "1.1", "b": "1.1"})),
        given({CLUSTERS: {"a": "2", "b": "1"}, ENDPOINTS: {"a": "1", "b": "1"}}),
        said(offer(CLUSTERS, {"a": "2"}), offer(ENDPOINTS, {"a": "2.1"})),
    )


def test_a_refused_offer_is_not_repeated_until_it_changes():
    play(
        delta(),
        heard(ask(CLUSTERS)),
        given({CLUSTERS: {"a": "1", "b": "1"}}),
        said(offer(CLUSTERS, {"a": "1", "b": "1"})),
        heard(refuse(CLUSTERS, "something is odd")),
        said(refused(CLUSTERS, "something is odd")),
        given({CLUSTERS: {"a": "1", "b": "1", "c": "1"}}),
        said(offer(CLUSTERS, {"c": "1"})),
        given({CLUSTERS: {"a": "2", "b": "1", "c": "1"}}),
        said(offer(CLUSTERS, {"a": "2", "b": "1"})),
    )


def test_what_was_refused_along_with_a_culprit_is_offered_again_without_it():
    play(
        delta(),
        heard(ask(CLUSTERS)),
        given({CLUSTERS: {"a.b": "1", "a": "1", "b": "1"}}),
        said(offer(CLUSTERS, {"a.b": "1", "a": "1", "b": "1"})),
        heard(refuse(CLUSTERS, "cluster a.b: odd, see b.")),
        said(
            refused(CLUSTERS, "cluster a.b: odd, see b.", "a.b", "b"),
            offer(CLUSTERS, {"a": "1"}),
        ),
        heard(accept(CLUSTERS)),
        said(accepted(CLUSTERS)),
    )


def test_what_is_no_longer_wanted_is_not_offered_again_after_a_refusal():
    play(
        delta(),
        given({ENDPOINTS: {"a": "1", "b": "1"}}),
        heard(ask(ENDPOINTS, "a", "b")),
        said(offer(ENDPOINTS, {"a": "1", "b": "1"})),
        heard(drop(ENDPOINTS, "b")),
        said(),
        heard(refuse(ENDPOINTS, "a")),
        said(refused(ENDPOINTS, "a", "a")),
    )


def test_a_refusal_of_an_older_offer_counts():
    play(
        delta(),
        heard(ask(CLUSTERS)),
        given({CLUSTERS: {"a": "1"}}),
        said(offer(CLUSTERS, {"a": "1"})),
        given({CLUSTERS: {"a": "1", "b": "1"}}),
        said(offer(CLUSTERS, {"b": "1"})),
        heard(refuse(CLUSTERS, "a is odd", back=2)),
        said(refused(CLUSTERS, "a is odd", "a")),
        heard(accept(CLUSTERS)),
        said(accepted(CLUSTERS)),
        heard(refuse(CLUSTERS, "late")),
        said(),
    )


def test_a_slow_reader_hears_the_latest_state_once():
    play(
        delta(),
        heard(ask(CLUSTERS)),
        given({CLUSTERS: {"a": "1"}}),
        given({CLUSTERS: {"a": "2", "b": "1"}}),
        given({CLUSTERS: {"a": "3"}}),
        said(offer(CLUSTERS, {"a": "3"})),
    )
