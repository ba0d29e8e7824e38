"""What the engine promises to those who declare, change, read and listen."""

import pytest

from isthmus.engine import collections, faults, graph, reader


@pytest.fixture
def graph_():
    return graph.Graph()


def put(graph_, source, **values):
    with graph_.transaction() as change:
        for key, value in values.items():
            change.put(source, key, value)


def clear(graph_, source):
    with graph_.transaction() as change:
        change.replace(source, lambda _: True, {})


def refuse_odd(_, key, value):
    if value % 2:
        raise ValueError("odd")
    return [(key, value)]


def fail_after(_):
    raise ZeroDivisionError


def keep_when_odd(_, key, value):
    if value % 2:
        raise reader.KeepLast
    return [(key, value)]


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


def test_a_transaction_whose_block_raised_is_of_no_use_either(graph_):
    source = graph_.source("source")
    with pytest.raises(ZeroDivisionError), graph_.transaction() as change:
        fail_after(change)

    with pytest.raises(faults.HandleClosed):
        change.put(source, "a", 1)


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


def test_who_reads_keys_hears_of_keys_and_of_no_values(graph_):
    source, asked = graph_.source("source"), graph_.source("asked")
    big = graph_.keys("big", source, lambda _, value: (value > 10,))
    graph_.derive("d", asked, lambda read, key, _: [(key, sorted(read.lookup(big, True)))])
    put(graph_, asked, x=1)
    put(graph_, source, a=11, b=12, c=1)

    put(graph_, source, a=13, c=2)
    assert graph_.recomputed() == 0

    put(graph_, source, c=14, b=3)
    assert graph_.recomputed() == 1
    assert dict(graph_.lookup(big, True)) == {"a": None, "c": None}

    clear(graph_, source)
    assert not big.buckets
