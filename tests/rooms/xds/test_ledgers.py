"""What clients have, as values that share their parts."""

import sys

from hypothesis import given
from hypothesis import strategies as st

from isthmus.resources.snapshot import Contents
from isthmus.xds import ledgers

NAMES = st.text("abcdef", min_size=1, max_size=3)
VERSIONS = st.dictionaries(NAMES, st.sampled_from("123"), max_size=80)
CHANGES = st.lists(st.dictionaries(NAMES, st.none() | st.sampled_from("123"), max_size=60))


def many(count):
    return {f"name-{number}": "1" for number in range(count)}


def bytes_of(ledger):
    return {id(leaf): sys.getsizeof(leaf) for leaf in ledger._leaves}


@given(VERSIONS, CHANGES)
def test_a_ledger_holds_what_a_dictionary_would(versions, changes):
    ledger, model = ledgers.of(versions), dict(versions)
    for change in changes:
        before, was = ledger, dict(model)
        ledger = ledger.after(change)
        for name, version in change.items():
            model.pop(name, None)
            if version is not None:
                model[name] = version

        assert {name: before.get(name) for name in before} == was
        assert {name: ledger.get(name) for name in ledger} == model
        assert len(ledger) == len(model)
        assert all((name in ledger) == (name in model) for name in change)


def test_however_two_came_to_have_the_same_they_share_it():
    one = ledgers.of(many(1000)).after({"name-3": "2"}).after({"name-4": "2", "other": "1"})
    two = ledgers.of(many(1000) | {"other": "1", "name-4": "2"}).after({"name-3": "2"})

    assert one == two
    assert bytes_of(one).keys() == bytes_of(two).keys()


def test_who_has_a_little_more_than_another_keeps_only_that():
    one = ledgers.of(many(1000))
    two = one.after({"own": "1"})

    own = bytes_of(two).keys() - bytes_of(one).keys()
    assert sum(bytes_of(two)[leaf] for leaf in own) < 2_000


def test_what_a_client_claims_never_stands_for_what_a_version_consists_of():
    claimed = ledgers.of({"members": "1"})
    known = ledgers.of({"members": Contents.made("1", dict)})

    assert known != claimed
    assert isinstance(known.get("members"), Contents)
    assert ledgers.of({"members": "1"}) == claimed


@given(VERSIONS, VERSIONS)
def test_what_two_clients_claim_is_one_ledger_if_it_is_the_same_and_only_then(one, other):
    first = ledgers.claimed(one)
    again = ledgers.claimed(dict(reversed(one.items())))

    assert again is first
    assert first == ledgers.of(one)
    assert (ledgers.claimed(other) is first) == (one == other)
    assert first.is_of(one)
    assert first.is_of(other) == (one == other)
