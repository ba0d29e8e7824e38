"""What a cluster's informers know needs no table of its own once the sources hold it."""

import pytest

from isthmus.fleet import overlays, pods
from isthmus.fleet.sources import ObjectKey
from isthmus.kube import objects, packed


def key(name, cluster="east"):
    return ObjectKey(cluster, "shop", name)


def thing(name, uid=""):
    return objects.Namespace(objects.Metadata(name, uid=uid))


@pytest.fixture
def held():
    return {key("x", "west"): thing("x")}


@pytest.fixture
def overlay():
    made = overlays.Overlay("east")
    made[key("a")] = thing("a")
    made[key("b")] = thing("b")
    return made


@pytest.fixture
def resting(overlay, held):
    held.update(overlay)
    overlay.rest_on(held)
    return overlay


def test_what_others_hold_is_none_of_its_own(overlay, held):
    held[key("old")] = thing("old")

    assert sorted(one.name for one in overlay) == ["a", "b"]
    assert overlay.get(key("old")) is None


def test_who_rests_on_the_sources_knows_what_they_hold_of_its_cluster(resting):
    assert dict(resting) == {key("a"): thing("a"), key("b"): thing("b")}
    assert key("b") in resting
    assert key("c") not in resting
    assert (resting._own, resting._gone) == ({}, set())


def test_what_was_heard_since_is_known_before_the_sources_hold_it(resting, held):
    resting[key("a")] = thing("a", uid="new")
    resting[key("c")] = thing("c")
    del resting[key("b")]

    assert dict(resting) == {key("a"): thing("a", uid="new"), key("c"): thing("c")}
    assert resting.pop(key("b"), None) is None
    assert held[key("b")] == thing("b")


def test_nothing_of_it_is_kept_when_they_do(resting, held):
    resting[key("c")] = thing("c")
    del resting[key("b")]
    held[key("c")] = thing("c")
    held.pop(key("b"))

    resting.settle([key("c"), key("b")])

    assert (resting._own, resting._gone) == ({}, set())
    assert sorted(one.name for one in resting) == ["a", "c"]


def test_what_was_gone_and_is_there_again_is_known(resting, held):
    del resting[key("b")]
    resting[key("b")] = thing("b", uid="new")

    assert resting[key("b")] == thing("b", uid="new")
    assert sorted(one.name for one in resting) == ["a", "b"]


def test_what_is_gone_before_the_sources_hold_it_leaves_nothing(overlay):
    del overlay[key("a")]

    overlay.rest_on({key("b"): thing("b")})

    assert dict(overlay) == {key("b"): thing("b")}
    assert (dict(overlay._own), overlay._gone) == ({}, set())


def test_its_own_table_may_be_another_than_a_dict():
    made = overlays.Overlay("east", pods.Pods)
    pod = packed.pod(objects.Pod(objects.Metadata("a")))
    made[key("a")] = made[key("b")] = pod
    del made[key("b")]

    assert dict(made) == {key("a"): pod}


def test_what_they_do_not_hold_yet_stays(resting, held):
    resting[key("c")] = thing("c", uid="newer")
    held[key("c")] = thing("c", uid="older")
    del resting[key("b")]

    resting.settle([key("c"), key("b")])

    assert resting[key("c")] == thing("c", uid="newer")
    assert key("b") not in resting


def test_what_is_gone_is_gone_once(resting):
    del resting[key("a")]

    with pytest.raises(KeyError):
        del resting[key("a")]
