"""Transcripts of following one kind: what is heard, what is asked next, what changes."""

from typing import Any

import pytest

from isthmus.kube import listwatch
from isthmus.kube.listwatch import (
    Bookmark,
    Changed,
    Deleted,
    Ended,
    Failed,
    List,
    ListWatch,
    Page,
    Watch,
)


class Play:
    """Plays a transcript against one state."""

    def __init__(self) -> None:
        self.state: ListWatch[str, str] = ListWatch()

    def hears(self, what: Any, *, spread: float = 0.5) -> Any:
        return self.state.heard(what, spread=spread)

    def watches(self, **objects: str) -> "Play":
        self.hears(Page(dict(objects), "10"))
        return self


@pytest.fixture
def play() -> Play:
    return Play()


def test_the_first_list_is_a_quorum_read(play):
    assert play.state.begin() == List(not_older_than="", limit=500)


def test_a_page_with_a_token_asks_for_the_next_one_and_changes_nothing_yet(play):
    answer = play.hears(Page({"a": "1"}, "10", token="more"))

    assert answer == listwatch.Answer(List(token="more"), {}, synced=False)


@pytest.mark.parametrize(
    ("name", "size", "most"),
    [("the same", 0, 4), ("new", 0, 1_000), ("new", 1 << 30, 2)],
    ids=["no progress", "pages", "bytes"],
)
def test_pages_without_end_are_left_and_what_was_known_stays(play, name, size, most):
    play.watches(a="1")
    play.hears(Failed("expired"))
    ask, asked = List(), 0

    while ask.limit and asked < 2_000:
        names = {name if name == "the same" else f"{name}-{asked}": "1"}
        ask = play.hears(Page(names, "10", token="more", size_bytes=size)).ask
        asked += 1

    assert (asked, play.state.endless, play.state.cache) == (most, True, {"a": "1"})
    assert ask.delay_s > 0
    assert play.hears(Page({"b": "1"}, "11")).changes == {"a": None, "b": "1"}
    assert not play.state.endless


def test_the_last_page_gives_all_pages_as_one_batch_and_watches(play):
    play.hears(Page({"a": "1"}, "10", token="more"))

    answer = play.hears(Page({"b": "1"}, "10"))

    assert answer == listwatch.Answer(Watch("10"), {"a": "1", "b": "1"}, synced=True)


def test_an_event_that_changes_nothing_that_we_read_is_no_batch(play):
    play.watches(a="1")

    assert play.hears(Changed("a", "1", "11")) == listwatch.Answer(None, {}, synced=True)


def test_a_deletion_of_something_unknown_is_no_batch(play):
    play.watches(a="1")

    assert play.hears(Deleted("b", "11")).changes == {}


def test_a_watch_that_ends_continues_from_the_newest_version_seen(play):
    play.watches(a="1")
    play.hears(Changed("a", "2", "11"))
    play.hears(Bookmark("15"))

    assert play.hears(Ended(300)).ask == Watch("15", delay_s=0.0)


def test_watches_that_end_at_once_are_opened_more_and_more_slowly(play):
    play.watches()

    delays = [play.hears(Ended(0.0)).ask.delay_s for _ in range(10)]

    assert delays == [0.0, 0.5, 1.0, 2.0, 4.0, 7.0, 7.0, 7.0, 7.0, 7.0]


def test_an_expired_watch_lists_at_once_bounded_by_what_was_seen(play):
    play.watches(a="1")
    play.hears(Bookmark("20"))

    assert play.hears(Failed("expired")).ask == List(not_older_than="20", delay_s=0.0)


def test_watches_that_keep_expiring_do_not_make_a_storm_of_lists(play):
    play.watches()
    play.hears(Failed("expired"))
    play.hears(Page({}, "11"))

    assert play.hears(Failed("expired")).ask.delay_s >= 0.3


def test_deletions_unseen_while_the_watch_was_broken_are_found_by_the_next_list(play):
    play.watches(a="1", b="1")
    play.hears(Failed("expired"))

    answer = play.hears(Page({"b": "1"}, "30"))

    assert answer.changes == {"a": None}


def test_a_live_object_is_never_absent_during_a_list(play):
    play.watches(a="1")
    play.hears(Failed("expired"))

    play.hears(Page({}, "30", token="more"))

    assert play.state.cache == {"a": "1"}


def test_an_expired_page_token_lists_from_the_start_and_the_third_time_in_one_piece(play):
    asked = []
    for _ in range(3):
        play.hears(Page({"a": "1"}, "10", token="more"))
        asked.append(play.hears(Failed("expired")).ask.limit)

    assert asked == [500, 0, 0]


def test_pages_read_before_the_token_expired_do_not_count(play):
    play.hears(Page({"gone": "1"}, "10", token="more"))
    play.hears(Failed("expired"))

    assert play.hears(Page({"a": "1"}, "12")).changes == {"a": "1"}


def test_a_server_behind_what_we_saw_is_asked_again_by_quorum(play):
    play.watches()
    play.hears(Failed("expired"))

    assert play.hears(Failed("ahead")).ask.not_older_than == ""


def test_a_silent_server_keeps_every_object(play):
    play.watches(a="1")
    for _ in range(20):
        play.hears(Failed("other"))

    assert play.state.cache == {"a": "1"}
    assert play.state.synced


def test_refused_requests_never_come_faster_than_one_in_five_seconds_in_the_end(play):
    for _ in range(10):
        answer = play.hears(Failed("other"), spread=0.0)

    assert answer.ask.delay_s >= 5.0


def test_a_watch_refused_three_times_is_replaced_by_a_list(play):
    play.watches(a="1")

    kinds = [type(play.hears(Failed("other")).ask) for _ in range(3)]

    assert kinds == [Watch, Watch, List]


def test_a_kind_that_is_not_served_counts_as_listed_and_is_asked_for_again(play):
    answer = play.hears(Failed("missing"))

    assert answer.synced
    assert answer.ask == List(delay_s=2.0)


def test_a_kind_that_stays_unserved_has_no_objects(play):
    play.watches(a="1")

    changes = [dict(play.hears(Failed("missing")).changes) for _ in range(4)]

    assert changes == [{}, {}, {"a": None}, {}]


def test_an_object_that_cannot_be_read_keeps_its_last_good_form(play):
    play.watches(a="1")

    play.hears(Changed("a", None, "11"))
    play.hears(Failed("expired"))
    play.hears(Page({"a": None}, "12"))

    assert play.state.cache == {"a": "1"}


def test_delays_are_scattered(play):
    play.watches()
    play.hears(Ended(0.0))

    assert play.hears(Ended(0.0), spread=0.0).ask.delay_s == pytest.approx(0.375)
    assert play.hears(Ended(0.0), spread=1.0).ask.delay_s == pytest.approx(1.25)
