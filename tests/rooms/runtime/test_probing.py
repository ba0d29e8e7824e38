"""Where a control plane looks for ways to other clusters: only where its own table says."""

import asyncio

import pytest

from isthmus.base import clock, tasks
from isthmus.mesh.probing import Way
from isthmus.runtime import probing
from isthmus.testing import builders, shapes

TUNNELLED = builders.Shape(proxy=None, is_captured=True, is_global=True)


@pytest.fixture
def mesh():
    mesh = builders.Mesh()
    mesh.cluster("east", network="n1").service("hello", ready=["10.0.0.1"], ports={"http": 5000})
    west = mesh.cluster("west", network="n2")
    west.service("hello", ready=["10.1.0.1"], ports={"http": 5000})
    west.service("ambient", ready=["10.1.0.2"], shape=TUNNELLED)
    west.gateway(external="203.0.113.2")
    return mesh


class Seat:
    cluster = "east"


class Assembled:
    """A mesh as the control plane holds it."""

    def __init__(self, mesh):
        self.graph, self.model, self.seat = mesh.graph, mesh.model, Seat()


def goals(mesh):
    return list(probing.goals_of(Assembled(mesh)))


def test_gateways_of_other_networks_are_climbed_to(mesh):
    (goal,) = goals(mesh)

    assert (goal.way, goal.peer, goal.address, goal.port) == (
        Way.MUTUAL_TLS,
        "west",
        "203.0.113.2",
        15443,
    )
    assert (goal.shared.host, goal.shared.port) == ("hello.default.svc.cluster.local", 5000)


def test_gateways_of_the_own_network_are_not(mesh):
    mesh.clusters["east"].gateway("own", external="203.0.113.1")

    assert [one.address for one in goals(mesh)] == ["203.0.113.2"]


def test_a_gateway_that_ends_tunnels_must_have_its_own_identity(mesh):
    mesh.clusters["west"].gateway(
        "istio-eastwest", external="203.0.113.3", ports={"cross-network": 15008}
    )

    tunnels = [one for one in goals(mesh) if one.way is Way.TUNNELS]

    (goal,) = tunnels
    assert goal.expected.startswith("spiffe://cluster.local/ns/istio-system/sa/istio-eastwest")
    assert goal.shared.host == "ambient.default.svc.cluster.local"


def test_nothing_is_called_that_takes_no_mutual_tls(mesh):
    west = mesh.clusters["west"]
    west.pod("plain", address="10.1.0.9", shape=shapes.PLAIN)
    west.service("hello", ready=["10.1.0.9"], ports={"http": 5000}, shape=shapes.PLAIN)

    assert goals(mesh)[0].shared is None


class Still(clock.SystemClock):
    """A clock that stands until it is moved."""

    def __init__(self):
        self.at = 0.0

    def monotonic(self):
        return self.at


async def test_what_was_found_a_moment_ago_is_not_looked_for_again(mesh):
    assembled, rounds, still = Assembled(mesh), [], Still()
    prober = probing.Prober(assembled, proof=lambda: rounds.append(1), system_clock=still)
    async with tasks.Nursery() as nursery:
        running = nursery.start("look", prober.run())
        first = prober.page()
        for _ in range(20):
            prober.page()
            await asyncio.sleep(0)
        still.at = probing.FRESH_S + 1
        anew = prober.page()
        running.cancel()

    assert (first["isRunning"], first["ageSeconds"], first["ways"]) == (True, None, [])
    assert rounds == [1]
    assert anew["isRunning"]
