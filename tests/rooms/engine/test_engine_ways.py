"""How it is known what runs have read, where nothing is written down of that."""

import pytest
from engine_acts import clear, put

from isthmus.engine import graph

# --- what is heard


@pytest.fixture
def town():
    return Town()


class Town:
    """Houses that name streets, and lamps in streets, which houses look up by their own names."""

    def __init__(self, concerns=None) -> None:
        self.graph = graph.Graph()
        self.houses, self.lamps = self.graph.source("houses"), self.graph.source("lamps")
        by_street = self.graph.index("by_street", self.houses, lambda _, street: (street,))

        def usual(read, _, street):
            return read.lookup(by_street, street)

        def lit(read, house, street):
            lamp = read.heard(self.lamps, f"{house}'s")
            yield house, lamp == street

        heard = graph.heard(self.lamps, concerns or usual)
        self.lit = self.graph.derive("lit", self.houses, lit, ways=graph.Ways(hears=(heard,)))
        put(self.graph, self.houses, inn="high", mill="low", barn="low")

    def put(self, **lamps):
        put(self.graph, self.lamps, **lamps)
        return self.graph.recomputed()


def test_a_change_computes_those_whom_it_concerns_and_nobody_writes_down_who_reads(town):
    assert town.put(**{"mill's": "low"}) == 2  # Both houses of the street: that is what is known.
    assert town.graph.items(town.lit) == {"inn": False, "mill": True, "barn": False}
    assert not town.lamps.readers


def test_what_something_was_concerns_others_than_what_it_is(town):
    town.put(**{"mill's": "low"})

    assert town.put(**{"mill's": "high"}) == 3
    assert not town.graph.get(town.lit, "mill")

    clear(town.graph, town.lamps)
    assert town.graph.recomputed() == 1


def test_what_concerns_nobody_computes_nothing(town):
    assert town.put(**{"mill's": "side"}) == 0


def test_who_comes_with_what_it_looks_at_is_computed_once(town):
    with town.graph.transaction() as change:
        change.put(town.lamps, "shed's", "side")
        change.put(town.houses, "shed", "side")

    assert town.graph.recomputed() == 1
    assert town.graph.get(town.lit, "shed")


def test_where_nobody_can_say_whom_it_concerns_it_concerns_all():
    def broken(*_):
        raise ValueError("a bad lamp")

    town = Town(broken)

    assert town.put(**{"mill's": "low"}) == 3
    assert town.graph.get(town.lit, "mill")


class Parts:
    """Houses and lamps of districts, who ask which houses look at a lamp; a key begins with its part."""

    def __init__(self) -> None:
        self.graph, self.asked = graph.Graph(), []
        self.houses, self.lamps = self.graph.source("houses"), self.graph.source("lamps")

        def concerns(_read, lamp, _shines):
            self.asked.append(lamp)
            yield lamp

        def lit(read, house, _):
            yield house, read.heard(self.lamps, house)

        heard = graph.heard(self.lamps, concerns, part_of=lambda key: key[:1])
        self.lit = self.graph.derive("lit", self.houses, lit, ways=graph.Ways(hears=(heard,)))

    def put(self, *, houses=(), lamps=(), shines=True):
        self.asked.clear()
        with self.graph.transaction() as change:
            for house in houses:
                change.put(self.houses, house, shines)
            for lamp in lamps:
                change.put(self.lamps, lamp, shines)
        return dict(self.graph.items(self.lit))


def test_about_a_part_that_is_computed_anyway_nobody_asks():
    parts = Parts()
    assert parts.put(houses=["a1", "a2"], lamps=["a1", "a2"]) == {"a1": True, "a2": True}
    assert parts.asked == []

    found = parts.put(houses=["b1"], lamps=["b1", "a2"], shines=False)

    assert found == {"a1": True, "a2": False, "b1": False}
    assert set(parts.asked) == {"a2"}


def test_a_part_of_which_one_input_has_not_changed_is_asked_about():
    parts = Parts()
    parts.put(houses=["a1", "a2"], lamps=["a1", "a2"])

    assert parts.put(houses=["a1"], lamps=["a1", "a2"], shines=0) == {"a1": 0, "a2": 0}
    assert set(parts.asked) == {"a1", "a2"}


def test_where_little_changes_asking_costs_less_than_going_through_all_inputs():
    parts = Parts()
    many = [f"b{number}" for number in range(60)]
    parts.put(houses=["a1", *many], lamps=["a1", *many])

    assert parts.put(houses=["a1"], lamps=["a1"], shines=0)["a1"] == 0
    assert parts.asked == ["a1", "a1"]  # For what it was and for what it is.


def test_who_names_another_than_an_input_computes_nothing():
    assert Town(lambda *_: ["nobody"]).put(**{"mill's": "low"}) == 0


def test_an_explanation_shows_what_was_heard(town):
    town.put(**{"mill's": "low"})

    shown = str(town.graph.explain(town.lit, "mill")).splitlines()

    assert shown == ["lit['mill']", "  houses['mill']", '  lamps["mill\'s"]']


def test_what_is_not_heard_of_cannot_be_read_unrecorded(graph_):
    source, other = graph_.source("source"), graph_.source("other")
    graph_.derive("deaf", source, lambda read, key, _: [(key, read.heard(other, key))])

    put(graph_, source, a=1)

    assert "nobody says whom a change of `other` concerns" in graph_.findings()[0].happened


def test_nothing_is_heard_of_another_graph(graph_):
    foreign = graph.Graph().source("foreign")
    ways = graph.Ways(hears=(graph.heard(foreign, lambda *_: ()),))

    with pytest.raises(Exception, match="another graph"):
        graph_.derive("derived", graph_.source("source"), lambda *_: (), ways=ways)


# --- inputs of a kind


class Yard:
    """Carts with a colour, each of which reads what its colour costs."""

    def __init__(self, alike=lambda _, colour: colour) -> None:
        self.graph = graph.Graph()
        self.carts, self.costs = self.graph.source("carts"), self.graph.source("costs")
        self.priced = self.graph.derive(
            "priced",
            self.carts,
            lambda read, cart, colour: [(cart, read.get(self.costs, colour))],
            ways=graph.Ways(alike=alike),
        )
        put(self.graph, self.carts, one="red", two="red", three="blue")

    def computed(self, **costs):
        put(self.graph, self.costs, **costs)
        return self.graph.recomputed()


def test_those_of_a_kind_are_computed_again_together_and_no_others():
    yard = Yard()

    assert yard.computed(red=5) == 2
    assert yard.graph.items(yard.priced) == {"one": 5, "two": 5, "three": None}
    assert yard.computed(blue=1) == 1


def test_who_becomes_of_another_kind_is_computed_with_that():
    yard = Yard()

    put(yard.graph, yard.carts, one="blue")

    assert yard.computed(red=5) == 1
    assert yard.computed(blue=1) == 2
    assert yard.graph.get(yard.priced, "one") == 1


def test_who_comes_back_to_a_kind_is_computed_once():
    yard = Yard()
    for colour in ("blue", "red", "blue", "red"):
        put(yard.graph, yard.carts, one=colour)

    assert yard.computed(red=5) == 2


def test_a_kind_goes_with_the_last_that_was_of_it():
    yard = Yard()
    assert set(yard.costs.readers) == {"red", "blue"}

    put(yard.graph, yard.carts, three="red")
    assert set(yard.costs.readers) == {"red"}

    clear(yard.graph, yard.carts)
    assert not yard.costs.readers


def test_many_that_come_and_go_leave_nothing_behind():
    yard = Yard()
    for number in range(200):
        put(yard.graph, yard.carts, **{f"cart{number}": "red"})
        with yard.graph.transaction() as change:
            change.delete(yard.carts, f"cart{number}")

    (kind,) = (one for one in yard.costs.readers.values() if one.reads[0][1] == ("red",))
    assert len(kind._keys) < 20
    assert yard.computed(red=5) == 2


def test_of_a_kind_that_cannot_be_told_all_are_one():
    def broken(_, colour):
        if colour != "red":
            raise ValueError(colour)
        return colour

    yard = Yard(broken)
    put(yard.graph, yard.carts, four="green")

    assert yard.computed(green=2) == 2
    assert yard.graph.items(yard.priced)["four"] == 2


def test_who_reads_less_than_others_of_its_kind_is_computed_with_them():
    yard = Yard(lambda *_: "any")

    assert yard.computed(blue=1) == 3
    assert yard.graph.items(yard.priced) == {"one": None, "two": None, "three": 1}


def test_an_explanation_shows_what_a_kind_has_read():
    yard = Yard()
    yard.computed(red=5)

    assert str(yard.graph.explain(yard.priced, "one")).splitlines() == [
        "priced['one']",
        "  carts['one']",
        "  costs['red']",
    ]


def test_who_rests_is_of_no_kind(graph_):
    carts, costs, asked = (graph_.source(name) for name in ("carts", "costs", "asked"))
    ways = graph.Ways(alike=lambda _, colour: colour)
    graph_.derive(
        "d", carts, lambda read, _, colour: read.get(costs, colour), while_any=asked, ways=ways
    )
    put(graph_, carts, one="red")
    put(graph_, asked, somebody=1)
    assert set(costs.readers) == {"red"}

    clear(graph_, asked)

    assert not costs.readers
