"""A control plane that starts while a linked cluster cannot be heard knows what that one told.

alpha (n1) links to beta (n2), and starts again. Snapshots are ConfigMaps of an API server.
"""

import contextlib
import datetime
import functools

import peering_world as world
import pytest

from fakes import kube_server
from isthmus.base import clock, tasks
from isthmus.fleet import recalling, slots
from isthmus.kube import client, kinds
from isthmus.runtime import peer_snapshots

SECONDS = datetime.timedelta(seconds=2)


@pytest.fixture
async def server():
    async with kube_server.serving() as running:
        yield running


@pytest.fixture
def beta():
    plane = world.Plane("beta", network="n2")
    plane.share("hello", ready=["10.2.0.1", "10.2.0.2"])
    plane.share("gone", ready=["10.2.0.3"])
    return plane


async def recall(server, is_needed):
    async with client.Client(server.access()) as reads:
        return await recalling.read(
            reads,
            slots.LINKED,
            namespace="istio-system",
            is_needed=is_needed,
            system_clock=clock.SystemClock(),
        )


def born(server, name="alpha", **more):
    """Return a control plane that starts where others ended."""
    return world.Plane(name, network="n1", recall=functools.partial(recall, server), **more)


@contextlib.asynccontextmanager
async def leading(plane, server, **options):
    """Run a control plane that keeps what it is told."""
    keeper = peer_snapshots.Snapshots(
        plane.peering,
        namespace="istio-system",
        system_clock=clock.SystemClock(),
        **{"every_s": 0.1, "keep_left_s": 0.2, "look_s": 0.05, **options},
    )
    async with client.Client(server.access()) as writes, tasks.Nursery() as nursery:
        nursery.keep("keep", lambda: keeper.run(writes, lambda: True))
        async with world.running(plane):
            yield keeper


def held(server):
    found = (server.get(kinds.CONFIG_MAP, one, "istio-system") for one in slots.LINKED.names)
    return [one for one in found if one and one["metadata"].get("annotations")]


def kept(server, peer="beta"):
    """Return the names of the services that are kept of a linked cluster."""
    found, wrong = peer_snapshots.recall(held(server))
    assert wrong == {}
    return {name.partition("/")[2] for name in found[peer].records} if peer in found else set()


def known_at(server):
    found, _ = peer_snapshots.recall(held(server))
    return found["beta"].known_at


async def told(server, *others):
    """Have a control plane hear others, keep what they tell, and end."""
    alpha = born(server)
    async with world.running(*others), leading(alpha, server):
        for one in others:
            alpha.link(one)
        await world.until(lambda: all(kept(server, one.name) for one in others))


async def test_a_restart_while_the_link_is_broken_forgets_nothing(server, beta):
    await told(server, beta)
    again = born(server)
    again.link(beta)
    async with leading(again, server):
        await world.until(again.imports)
        assert again.imports() == {"beta/hello": 2, "beta/gone": 1}
        status = again.status()
        assert (status.is_recalled, status.is_connected) == (True, False)
        assert status.age_s > 0
        [before] = held(server)

        seen = []
        again.mesh.graph.listen(lambda _: seen.append(again.imports()))
        beta.share("hello", ready=["10.2.0.1"])
        beta.delete("services", "sample", "gone")
        assert [before] == held(server)  # What is only remembered is not written anew.
        async with world.running(beta):
            await world.until(lambda: again.status().is_connected)
            assert again.codes() == set()
            await world.until(lambda: kept(server) == {"hello"})

    assert seen == [{"beta/hello": 1}]


async def test_proxies_wait_less_for_whom_an_earlier_control_plane_heard(server, beta):
    await told(server, beta)
    known, unknown = born(server), world.Plane("alpha", network="n1")
    for one in (known, unknown):
        one.link(beta)
    async with world.running(known, unknown):
        await world.until(known.imports)
        assert known.peering.waiting() == unknown.peering.waiting() == ["beta"]
        known.clock.later_s = unknown.clock.later_s = 6.0
        assert (known.peering.waiting(), unknown.peering.waiting()) == ([], ["beta"])


@pytest.mark.parametrize("how", ["damaged", "foreign", "old"])
async def test_what_cannot_be_trusted_is_reported_and_disturbs_nothing(server, beta, how):
    gamma = world.Plane("gamma", network="n3")
    gamma.share("other", ready=["10.3.0.1"])
    await told(server, beta, gamma)
    [one] = [one for one in held(server) if one["metadata"]["annotations"][slots.CLUSTER] == "beta"]
    if how == "damaged":
        one["binaryData"][slots.KEY] = one["binaryData"][slots.KEY][:-8]
    if how == "old":
        one["metadata"]["annotations"][slots.KNOWN_AT] = "2026-01-01T00:00:00Z"

    again = born(server)
    again.link(beta, domain="other.local" if how == "foreign" else None)
    again.link(gamma)
    async with world.running(again):
        await world.until(again.imports)
        assert again.imports() == {"gamma/other": 1}
        assert "ISM-RUN-021" in again.codes()
        again.link(beta)
        async with world.running(beta):
            await world.until(lambda: "beta/hello" in again.imports())
        assert "ISM-RUN-021" not in again.codes()


async def test_of_whoever_falls_silent_it_is_kept_since_when(server, beta):
    alpha = born(server)
    async with leading(alpha, server):
        async with world.running(beta):
            alpha.link(beta)
            await world.until(lambda: kept(server))
            early = known_at(server)
            await world.until(lambda: clock.SystemClock().now() > early + SECONDS)
        await world.until(lambda: not alpha.status().is_connected)
        await world.until(lambda: known_at(server) > early)


async def test_whoever_is_no_longer_linked_is_not_kept(server, beta):
    alpha = born(server)
    async with world.running(beta), leading(alpha, server):
        alpha.link(beta)
        await world.until(lambda: kept(server) == {"hello", "gone"})
        alpha.unlink(beta)
        await world.until(lambda: held(server) == [])


async def test_nothing_is_forgotten_before_it_is_known_who_is_linked(server, beta):
    await told(server, beta)
    again = born(server)
    again.reason = "own cluster is not known yet"
    looked = server.count("GET ")
    async with leading(again, server, keep_left_s=0.0):
        await world.until(lambda: server.count("GET ") > looked)
        again.link(beta)
        await world.until(again.peering.statuses)
        again.reason = ""
        await world.until(again.imports)
        assert kept(server) == {"hello", "gone"}


async def test_whoever_is_linked_later_is_not_known_from_before(server, beta):
    gamma = world.Plane("gamma", network="n3")
    gamma.share("other", ready=["10.3.0.1"])
    await told(server, beta, gamma)
    again = born(server)
    again.link(gamma)
    async with world.running(again):
        await world.until(again.imports)
        again.clock.later_s = 6.0
        assert again.peering.waiting() == []
        again.link(beta)
        await world.until(lambda: len(again.peering.statuses()) > 1)
        assert again.imports() == {"gamma/other": 1}
