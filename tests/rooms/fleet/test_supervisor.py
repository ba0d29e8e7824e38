"""The set of clusters against scriptable API servers: joining, rotating, failing, leaving."""

import asyncio

import pytest

from fakes import kube_server
from fakes.fleets import OWN, Fleet, fleet_of
from isthmus.fleet import sources, supervisor
from isthmus.kube import kinds
from isthmus.testing import pace

ROTATIONS = 50


@pytest.fixture
async def fleet():
    async with fleet_of("cluster2", "cluster3") as running:
        yield running


async def test_our_own_cluster_fills_the_sources_and_makes_ready(fleet):
    await fleet.supervisor.ready.wait()

    assert fleet.names(OWN) == ["cluster1-service"]
    assert fleet.status(OWN).status == "synced"


async def test_a_cluster_joins_when_its_secret_appears(fleet):
    await fleet.supervisor.ready.wait()
    fleet.link("cluster2")

    await kube_server.eventually(lambda: fleet.names("cluster2") == ["cluster2-service"])

    found = fleet.status("cluster2")
    assert (found.secret, found.status) == ("istio-system/istio-remote-secret-cluster2", "synced")
    assert (found.generation, found.known, found.error) == (1, True, "")


async def test_a_cluster_enters_whole(fleet):
    seen = set()
    fleet.graph.listen(
        lambda changes: seen.add(
            (
                len(fleet.keys(fleet.sources.services, "cluster2")),
                len(fleet.keys(fleet.sources.endpoint_slices, "cluster2")),
            )
        )
    )
    fleet.link("cluster2")

    await kube_server.eventually(lambda: fleet.status("cluster2").status == "synced")

    assert seen == {(0, 0), (1, 1)}


async def test_changes_arrive_within_50_ms(fleet):
    fleet.link("cluster2")
    await kube_server.eventually(lambda: fleet.names("cluster2"))

    fleet.remotes["cluster2"].put(kinds.SERVICE, "new", "n")

    await kube_server.eventually(
        lambda: "new" in fleet.names("cluster2"), within_s=pace.patience(0.05)
    )


async def test_a_removed_secret_removes_the_cluster_and_ends_all_requests(fleet):
    fleet.link("cluster2")
    await kube_server.eventually(lambda: fleet.names("cluster2"))

    fleet.unlink("cluster2")
    await kube_server.eventually(lambda: not fleet.names("cluster2"))
    asked = len(fleet.remotes["cluster2"].requests)
    fleet.remotes["cluster2"].put(kinds.SERVICE, "late", "n")
    await fleet.remotes["cluster2"].cut()

    assert fleet.names("cluster2") == []
    assert len(fleet.remotes["cluster2"].requests) == asked
    assert [one.cluster for one in fleet.supervisor.clusters()] == [OWN]


def following():
    """Count the tasks that follow something."""
    return sum(task.get_name().startswith("follow ") for task in asyncio.all_tasks())


async def test_fifty_rotations_never_lose_an_endpoint(fleet):
    fleet.link("cluster2", "cluster2 token0")
    await kube_server.eventually(lambda: fleet.names("cluster2"))
    fleet.fewest = 1
    before = following()

    for number in range(1, ROTATIONS + 1):
        fleet.link("cluster2", f"cluster2 token{number}")
        fleet.remotes["cluster2"].put(kinds.SERVICE, f"s{number}", "n")
        await kube_server.eventually(
            lambda number=number: (
                fleet.supervisor.client("cluster2").access.token == f"token{number}"
            )
        )
    await kube_server.eventually(lambda: len(fleet.names("cluster2")) == ROTATIONS + 1)

    assert fleet.fewest == 1
    assert fleet.status("cluster2").generation == ROTATIONS + 1
    await kube_server.eventually(lambda: following() == before)


async def test_five_rotations_at_once_end_with_the_last(fleet):
    fleet.link("cluster2")
    await kube_server.eventually(lambda: fleet.names("cluster2"))
    fleet.fewest = 1

    for number in range(5):
        fleet.link("cluster2", f"cluster2 burst{number}")
    await kube_server.eventually(
        lambda: fleet.supervisor.client("cluster2").access.token == "burst4"
    )

    assert fleet.fewest == 1


async def test_the_old_generation_never_writes_after_the_new_one_took_over(fleet):
    fleet.link("cluster2")
    await kube_server.eventually(lambda: fleet.names("cluster2"))
    old = fleet.supervisor._members["cluster2"].current
    fleet.link("cluster2", "cluster3 moved")
    await kube_server.eventually(lambda: fleet.names("cluster2") == ["cluster3-service"])

    old._batch(supervisor.generations.EVERYWHERE[2], {("n", "ghost"): None})
    assert old._take() == {}
    fleet.remotes["cluster2"].put(kinds.SERVICE, "ghost", "n")
    fleet.remotes["cluster3"].put(kinds.SERVICE, "real", "n")
    await kube_server.eventually(lambda: "real" in fleet.names("cluster2"))

    assert fleet.names("cluster2") == ["cluster3-service", "real"]


async def test_a_bad_credential_keeps_the_old_one_until_a_good_one_comes(fleet):
    fleet.link("cluster2", "cluster2 good")
    await kube_server.eventually(lambda: fleet.names("cluster2"))
    fleet.remotes["cluster2"].token = "good"
    fleet.link("cluster2", "cluster2 bad")
    await kube_server.eventually(lambda: "401" in fleet.status("cluster2").error)

    fleet.remotes["cluster2"].put(kinds.SERVICE, "later", "n")
    await kube_server.eventually(lambda: "later" in fleet.names("cluster2"))
    fleet.link("cluster2", "cluster2 good")
    await kube_server.eventually(lambda: not fleet.status("cluster2").error)

    assert fleet.supervisor.client("cluster2").access.token == "good"


async def test_a_silent_cluster_keeps_its_objects_and_says_how_old_they_are(fleet):
    fleet.link("cluster2")
    await kube_server.eventually(lambda: fleet.names("cluster2"))

    fleet.remotes["cluster2"].faults.append(kube_server.failing("/", 503))
    await fleet.remotes["cluster2"].cut()
    await kube_server.eventually(lambda: "503" in fleet.status("cluster2").error)

    assert fleet.status("cluster2").age_s > 0
    assert fleet.names("cluster2") == ["cluster2-service"]
    assert fleet.status("cluster2").status == "synced"


async def test_a_silent_cluster_delays_neither_the_others_nor_readiness_for_ever():
    async with fleet_of("cluster2", "cluster3", remote_timeout_s=0.2) as fleet:
        fleet.remotes["cluster2"].faults.append(kube_server.failing("/", 503))
        fleet.link("cluster2")
        fleet.link("cluster3")
        await kube_server.eventually(lambda: fleet.names("cluster3"))
        await asyncio.wait_for(fleet.supervisor.ready.wait(), pace.patience(3))

        assert fleet.status("cluster2").status == "timeout"
        assert 'remote_cluster_sync_timeouts_total{cluster="cluster2"} 1' in fleet.metrics.text()
        fleet.remotes["cluster2"].faults.clear()
        await kube_server.eventually(lambda: fleet.status("cluster2").status == "synced")


async def test_nothing_is_measured_of_a_cluster_that_has_left():
    async with fleet_of("cluster2", remote_timeout_s=0.05) as fleet:
        fleet.remotes["cluster2"].faults.append(kube_server.failing("/", 503))
        fleet.link("cluster2")
        await kube_server.eventually(lambda: fleet.status("cluster2").status == "timeout")
        assert "cluster2" in fleet.metrics.text()

        fleet.unlink("cluster2")

        await kube_server.eventually(lambda: "cluster2" not in fleet.metrics.text())


async def test_readiness_waits_for_a_cluster_that_is_there_at_the_start():
    async with fleet_of("cluster2") as fleet:
        gate = asyncio.Event()

        async def held(request):
            await gate.wait()

        fleet.remotes["cluster2"].faults.append(held)
        fleet.link("cluster2")
        await kube_server.eventually(lambda: fleet.names(OWN))
        await kube_server.eventually(lambda: fleet.remotes["cluster2"].requests)
        assert not fleet.supervisor.ready.is_set()

        gate.set()
        await asyncio.wait_for(fleet.supervisor.ready.wait(), pace.patience(3))

        assert fleet.names("cluster2") == ["cluster2-service"]


async def test_a_refused_kubeconfig_is_a_finding_and_disturbs_nobody(fleet):
    fleet.supervisor._parse = supervisor.access.parse_untrusted
    fleet.link("cluster2", "users: [{name: x, user: {exec: {command: rm}}}]")

    await kube_server.eventually(fleet.supervisor.findings)

    assert [one.cluster for one in fleet.supervisor.clusters()] == [OWN]
    assert fleet.supervisor.findings()[0].code == "ISM-FLEET-014"


async def test_the_config_cluster_alone_gives_istios_own_kinds(fleet):
    for server in (fleet.local, fleet.remotes["cluster2"]):
        server.put(kinds.GATEWAY, "g", "istio-system")
        server.put(kinds.CONFIG_MAP, "istio", "istio-system", data={"mesh": ""})
        server.put(kinds.CONFIG_MAP, "istio-namespace-controller-election", "istio-system")
        server.put(kinds.CONFIG_MAP, "other", "istio-system")
    fleet.link("cluster2")
    await kube_server.eventually(lambda: fleet.names("cluster2"))

    assert [key.cluster for key in fleet.graph.items(fleet.sources.gateways)] == [OWN]
    assert [key.name for key in fleet.graph.items(fleet.sources.config_maps)] == ["istio"]


async def test_outside_of_its_mesh_settings_and_secrets_come_from_home_and_nothing_else(fleet):
    async with kube_server.serving() as home:
        home.put(kinds.CONFIG_MAP, "istio", "istio-system", data={"mesh": ""})
        home.put(kinds.SERVICE, "stranger", "n")
        outside = Fleet(fleet.local, fleet.remotes, home=supervisor.Home(home.access()))
        outside.start()
        outside.local = home
        outside.link("cluster2")
        outside.link("config", secret="istio-kubeconfig")
        await kube_server.eventually(lambda: outside.names("cluster2"))
        await outside.supervisor.ready.wait()

        assert outside.names(OWN) == ["cluster1-service"]
        assert [key.cluster for key in outside.graph.items(outside.sources.config_maps)] == [
            sources.HOME
        ]
        assert [one.cluster for one in outside.supervisor.clusters()] == [OWN, "cluster2"]
        await outside.stop()


async def test_listeners_hear_of_clusters_that_come_change_and_go(fleet):
    heard = []
    fleet.supervisor.on_added(lambda cluster, client: heard.append(("+", cluster)))
    fleet.supervisor.on_removed(lambda cluster: heard.append(("-", cluster)))
    await fleet.supervisor.ready.wait()
    fleet.link("cluster2")
    await kube_server.eventually(lambda: len(heard) == 2)
    fleet.link("cluster2", "cluster2 other")
    await kube_server.eventually(lambda: len(heard) == 4)
    fleet.unlink("cluster2")
    await kube_server.eventually(lambda: len(heard) == 5)

    assert heard == [
        ("+", OWN), ("+", "cluster2"), ("-", "cluster2"), ("+", "cluster2"), ("-", "cluster2"),
    ]  # fmt: skip


async def test_nobody_reviews_tokens_of_a_cluster_that_is_not_followed(fleet):
    with pytest.raises(supervisor.ClusterUnknown):
        fleet.supervisor.client("stranger")


async def test_a_supervisor_that_is_run_again_follows_all_clusters_and_lost_none(fleet):
    fleet.link("cluster2")
    await kube_server.eventually(lambda: fleet.names("cluster2"))
    fleet.fewest = 1
    await fleet.stop()

    fleet.start()
    fleet.remotes["cluster2"].put(kinds.SERVICE, "later", "n")

    await kube_server.eventually(lambda: "later" in fleet.names("cluster2"))
    assert fleet.fewest == 1


async def test_what_the_sources_hold_no_informer_keeps(fleet):
    fleet.link("cluster2")
    await kube_server.eventually(lambda: fleet.names("cluster2"))
    for name in ("more", "last"):
        fleet.remotes["cluster2"].put(kinds.SERVICE, name, "shop")
        await kube_server.eventually(lambda name=name: name in fleet.names("cluster2"))

    kept = fleet.supervisor._members["cluster2"].current._kept["services"]
    assert {key.name for key in kept} == {"cluster2-service", "more", "last"}
    assert {key.name for key in kept._own} == {"last"}, "but what was told last"
