"""Which endpoints are nearer, and what that makes of addresses."""

import pytest

from isthmus.mesh import packs
from isthmus.mesh.localities import Locality, parse
from isthmus.mesh.networks import NetworkGateway
from isthmus.mesh.services import Service, ServiceKey
from isthmus.mesh.traffic import (
    Balancing,
    Distribution,
    LoadBalancer,
    LocalityPreference,
    OutlierDetection,
    TrafficPolicy,
    matches,
)
from isthmus.mesh.workloads import Endpoint, Likeness
from isthmus.registry import endpoints as endpoints_
from isthmus.views import bunches, preferences, splithorizon, view

HOST = "web.shop.svc.cluster.local"
SERVICE = Service(ServiceKey("shop", "web"), HOST, ())
NOTICED = OutlierDetection()
PLAIN = LocalityPreference()
FAILOVER = LocalityPreference(failover=(("us", "eu"), ("us", "asia"), ("eu", "us")))
HERE = view.HorizonScope("c1", "n1", locality=Locality("us", "a", "1"))


def endpoint(place, *, address="10.0.0.1", network="n1", cluster="c1", labels=()):
    like = Likeness(80, "http", cluster, network, own=tuple(sorted(labels)))
    return Endpoint(address, like, locality=parse(place))


def rank(preference, place, *, scope=HERE, labels=(), **where):
    order = preferences.order_of(preference, scope)
    return order.rank_of(endpoint(place, labels=labels, **where))


@pytest.mark.parametrize(
    ("place", "expected"),
    [("us/a/1", 0), ("us/a/2", 1), ("us/b/1", 2), ("eu/a/1", 3), ("asia/a/1", 3), ("", 3)],
)
def test_the_more_of_a_place_is_the_same_the_nearer_it_is(place, expected):
    assert rank(PLAIN, place) == expected


@pytest.mark.parametrize(
    ("place", "expected"), [("us/b/1", 2), ("eu/a/1", 3), ("asia/a/1", 4), ("", 4)]
)
def test_a_region_that_stands_in_comes_before_all_others(place, expected):
    assert rank(FAILOVER, place) == expected


BY_LABELS = LocalityPreference(
    labels=(
        ("topology.istio.io/network", None),
        ("topology.istio.io/cluster", None),
        ("version", "v1"),
        ("tier", None),
    )
)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"network": "n1", "cluster": "c1", "version": "v1", "tier": "gold"}, 0),
        ({"network": "n1", "cluster": "c1", "version": "v1"}, 1),
        ({"network": "n1", "cluster": "c1", "version": "v2", "tier": "gold"}, 2),
        ({"network": "n1", "cluster": "c2", "version": "v1", "tier": "gold"}, 3),
        ({"network": "n2", "cluster": "c1", "version": "v1", "tier": "gold"}, 4),
    ],
)
def test_only_leading_labels_in_common_make_near(labels, expected):
    scope = view.HorizonScope("c1", "n1", locality=Locality(), labels=(("tier", "gold"),))
    where = {key: labels[key] for key in ("network", "cluster")}
    said = labels.items() - where.items()

    assert rank(BY_LABELS, "us", scope=scope, labels=said, **where) == expected


def test_places_come_after_labels_where_both_are_said():
    both = LocalityPreference(failover=(("us", "eu"),), labels=(("version", "v1"),))

    assert rank(both, "asia", labels=[("version", "v1")]) == 4
    assert rank(both, "us/a/1", labels=[("version", "v2")]) == 5


def effective(policy, *, usual=PLAIN, nearness=()):
    service = Service(ServiceKey("shop", "web"), HOST, (), nearness=nearness)
    return preferences.preference_of(policy, service, usual=usual)


def balanced(preference, *, outlier=None, balancer=LoadBalancer.LEAST_REQUEST):
    return TrafficPolicy(balancing=Balancing(balancer, locality=preference), outlier=outlier)


def test_without_outlier_detection_all_endpoints_are_equal():
    assert effective(TrafficPolicy()) is None
    assert effective(balanced(FAILOVER)) is None
    assert effective(TrafficPolicy(outlier=NOTICED)) == PLAIN


def test_a_rule_counts_before_the_service_and_that_before_the_mesh():
    near = ("topology.istio.io/network",)

    assert effective(balanced(FAILOVER, outlier=NOTICED), nearness=near) == FAILOVER
    assert effective(TrafficPolicy(), nearness=near, usual=FAILOVER).labels == ((near[0], None),)
    assert effective(TrafficPolicy(outlier=NOTICED), usual=FAILOVER) == FAILOVER


def test_a_preference_can_be_turned_off():
    off = LocalityPreference(is_enabled=False)

    assert effective(balanced(off, outlier=NOTICED)) is None
    assert effective(TrafficPolicy(outlier=NOTICED), usual=off) is None


def test_shares_need_no_outlier_detection():
    shared = LocalityPreference(distribute=(Distribution("us", (("us", 100),)),))

    assert effective(balanced(shared)) == shared


def test_where_the_application_picks_nothing_is_nearer():
    passed = balanced(FAILOVER, outlier=NOTICED, balancer=LoadBalancer.PASSTHROUGH)

    assert effective(passed) is None


@pytest.mark.parametrize(
    ("pattern", "place", "fits"),
    [
        ("us", "us/a/1", True),
        ("us/*", "us/a/1", True),
        ("us/a/*", "us/b/1", False),
        ("us/a*", "us/a1", True),
        ("*", "", True),
        ("us/a/1", "us/a", False),
        ("eu", "us", False),
    ],
)
def test_patterns_of_places(pattern, place, fits):
    assert matches(pattern, parse(place)) is fits


# --- what becomes of addresses

DOORS = (NetworkGateway("n2", "c2", "172.16.0.1"),)


def in_bunches(found, *, doors):
    rows = endpoints_.in_order(map(packs.row, found))
    told = bunches.Candidates(packs.Packs((packs.packed(rows),)), bytes([True]) * len(found))
    table = splithorizon.table_of(doors)
    return bunches.bunched(told, scale=table.scale, doors_of=table.doors_of).get("http", ())


def told(found, preference, *, doors=DOORS):
    groups = splithorizon.groups_of(
        in_bunches(found, doors=doors),
        horizon=HERE,
        order=preferences.order_of(preference, HERE),
    )
    return [
        (group.priority, str(group.locality), {one.address: one.weight for one in group.endpoints})
        for group in groups
    ]


def local(number, place):
    return endpoint(place, address=f"10.0.0.{number}")


def hidden(number, place):
    return endpoint(place, address=f"10.9.0.{number}", network="n2", cluster="c2")


def test_priorities_leave_no_gap():
    assert told([local(1, "us/a/1"), local(2, "eu")], PLAIN) == [
        (0, "us/a/1", {"10.0.0.1": 1}),
        (1, "eu", {"10.0.0.2": 1}),
    ]
    assert told([local(2, "eu")], PLAIN) == [(0, "eu", {"10.0.0.2": 1})]


def test_a_gateway_stands_at_the_nearest_priority_with_the_weight_of_that_alone():
    found = [local(1, "us/a/1"), hidden(1, "us/b"), hidden(2, "us/c"), hidden(3, "us/c")]
    far = [hidden(number, "eu") for number in range(4, 9)]

    assert told(found + far, PLAIN) == [
        (0, "us/a/1", {"10.0.0.1": 1}),
        (1, "us/c", {"172.16.0.1": 3}),
    ]
    assert told(far, PLAIN) == [(0, "eu", {"172.16.0.1": 5})]


SHARED = LocalityPreference(
    distribute=(
        Distribution("eu/*", (("asia", 100),)),
        Distribution("us/*", (("us/a/*", 70), ("us/*", 20), ("eu", 10))),
    )
)


def weights_of(found, preference):
    groups = splithorizon.groups_of(
        in_bunches(found, doors=DOORS),
        horizon=HERE,
        order=preferences.order_of(preference, HERE),
    )
    return {str(group.locality): group.weight for group in groups}


def test_places_get_their_shares_and_what_has_none_gets_nothing():
    found = [local(1, "us/a/1"), local(2, "us/b"), local(3, "us/b"), local(4, "us/c")]
    found += [local(5, "eu/x"), local(6, "asia")]

    assert weights_of(found, SHARED) == {"us/a/1": 70, "us/b": 14, "us/c": 7, "eu/x": 10}


def test_a_gateway_gets_the_shares_of_all_places_that_it_hides():
    found = [local(1, "us/a/1"), local(2, "us/b"), hidden(1, "us/b"), hidden(2, "eu")]

    weights = weights_of(found, SHARED)

    # Half of the 20 for us/b, and all of the 10 for eu, go through the gateway.
    assert weights == {"us/a/1": 70_000, "us/b": 10_000, "eu": 20_000}
    assert told(found, SHARED)[0] == (0, "eu", {"172.16.0.1": 20_000})


def test_where_no_share_is_said_for_a_client_all_stays_as_it_is():
    elsewhere = LocalityPreference(distribute=(Distribution("asia", (("asia", 100),)),))

    assert weights_of([local(1, "us/a/1"), local(2, "eu")], elsewhere) == {"us/a/1": 1, "eu": 1}
