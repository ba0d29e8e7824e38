"""What clusters hold goes into the sources: at first in one step, later cluster by cluster."""

import gc

import pytest

from isthmus.engine import graph
from isthmus.fleet import sources, writing
from isthmus.fleet.sources import ObjectKey
from isthmus.mesh.identities import ClusterId

EAST, WEST = ClusterId("east"), ClusterId("west")


class World:
    def __init__(self):
        self.graph = graph.Graph()
        self.sources = sources.declare(self.graph)
        self.writer = writing.Writer(self.graph, self.sources)
        self.steps = []
        self.graph.listen(lambda _: self.steps.append(self.pods()))

    def pods(self):
        return sorted(f"{key.cluster}/{key.name}" for key in self.graph.items(self.sources.pods))


def pods(cluster, *names):
    return {"pods": {ObjectKey(cluster, "shop", name): name for name in names}}


@pytest.fixture
def world():
    return World()


def test_clusters_that_come_before_anybody_looks_are_put_in_one_step(world):
    held = {EAST: pods(EAST, "a"), WEST: pods(WEST, "b")}
    for cluster in held:
        world.writer.put_with_others(cluster, lambda cluster=cluster: held[cluster])
    held[EAST] = pods(EAST, "a", "c")
    world.writer.change(pods(EAST, "c"))
    assert world.steps == []

    world.writer.gather_no_more()

    assert world.steps == [["east/a", "east/c", "west/b"]]


def test_what_is_computed_in_one_step_is_spared_the_collector(world):
    collects = []
    world.graph.listen(lambda _: collects.append(gc.isenabled()))
    world.writer.put_with_others(EAST, lambda: pods(EAST, "a"))

    world.writer.gather_no_more()
    world.writer.put(EAST, pods(EAST, "b"))

    assert collects == [False, True]


class Key:
    """Of a Service; counts how often somebody asks for its cluster."""

    asked = 0

    def __init__(self, cluster, name):
        self._cluster, self.name = cluster, name

    @property
    def cluster(self):
        Key.asked += 1
        return self._cluster


def test_twice_as_many_clusters_are_twice_the_work():
    asked = []
    for clusters in (10, 20):
        world, Key.asked = World(), 0
        for number in range(clusters):
            held = {"services": {Key(f"c{number}", f"s{one}"): "a" for one in range(10)}}
            world.writer.put_with_others(ClusterId(f"c{number}"), lambda held=held: held)
        world.writer.gather_no_more()
        asked.append(Key.asked)

    assert asked[1] <= 2 * asked[0]


def test_later_each_cluster_is_put_at_once_and_changes_are_written(world):
    world.writer.gather_no_more()

    world.writer.put_with_others(EAST, lambda: pods(EAST, "a"))
    world.writer.change({"pods": {ObjectKey(EAST, "shop", "a"): None, **pods(EAST, "b")["pods"]}})

    assert world.steps == [["east/a"], ["east/b"]]


def test_a_cluster_that_leaves_while_others_come_leaves_nothing(world):
    world.writer.put_with_others(EAST, lambda: pods(EAST, "a"))
    world.writer.put_with_others(WEST, lambda: pods(WEST, "b"))
    world.writer.put(EAST, pods(EAST))

    world.writer.gather_no_more()

    assert world.pods() == ["west/b"]


def test_who_fails_on_hearing_of_all_clusters_keeps_no_later_change_away(world):
    def fails_once(_):
        if len(world.steps) == 1:
            raise ValueError("a fault of ours")

    world.graph.listen(fails_once)
    world.writer.put_with_others(EAST, lambda: pods(EAST, "a"))
    with pytest.raises(ExceptionGroup):
        world.writer.gather_no_more()

    world.writer.change(pods(EAST, "b"))

    assert world.pods() == ["east/a", "east/b"]


@pytest.mark.parametrize("gathers", [True, False])
def test_who_said_it_may_rest_on_what_was_put(world, gathers):
    told = []
    if not gathers:
        world.writer.gather_no_more()

    world.writer.put_with_others(
        EAST, lambda: pods(EAST, "a"), lambda held: told.append(dict(held("pods")))
    )
    world.writer.gather_no_more()

    assert told == [{ObjectKey(EAST, "shop", "a"): "a"}]


def test_who_is_followed_by_another_does_not_rest_on_what_that_says(world):
    told = []
    for name in "ab":
        world.writer.put_with_others(
            EAST, lambda name=name: pods(EAST, name), lambda _, name=name: told.append(name)
        )

    world.writer.gather_no_more()

    assert told == ["b"]
