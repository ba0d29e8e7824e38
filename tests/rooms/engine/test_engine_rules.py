"""What the engine promises to those who declare, change, read and listen."""

import weakref
from collections.abc import MutableMapping

import pytest
from engine_acts import fail_after, put, refuse_odd

from isthmus.engine import collections, faults, graph

# --- transactions


def test_nothing_of_a_block_that_raises_is_applied(graph_):
    source = graph_.source("source")

    with pytest.raises(ZeroDivisionError), graph_.transaction() as change:
        fail_after(change.put(source, "a", 1))

    assert graph_.items(source) == {}


def test_a_graph_goes_on_after_a_block_that_raised(graph_):
    source = graph_.source("source")
    with pytest.raises(ZeroDivisionError), graph_.transaction():
        raise ZeroDivisionError

    put(graph_, source, a=1)

    assert graph_.get(source, "a") == 1


def test_nothing_is_visible_before_the_block_ends(graph_):
    source = graph_.source("source")

    with graph_.transaction() as change:
        change.put(source, "a", 1)
        assert graph_.get(source, "a") is None


def test_entries_of_a_source_are_where_it_is_told_to_keep_them(graph_):
    content = {}
    source = graph_.source("source", content=content)
    doubled = graph_.derive("doubled", source, lambda _, key, value: [(key, 2 * value)])

    put(graph_, source, a=1, b=2)

    assert content == {"a": 1, "b": 2}
    assert (graph_.items(source), graph_.get(source, "a")) == (content, 1)
    assert graph_.items(doubled) == {"a": 2, "b": 4}


class Word:
    def __init__(self, text):
        self.text = text

    def __eq__(self, other):
        return isinstance(other, Word) and self.text == other.text

    __hash__ = None


class Texts(MutableMapping):
    """Keeps the texts of words, and makes the words anew."""

    def __init__(self):
        self._texts = {}

    def __getitem__(self, key):
        return Word(self._texts[key])

    def __setitem__(self, key, value):
        self._texts[key] = value.text

    def __delitem__(self, key):
        del self._texts[key]

    def __iter__(self):
        return iter(self._texts)

    def __len__(self):
        return len(self._texts)


def test_what_was_written_is_let_go_of_before_anything_follows_from_it(graph_):
    source = graph_.source("source", content=Texts())
    written = []
    gone = graph_.derive("gone", source, lambda *_: [("a", written[0]() is None)])

    with graph_.transaction() as change:
        word = Word("word")
        written.append(weakref.ref(word))
        change.put(source, "a", word)
        del word

    assert graph_.items(gone) == {"a": True}


def test_a_large_group_keeps_no_value_that_is_made_anew_for_each_look(graph_):
    source = graph_.source("source", content=Texts())
    index = graph_.index("index", source, lambda key, word: (word.text[:1],))
    names = [f"k{number}" for number in range(40)]
    put(graph_, source, **{name: Word(f"a{name}") for name in names})

    put(graph_, source, k3=Word("b"), k4=Word("another"))

    found = graph_.lookup(index, "a")
    assert dict(found) == {
        name: Word("another" if name == "k4" else f"a{name}") for name in names if name != "k3"
    }
    assert (len(found), "k3" in found, "k4" in found) == (39, False, True)
    assert found["k4"] is not found["k4"]
    assert dict(graph_.lookup(index, "b")) == {"k3": Word("b")}


def test_the_last_write_to_a_key_counts(graph_):
    source = graph_.source("source")

    with graph_.transaction() as change:
        change.put(source, "a", 1)
        change.delete(source, "a")
        change.put(source, "b", 1)
        change.put(source, "b", 2)

    assert graph_.items(source) == {"b": 2}


def test_a_replacement_deletes_what_it_does_not_hold_within_its_range_only(graph_):
    source = graph_.source("source")
    put(graph_, source, east1=1, east2=2, west1=3)

    with graph_.transaction() as change:
        change.put(source, "east4", 9)
        change.replace(source, lambda key: key.startswith("east"), {"east2": 2, "east3": 4})

    assert graph_.items(source) == {"east2": 2, "east3": 4, "west1": 3}


def test_a_replacement_that_writes_outside_its_range_is_refused_whole(graph_):
    source = graph_.source("source")
    put(graph_, source, east1=1)

    with pytest.raises(faults.KeyOutsideReplacement), graph_.transaction() as change:
        change.replace(source, lambda key: key.startswith("east"), {"west1": 1})

    assert graph_.items(source) == {"east1": 1}


def test_a_transaction_inside_of_another_is_refused(graph_):
    with graph_.transaction(), pytest.raises(faults.TransactionReentered, match="open"):
        graph_.transaction().__enter__()


def test_a_transaction_inside_of_a_derivation_is_refused_and_becomes_a_finding(graph_):
    source = graph_.source("source")
    graph_.derive("greedy", source, lambda *_: graph_.transaction().__enter__())

    put(graph_, source, a=1)

    assert "TransactionReentered" in graph_.findings()[0].happened


def test_a_transaction_inside_of_a_listener_is_refused(graph_):
    source = graph_.source("source")
    graph_.listen(lambda _: graph_.transaction().__enter__())

    with pytest.raises(ExceptionGroup) as raised:
        put(graph_, source, a=1)

    assert raised.group_contains(faults.TransactionReentered)
    assert graph_.get(source, "a") == 1


def test_a_transaction_is_of_no_use_after_its_end(graph_):
    source = graph_.source("source")
    with graph_.transaction() as change:
        pass

    with pytest.raises(faults.HandleClosed):
        change.put(source, "a", 1)


def test_another_graphs_source_cannot_be_written(graph_):
    foreign = graph.Graph().source("foreign")

    with pytest.raises(faults.ReadOutOfOrder), graph_.transaction() as change:
        change.put(foreign, "a", 1)


# --- declarations


def test_a_name_is_declared_once(graph_):
    graph_.source("source")

    with pytest.raises(faults.NameTaken):
        graph_.source("source")


def test_nothing_can_be_declared_while_a_transaction_is_open(graph_):
    with graph_.transaction(), pytest.raises(faults.TransactionReentered):
        graph_.source("late")


def test_a_collection_of_another_graph_cannot_be_derived_from(graph_):
    foreign = graph.Graph().source("foreign")

    with pytest.raises(faults.ReadOutOfOrder):
        graph_.derive("derived", foreign, refuse_odd)


def test_a_late_declaration_is_filled_at_once(graph_):
    source = graph_.source("source")
    put(graph_, source, a=2)

    derived = graph_.derive("derived", source, refuse_odd)
    index = graph_.index("index", source, lambda _, value: (value,))
    joined = graph_.join("joined", source, derived)
    single = graph_.single("single", lambda read: len(read.items(source)))

    assert graph_.get(derived, "a") == graph_.get(joined, "a") == 2
    assert graph_.lookup(index, 2) == {"a": 2}
    assert graph_.value(single) == 1


def test_what_was_declared_is_found_by_name(graph_):
    source = graph_.source("source")

    assert graph_.named("source") is source
    assert graph_.named("other") is None
    assert repr(source) == "<Source source>"


# --- reading


def test_a_derivation_cannot_read_what_is_computed_after_it(graph_):
    source = graph_.source("source")
    later = {}
    graph_.derive("early", source, lambda read, key, _: [(key, read.get(later["it"], key))])
    later["it"] = graph_.source("late")

    put(graph_, source, a=1)

    assert "ReadOutOfOrder" in graph_.findings()[0].happened


def test_a_reader_is_of_no_use_after_its_derivation(graph_):
    source = graph_.source("source")
    kept = []
    graph_.derive("derived", source, lambda read, *_: kept.append(read) or ())
    put(graph_, source, a=1)

    with pytest.raises(faults.HandleClosed):
        kept[0].get(source, "a")


def test_what_is_read_cannot_be_written(graph_):
    source = graph_.source("source")
    index = graph_.index("index", source, lambda key, _: (key,))
    put(graph_, source, a=1)

    with pytest.raises(TypeError):
        graph_.items(source)["a"] = 2
    with pytest.raises(TypeError):
        graph_.lookup(index, "a")["a"] = 2


# --- listening


def test_listeners_get_one_batch_with_old_and_new(graph_):
    source = graph_.source("source")
    derived = graph_.derive("derived", source, lambda _, key, value: [(key, value // 10)])
    single = graph_.single("single", lambda read: len(read.items(source)))
    put(graph_, source, a=10, b=20)
    batches = []
    graph_.listen(batches.append)

    with graph_.transaction() as change:
        change.put(source, "a", 11)
        change.delete(source, "b")

    [batch] = batches
    assert batch.of(source) == {"a": collections.Change(10, 11), "b": collections.Change(20, None)}
    assert batch.of(derived) == {"b": collections.Change(2, None)}
    assert batch.of_single(single) == collections.Change(2, 1)


def test_a_batch_stays_what_it_was(graph_):
    source = graph_.source("source")
    batches = []
    graph_.listen(batches.append)
    put(graph_, source, a=1)

    put(graph_, source, a=2)

    assert batches[0].of(source) == {"a": collections.Change(None, 1)}


def test_a_transaction_that_changes_nothing_calls_nobody(graph_):
    source = graph_.source("source")
    put(graph_, source, a=1)
    batches = []
    graph_.listen(batches.append)

    put(graph_, source, a=1)

    assert batches == []


def test_values_that_are_equal_but_not_the_same_are_no_change(graph_):
    source = graph_.source("source")
    derived = graph_.derive("derived", source, lambda _, key, value: [(key, (len(value), "x"))])
    put(graph_, source, a=(1, 2))
    known = graph_.get(derived, "a")
    batches = []
    graph_.listen(batches.append)

    put(graph_, source, a=tuple([1, 2]))  # noqa: C409  # Equal, and another object.
    put(graph_, source, a=(3, 4))

    [batch] = batches
    assert batch.of(derived) == {}
    assert graph_.get(derived, "a") is known


def test_a_single_that_stays_equal_is_no_change(graph_):
    source = graph_.source("source")
    single = graph_.single("single", lambda read: len(read.items(source)))
    put(graph_, source, a=1)
    batches = []
    graph_.listen(batches.append)

    put(graph_, source, a=2)

    assert batches[0].of_single(single) is None


def test_a_listener_that_raises_keeps_no_other_from_hearing(graph_):
    source = graph_.source("source")
    batches = []
    graph_.listen(lambda _: 1 // 0)
    graph_.listen(batches.append)

    with pytest.raises(ExceptionGroup):
        put(graph_, source, a=1)

    assert len(batches) == 1


# --- explaining


def test_an_explanation_shows_the_chain_of_inputs(graph_):
    source, other = graph_.source("source"), graph_.source("other")
    index = graph_.index("index", other, lambda _, value: (value,))
    joined = graph_.join("joined", source, other)
    derived = graph_.derive(
        "derived", joined, lambda read, key, value: [(key, len(read.lookup(index, value)))]
    )
    put(graph_, source, a=1)
    put(graph_, other, b=1)

    assert str(graph_.explain(derived, "a")).splitlines() == [
        "derived['a']",
        "  joined['a']",
        "    source['a']",
        "  index[1]",
        "    other['b']",
    ]


def test_an_explanation_opens_nothing_twice_and_says_what_is_not_there(graph_):
    source = graph_.source("source")
    twice = graph_.derive("twice", source, lambda read, key, value: [(key, value * 2)])
    both = graph_.derive(
        "both", twice, lambda read, key, _: [(key, (read.get(twice, "a"), read.get(twice, "z")))]
    )
    single = graph_.single("single", lambda read: (len(read.items(both)), read.get(both, "a")))
    put(graph_, source, a=1)

    assert str(graph_.explain_single(single)).splitlines() == [
        "single",
        "  both  (all 1 entries)",
        "  both['a']",
        "    twice['a']",
        "      source['a']",
        "    twice['z']  (does not exist)",
    ]
    assert str(graph_.explain(both, "b")) == "both['b']  (does not exist)"


def test_an_explanation_counts_what_it_does_not_show(graph_):
    source = graph_.source("source")
    index = graph_.index("index", source, lambda *_: ("all",))
    counted = graph_.derive(
        "counted", source, lambda read, key, _: [(key, len(read.lookup(index, "all")))]
    )
    put(graph_, source, **{f"k{n}": n for n in range(60)})

    explained = graph_.explain(counted, "k1")

    assert explained.inputs[1].note == "60 inputs, 50 shown"
    assert len(explained.inputs[1].inputs) == 50


def test_what_is_shown_twice_is_opened_once(graph_):
    source = graph_.source("source")
    one = graph_.derive("one", source, lambda _, key, value: [(key, value)])
    two = graph_.derive("two", one, lambda _, key, value: [(key, value)])
    three = graph_.derive("three", one, lambda read, key, _: [(key, read.get(two, key))])
    put(graph_, source, a=1)

    assert str(graph_.explain(three, "a")).splitlines()[-2:] == [
        "  two['a']",
        "    one['a']  (as above)",
    ]


def test_a_transaction_whose_block_raised_is_of_no_use_either(graph_):
    source = graph_.source("source")
    with pytest.raises(ZeroDivisionError), graph_.transaction() as change:
        fail_after(change)

    with pytest.raises(faults.HandleClosed):
        change.put(source, "a", 1)
