"""What is known of a cluster outlives the control plane that learnt it."""

import asyncio
import contextlib

import pytest

from fakes import kube_server
from fakes.fleets import OWN, fleet_of
from isthmus.base import clock, tasks
from isthmus.fleet import generations, recalling, slots, snapshots, supervisor
from isthmus.kube import client, kinds
from isthmus.runtime import snapshotting


@contextlib.asynccontextmanager
async def leading(fleet, **options):
    keeper = snapshotting.Snapshots(
        fleet.supervisor,
        namespace="istio-system",
        system_clock=clock.SystemClock(),
        **{"every_s": 0.1, "keep_left_s": 0.3, **options},
    )
    async with client.Client(fleet.local.access()) as writes, tasks.Nursery() as nursery:
        nursery.keep("keep snapshots", lambda: keeper.run(writes, lambda: True))
        yield keeper


def held(fleet):
    return [
        one
        for name in snapshots.SHELF.names
        if (one := fleet.local.get(kinds.CONFIG_MAP, name, "istio-system"))
        and one["metadata"].get("annotations")
    ]


def kept(fleet, cluster="cluster2"):
    found, findings = snapshots.recall(held(fleet))
    assert findings == ()
    if cluster not in found:
        return None
    return sorted(key.name for key in found[cluster].content["services"])


def reborn(fleet):
    """Have another control plane start where this one ended."""
    fresh = type(fleet)(fleet.local, fleet.remotes, remote_timeout_s=0.3)
    fresh.start()
    return fresh


def crowd(fleet, number):
    """Fill a slot with the snapshot of a cluster that nobody links."""
    nothing = {one.collection: {} for one in generations.EVERYWHERE}
    packed = snapshots.pack(f"left{number}", nothing, server="")
    name = snapshots.SHELF.names[number]
    known_at = clock.SystemClock().now()
    one = slots.slot(snapshots.SHELF, name, packed, 0, namespace="istio-system", known_at=known_at)
    fleet.local.put(
        kinds.CONFIG_MAP,
        name,
        "istio-system",
        metadata=one["metadata"],
        binaryData=one["binaryData"],
    )


async def refusing_writes(request):
    if request.method in {"POST", "PUT"}:
        return kube_server.refused(503, "ServiceUnavailable", "nothing can be stored")
    return None


def unreadable(status):
    """Refuse to list the snapshots."""

    async def fault(request):
        if request.query.get("labelSelector") == snapshots.SHELF.selector:
            return kube_server.refused(status, "Fault", "not now")
        return None

    return fault


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

    assert len(held(fleet)) == 1


async def test_nothing_is_written_while_nothing_changes(fleet):
    async with leading(fleet):
        await kube_server.eventually(lambda: kept(fleet))
        before = fleet.local.version
        await asyncio.sleep(0.4)

        assert fleet.local.version == before


@pytest.mark.parametrize("how", ["first", "again"])
async def test_a_cluster_that_comes_is_kept_at_once(fleet, how):
    fleet.unlink("cluster2")
    await kube_server.eventually(lambda: not fleet.supervisor.linked())
    async with leading(fleet, every_s=1e6, keep_left_s=1e6):
        if how == "again":
            fleet.link("cluster2")
            await kube_server.eventually(lambda: kept(fleet) == ["cluster2-service"])
            fleet.unlink("cluster2")
            await kube_server.eventually(lambda: not fleet.supervisor.linked())
        fleet.remotes["cluster2"].put(kinds.SERVICE, "newer", "n")
        fleet.link("cluster2")

        await kube_server.eventually(lambda: kept(fleet) == ["cluster2-service", "newer"])


async def test_what_was_kept_goes_with_the_cluster(fleet):
    async with leading(fleet):
        await kube_server.eventually(lambda: kept(fleet))
        fleet.unlink("cluster2")

        await kube_server.eventually(lambda: not held(fleet))


async def test_a_snapshot_of_a_cluster_that_left_makes_room_for_others(fleet):
    for number in range(len(snapshots.SHELF.names)):
        crowd(fleet, number)
    async with leading(fleet, every_s=0.1, keep_left_s=1e6) as keeper:
        await kube_server.eventually(lambda: kept(fleet) == ["cluster2-service"])

        assert keeper.findings() == []


async def test_a_cluster_that_comes_back_unheard_is_known_to_the_next_control_plane(fleet):
    """Drill, seed 2: unlinked, linked again, nothing can be stored, killed, and it is silent."""
    async with leading(fleet, keep_left_s=1e6):
        await kube_server.eventually(lambda: kept(fleet))
        fleet.unlink("cluster2")
        await kube_server.eventually(lambda: not fleet.supervisor.linked())
        await asyncio.sleep(0.3)
        fleet.local.faults.append(refusing_writes)
        fleet.link("cluster2")
        await kube_server.eventually(lambda: fleet.names("cluster2"))
    fleet.local.faults.clear()
    remote = fleet.remotes["cluster2"]
    remote.faults.append(kube_server.failing("/", 503))
    remote.put(kinds.SERVICE, "newer", "n")

    fresh = reborn(fleet)
    await kube_server.eventually(fresh.supervisor.ready.is_set)
    names = fresh.names("cluster2")
    remote.faults.clear()
    await kube_server.eventually(lambda: fresh.names("cluster2") == ["cluster2-service", "newer"])
    await fresh.stop()

    assert names == ["cluster2-service"]


@pytest.mark.parametrize("how", ["unlinked", "disabled", "linked later"])
async def test_only_a_linked_cluster_is_known_from_a_snapshot(how):
    async with fleet_of("cluster2", "cluster3") as fleet:
        for cluster, remote in fleet.remotes.items():
            fleet.link(cluster)
            await kube_server.eventually(lambda cluster=cluster: fleet.names(cluster))
            remote.faults.append(kube_server.failing("/", 503))
        async with leading(fleet, keep_left_s=1e6):
            await kube_server.eventually(
                lambda: kept(fleet, "cluster2") and kept(fleet, "cluster3")
            )
        if how == "disabled":
            fleet.link("cluster2", annotations={"isthmus.dev/disabled": "true"})
        else:
            fleet.unlink("cluster2")

        fresh = reborn(fleet)
        await kube_server.eventually(fresh.supervisor.ready.is_set)
        if how == "linked later":
            fleet.link("cluster2")
            await kube_server.eventually(lambda: fresh.status("cluster2").status == "timeout")
        names = fresh.names("cluster2"), fresh.names("cluster3")
        await fresh.stop()

    assert names == ([], ["cluster3-service"])


async def test_nothing_is_forgotten_before_it_is_known_who_is_linked(fleet):
    async with leading(fleet):
        await kube_server.eventually(lambda: kept(fleet))
    secrets = "/api/v1/namespaces/istio-system/secrets"
    fleet.local.faults.append(kube_server.failing(secrets, 503))

    fresh = reborn(fleet)
    async with leading(fresh, keep_left_s=0.0):
        await kube_server.eventually(lambda: fleet.local.count(f"GET {secrets}") > 1)
        await asyncio.sleep(0.3)
    await fresh.stop()

    assert kept(fleet) == ["cluster2-service"]


@pytest.mark.parametrize("how", ["silent", "forbidden"])
async def test_no_cluster_is_given_up_before_the_snapshots_were_asked_for(fleet, how):
    async with leading(fleet):
        await kube_server.eventually(lambda: kept(fleet))
    fleet.remotes["cluster2"].faults.append(kube_server.failing("/", 503))
    fleet.local.faults.append(unreadable(403 if how == "forbidden" else 503))

    fresh = reborn(fleet)
    await kube_server.eventually(lambda: fresh.status("cluster2").status == "timeout")
    early = fresh.supervisor.ready.is_set()
    fleet.local.faults.clear()
    await kube_server.eventually(fresh.supervisor.ready.is_set)
    names = fresh.names("cluster2")
    await fresh.stop()

    assert early is (how == "forbidden")
    assert names == ([] if how == "forbidden" else ["cluster2-service"])


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
    [slot] = held(fleet)
    key = slots.DIGEST if how == "damaged" else slots.SERVER
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
    assert recalling.DEADLINE_S <= supervisor.REMOTE_TIMEOUT_S
