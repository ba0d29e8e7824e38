"""For every graph and every history, what was computed bit by bit equals computing it all anew."""

import contextlib
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass

from hypothesis import HealthCheck, settings, stateful
from hypothesis import strategies as st

from isthmus.engine import collections, graph, reader

KEYS = 6
VALUES = 12
SOURCES = ("a", "b")
ABSENT = object()


@dataclass(frozen=True)
class Node:
    """One declaration: `over` and `other` name earlier collections by position, wrapped around."""

    kind: str
    over: int
    other: int
    salt: int


nodes = st.builds(
    Node,
    kind=st.sampled_from(
        [
            *("get", "lookup", "keyed", "items", "chain", "single", "join", "spread", "gated"),
            *("heard", "alike", "alike and gated", "sight"),
        ]
    ),
    over=st.integers(0, 9),
    other=st.integers(0, 9),
    salt=st.integers(0, 9),
)


def groups(key: int, value: int) -> tuple[int, ...]:
    if value == 9:
        raise ValueError("an entry that has no place")
    return (value % 3, 3 + key % 2)


def groups_by_key(key: int, _value: int = 0) -> tuple[int, ...]:
    return () if key == 5 else (key % 3, 3 + key % 2)


def total(entries: Mapping[int, int]) -> int:
    return sum(key * 3 + value for key, value in entries.items())


class Fit(int):
    """A group of `fits`; all lie in one slot."""

    def __hash__(self) -> int:
        return 7


class Fitting(graph.Naming[Fit, int]):
    """Says by which names entries are found that `fits` puts in groups."""

    def names(self, value: int) -> tuple[Fit, ...]:
        return (Fit(fits(value)),)

    def is_named(self, value: int, name: Fit) -> bool:
        return fits(value) == name


@dataclass(frozen=True)
class Function:
    """What a node computes; it reads through whatever reader it is given."""

    node: Node
    over: object
    other: object
    index: object
    single: object

    def __call__(self, read, key, value):
        mixed = (self.node.salt + value + self._read(read, key, value)) % 11
        if mixed == 0:
            raise ValueError("a derivation that fails")
        if mixed == 1:
            raise reader.KeepLast
        if mixed == 2:
            return
        yield key, mixed
        if self.node.kind == "spread":
            yield (key + mixed) % KEYS, mixed + 1

    def _read(self, read, key, value):
        match self.node.kind:
            case "get":
                return read.get(self.other, (key + self.node.salt) % KEYS) or 0
            case "lookup" | "keyed":
                return total(read.lookup(self.index, (value + self.node.salt) % 5))
            case "items":
                return total(read.items(self.other))
            case "chain":
                step = read.get(self.other, key)
                return 0 if step is None else (read.get(self.over, step % KEYS) or 0)
            case "single":
                return read.value(self.single)
        return self._read_in_ways(read, key, value)

    def _read_in_ways(self, read, key, value):
        match self.node.kind:
            case "heard":
                seen = read.heard(self.other, (key + self.node.salt) % KEYS)
                return seen if seen is not None and fits(seen) == fits(value) else 0
            case "alike" | "alike and gated" if key != 1:  # Some of a kind read less than others.
                return read.get(self.other, alike(key, value)) or 0
        return 0


def fits(value: int) -> int:
    return value % 3


def alike(_: int, value: int) -> int:
    return value % 4


@dataclass(frozen=True)
class Seeing:
    """What a sight makes, of an entry and of what is read for its kind."""

    node: Node
    other: object
    index: object
    single: object

    def alike(self, key, value):
        if value == 10:
            raise ValueError("an entry of no kind")
        return (key + value) % 4

    def given(self, read, kind):
        found = self.node.salt + (read.get(self.other, kind) or 0)
        if self.node.salt % 3 == 0:
            found += total(read.lookup(self.index, kind))
        if self.node.salt % 3 == 1:
            found += read.value(self.single)
        if found % 8 == 3:
            raise ValueError("a kind that fails")
        if found % 8 == 5:
            raise reader.KeepLast
        return found // 2

    def value(self, _, value, given):
        mixed = (value + given) % 11
        if mixed == 0:
            raise ValueError("an entry that fails")
        return None if mixed == 2 else mixed


class Naive:
    """Computes everything from the sources, over and over; remembers only what was last good."""

    def __init__(self) -> None:
        self.content: dict[object, dict[int, int]] = {}
        self.groups: dict[object, dict[int, dict[int, int]]] = {}
        self.singles: dict[object, object] = {}
        self.last: dict[tuple[object, int], object] = {}
        self.given: dict[object, dict[int, int]] = {}

    def get(self, collection, key):
        return self.content[collection].get(key)

    def items(self, collection):
        return self.content[collection]

    def heard(self, collection, key):
        return self.get(collection, key)

    def lookup(self, index, group):
        return self.groups[index].get(group, {})

    def value(self, single):
        if self.singles.get(single, ABSENT) is ABSENT:
            raise reader.KeepLast
        return self.singles[single]

    def derive(self, out, over, function, gate=None) -> None:
        if gate is not None and not self.content[gate]:
            self.content[out] = {}
            self.last = {place: found for place, found in self.last.items() if place[0] is not out}
            return
        self._forget(out, over)
        for key, value in self.content[over].items():
            try:
                outputs: dict[int, int] = {}
                for key2, value2 in function(self, key, value):
                    outputs.setdefault(key2, value2)
                self.last[out, key] = outputs
            except (ValueError, reader.KeepLast):
                self.last.setdefault((out, key), {})
        self.content[out] = {}
        for key in sorted(self.content[over], reverse=True):
            self.content[out].update(self.last[out, key])

    def index(self, out, of, gate=None, by=groups) -> None:
        if gate is not None and not self.content[gate]:
            self.groups[out] = {}
            self.last = {place: found for place, found in self.last.items() if place[0] is not out}
            return
        self._forget(out, of)
        for key, value in self.content[of].items():
            try:
                self.last[out, key] = (by(key, value), value)
            except ValueError:
                placed, _ = self.last.get((out, key), ((), value))
                self.last[out, key] = (placed, value)
        self.groups[out] = {}
        for key in self.content[of]:
            for group in self.last[out, key][0]:
                self.groups[out].setdefault(group, {})[key] = self.last[out, key][1]

    def sight(self, out, over, seeing) -> None:
        given = dict[int, int]()
        self.content[out] = {}
        for key, value in self.content[over].items():
            with contextlib.suppress(ValueError):
                kind = seeing.alike(key, value)
                if kind not in given:
                    given[kind] = self._given(seeing, kind, self.given.get(out, {}))
                if given[kind] is not ABSENT:
                    found = seeing.value(key, value, given[kind])
                    self.content[out].update({} if found is None else {key: found})
        self.given[out] = given

    def _given(self, seeing, kind, last):
        try:
            return seeing.given(self, kind)
        except (ValueError, reader.KeepLast):
            return last.get(kind, ABSENT)

    def single(self, out, function) -> None:
        try:
            self.singles[out] = function(self)
        except (ValueError, reader.KeepLast):
            self.singles.setdefault(out, ABSENT)

    def _forget(self, out, over) -> None:
        for name, key in list(self.last):
            if name is out and key not in self.content[over]:
                del self.last[name, key]


class Written(MutableMapping[int, int]):
    """Entries in another form than a dict: in an order of its own, and made anew for each look."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def __getitem__(self, key):
        return int(self._texts[str(key)])

    def __setitem__(self, key, value):
        self._texts[str(key)] = str(value)

    def __delitem__(self, key):
        del self._texts[str(key)]

    def __iter__(self):
        return map(int, sorted(self._texts, reverse=True))

    def __len__(self):
        return len(self._texts)


class Machine(stateful.RuleBasedStateMachine):
    """Draws a graph, then transactions."""

    @stateful.initialize(specs=st.lists(nodes, min_size=1, max_size=7))
    def declare(self, specs: list[Node]) -> None:
        self.graph = graph.Graph()
        self.naive = Naive()
        self.sources = [
            self.graph.source(SOURCES[0]),
            self.graph.source(SOURCES[1], content=Written()),
        ]
        self.wanted: dict[object, dict[int, int]] = {source: {} for source in self.sources}
        self.collections: list[collections.Collection[int, int]] = list(self.sources)
        self.indexes: list[collections.Index[int, int, int]] = []
        self.singles: list[collections.Single[int]] = []
        self.sights: list[collections.Collection[int, int]] = []
        self.steps: list[Callable[[], None]] = []
        self.mirror: dict[object, dict[object, object]] = {}
        for number, spec in enumerate(specs):
            self._declare(number, spec)
        self.graph.listen(self._follow)
        self._recompute()

    def _declare(self, number: int, spec: Node) -> None:
        over = self.collections[spec.over % len(self.collections)]
        other = self.collections[spec.other % len(self.collections)]
        if spec.kind == "join":
            joined = self.graph.join(f"join{number}", over, other)
            self.steps.append(lambda: self._join(joined, over, other))
            self.collections.append(joined)
            return
        gate = over if spec.kind == "gated" else None
        by = groups_by_key if spec.kind == "keyed" else groups
        if spec.kind == "keyed":
            index = self.graph.index_by_key(f"index{number}", other, groups_by_key)
        else:
            index = self.graph.index(f"index{number}", other, groups, while_any=gate)
        single = self.graph.single(f"single{number}", lambda read: self._sole(read, other))
        self.indexes.append(index)
        self.singles.append(single)
        self.steps += [
            lambda: self.naive.index(index, other, over if spec.kind == "gated" else None, by),
            lambda: self.naive.single(single, lambda read: self._sole(read, other)),
        ]
        if spec.kind == "sight":
            seeing = Seeing(spec, other, index, single)
            self._see(f"sight{number}", over, seeing)
            return
        function = Function(spec, over, other, index, single)
        gate = other if spec.kind in {"gated", "alike and gated"} else None
        ways = self._ways(number, spec.kind, over, other)
        derived = self.graph.derive(f"derived{number}", over, function, while_any=gate, ways=ways)
        self.steps.append(lambda: self.naive.derive(derived, over, function, gate))
        self.collections.append(derived)

    def _see(self, name, over, seeing):
        seen = self.graph.sight(name, over, seeing.value, alike=seeing.alike, given=seeing.given)
        self.steps.append(lambda: self.naive.sight(seen, over, seeing))
        self.collections.append(seen)
        self.sights.append(seen)

    def _ways(self, number, kind, over, other):
        if kind == "heard":
            if number % 2:
                named = self.graph.mentions(f"named{number}", over, Fitting())
            else:
                named = self.graph.index(
                    f"named{number}", over, lambda _, value: (Fit(fits(value)),)
                )
            heard = graph.heard(other, lambda read, _, value: read.lookup(named, Fit(fits(value))))
            return graph.Ways(hears=(heard,))
        return graph.Ways(alike=alike if kind.startswith("alike") else None)

    @staticmethod
    def _sole(read, other):
        found = total(read.items(other)) % 7
        if found == 3:
            raise ValueError("a single that fails")
        return found

    def _join(self, out, first, second) -> None:
        self.naive.content[out] = {**self.naive.content[second], **self.naive.content[first]}

    def _follow(self, batch) -> None:
        for collection in self.collections:
            mirrored = self.mirror.setdefault(collection, {})
            for key, change in batch.of(collection).items():
                assert change.old == mirrored.get(key)
                assert change.old != change.new
                mirrored.pop(key, None)
                if change.new is not None:
                    mirrored[key] = change.new

    def _recompute(self) -> None:
        self.naive.content.update({key: dict(value) for key, value in self.wanted.items()})
        for step in self.steps:
            step()

    @stateful.rule(
        writes=st.lists(
            st.tuples(
                st.integers(0, 1),
                st.integers(0, KEYS - 1),
                st.one_of(st.none(), st.integers(0, VALUES)),
            ),
            min_size=1,
            max_size=4,
        ),
        forgets=st.booleans(),
    )
    def write(self, writes: list[tuple[int, int, int | None]], forgets: bool) -> None:
        for one in self.sights if forgets else ():
            one.content.recent.clear()  # As after many looks.
        with self.graph.transaction() as transaction:
            for number, key, value in writes:
                source = self.sources[number]
                if value is None:
                    transaction.delete(source, key)
                    self.wanted[source].pop(key, None)
                else:
                    transaction.put(source, key, value)
                    self.wanted[source][key] = value
        self._recompute()

    @stateful.rule(
        number=st.integers(0, 1),
        parity=st.integers(0, 1),
        values=st.dictionaries(st.integers(0, KEYS - 1), st.integers(0, VALUES)),
    )
    def replace(self, number: int, parity: int, values: dict[int, int]) -> None:
        source = self.sources[number]
        fitting = {key: value for key, value in values.items() if key % 2 == parity}
        with self.graph.transaction() as transaction:
            transaction.replace(source, lambda key: key % 2 == parity, fitting)
        kept = {key: value for key, value in self.wanted[source].items() if key % 2 != parity}
        self.wanted[source] = {**kept, **fitting}
        self._recompute()

    @stateful.rule()
    def clear(self) -> None:
        with self.graph.transaction() as transaction:
            for source in self.sources:
                transaction.replace(source, lambda _: True, {})
                self.wanted[source] = {}
        self._recompute()

        for readable in [*self.collections, *self.indexes, *self.singles]:
            assert set(readable.readers) <= {collections.WHOLE}

    @stateful.invariant()
    def incremental_equals_from_scratch(self) -> None:
        for collection in self.collections:
            assert self.graph.items(collection) == self.naive.content[collection]
            assert len(collection.content) == len(self.naive.content[collection])
            assert self.mirror.get(collection, {}) == self.naive.content[collection]
        for index in self.indexes:
            found = {group: dict(index.bucket(group)) for group in index.buckets}
            assert found == self.naive.groups[index]
        for single in self.singles:
            found = single.content
            assert (ABSENT if found is collections.ABSENT else found) == self.naive.singles[single]


TestEngine = Machine.TestCase
TestEngine.settings = settings(
    max_examples=150,
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
