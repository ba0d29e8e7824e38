"""Pods in columns are a table of pods, whatever they are called, in a few dozen bytes each."""

import sys

import pytest
from hypothesis import HealthCheck, settings, stateful
from hypothesis import strategies as st

from isthmus.fleet import overlays, pods
from isthmus.fleet.sources import ObjectKey
from isthmus.kube import objects, packed

MANY = 2_000

texts = st.one_of(
    st.sampled_from(["", "a", "a-1", "web", "web-1", "10.0.0.1", "\0", "ÿþý", "\ud800", "x" * 500]),
    st.text(st.characters(exclude_categories=()), max_size=4),
)
keys = st.builds(
    ObjectKey, st.sampled_from(["east", "west", ""]), st.sampled_from(["", "n"]), texts
)


def whole(name, *, node="node", address="10.0.0.1", app="web"):
    return objects.Pod(
        objects.Metadata(name, namespace="n", labels={"app": app}),
        spec=objects.PodSpec(node_name=node),
        status=objects.PodStatus(phase="Running", pod_ip=address),
    )


def pod(name, **fields):
    return packed.pod(whole(name, **fields))


def key(name, cluster="east"):
    return ObjectKey(cluster, "n", name)


def filled(count, **fields):
    made = pods.Pods()
    for number in range(count):
        made[key(f"web-5d8f7c9b6d-{number:05}")] = pod(f"web-5d8f7c9b6d-{number:05}", **fields)
    return made


def held_bytes(made):
    """Return what is held for pods, the buckets and their list, without what they share."""
    shelves = [shelf for each in made._clusters.values() for shelf in each.values()]
    lists = sum(sys.getsizeof(shelf.buckets) for shelf in shelves)
    return lists + sum(sys.getsizeof(one) for shelf in shelves for one in shelf.buckets)


class Machine(stateful.RuleBasedStateMachine):
    """Does the same to pods in columns and in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.made, self.wanted = pods.Pods(), {}

    def put(self, key, value) -> None:
        self.made[key] = self.wanted[key] = value

    @stateful.rule(key=keys, node=texts, address=texts, app=st.sampled_from("abc"))
    def packed(self, key, node, address, app) -> None:
        self.put(key, pod(key.name, node=node, address=address, app=app))

    @stateful.rule(key=keys, name=texts)
    def under_another_name(self, key, name) -> None:
        self.put(key, pod(name))

    @stateful.rule(key=keys)
    def not_packed(self, key) -> None:
        self.put(key, whole(key.name))

    @stateful.rule(cluster=st.sampled_from(["east", "west"]), count=st.integers(0, 200))
    def many(self, cluster, count) -> None:
        for number in range(count):
            self.put(key(f"p{number}", cluster), pod(f"p{number}", node=f"n{number % 3}"))

    @stateful.rule(cluster=st.sampled_from(["east", "west"]), step=st.integers(1, 3))
    def remove_many(self, cluster, step) -> None:
        for found in list(self.made.of_cluster(cluster))[::step]:
            del self.made[found], self.wanted[found]

    @stateful.rule(key=keys)
    def remove(self, key) -> None:
        assert self.made.pop(key, None) == self.wanted.pop(key, None)

    @stateful.rule(key=keys)
    def look(self, key) -> None:
        assert self.made.get(key) == self.wanted.get(key)
        assert (key in self.made) == (key in self.wanted)

    @stateful.invariant()
    def both_are_the_same(self) -> None:
        assert dict(self.made) == self.wanted
        assert len(self.made) == len(self.wanted)
        for cluster in ("east", "west", "nowhere"):
            of_it = {key for key in self.wanted if key.cluster == cluster}
            assert set(self.made.of_cluster(cluster)) == of_it

    @stateful.invariant()
    def those_of_nodes_are_found(self) -> None:
        places = {(key.cluster, value.node_name) for key, value in self.wanted.items()}
        for some in ({*sorted(places)[::2], ("nowhere", "n1")}, {("east", "n0")}, set()):
            there = [
                key for key, value in self.wanted.items() if (key.cluster, value.node_name) in some
            ]
            assert sorted(self.made.on_nodes(some)) == sorted(there)

    @stateful.invariant()
    def what_nobody_refers_to_is_not_kept(self) -> None:
        kept = [
            value
            for key, value in self.wanted.items()
            if type(value) is packed.Pod and value.name == key.name
        ]
        assert self.made.refers_to() == (
            len({value.node for value in kept}),
            len({id(packed.shared_in(value)) for value in kept}),
        )


TestPods = Machine.TestCase
TestPods.settings = settings(
    max_examples=150,
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


def test_what_is_not_there_is_missing_as_in_any_table():
    made = filled(1)

    for missing in (key("b"), ObjectKey("east", "other", "a"), ObjectKey("west", "n", "a")):
        assert made.get(missing, 3) == 3
        assert missing not in made
        with pytest.raises(KeyError):
            made[missing]
        with pytest.raises(KeyError):
            del made[missing]


def test_pods_with_other_names_are_not_confused():
    made = pods.Pods()
    names = ["a", "aa", "a-a", "", "-a", "10.0.0.1", "a\xff", "\xffa", "a\xfe"]
    for name in names:
        made[key(name)] = pod(name, address=name, node=name)

    assert [(made[key(name)].name, made[key(name)].address) for name in names] == [
        (name, name) for name in names
    ]


def test_a_pod_takes_little_more_than_what_its_name_and_address_are_written_in():
    name, address = "web-5d8f7c9b6d-00000", "10.0.0.1"

    assert held_bytes(filled(MANY)) / MANY < len(name) + len(address) + 11


def test_a_namespace_of_one_pod_takes_little():
    made = pods.Pods()
    made[key("a")] = pod("a")

    assert held_bytes(made) < 200


def test_pods_that_are_gone_leave_nothing():
    made = filled(MANY)
    before = held_bytes(filled(50))
    for found in list(made)[50:]:
        del made[found]

    assert held_bytes(made) < 2 * before

    made.clear()

    assert (len(made), held_bytes(made), made.refers_to()) == (0, 0, (0, 0))


def test_a_fleet_that_is_replaced_again_and_again_refers_to_no_more():
    made = pods.Pods()
    for generation in range(50):
        for number in range(20):
            name, last = f"web-{generation}-{number}", f"web-{generation - 1}-{number}"
            made[key(name)] = pod(name, node=f"node-{generation}", app=f"web-{generation}")
            made.pop(key(last), None)

    assert made.refers_to() == (1, 1)
    assert (len(made._nodes.things), len(made._shared.things)) == (2, 2)


def test_a_pod_refers_to_the_very_object_that_it_shares_with_others():
    made = filled(3)
    first, last = made.get(key("web-5d8f7c9b6d-00000")), made.get(key("web-5d8f7c9b6d-00002"))

    assert packed.shared_in(first) is packed.shared_in(last)


def test_more_owners_than_a_character_counts_are_told_apart():
    made = pods.Pods()
    for number in range(300):
        made[key(f"p{number}")] = pod(f"p{number}", node=f"n{number}", app=f"a{number}")

    assert [made[key(f"p{number}")].node for number in range(300)] == [
        f"n{number}" for number in range(300)
    ]
    assert made[key("p299")].metadata.labels == {"app": "a299"}


def test_keys_come_by_cluster_and_namespace_as_these_came_and_then_by_name():
    made = pods.Pods()
    names = [f"p{number:03}" for number in range(100)]
    for cluster in ("west", "east"):
        for name in reversed(names):
            made[key(name, cluster)] = pod(name)

    assert list(made) == [key(name, cluster) for cluster in ("west", "east") for name in names]
    assert list(made.of_cluster("east")) == [key(name, "east") for name in names]


def test_no_bucket_is_much_larger_than_others():
    made = filled(MANY)
    (shelf,) = [shelf for each in made._clusters.values() for shelf in each.values()]

    assert max(bucket.count(pods.BEFORE) for bucket in shelf.buckets) < 5 * pods.MEAN


class NeverGoneThrough(pods.Pods):
    def __iter__(self):
        pytest.fail("somebody has looked at all clusters")


def test_what_a_cluster_holds_is_found_without_looking_at_others():
    made = NeverGoneThrough()
    made[key("a", "east")] = made[key("a", "west")] = pod("a")
    overlay = overlays.Overlay("west")
    overlay.rest_on(made)

    assert dict(overlay) == {key("a", "west"): pod("a")}
