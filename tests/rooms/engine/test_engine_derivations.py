"""What derivations, indexes, joins and singles promise, above all when a function fails."""

import pytest
from engine_acts import clear, keep_when_odd, put, refuse_odd

from isthmus.engine import faults, graph, reader

# --- derivations


def test_one_input_may_have_many_outputs_and_takes_them_with_it(graph_):
    source = graph_.source("source")
    letters = graph_.derive("letters", source, lambda _, key, word: [(c, key) for c in word])
    put(graph_, source, a="xyz", b="w")
    assert set(graph_.items(letters)) == set("wxyz")

    with graph_.transaction() as change:
        change.delete(source, "a")

    assert set(graph_.items(letters)) == {"w"}


def test_of_two_outputs_with_one_key_that_of_the_smaller_input_wins(graph_):
    source = graph_.source("source")
    best = graph_.derive("best", source, lambda _, key, value: [("one", (key, value))])

    put(graph_, source, b=1)
    put(graph_, source, a=2)
    put(graph_, source, c=3)

    assert graph_.get(best, "one") == ("a", 2)
    [finding] = graph_.findings()
    assert finding.code == faults.KEY_CONTESTED
    assert finding.subject == "best['one']"


def test_the_next_claimant_takes_over_and_the_finding_goes(graph_):
    source = graph_.source("source")
    best = graph_.derive("best", source, lambda _, key, value: [("one", (key, value))])
    put(graph_, source, a=1, b=2)

    with graph_.transaction() as change:
        change.delete(source, "a")

    assert graph_.get(best, "one") == ("b", 2)
    assert graph_.findings() == ()


def test_claimants_without_an_order_are_ordered_by_how_they_are_written(graph_):
    source = graph_.source("source")
    best = graph_.derive("best", source, lambda _, key, value: [("one", key)])
    with graph_.transaction() as change:
        for key in ("b", 2, None, 10):
            change.put(source, key, 1)

    assert graph_.get(best, "one") == "b"


def test_the_smaller_claimant_is_the_smaller_number_and_not_the_smaller_text(graph_):
    source = graph_.source("source")
    best = graph_.derive("best", source, lambda _, key, value: [("one", key)])

    with graph_.transaction() as change:
        for key in (10, 9, 30):
            change.put(source, key, 1)

    assert graph_.get(best, "one") == 9


def test_of_two_outputs_of_one_run_with_one_key_the_first_counts(graph_):
    source = graph_.source("source")
    derived = graph_.derive("derived", source, lambda _, key, value: [(key, 1), (key, 2)])

    put(graph_, source, a=0)

    assert graph_.get(derived, "a") == 1


def test_a_broken_input_keeps_its_last_good_answer(graph_):
    source = graph_.source("source")
    derived = graph_.derive("derived", source, keep_when_odd)
    put(graph_, source, a=2)

    put(graph_, source, a=3)

    assert graph_.get(derived, "a") == 2
    assert graph_.findings() == ()


def test_a_kept_answer_goes_when_its_input_goes(graph_):
    source = graph_.source("source")
    derived = graph_.derive("derived", source, keep_when_odd)
    put(graph_, source, a=2)
    put(graph_, source, a=3)

    with graph_.transaction() as change:
        change.delete(source, "a")

    assert graph_.items(derived) == {}


def test_an_input_that_makes_a_derivation_fail_harms_no_other(graph_):
    source = graph_.source("source")
    derived = graph_.derive("derived", source, refuse_odd)
    put(graph_, source, a=2, b=2)

    put(graph_, source, a=3, b=4)

    assert graph_.items(derived) == {"a": 2, "b": 4}
    [finding] = graph_.findings()
    assert finding.code == faults.DERIVATION_FAILED
    assert finding.subject == "derived['a']"
    assert "ValueError: odd" in finding.happened


def test_a_failed_input_recovers_and_its_finding_goes(graph_):
    source = graph_.source("source")
    derived = graph_.derive("derived", source, refuse_odd)
    put(graph_, source, a=3)

    put(graph_, source, a=4)

    assert graph_.get(derived, "a") == 4
    assert graph_.findings() == ()


def test_a_failed_input_is_tried_again_when_what_it_read_changes(graph_):
    source, other = graph_.source("source"), graph_.source("other")
    derived = graph_.derive(
        "derived", source, lambda read, key, value: [(key, value / (read.get(other, "by") or 0))]
    )
    put(graph_, source, a=4)

    put(graph_, other, by=2)

    assert graph_.get(derived, "a") == 2


def test_an_index_keeps_an_entry_where_it_was_while_it_cannot_be_placed(graph_):
    source = graph_.source("source")
    index = graph_.index("index", source, lambda _, value: (10 // value,))
    put(graph_, source, a=5)

    put(graph_, source, a=0)

    assert graph_.lookup(index, 2) == {"a": 0}
    assert graph_.findings()[0].subject == "index['a']"


def test_a_failing_single_keeps_its_last_value_and_says_so(graph_):
    source = graph_.source("source")
    single = graph_.single("single", lambda read: 10 // (read.get(source, "by") or 0))
    assert "ZeroDivisionError" in graph_.findings()[0].happened
    with pytest.raises(faults.NoValueYet):
        graph_.value(single)

    put(graph_, source, by=5)
    put(graph_, source, by=0)

    assert graph_.value(single) == 2
    assert graph_.findings()[0].subject == "single[()]"


def test_who_reads_a_single_without_a_value_waits_for_it(graph_):
    source = graph_.source("source")
    single = graph_.single("single", keep_until(source))
    derived = graph_.derive("derived", source, lambda read, key, _: [(key, read.value(single))])
    put(graph_, source, a=1)
    assert graph_.items(derived) == {}

    put(graph_, source, start=7)

    assert graph_.get(derived, "a") == 7
    assert graph_.findings() == ()


def keep_until(source):
    def started(read):
        found = read.get(source, "start")
        if found is None:
            raise reader.KeepLast
        return found

    return started


def test_of_equal_keys_a_join_takes_the_earlier_members(graph_):
    first, second = graph_.source("first"), graph_.source("second")
    joined = graph_.join("joined", first, second)
    put(graph_, second, a=2, b=2)
    put(graph_, first, a=1)
    assert graph_.items(joined) == {"a": 1, "b": 2}

    with graph_.transaction() as change:
        change.delete(first, "a")

    assert graph_.get(joined, "a") == 2


def test_a_single_that_waits_has_no_finding(graph_):
    source = graph_.source("source")
    graph_.single("single", keep_until(source))

    assert graph_.findings() == ()


def test_an_entry_may_be_in_no_group_and_a_join_lose_a_key(graph_):
    source = graph_.source("source")
    index = graph_.index("index", source, lambda _, value: (value,) if value else ())
    joined = graph_.join("joined", source)
    put(graph_, source, a=0)
    assert dict(index.buckets) == {}

    with graph_.transaction() as change:
        change.delete(source, "a")

    assert graph_.items(joined) == {}
    assert graph_.findings() == ()


def test_what_nobody_asks_for_is_not_computed_and_not_kept(graph_):
    source, asked = graph_.source("source"), graph_.source("asked")
    derived = graph_.derive("d", source, lambda _, key, value: [(key, value)], while_any=asked)
    index = graph_.index("i", source, lambda _, value: (value,), while_any=asked)
    put(graph_, source, a=5)

    assert graph_.recomputed() == 0
    assert not graph_.items(derived)
    assert not graph_.lookup(index, 5)

    put(graph_, asked, somebody=1)

    assert graph_.items(derived) == {"a": 5}
    assert graph_.lookup(index, 5) == {"a": 5}

    put(graph_, asked, another=1)

    assert graph_.recomputed() == 0

    clear(graph_, asked)

    assert not graph_.items(derived)
    assert not graph_.lookup(index, 5)
    assert not index.buckets


def test_runs_that_read_the_same_are_all_computed_again_when_it_changes(graph_):
    source, setting = graph_.source("source"), graph_.source("setting")
    derived = graph_.derive(
        "d", source, lambda read, key, _: [(key, read.get(setting, "x"))] if key != "c" else []
    )
    put(graph_, source, a=1, b=1, c=1)

    put(graph_, setting, x=7)
    assert graph_.recomputed() == 2
    assert graph_.items(derived) == {"a": 7, "b": 7}

    clear(graph_, source)
    assert not setting.readers


class Word(str):
    """A word; all of one length lie in one slot."""

    def __hash__(self):
        return len(self)


class Words(graph.Naming[Word, str]):
    """A text names its words."""

    def names(self, value):
        if value == "unreadable":
            raise ValueError("nobody can read this")
        return [Word(one) for one in value.split()]

    def is_named(self, value, name):
        return name in value.split()


@pytest.fixture
def library(graph_):
    return Library(graph_)


class Library:
    """Texts, and readers who look up a word."""

    def __init__(self, graph_) -> None:
        self.graph = graph_
        self.texts, self.asked = graph_.source("texts"), graph_.source("asked")
        self.mentions = graph_.mentions("mentions", self.texts, Words())
        self.found = graph_.derive(
            "found",
            self.asked,
            lambda read, key, _: [(key, [*read.lookup(self.mentions, Word(key))])],
        )

    def put(self, **texts):
        put(self.graph, self.texts, **texts)
        return self.graph.recomputed()

    def where(self, word):
        return dict(self.graph.lookup(self.mentions, Word(word)))


def test_what_names_something_is_found_by_the_name(library):
    library.put(a="sun moon", b="moon", c="")

    assert library.where("moon") == {"a": None, "b": None}
    assert library.where("sun") == {"a": None}
    assert library.where("star") == {}

    library.put(a="star", b="moon sun")
    assert library.where("moon") == library.where("sun") == {"b": None}
    assert library.where("star") == {"a": None}

    clear(library.graph, library.texts)
    assert library.where("moon") == {}
    assert not any(library.mentions.slots)


def test_a_name_that_shares_its_slot_with_others_is_told_from_them(library):
    library.put(a="moon star", b="star wind")

    assert library.where("moon") == {"a": None}
    assert library.where("wind") == {"b": None}

    library.put(b="wind")
    assert library.where("star") == {"a": None}

    library.put(a="star", b="star")
    assert sorted(library.where("star")) == ["a", "b"]
    assert library.where("moon") == {}


def test_who_looks_up_a_name_hears_who_names_it_and_nothing_else(library):
    put(library.graph, library.asked, moon=1)
    library.put(a="moon", b="star")
    assert library.graph.get(library.found, "moon") == ["a"]

    assert library.put(a="moon and more", b="wind") == 0

    assert library.put(b="star moon") == 1
    assert sorted(library.graph.get(library.found, "moon")) == ["a", "b"]

    assert library.put(a="wind") == 1
    assert library.graph.get(library.found, "moon") == ["b"]


def test_what_cannot_be_read_names_nothing_and_a_finding_says_so(library):
    library.put(a="moon", b="moon")

    library.put(a="unreadable")
    assert library.where("moon") == {"b": None}
    assert [found.subject for found in library.graph.findings()] == ["mentions['a']"]

    library.put(a="moon")
    assert sorted(library.where("moon")) == ["a", "b"]
    assert not library.graph.findings()


@pytest.mark.parametrize("size", [1, 2, 5, 17, 40])
def test_groups_of_any_size_hold_what_is_in_them_in_order_of_arrival(graph_, size):
    source = graph_.source("source")
    index = graph_.index("index", source, lambda *_: ("all",))
    wanted = {f"k{number}": number for number in range(size)}
    put(graph_, source, **wanted)
    assert list(graph_.lookup(index, "all").items()) == list(wanted.items())

    wanted["k0"] = -1
    put(graph_, source, k0=-1)
    assert list(graph_.lookup(index, "all").items()) == list(wanted.items())

    for number in range(size):
        del wanted[f"k{number}"]
        with graph_.transaction() as change:
            change.delete(source, f"k{number}")
        assert list(graph_.lookup(index, "all").items()) == list(wanted.items())
    assert not index.buckets


def test_an_entry_that_cannot_be_placed_leaves_with_what_it_was(graph_):
    source = graph_.source("source")
    index = graph_.index("index", source, lambda _, value: (10 // value,))
    put(graph_, source, a=5)
    put(graph_, source, a=0)

    clear(graph_, source)

    assert not index.buckets
    assert graph_.findings() == ()
