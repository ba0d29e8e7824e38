"""Clusters are switched off and on, renamed, claimed twice; nobody else notices."""

import gc
import weakref

import pytest

from fakes import kube_server
from fakes.fleets import OWN, fleet_of
from isthmus.testing import pace

DISABLED = {"annotations": {"isthmus.dev/disabled": "true"}}


@pytest.fixture
async def fleet():
    async with fleet_of("cluster2", "cluster3") as running:
        yield running


async def test_a_disabled_cluster_leaves_and_comes_back_with_the_same_secret(fleet):
    fleet.link("cluster2")
    await kube_server.eventually(lambda: fleet.names("cluster2"))

    fleet.link("cluster2", **DISABLED)
    await kube_server.eventually(lambda: not fleet.names("cluster2"), within_s=pace.patience(1))
    shown = fleet.status("cluster2")
    fleet.link("cluster2", annotations={})
    await kube_server.eventually(lambda: fleet.names("cluster2"))

    assert (shown.status, shown.error) == ("closed", "disabled in its secret")
    assert fleet.status("cluster2").status == "synced"


async def test_readiness_does_not_wait_for_a_disabled_cluster():
    async with fleet_of("cluster2") as fleet:
        fleet.remotes["cluster2"].faults.append(kube_server.failing("/", 503))
        fleet.link("cluster2", **DISABLED)

        await kube_server.eventually(fleet.supervisor.ready.is_set)

        assert not fleet.remotes["cluster2"].requests


async def test_a_renamed_cluster_goes_only_when_its_new_name_is_known(fleet):
    fleet.link("cluster2", "cluster2 token", secret="istio-remote-secret-x")
    await kube_server.eventually(lambda: fleet.names("cluster2"))
    seen = set()
    fleet.graph.listen(
        lambda changes: seen.add((len(fleet.names("cluster2")), len(fleet.names("west"))))
    )

    fleet.link("west", "cluster2 token", secret="istio-remote-secret-x")
    await kube_server.eventually(lambda: not fleet.names("cluster2"))

    assert fleet.names("west") == ["cluster2-service"]
    assert seen == {(1, 1), (0, 1)}
    assert {one.cluster for one in fleet.supervisor.clusters()} == {OWN, "west"}


async def test_a_new_cluster_in_an_old_clusters_secret_is_no_new_name_of_it(fleet):
    fleet.link("cluster2", secret="istio-remote-secret-x")
    await kube_server.eventually(lambda: fleet.names("cluster2"))
    fleet.remotes["cluster3"].faults.append(kube_server.failing("/", 503))

    fleet.link("cluster3", secret="istio-remote-secret-x")

    await kube_server.eventually(lambda: not fleet.names("cluster2"))


async def test_the_second_secret_for_an_id_takes_over_when_the_first_goes(fleet):
    early, late = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"
    fleet.link("cluster2", secret="b", creationTimestamp=early)
    await kube_server.eventually(lambda: fleet.names("cluster2"))
    fleet.link("cluster2", "cluster3 other", secret="a", creationTimestamp=late)
    await kube_server.eventually(fleet.supervisor.findings)
    [finding] = fleet.supervisor.findings()
    fleet.fewest = 1

    fleet.local.remove(kube_server.kinds.SECRET, "b", "istio-system")
    await kube_server.eventually(lambda: fleet.names("cluster2") == ["cluster3-service"])

    assert finding.code == "ISM-FLEET-013"
    assert fleet.fewest == 1
    assert fleet.supervisor.findings() == ()


async def test_whoever_tidies_up_hears_that_a_credential_was_given_up(fleet):
    fleet.link("cluster2")
    await kube_server.eventually(lambda: fleet.names("cluster2"))
    assert not fleet.supervisor.ended.is_set()

    fleet.link("cluster2", "cluster2 another")
    await kube_server.eventually(fleet.supervisor.ended.is_set)


async def test_a_credential_that_was_given_up_leaves_nothing_for_the_collector(fleet):
    fleet.link("cluster2")
    await kube_server.eventually(lambda: fleet.names("cluster2"))
    [link] = fleet.supervisor.links()
    before = link.generation
    left = [weakref.ref(before), weakref.ref(before.client)]
    gc.disable()
    try:
        del link, before
        fleet.link("cluster2", "cluster2 another")
        await kube_server.eventually(lambda: not any(seen() for seen in left))
    finally:
        gc.enable()


async def test_proxies_of_a_cluster_are_told_nothing_before_it_is_known_and_after_it_left(fleet):
    def objection():
        return fleet.supervisor.objection("cluster2")

    fleet.remotes["cluster2"].faults.append(kube_server.failing("/", 503))
    fleet.link("cluster2")
    await kube_server.eventually(lambda: "cluster2" in fleet.supervisor.linked())
    before = objection()
    fleet.remotes["cluster2"].faults.clear()
    await kube_server.eventually(lambda: fleet.names("cluster2"))
    known = objection()
    fleet.local.remove(kube_server.kinds.SECRET, "istio-remote-secret-cluster2", "istio-system")
    await kube_server.eventually(lambda: not fleet.names("cluster2"))

    assert before == "cluster `cluster2` is not known yet"
    assert known == ""
    assert objection() == "cluster `cluster2` has left the mesh"
