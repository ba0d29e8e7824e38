"""Which addresses stand for endpoints, seen from one place."""

from dataclasses import replace
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from isthmus.mesh import packs
from isthmus.mesh.localities import NOWHERE, Locality
from isthmus.mesh.networks import NetworkGateway
from isthmus.mesh.workloads import Endpoint, Likeness
from isthmus.registry import endpoints as endpoints_
from isthmus.views import bunches, splithorizon, view

NETWORKS = ("n1", "n2", "n3")
HERE = view.HorizonScope("c1", "n1")

places = st.builds(Locality, st.sampled_from(["r1", "r2"]), st.sampled_from(["z1", "z2"]))
likes = st.builds(
    Likeness,
    port=st.just(80),
    port_name=st.just("http"),
    cluster=st.sampled_from(["c1", "c2"]),
    network=st.sampled_from(["", *NETWORKS]),
    weight=st.integers(1, 5),
)
endpoints = st.builds(
    Endpoint,
    address=st.ip_addresses(v=4, network="10.0.0.0/8").map(str),
    like=likes,
    locality=places,
)
gateways = st.builds(
    NetworkGateway,
    network=st.sampled_from(NETWORKS),
    cluster=st.sampled_from(["c1", "c2", ""]),
    address=st.ip_addresses(v=4, network="172.16.0.0/12").map(str),
)
any_gateways = st.builds(replace, gateways, is_up=st.booleans())


def in_bunches(found, table, *, speaks=True):
    rows = endpoints_.in_order(map(packs.row, found))
    told = bunches.Candidates(packs.Packs((packs.packed(rows),)), bytes([speaks]) * len(found))
    return bunches.bunched(told, scale=table.scale, doors_of=table.doors_of).get("http", ())


def told(found, doors, *, horizon=HERE, speaks=True):
    table = splithorizon.table_of(doors)
    seen = in_bunches(found, table, speaks=speaks)
    groups = splithorizon.groups_of(seen, horizon=horizon)
    return groups, table


def addresses(groups):
    return [one.address for group in groups for one in group.endpoints]


def endpoint(address, network, *, locality=NOWHERE, **fields):
    return Endpoint(address, Likeness(80, "http", "c1", network, **fields), locality=locality)


@given(st.lists(endpoints, max_size=8, unique_by=lambda one: one.address), st.sets(gateways))
def test_no_weight_is_lost_when_all_speak_mutual_tls(found, doors):
    groups, table = told(found, doors)

    assert sum(group.weight for group in groups) == table.scale * sum(one.weight for one in found)


@given(st.lists(endpoints, max_size=8, unique_by=lambda one: one.address), st.sets(gateways))
def test_no_address_is_told_twice(found, doors):
    groups, _ = told(found, doors)

    assert len(addresses(groups)) == len(set(addresses(groups)))


@given(st.lists(endpoints, max_size=8, unique_by=lambda one: one.address), st.sets(any_gateways))
def test_behind_a_known_gateway_no_address_of_its_network_is_told(found, doors):
    groups, table = told(found, doors)

    hidden = {one.address for one in found if one.network not in {"", "n1"} and table.hides(one)}
    assert not hidden & set(addresses(groups))


@given(st.lists(endpoints, max_size=8, unique_by=lambda one: one.address), st.sets(gateways))
def test_the_order_of_endpoints_and_gateways_does_not_matter(found, doors):
    forth, _ = told(found, sorted(doors))
    back, _ = told(found[::-1], sorted(doors, reverse=True))

    assert forth == back


ways = st.sampled_from([("", False), ("", True), ("spiffe://td/ns/a/sa/one", False)])


@given(st.data())
def test_bunches_of_endpoints_that_are_reached_otherwise_than_before_are_as_if_made_anew(data):
    unique = st.lists(endpoints, min_size=1, max_size=8, unique_by=lambda one: one.address)
    rows = endpoints_.in_order(map(packs.row, data.draw(unique)))
    pack = packs.Packs((packs.packed(rows),))

    def drawn():
        each = data.draw(
            st.just([data.draw(ways)] * len(rows))
            | st.lists(ways, min_size=len(rows), max_size=len(rows))
        )
        ends = tuple([end for end, _ in each])
        told = bunches.Candidates(
            pack, bytes([speaks for _, speaks in each]), ends if any(ends) else ()
        )
        return told, splithorizon.table_of(data.draw(st.sets(any_gateways, max_size=3)))

    def made(told, table, **before):
        return bunches.bunched(told, scale=table.scale, doors_of=table.doors_of, **before)

    now = drawn()

    assert made(*now, before=made(*drawn())) == made(*now)


def test_gateways_that_come_elsewhere_scale_the_weights_of_bunches_that_are_known():
    pack = packs.Packs((packs.packed([packs.row(endpoint("10.0.0.1", "n1"))]),))
    told = bunches.Candidates(pack, bytes([True]))
    far = [NetworkGateway("n3", "c3", f"172.16.0.{n}") for n in range(2)]
    one, two = splithorizon.table_of([]), splithorizon.table_of(far)

    before = bunches.bunched(told, scale=one.scale, doors_of=one.doors_of)
    after = bunches.bunched(told, scale=two.scale, doors_of=two.doors_of, before=before)

    assert [found["http"][0].weight for found in (before, after)] == [1, 2]


def test_each_pod_gets_its_share_behind_any_number_of_gateways():
    found = [endpoint(f"10.0.0.{n}", "n1") for n in range(2)]
    found += [endpoint(f"10.9.0.{n}", "n2") for n in range(3)]
    doors = [NetworkGateway("n2", "c1", f"172.16.0.{n}") for n in range(2)]

    (group,), _ = told(found, doors)

    shares = {one.address: Fraction(one.weight, group.weight) for one in group.endpoints}
    assert shares["10.0.0.0"] == Fraction(1, 5)
    assert shares["172.16.0.0"] == shares["172.16.0.1"] == Fraction(3, 10)


def test_an_endpoint_prefers_the_gateways_of_its_own_cluster():
    doors = [NetworkGateway("n2", "c1", "172.16.0.1"), NetworkGateway("n2", "c2", "172.16.0.2")]

    groups, _ = told([endpoint("10.9.0.1", "n2")], doors)

    assert addresses(groups) == ["172.16.0.1"]


def test_what_speaks_no_mutual_tls_is_not_hidden_behind_a_gateway():
    doors = [NetworkGateway("n2", "c1", "172.16.0.1")]

    groups, _ = told([endpoint("10.9.0.1", "n2")], doors, speaks=False)

    assert groups == ()


def test_a_client_in_no_known_network_uses_gateways():
    doors = [NetworkGateway("n2", "c1", "172.16.0.1")]

    groups, _ = told([endpoint("10.9.0.1", "n2")], doors, horizon=view.HorizonScope("c1", ""))

    assert addresses(groups) == ["172.16.0.1"]


def test_without_any_gateway_endpoints_are_told_as_they_are():
    groups, _ = told([endpoint("10.9.0.1", "n2", weight=3)], [])

    assert addresses(groups) == ["10.9.0.1"]
    assert groups[0].weight == 3


def test_a_gateway_that_only_has_a_name_hides_its_network_all_the_same():
    doors = [NetworkGateway("n2", "c1", "lb.example.com")]

    groups, _ = told([endpoint("10.9.0.1", "n2")], doors)

    assert groups == ()


def test_what_stands_only_behind_a_gateway_that_is_down_is_left_out():
    doors = [NetworkGateway("n2", "c1", "172.16.0.1", is_up=False)]

    groups, _ = told([endpoint("10.9.0.1", "n2"), endpoint("10.0.0.1", "n1")], doors)

    assert addresses(groups) == ["10.0.0.1"]


def test_another_gateway_of_the_network_stands_in_for_one_that_is_down():
    doors = [
        NetworkGateway("n2", "c1", "172.16.0.1", is_up=False),
        NetworkGateway("n2", "c2", "172.16.0.2"),
    ]

    groups, _ = told([endpoint("10.9.0.1", "n2")], doors)

    assert addresses(groups) == ["172.16.0.2"]


def test_a_gateway_stands_where_most_of_its_weight_is():
    far, near = Locality("r2", "z1"), Locality("r1", "z1")
    found = [endpoint("10.9.0.1", "n2", locality=near)]
    found += [endpoint(f"10.9.1.{n}", "n2", locality=far) for n in range(2)]

    (group,), _ = told(found, [NetworkGateway("n2", "c1", "172.16.0.1")])

    assert group.locality == far
    assert group.weight == 3


def test_a_proxy_that_asks_for_networks_sees_those_and_the_unnamed():
    horizon = view.HorizonScope("c1", "n1", ("n2",))

    seen = {
        network: splithorizon.is_in_view(
            endpoint("10.0.0.1", network), horizon=horizon, is_cluster_local=False
        )
        for network in ("", "n1", "n2")
    }

    assert seen == {"": True, "n1": False, "n2": True}


def door(cluster, **fields):
    return NetworkGateway("n1", cluster, f"172.16.0.{cluster[1:]}", 15443, **fields)


def entrusted(cluster, doors, owners):
    """Return the owners of endpoints in the order in which a cluster's gateways pass on to them."""
    order = splithorizon.Entrusted(cluster, splithorizon.table_of(doors))
    ranks = {
        owner: order.rank_of(Endpoint("10.0.0.1", Likeness(80, "http", owner, "n1")))
        for owner in owners
    }
    return [{owner for owner in owners if ranks[owner] == rank} for rank in (0, 1)]


def test_a_gateway_passes_on_first_to_what_is_reached_through_it_alone():
    assert entrusted("c1", [door("c1"), door("c2")], ["c1", "c2"]) == [{"c1"}, {"c2"}]


def test_a_gateway_passes_on_to_clusters_that_have_none_as_well():
    assert entrusted("c1", [door("c1"), door("c2")], ["c1", "c3"]) == [{"c1", "c3"}, set()]


def test_a_gateway_stands_in_for_one_that_is_down():
    doors = [door("c1"), door("c2", is_up=False)]

    assert entrusted("c1", doors, ["c1", "c2"]) == [{"c1", "c2"}, set()]


def test_a_gateway_that_settings_name_passes_on_to_all_clusters_alike():
    nobodys = NetworkGateway("n1", "", "172.16.0.9", 15443)

    assert entrusted("c1", [nobodys], ["c1", "c2"]) == [{"c1", "c2"}, set()]
