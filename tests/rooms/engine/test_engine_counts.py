"""Only what depends on a change is computed again."""

import pytest

from isthmus.engine import graph

SERVICES = 1000


@pytest.fixture
def mesh():
    return Mesh()


class Mesh:
    """A thousand services, each with two endpoints in a group of its own."""

    def __init__(self) -> None:
        self.graph = graph.Graph()
        self.services = self.graph.source("services")
        self.endpoints = self.graph.source("endpoints")
        self.setting = self.graph.source("setting")
        by_service = self.graph.index("by_service", self.endpoints, lambda key, _: (key[0],))
        self.joined = self.graph.derive(
            "joined",
            self.services,
            lambda read, key, _: [(key, tuple(sorted(read.lookup(by_service, key).values())))],
        )
        self.counted = self.graph.derive(
            "counted", self.joined, lambda _, key, found: [(key, len(found))]
        )
        self.told = self.graph.derive(
            "told",
            self.counted,
            lambda read, key, count: [(key, (count, read.get(self.setting, "unit")))],
        )
        self.total = self.graph.single("total", lambda read: sum(read.items(self.counted).values()))
        with self.graph.transaction() as change:
            for n in range(SERVICES):
                change.put(self.services, n, "service")
                change.put(self.endpoints, (n, 0), "ready")
                change.put(self.endpoints, (n, 1), "ready")

    def put(self, source, key, value) -> int:
        with self.graph.transaction() as change:
            change.put(source, key, value)
        return self.graph.recomputed()


def test_a_changed_endpoint_computes_only_its_own_service(mesh):
    assert mesh.put(mesh.endpoints, (7, 0), "gone") == 2  # joined[7], counted[7]; count is equal


def test_an_added_endpoint_computes_the_whole_chain_of_its_service_and_the_total(mesh):
    assert mesh.put(mesh.endpoints, (7, 2), "ready") == 4  # joined, counted, told, total
    assert mesh.graph.value(mesh.total) == 2 * SERVICES + 1


def test_an_endpoint_that_moves_computes_the_service_it_left_and_the_one_it_joined():
    graph_ = graph.Graph()
    services, endpoints = graph_.source("services"), graph_.source("endpoints")
    index = graph_.index("index", endpoints, lambda _, owner: (owner,))
    graph_.derive("joined", services, lambda read, key, _: [(key, len(read.lookup(index, key)))])
    with graph_.transaction() as change:
        for n in range(9):
            change.put(services, n, "service")
        change.put(endpoints, "e", 3)

    with graph_.transaction() as change:
        change.put(endpoints, "e", 5)

    assert graph_.recomputed() == 2


def test_an_equal_value_computes_nothing(mesh):
    assert mesh.put(mesh.endpoints, (7, 0), "ready") == 0


def test_a_change_that_nobody_reads_computes_nothing(mesh):
    assert mesh.put(mesh.setting, "colour", "blue") == 0


def test_a_key_that_all_read_computes_all_who_read_it(mesh):
    assert mesh.put(mesh.setting, "unit", "pods") == SERVICES


def test_what_is_no_longer_read_is_no_longer_a_dependency():
    graph_ = graph.Graph()
    switch, values = graph_.source("switch"), graph_.source("values")
    graph_.derive("shown", switch, lambda read, key, wanted: [(key, read.get(values, wanted))])
    with graph_.transaction() as change:
        change.put(switch, "lamp", "left")
        change.put(values, "left", 1)
    with graph_.transaction() as change:
        change.put(switch, "lamp", "right")

    with graph_.transaction() as change:
        change.put(values, "left", 2)

    assert graph_.recomputed() == 0


def test_many_changes_to_what_one_input_reads_compute_it_once(mesh):
    with mesh.graph.transaction() as change:
        for n in range(50):
            change.put(mesh.endpoints, (7, n), "new")
        change.put(mesh.services, 7, "changed")

    assert mesh.graph.recomputed() == 4
