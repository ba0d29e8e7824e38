"""Calls through gateways reach all pods behind them, and gateways get what their pods can serve."""

import concurrent.futures
import time

import pytest
import wired

from isthmus.testing import builders, pace, shapes

FAIREST = 1.5
"""The most that a pod may get, as a multiple of its fair share."""

NEAR_ENOUGH = 0.02
LIMIT_S = pace.patience(20.0)

WAYS = [("http", 1), ("http", 8), ("grpc", 1), ("grpc", 16)]
"""What is spoken, and how many calls at once."""


def meshed(clusters, networks):
    """Return a mesh whose client is in a cluster of its own; pods in each zone of the others."""
    mesh = builders.Mesh()
    mesh.cluster("home", network="n0").gateway(external=wired.door(0))
    mesh.expose_services()
    mesh.cluster("home").service("web", ports=wired.PORTS)
    gateways, pods = [], {}
    for number, (zones, network) in enumerate(zip(clusters, networks, strict=True), 1):
        cluster = mesh.cluster(f"c{number}", network=network)
        gateways.append(cluster.gateway(external=wired.door(number)))
        pods[number] = []
        for zone, size in enumerate(zones):
            node = f"{number}-{zone}"
            cluster.node(node, region=f"r{number}", zone=node)
            for _ in range(size):
                host = wired.pod(number, len(pods[number]) + 1)
                shape = shapes.Shape(node=node)
                cluster.pod(f"web-{host}", address=host, labels={"app": "web"}, shape=shape)
                pods[number].append(host)
        cluster.service("web", ready=pods[number], ports=wired.PORTS)
    return mesh, gateways, pods


@pytest.fixture
def wire(tmp_path):
    """Return a way to clusters, each with so many pods in each zone, and their pods' addresses."""
    ways = []

    def built(*clusters, networks=None, delays=None):
        named = networks or [f"n{number}" for number, _ in enumerate(clusters, 1)]
        mesh, gateways, pods = meshed(clusters, named)
        late = {host: (delays or {}).get(number, 0.0) for number in pods for host in pods[number]}
        way = wired.Way(tmp_path, mesh, mesh.proxy("home/client").pod, gateways, late)
        ways.append(way)
        until(way.is_up)
        return way, pods

    yield built
    for way in ways:
        way.close()


def until(holds):
    """Wait until `holds()`."""
    deadline = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < deadline, "it did not come"


def far_off(counts, pods):
    """Return how far the share of a cluster's answers is from its share of pods at most."""
    whole = sum(map(len, pods.values()))
    return max(
        abs(sum(counts[host] for host in own) / counts.total() - len(own) / whole)
        for own in pods.values()
    )


@pytest.mark.parametrize("pods", [2, 5, 10])
def test_no_pod_behind_a_gateway_gets_half_more_than_its_share(wire, pods):
    way, _ = wire((pods,))

    most = {
        (port, at_once): wired.busiest(way.send(port, calls=1000, at_once=at_once), pods)
        for port, at_once in WAYS
    }

    assert max(most.values()) < FAIREST, most


@pytest.mark.parametrize("networks", [("n1", "n2", "n3"), ("n1", "n1", "n1")])
def test_clusters_of_three_zones_are_answered_by_as_their_pods_are_many(wire, networks):
    way, pods = wire((1, 1, 0), (2, 1, 1), (1, 2, 3), networks=networks)

    for port, at_once in WAYS:
        counts = way.send(port, calls=1200, at_once=at_once)

        assert far_off(counts, pods) < NEAR_ENOUGH, (port, at_once, counts)
        assert wired.busiest(counts, 12) < FAIREST, (port, at_once, counts)


def test_shares_do_not_depend_on_how_soon_clusters_answer(wire):
    way, pods = wire((1,), (2,), (3,), delays={2: 0.002, 3: 0.01})

    counts = way.send("grpc", calls=1200, at_once=16)

    assert far_off(counts, pods) < NEAR_ENOUGH, counts


def test_calls_that_last_are_spread_while_they_last(wire):
    way, _ = wire((3, 3, 4))

    counts = way.send("grpc", calls=40, at_once=40, lasting_s=1.0)

    # Four share a connection, and each of two workers takes its own turns.
    assert len(counts) >= 5, counts


@pytest.mark.parametrize("port", wired.PORTS)
def test_calls_on_their_way_outlive_a_change_of_their_cluster(wire, port):
    way, pods = wire((5,))
    with concurrent.futures.ThreadPoolExecutor() as pool:
        lasting = pool.submit(way.send, port, calls=8, at_once=8, lasting_s=1.0)
        until(lambda: way.pending(port) == 8)

        way.mesh.cluster("c1").service("web", ready=[*pods[1], "10.1.0.6"], ports=wired.PORTS)
        way.tell()
        until(lambda: way.times_told() == 2)
        assert not lasting.done()

        assert lasting.result().total() == 8


RULES = (
    {"trafficPolicy": {"loadBalancer": {"simple": "RANDOM"}}},
    {"trafficPolicy": {"outlierDetection": {}}},
    {"trafficPolicy": {"connectionPool": {"http": {"maxRequestsPerConnection": 1}}}},
    {},
)


def test_no_call_is_lost_while_rules_and_pods_come_and_go(wire):
    way, pods = wire((2,), (2,), (2,))
    with concurrent.futures.ThreadPoolExecutor() as pool:
        calls = pool.submit(way.send, "grpc", calls=3000, at_once=16)
        told = way.times_told()
        while not calls.done():
            way.mesh.destination_rule("web", {"host": "web", **RULES[told % len(RULES)]})
            way.mesh.cluster("c1").service("web", ready=pods[1][: 1 + told % 2], ports=wired.PORTS)
            way.mesh.cluster("c2").service("web", ready=pods[2][: told % 3], ports=wired.PORTS)
            way.tell()
            until(lambda before=told: way.times_told() > before)
            told = way.times_told()

    assert told > len(RULES), told
    assert calls.result().total() == 3000
    assert len(calls.result()) == 6, calls.result()
