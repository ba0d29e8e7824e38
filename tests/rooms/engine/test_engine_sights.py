"""Of what is made when somebody looks nothing is kept, and nobody can tell."""

import pytest
from engine_acts import clear, put

from isthmus.engine import collections, graph, reader

MANY = 20000


@pytest.fixture
def yard():
    return Yard()


class Yard:
    """Carts of a colour, and what carts of each colour cost: more of a cart of more letters."""

    def __init__(self, priced=None, given=lambda cost: cost, find=None) -> None:
        self.graph = graph.Graph()
        self.carts, self.costs = self.graph.source("carts"), self.graph.source("costs")
        self.made = []
        self.priced = self.graph.sight(
            "priced",
            self.carts,
            priced or self.price,
            alike=lambda _, colour: colour,
            given=lambda read, colour: given(read.get(self.costs, colour)),
            find=find,
        )
        put(self.graph, self.carts, one="red", three="red", seven="blue")

    def price(self, cart, colour, cost):
        self.made.append(cart)
        return None if cost is None or colour == "grey" else cost * len(cart)

    def put(self, **carts):
        put(self.graph, self.carts, **carts)
        return self.graph.recomputed()

    def cost(self, **costs):
        put(self.graph, self.costs, **costs)
        return self.graph.recomputed()

    def listened(self):
        told = []
        self.graph.listen(lambda batch: told.append(dict(batch.of(self.priced))))
        return told

    def all(self):
        return dict(self.graph.items(self.priced))


# --- what is seen


def test_values_follow_their_entries_and_what_their_kind_is_given(yard):
    yard.cost(red=2, blue=3)
    assert yard.all() == {"one": 6, "three": 10, "seven": 15}

    yard.put(one="blue", three="blue")
    assert yard.all() == {"one": 9, "three": 15, "seven": 15}

    clear(yard.graph, yard.carts)
    assert yard.all() == {}


def test_an_entry_that_gives_nothing_is_not_there(yard):
    yard.cost(red=2)
    yard.put(ten="grey")

    assert yard.all() == {"one": 6, "three": 10}
    assert len(yard.priced.content) == 2
    assert "seven" not in yard.priced.content
    assert yard.graph.get(yard.priced, "ten") is None
    assert yard.graph.get(yard.priced, "none") is None
    with pytest.raises(KeyError):
        yard.priced.content["seven"]


def test_what_is_there_already_is_seen_at_once(yard):
    yard.cost(red=2, blue=1)

    again = yard.graph.sight(
        "again",
        yard.priced,
        lambda _, price, cost: (price, cost),
        alike=lambda _, price: price % 2,
        given=lambda read, odd: read.get(yard.costs, "blue" if odd else "red"),
    )

    assert yard.graph.items(again) == {"one": (6, 2), "three": (10, 2), "seven": (5, 1)}


def test_many_looks_leave_little_behind(yard):
    yard.cost(red=1)
    with yard.graph.transaction() as change:
        for number in range(MANY):
            change.put(yard.carts, f"cart{number}", "red")

    assert len(yard.priced.content.recent) <= 1024
    assert sum(yard.all().values()) == 3 + 5 + sum(len(f"cart{n}") for n in range(MANY))
    assert len(yard.priced.content.recent) <= 16384


def test_what_was_just_made_is_not_made_again(yard):
    yard.cost(red=2)
    yard.made.clear()

    yard.put(two="red")
    assert yard.graph.get(yard.priced, "two") == 6
    assert yard.graph.get(yard.priced, "two") == 6

    assert yard.made == ["two"]


# --- who hears of changes


def test_listeners_hear_what_was_there_before_though_it_was_not_kept(yard):
    yard.cost(red=2, blue=3)
    yard.priced.content.recent.clear()  # As after many other looks.
    told = yard.listened()

    with yard.graph.transaction() as change:
        change.put(yard.costs, "red", 1)
        change.put(yard.carts, "one", "blue")
        change.put(yard.carts, "six", "red")
        change.delete(yard.carts, "seven")

    change = collections.Change
    assert told == [
        {
            "one": change(6, 9),
            "three": change(10, 5),
            "seven": change(15, None),
            "six": change(None, 3),
        }
    ]


def test_an_equal_value_is_no_change():
    yard = Yard(lambda cart, _, cost: (cart, cost))
    told = yard.listened()
    yard.cost(red=2, blue=2)
    yard.put(one="blue")

    assert [set(one) for one in told] == [{"one", "three", "seven"}, set()]


def test_those_that_follow_it_are_computed_for_what_has_changed_alone(yard):
    yard.cost(red=2, blue=3)
    lengths = yard.graph.derive("half", yard.priced, lambda _, cart, price: [(cart, price // 2)])
    by_price = yard.graph.index("by_price", yard.priced, lambda _, price: (price,))
    at = yard.graph.index("at", yard.carts, lambda _, colour: (colour,))
    read = yard.graph.derive(
        "read",
        yard.carts,
        lambda read, cart, _: [(cart, (read.get(yard.priced, "one"), len(read.lookup(at, "red"))))],
    )
    joined = yard.graph.join("joined", yard.priced, yard.costs)
    paired = yard.graph.product("paired", yard.priced, yard.costs, lambda *_: True)

    # The cart and what it follows in; all three look at it.
    assert yard.put(one="blue") == 1 + 1 + 3 + 1

    assert yard.graph.items(lengths) == {"one": 4, "three": 5, "seven": 7}
    assert yard.graph.lookup(by_price, 9) == {"one": 9}
    assert not yard.graph.lookup(by_price, 6)
    assert set(yard.graph.items(read).values()) == {(9, 1)}
    assert yard.graph.items(joined) == {**yard.all(), "red": 2, "blue": 3}
    assert yard.graph.get(paired, ("red", "one")) == 9


# --- what is known of kinds


def test_what_is_read_is_known_by_kind(yard):
    assert set(yard.costs.readers) == {"red", "blue"}

    yard.put(seven="red")
    assert set(yard.costs.readers) == {"red"}

    clear(yard.graph, yard.carts)
    assert not yard.costs.readers


def test_entries_of_a_kind_are_computed_again_with_it_and_no_others(yard):
    assert yard.cost(red=2) == 1 + 2
    assert yard.cost(blue=2) == 1 + 1
    assert yard.cost(grey=2) == 0


def test_whoever_can_find_the_entries_of_a_kind_is_asked():
    asked = []

    def find(colours):
        asked.append(set(colours))
        # One too many is left alone.
        return ["one", "three", "seven"]

    yard = Yard(find=find)
    assert not asked

    assert yard.cost(red=2) == 1 + 2
    assert yard.all() == {"one": 6, "three": 10}
    assert asked == [{"red"}]


def test_where_a_kind_is_given_the_same_no_entry_is_looked_at():
    yard = Yard(given=lambda cost: (cost or 0) > 1)
    yard.cost(red=2)

    assert yard.cost(red=3) == 1


def test_a_kind_that_comes_and_goes_in_one_transaction_is_read_once(yard):
    with yard.graph.transaction() as change:
        change.put(yard.costs, "blue", 5)
        change.put(yard.carts, "seven", "red")
        change.put(yard.carts, "nine", "blue")

    assert yard.graph.recomputed() == 1 + 2
    assert yard.graph.get(yard.priced, "nine") == 20


def test_a_kind_that_cannot_be_read_has_what_it_had():
    def given(cost):
        if cost == 0:
            raise ValueError("for nothing")
        if cost == 1:
            raise reader.KeepLast
        return cost

    yard = Yard(given=given)
    yard.cost(red=2, blue=0)
    assert yard.all() == {"one": 6, "three": 10}

    yard.cost(red=0)
    assert yard.all() == {"one": 6, "three": 10}
    assert [one.subject for one in yard.graph.findings()] == ["priced['blue']", "priced['red']"]
    assert yard.graph.findings()[0].still_working == "its last good answer is kept"

    yard.cost(red=1, blue=3)
    assert yard.all() == {"one": 6, "three": 10, "seven": 15}
    assert not yard.graph.findings()


def test_a_kind_that_was_never_read_gives_nothing_and_goes_with_its_last_entry():
    def given(*_):
        raise ValueError("broken")

    yard = Yard(given=given)
    assert len(yard.graph.findings()) == 2
    assert not yard.all()

    clear(yard.graph, yard.carts)
    assert not yard.graph.findings()


# --- what fails


def test_an_entry_that_fails_is_absent_and_a_finding_says_so():
    def priced(cart, colour, cost):
        if colour == "red" and cart == "one":
            raise ValueError("broken wheel")
        return cost

    yard = Yard(priced)
    yard.cost(red=2, blue=3)

    assert yard.all() == {"three": 2, "seven": 3}
    (finding,) = yard.graph.findings()
    assert finding.subject == "priced['one']"
    assert "broken wheel" in finding.happened
    assert "absent" in finding.still_working

    yard.put(one="blue")
    assert yard.graph.get(yard.priced, "one") == 3
    assert not yard.graph.findings()


def test_an_entry_of_no_kind_is_absent_and_stops_no_other(graph_):
    def alike(_, colour):
        if colour == "none":
            raise ValueError("no colour")
        return colour

    carts, costs = graph_.source("carts"), graph_.source("costs")
    priced = graph_.sight(
        "priced",
        carts,
        lambda *found: found[2],
        alike=alike,
        given=lambda read, one: read.get(costs, one),
    )
    put(graph_, carts, one="none", two="red")
    put(graph_, costs, red=2)

    assert graph_.items(priced) == {"two": 2}
    assert [one.subject for one in graph_.findings()] == ["priced['one']"]

    put(graph_, carts, one="red", two="none")
    assert graph_.items(priced) == {"one": 2}

    clear(graph_, carts)
    assert not graph_.findings()


# --- where it comes from


def test_an_explanation_shows_the_entry_and_what_its_kind_has_read(yard):
    yard.cost(red=2)

    assert str(yard.graph.explain(yard.priced, "one")).splitlines() == [
        "priced['one']",
        "  carts['one']",
        "  costs['red']",
    ]
    assert "does not exist" in str(yard.graph.explain(yard.priced, "seven"))


def test_what_comes_later_cannot_be_read(graph_):
    source = graph_.source("source")
    later = []
    graph_.sight(
        "sight",
        source,
        lambda *found: found[2],
        alike=lambda *_: "any",
        given=lambda read, _: read.get(later[0], "x"),
    )
    later.append(graph_.source("later"))

    put(graph_, source, a=1)

    assert "is not computed before" in graph_.findings()[0].happened


def test_nothing_is_seen_of_another_graph(graph_):
    foreign = graph.Graph().source("foreign")

    with pytest.raises(Exception, match="another graph"):
        graph_.sight("sight", foreign, lambda *_: None, alike=lambda *_: 0, given=lambda *_: None)
