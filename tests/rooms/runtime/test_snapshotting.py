"""What is known of a cluster outlives the control plane that learnt it."""

import asyncio
import contextlib

import pytest

from fakes import kube_server
from fakes.fleets import OWN, fleet_of
from isthmus.base import clock
from isthmus.fleet import snapshots, supervisor
from isthmus.kube import client, kinds
from isthmus.runtime import snapshotting


@contextlib.asynccontextmanager
async def leading(fleet):
    keeper = snapshotting.Snapshots(
        fleet.supervisor, namespace="istio-system", system_clock=QuickClock()
    )
    async with client.Client(fleet.local.access()) as writes:
        work = asyncio.get_running_loop().create_task(keeper.run(writes, lambda: True))
        try:
            yield keeper
        finally:
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work


class QuickClock(clock.SystemClock):
    """Waits a hundredth of the time."""

    async def sleep(self, delay_s):
        await asyncio.sleep(delay_s / 100)


def slots(fleet):
    return [
        one
        for name in snapshots.SLOTS
        if (one := fleet.local.get(kinds.CONFIG_MAP, name, "istio-system"))
        and one["metadata"].get("annotations")
    ]


def kept(fleet, cluster="cluster2"):
    found, findings = snapshots.recall(slots(fleet))
    assert findings == ()
    if cluster not in found:
        return None
    return sorted(key.name for key in found[cluster].content["services"])


def reborn(fleet):
    """Have another control plane start where this one ended."""
    fresh = type(fleet)(fleet.local, fleet.remotes, remote_timeout_s=0.3)
    fresh.start()
    return fresh


@pytest.fixture
async def fleet():
    async with fleet_of("cluster2") as running:
        running.link("cluster2")
        await kube_server.eventually(lambda: running.names("cluster2"))
        yield running


async def test_changes_are_kept_within_a_while(fleet):
    async with leading(fleet):
        await kube_server.eventually(lambda: kept(fleet) == ["cluster2-service"])
        fleet.remotes["cluster2"].put(kinds.SERVICE, "later", "n")

        await kube_server.eventually(lambda: kept(fleet) == ["cluster2-service", "later"])

    assert len(slots(fleet)) == 1


async def test_nothing_is_written_while_nothing_changes(fleet):
    async with leading(fleet):
        await kube_server.eventually(lambda: kept(fleet))
        before = fleet.local.version
        await asyncio.sleep(0.4)

        assert fleet.local.version == before


async def test_what_was_kept_goes_with_the_cluster(fleet):
    async with leading(fleet):
        await kube_server.eventually(lambda: kept(fleet))
        fleet.unlink("cluster2")

        await kube_server.eventually(lambda: not slots(fleet))


async def test_a_control_plane_that_starts_with_a_dead_remote_knows_what_was_known(fleet):
    async with leading(fleet):
        await kube_server.eventually(lambda: kept(fleet))
    fleet.remotes["cluster2"].faults.append(kube_server.failing("/", 503))

    fresh = reborn(fleet)
    await kube_server.eventually(fresh.supervisor.ready.is_set)
    first = fresh.status("cluster2")
    names = fresh.names("cluster2")
    await kube_server.eventually(lambda: fresh.status("cluster2").status == "timeout")
    await fresh.stop()

    assert names == ["cluster2-service"]
    assert (first.status, first.known, first.recalled) == ("syncing", True, True)
    assert first.age_s > 0


async def test_the_api_server_wins_over_the_snapshot_in_one_step(fleet):
    async with leading(fleet):
        await kube_server.eventually(lambda: kept(fleet))
    remote = fleet.remotes["cluster2"]
    remote.faults.append(kube_server.failing("/", 503))
    remote.remove(kinds.SERVICE, "cluster2-service", "n")
    remote.put(kinds.SERVICE, "newer", "n")
    fresh = reborn(fleet)
    await kube_server.eventually(lambda: fresh.names("cluster2"))
    seen = []
    fresh.graph.listen(lambda changes: seen.append(fresh.names("cluster2")))

    remote.faults.clear()
    await kube_server.eventually(lambda: fresh.status("cluster2").status == "synced")
    await fresh.stop()

    assert seen[-1] == ["newer"]
    assert all(names in (["cluster2-service"], ["newer"]) for names in seen)
    assert fresh.status("cluster2").age_s == 0


@pytest.mark.parametrize("how", ["damaged", "other server"])
async def test_a_snapshot_that_cannot_be_trusted_is_not_used(fleet, how):
    async with leading(fleet):
        await kube_server.eventually(lambda: kept(fleet))
    fleet.remotes["cluster2"].faults.append(kube_server.failing("/", 503))
    [slot] = slots(fleet)
    key = snapshots.DIGEST if how == "damaged" else snapshots.SERVER
    slot["metadata"]["annotations"][key] = "0" * 64

    fresh = reborn(fleet)
    await kube_server.eventually(fresh.supervisor.ready.is_set)
    codes = [one.code for one in fresh.supervisor.findings()]
    names = fresh.names("cluster2")
    await fresh.stop()

    assert codes == ["ISM-FLEET-018"]
    assert names == []


async def test_the_control_plane_follows_no_snapshot_as_a_setting(fleet):
    async with leading(fleet):
        await kube_server.eventually(lambda: kept(fleet))

    assert not [key for key in fleet.graph.items(fleet.sources.config_maps) if key.cluster == OWN]
    watched = [query for query in fleet.local.queries if "!isthmus.dev" in str(query)]
    assert watched
    assert supervisor.RECALL_S <= supervisor.REMOTE_TIMEOUT_S
