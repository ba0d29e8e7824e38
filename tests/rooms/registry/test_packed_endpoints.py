"""Endpoints packed: the same as one by one, in a few bytes, and the same objects while they can be."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.mesh import packs
from isthmus.mesh.localities import Locality
from isthmus.mesh.services import ServiceKey
from isthmus.mesh.workloads import Endpoint, Health, Likeness, Spot
from isthmus.registry import endpoints

WEB = ServiceKey("default", "web")

usual = st.ip_addresses(v=4).map(str)
odd = st.sampled_from(
    ["", ".", "0.0.0.0", "010.0.0.1", "1.2.3", "1.2.3.4.5", "\u0661.2.3.4", "+1.0.0.1"]
)
addresses = usual | odd | st.ip_addresses(v=6).map(str) | st.text(max_size=4)
likes = st.builds(
    Likeness,
    port=st.sampled_from([80, 8080]),
    port_name=st.sampled_from(["http", "tcp"]),
    cluster=st.sampled_from(["c1", "c2"]),
    network=st.just(""),
    health=st.sampled_from(Health),
)
spots = st.builds(Spot, st.sampled_from(["", "n1", "n2"]), st.builds(Locality, st.just("r")))
rows = st.lists(st.tuples(addresses, likes, spots), max_size=6) | st.lists(
    st.tuples(usual, likes, spots), max_size=6
)


def one_by_one(found):
    return [Endpoint(address, like, *spot) for address, like, spot in found]


@given(rows)
def test_whatever_is_packed_is_what_comes_out(found):
    pack = packs.packed(found)

    assert list(pack) == one_by_one(found)
    assert len(pack) == len(found)
    assert set(pack.kinds()) == {like for _, like, _ in found}


@given(rows, rows)
def test_packs_are_equal_just_where_their_endpoints_are(found, others):
    one, copy, other = packs.packed(found), packs.packed(list(found)), packs.packed(others)

    assert one == copy
    assert hash(one) == hash(copy)
    assert (one == other) is (one_by_one(found) == one_by_one(others))


@given(rows.filter(len), st.data())
def test_some_of_a_pack_are_those_that_stand_there(found, data):
    numbers = tuple(sorted(data.draw(st.sets(st.sampled_from(range(len(found))), min_size=1))))
    pack, which = packs.packed(found), packs.numbered(numbers)
    alone = packs.packed([found[number] for number in numbers])

    assert list(map(packs.endpoint, pack.rows(which))) == list(alone)
    assert pack.like(which) == alone.like()
    assert pack.spot(which) == alone.spot()
    assert pack.is_same(which, alone, packs.EVERY)
    assert pack.hash_of(which) == alone.hash_of(packs.EVERY)


@given(rows.filter(len), st.data())
def test_some_of_a_pack_are_no_others(found, data):
    which = packs.numbered(tuple(data.draw(st.permutations(range(len(found))))))
    pack = packs.packed(found)

    is_same = list(map(packs.endpoint, pack.rows(which))) == list(pack)

    assert pack.is_same(which, pack, packs.EVERY) is is_same


def test_there_may_be_any_number_of_endpoints():
    like = Likeness(80, "http", "c1", "")
    found = [(f"10.0.{one // 256}.{one % 256}", like, Spot()) for one in range(2000)]
    which = packs.numbered((3, 255, 256, 1999))

    assert packs.packed(found).texts(which) == ["10.0.0.3", "10.0.0.255", "10.0.1.0", "10.0.7.207"]


@pytest.mark.parametrize(("count", "most"), [(10, 30), (100, 16)])
def test_an_endpoint_takes_its_address_and_what_says_where_it_is(count, most):
    like = Likeness(80, "http", "c1", "")
    pack = packs.packed([(f"10.0.0.{one}", like, Spot(f"n{one}")) for one in range(count)])

    size = sum(sys.getsizeof(part) for part in (pack, pack.addresses, pack.spots))

    assert pack.likes is like
    assert size <= most * count


# --- of slices and services


def shards(world):
    return {
        (key.cluster, key.name): shard.endpoints
        for key, shard in world.graph.lookup(world.model.shards, WEB).items()
    }


def parts(world):
    return {pack.like().cluster: pack for pack in world.graph.get(world.model.endpoints, WEB).parts}


def test_a_services_endpoints_in_a_cluster_are_those_of_its_slice(world, member):
    for cluster in ("c1", "c2"):
        world.service(cluster)
        world.slice(cluster, members=[member("10.1.0.2"), member("10.1.0.1")])

    assert parts(world) == {"c1": shards(world)["c1", "web-x"], "c2": shards(world)["c2", "web-x"]}
    assert all(parts(world)[cluster] is pack for (cluster, _), pack in shards(world).items())
    assert world.addresses() == ["10.1.0.1", "10.1.0.2"] * 2


def test_endpoints_of_several_slices_are_put_in_order_and_stay_while_they_are_the_same(
    world, member
):
    for cluster in ("c1", "c2"):
        world.service(cluster)
        world.slice(cluster, "a", members=[member("10.1.0.1"), member("10.1.0.3")])
        world.slice(cluster, "b", members=[member("10.1.0.2"), member("10.1.0.9", ready=False)])
    before = parts(world)

    world.slice("c2", "b", members=[member("10.1.0.4")])

    assert world.addresses() == [
        *("10.1.0.1", "10.1.0.2", "10.1.0.3"),
        *("10.1.0.1", "10.1.0.3", "10.1.0.4"),
    ]
    assert parts(world)["c1"] is before["c1"]


def test_a_slice_that_says_the_same_in_another_order_contributes_the_same_object(world, member):
    world.service()
    world.slice(members=[member("10.1.0.1"), member("10.1.0.2")])
    before = shards(world)

    world.slice(members=[member("10.1.0.2"), member("10.1.0.1")])

    assert shards(world)["c1", "web-x"] is before["c1", "web-x"]


def test_what_comes_and_is_not_ready_changes_no_endpoints_of_the_service(world, member):
    world.service()
    world.slice(members=[member("10.1.0.1"), member("10.1.0.7", ready=False)])
    before = parts(world)

    world.slice(members=[member("10.1.0.1"), member("10.1.0.8", ready=False)])

    assert parts(world)["c1"] is before["c1"]


@given(rows)
def test_of_endpoints_that_are_named_twice_the_ready_one_counts(found):
    kept = endpoints.in_order(found)

    places = [(like.cluster, like.port_name, address, like.port) for address, like, _ in found]
    well = {
        place
        for place, (_, like, _) in zip(places, found, strict=True)
        if like.health is Health.HEALTHY
    }
    assert len(kept) == len(set(places))
    assert {(r[1].cluster, r[1].port_name, r[0], r[1].port) for r in kept} == set(places)
    assert sum(r[1].health is Health.HEALTHY for r in kept) == len(well)
