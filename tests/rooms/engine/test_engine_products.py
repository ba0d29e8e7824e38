"""Pairs of places and entries are, after any history, those that a look at all would give."""

from hypothesis import given
from hypothesis import strategies as st

from isthmus.engine import graph

writes = st.lists(
    st.tuples(st.booleans(), st.integers(0, 4), st.one_of(st.none(), st.integers(0, 5))),
    max_size=5,
)


def sees(place: int, value: int) -> bool:
    if value == 5:
        raise ValueError("an entry that cannot be judged")
    return (place + value) % 3 > 0


class Pairs:
    def __init__(self) -> None:
        self.graph = graph.Graph()
        self.entries, self.places = self.graph.source("entries"), self.graph.source("places")
        self.pairs = self.graph.product("pairs", self.entries, self.places, sees)
        self.told = dict[tuple[int, int], int]()
        self.graph.listen(self.follow)

    def follow(self, batch) -> None:
        for key, change in batch.of(self.pairs).items():
            assert self.told.pop(key, None) == change.old != change.new
            if change.new is not None:
                self.told[key] = change.new

    def write(self, some) -> int:
        with self.graph.transaction() as change:
            for is_place, key, value in some:
                source = self.places if is_place else self.entries
                if value is None:
                    change.delete(source, key)
                else:
                    change.put(source, key, None if is_place else value)
        return self.graph.recomputed()


@given(st.lists(writes, max_size=8))
def test_pairs_follow_whatever_comes_and_goes(history):
    held = Pairs()
    for some in history:
        before = dict(held.told)
        held.write(some)
        entries, places = held.graph.items(held.entries), held.graph.items(held.places)
        expected = {
            (place, key): before.get((place, key)) if value == 5 else value
            for place in places
            for key, value in entries.items()
            if ((place, key) in before if value == 5 else sees(place, value))
        }

        assert dict(held.graph.items(held.pairs)) == held.told == expected
        failing = sum(value == 5 for value in entries.values()) * len(places)
        assert len(held.graph.findings()) == failing


def test_a_place_that_comes_or_goes_touches_no_other_places_pairs():
    held = Pairs()
    held.write([(True, place, 0) for place in range(4)] + [(False, key, 1) for key in range(4)])

    assert held.write([(True, 9, 0)]) == 1
    assert held.write([(True, 9, None)]) == 1
    assert held.write([(False, 2, 4)]) == 1
    assert {key for key in held.told if key[0] == 9} == set()


def test_a_pair_is_explained_by_both_of_its_parts():
    held = Pairs()
    held.write([(True, 1, 0), (False, 3, 1)])

    found = held.graph.explain(held.pairs, (1, 3))

    assert [one.what for one in found.inputs] == ["entries[3]", "places[1]"]
