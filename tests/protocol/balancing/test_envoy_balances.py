"""A real Envoy balances, fails over, limits and binds as rules say: it is asked itself."""

import collections
import concurrent.futures
import dataclasses

import balanced
import pytest

from isthmus.mesh.traffic import (
    ConnectionPool,
    HashKey,
    HashOf,
    LoadBalancer,
    OutlierDetection,
    RetryBudget,
)
from isthmus.resources import snapshot
from isthmus.testing import builders, shapes

MANY = 40


@pytest.fixture
def servers():
    with balanced.contextlib.closing(balanced.Servers("near", "far")) as running:
        yield running


@pytest.fixture
def envoy(tmp_path):
    with balanced.contextlib.ExitStack() as stack:

        def start(resources):
            running = balanced.Envoy(resources, tmp_path)
            stack.callback(running.close)
            return running

        yield start


NOTICING = OutlierDetection(consecutive_5xx=3, interval_s=0.1, max_ejection_percent=100)
FORGIVING = dataclasses.replace(NOTICING, base_ejection_s=0.2)


def test_calls_go_far_when_the_near_endpoint_fails(envoy, servers):
    groups = [
        balanced.group(servers.endpoint("near"), priority=0),
        balanced.group(servers.endpoint("far"), priority=1),
    ]
    running = envoy(balanced.listening(balanced.plain_cluster(outlier=NOTICING), groups))
    port = running.port()

    def answers(number=MANY):
        return collections.Counter(balanced.ask(port) for _ in range(number))

    assert answers() == {(200, "near"): MANY}

    servers.failing.add("near")
    assert answers(3) == {(500, "near"): 3}
    balanced.until(lambda: running.ejected() == {servers.port("near")})
    assert answers() == {(200, "far"): MANY}


def test_calls_come_back_when_the_near_endpoint_is_well_again(envoy, servers):
    groups = [
        balanced.group(servers.endpoint("near"), priority=0),
        balanced.group(servers.endpoint("far"), priority=1),
    ]
    running = envoy(balanced.listening(balanced.plain_cluster(outlier=FORGIVING), groups))
    port = running.port()
    servers.failing.add("near")
    balanced.until(lambda: balanced.ask(port) == (200, "far"))

    servers.failing.clear()
    balanced.until(lambda: balanced.ask(port) == (200, "near"))

    assert running.ejected() == set()
    assert {balanced.ask(port) for _ in range(MANY)} == {(200, "near")}


def test_of_few_endpoints_one_is_put_off_although_a_tenth_of_them_is_none(envoy, servers):
    groups = [balanced.group(servers.endpoint("near"), servers.endpoint("far"))]
    usual = OutlierDetection(consecutive_5xx=3, interval_s=0.1)
    port = envoy(balanced.listening(balanced.plain_cluster(outlier=usual), groups)).port()
    servers.failing.update(("near", "far"))
    for _ in range(MANY):
        balanced.ask(port)
    servers.failing.clear()

    answering = {balanced.ask(port)[1] for _ in range(MANY)}

    assert len(answering) == 1


def test_when_all_are_put_off_all_are_asked(envoy, servers):
    groups = [
        balanced.group(servers.endpoint("near"), priority=0),
        balanced.group(servers.endpoint("far"), priority=1),
    ]
    running = envoy(balanced.listening(balanced.plain_cluster(outlier=NOTICING), groups))
    servers.failing.update(("near", "far"))
    both = {servers.port("near"), servers.port("far")}

    def all_off():
        balanced.ask(running.port())
        return running.ejected() == both

    balanced.until(all_off)
    servers.failing.clear()

    assert {balanced.ask(running.port())[0] for _ in range(MANY)} == {200}


def test_without_outlier_detection_a_near_endpoint_that_fails_goes_on_failing(envoy, servers):
    groups = [
        balanced.group(servers.endpoint("near"), priority=0),
        balanced.group(servers.endpoint("far"), priority=1),
    ]
    running = envoy(balanced.listening(balanced.plain_cluster(), groups))
    servers.failing.add("near")

    answers = {balanced.ask(running.port()) for _ in range(MANY)}

    assert answers == {(500, "near")}


def test_an_endpoint_that_cannot_be_connected_to_is_put_off(envoy, servers):
    address, port = balanced.free_address()
    gone = balanced.view.LbEndpoint(address, port, 1)
    groups = [
        balanced.group(gone, priority=0),
        balanced.group(servers.endpoint("far"), priority=1),
    ]
    limits = OutlierDetection(
        interval_s=0.1,
        max_ejection_percent=100,
        splits_local=True,
        consecutive_local_failures=2,
    )
    running = envoy(balanced.listening(balanced.plain_cluster(outlier=limits), groups))

    first = [balanced.ask(running.port())[0] for _ in range(2)]
    balanced.until(lambda: running.ejected() == {port})

    assert first == [503, 503]
    assert balanced.ask(running.port()) == (200, "far")


@pytest.mark.parametrize(("budget", "is_kept"), [(None, False), (RetryBudget(0.0, 1), True)])
def test_no_more_requests_are_repeated_at_a_time_than_a_budget_allows(
    envoy, servers, budget, is_kept
):
    groups = [balanced.group(servers.endpoint("near"))]
    cluster = balanced.plain_cluster(budget=budget)
    running = envoy(balanced.listening(cluster, groups, has_retries=True))
    port = running.port()
    servers.failing.add("near")
    servers.failure = 503

    with concurrent.futures.ThreadPoolExecutor(MANY) as pool:
        assert {status for status, _ in pool.map(balanced.ask, [port] * MANY)} == {503}

    # Each is asked three times where nothing limits that.
    assert (servers.asked["near"] < 3 * MANY) is is_kept, servers.asked
    assert (running.counted("upstream_rq_retry_overflow") > 0) is is_kept


@pytest.mark.parametrize("balancer", [LoadBalancer.RING_HASH, LoadBalancer.MAGLEV])
def test_requests_with_an_equal_header_go_to_one_endpoint(envoy, servers, balancer):
    groups = [balanced.group(servers.endpoint("near"), servers.endpoint("far"))]
    key = HashKey(HashOf.HEADER, "x-user")
    cluster = balanced.plain_cluster(balancer=balancer)
    port = envoy(balanced.listening(cluster, groups, key=key)).port()

    by_user = {
        user: {balanced.ask(port, **{"x-user": user})[1] for _ in range(5)}
        for user in map(str, range(MANY))
    }

    assert all(len(answering) == 1 for answering in by_user.values())
    assert len(set.union(*by_user.values())) == 2


def test_places_are_weighed_before_endpoints(envoy, servers):
    place = balanced.Locality("r", "z")
    groups = [
        balanced.view.LocalityGroup(place, 95, (servers.endpoint("near"),)),
        balanced.view.LocalityGroup(balanced.Locality("s"), 5, (servers.endpoint("far"),)),
    ]
    cluster = balanced.plain_cluster(weighs_places=True, balancer=LoadBalancer.ROUND_ROBIN)
    port = envoy(balanced.listening(cluster, groups)).port()

    asked = collections.Counter(balanced.ask(port)[1] for _ in range(5 * MANY))

    assert asked["far"] == pytest.approx(0.05 * 5 * MANY, abs=2)


def test_limits_are_told_as_a_rule_sets_them(envoy):
    pool = ConnectionPool(max_connections=1, max_pending=2, max_requests=3, max_retries=4)
    running = envoy(balanced.listening(balanced.plain_cluster(pool=pool), []))

    [low, *_] = running.cluster()["circuit_breakers"]["thresholds"]

    assert [low[f"max_{name}"] for name in ("connections", "pending_requests")] == [1, 2]
    assert [low[f"max_{name}"] for name in ("requests", "retries")] == [3, 4]


# --- what rules make of a mesh, in Envoy's own words


def mesh_of_three_places():
    """Return a mesh with pods in two zones of one region, and others behind a gateway."""
    mesh = builders.Mesh()
    east, west = mesh.cluster("east", network="n1"), mesh.cluster("west", network="n2")
    west.gateway(external="172.30.0.12")
    for cluster, zones in ((east, {"a": 2, "b": 1}), (west, {"b": 3, "x": 4})):
        ready = []
        for zone, size in zones.items():
            region = "eu" if zone == "x" else "us"
            node = f"{cluster.name}-{zone}"
            cluster.node(node, region=region, zone=zone)
            for number in range(size):
                address = f"10.{1 if cluster is east else 2}.{ord(zone)}.{number + 1}"
                name = f"web-{zone}-{number}"
                cluster.pod(name, address=address, shape=shapes.Shape(node=node))
                ready.append(address)
        cluster.service("web", ready=ready)
    east.pod("client", shape=shapes.Shape(node="east-a"))
    return mesh


def told(mesh, *, path="east/client"):
    snapshot_ = mesh.snapshot_of(mesh.proxy(path).pod)
    kinds = (snapshot.CLUSTERS, snapshot.ENDPOINTS)
    return [snapshot_.of(kind)[balanced.NAME] for kind in kinds]


def ruled(mesh, **balancer):
    policy = {"outlierDetection": {"consecutive5xxErrors": 1}, "loadBalancer": balancer}
    mesh.destination_rule("web", {"host": "web", "trafficPolicy": policy})


def test_endpoints_have_the_priority_of_their_place_and_the_gateway_that_of_its_nearest(envoy):
    mesh = mesh_of_three_places()
    ruled(mesh)

    hosts = envoy(told(mesh)).hosts()

    assert hosts == {
        "10.1.97.1": (0, 1),
        "10.1.97.2": (0, 1),
        "10.1.98.1": (1, 1),
        "172.30.0.12": (1, 3),
    }


def test_without_a_rule_all_have_one_priority_and_the_gateway_all_the_weight(envoy):
    hosts = envoy(told(mesh_of_three_places())).hosts()

    assert hosts["172.30.0.12"] == (0, 7)
    assert {priority for priority, _ in hosts.values()} == {0}


def test_a_network_can_come_before_all_places(envoy):
    mesh = mesh_of_three_places()
    ruled(mesh, localityLbSetting={"failoverPriority": ["topology.istio.io/network"]})

    hosts = envoy(told(mesh)).hosts()

    assert {host: priority for host, (priority, _) in hosts.items()} == {
        "10.1.97.1": 0,
        "10.1.97.2": 0,
        "10.1.98.1": 0,
        "172.30.0.12": 1,
    }
    assert hosts["172.30.0.12"] == (1, 7)


def test_envoy_takes_shares_of_places(envoy):
    mesh = mesh_of_three_places()
    shares = {"us/a/*": 60, "us/b/*": 30, "eu/*": 10}
    ruled(mesh, localityLbSetting={"distribute": [{"from": "us/*", "to": shares}]})

    running = envoy(told(mesh))
    weights = {host: weight for host, (_, weight) in running.hosts().items()}

    # Of the 30 for us/b three quarters stand behind the gateway, and all of the 10 for eu.
    assert {host: round(weight / 1000) for host, weight in weights.items()} == {
        "10.1.97.1": 30,
        "10.1.97.2": 30,
        "10.1.98.1": 8,
        "172.30.0.12": 32,
    }
