"""Secrets are edited while clusters sync, servers fail in any order; in the end all is true."""

import asyncio
import base64
import random

import pytest

from fakes import kube_server
from fakes.fleets import OWN, fleet_of
from isthmus.kube import kinds
from isthmus.testing import pace

SYSTEM = "istio-system"
STEPS = 60


@pytest.fixture
async def fleet():
    async with fleet_of("cluster2", "cluster3", "cluster4", remote_timeout_s=0.2) as running:
        yield running


def hold(server):
    """Let a server answer only once the returned event is set."""
    gate = asyncio.Event()

    async def held(request):
        await gate.wait()

    server.faults.append(held)
    return gate


def link_both(fleet, **clusters):
    """Put several clusters into one secret."""
    content = {key: base64.b64encode(text.encode()).decode() for key, text in clusters.items()}
    labels = {"istio/multiCluster": "true"}
    fleet.local.put(kinds.SECRET, "both", SYSTEM, metadata={"labels": labels}, data=content)


async def test_a_secret_that_is_edited_while_its_cluster_syncs_ends_with_the_last_text(fleet):
    gate = hold(fleet.remotes["cluster2"])
    fleet.link("cluster2")
    await kube_server.eventually(lambda: fleet.remotes["cluster2"].requests)

    fleet.link("cluster2", "cluster3 token")
    fleet.link("cluster2", "no such server")
    await kube_server.eventually(fleet.supervisor.findings)
    fleet.link("cluster2", "cluster4 token")
    gate.set()

    await kube_server.eventually(lambda: fleet.names("cluster2") == ["cluster4-service"])
    assert fleet.supervisor.findings() == ()


async def test_a_cluster_whose_secret_goes_while_it_syncs_never_enters(fleet):
    await fleet.supervisor.ready.wait()
    entered = []
    fleet.graph.listen(lambda changes: entered.extend(fleet.names("cluster2")))
    gate = hold(fleet.remotes["cluster2"])
    fleet.link("cluster2")
    await kube_server.eventually(lambda: fleet.remotes["cluster2"].requests)

    fleet.unlink("cluster2")
    await kube_server.eventually(lambda: len(fleet.supervisor.clusters()) == 1)
    gate.set()
    await asyncio.sleep(0.1)

    assert entered == []


async def test_of_two_clusters_in_one_secret_neither_waits_for_the_other(fleet):
    fleet.remotes["cluster3"].faults.append(kube_server.failing("/", 500))
    link_both(fleet, cluster2="cluster2 token", cluster3="cluster3 token")
    await kube_server.eventually(lambda: fleet.names("cluster2"))
    fleet.fewest = 1

    link_both(fleet, cluster2="cluster2 token", cluster3="cluster4 token")
    await kube_server.eventually(lambda: fleet.names("cluster3") == ["cluster4-service"])
    link_both(fleet, cluster2="cluster2 token")
    await kube_server.eventually(lambda: not fleet.names("cluster3"))

    assert fleet.fewest == 1
    assert fleet.status("cluster2").generation == 1


async def test_keys_that_change_places_in_one_secret_change_clusters(fleet):
    link_both(fleet, cluster2="cluster2 token", cluster3="cluster3 token")
    await kube_server.eventually(lambda: fleet.names("cluster2") and fleet.names("cluster3"))

    link_both(fleet, cluster2="cluster3 token", cluster3="cluster2 token")

    await kube_server.eventually(lambda: fleet.names("cluster2") == ["cluster3-service"])
    await kube_server.eventually(lambda: fleet.names("cluster3") == ["cluster2-service"])


async def test_a_remote_namespace_that_is_deleted_takes_only_its_own_objects(fleet):
    remote = fleet.remotes["cluster2"]
    remote.put(kinds.NAMESPACE, "gone")
    remote.put(kinds.SERVICE, "other", "gone")
    fleet.link("cluster2")
    await kube_server.eventually(lambda: len(fleet.names("cluster2")) == 2)

    remote.remove(kinds.NAMESPACE, "gone")
    remote.remove(kinds.SERVICE, "other", "gone")

    await kube_server.eventually(lambda: fleet.names("cluster2") == ["cluster2-service"])


class Disorder:
    """Does what may happen to cluster3 and cluster4, in any order; nobody touches cluster2."""

    def __init__(self, fleet, chance):
        self.fleet, self.chance = fleet, chance
        self.wanted = {}
        self.made = 0

    async def step(self):
        names = ("cluster3", "cluster4")
        cluster, server = self.chance.choice(names), self.fleet.remotes[self.chance.choice(names)]
        self.made += 1
        match self.chance.randrange(8):
            case 0 | 1:
                self.link(cluster, f"{self.chance.choice(names)} token{self.made}")
            case 2 if cluster in self.wanted:
                self.fleet.unlink(cluster)
                del self.wanted[cluster]
            case 3:
                status = self.chance.choice((401, 403, 410, 429, 500))
                server.faults.append(kube_server.failing("/", status))
            case 4:
                server.faults.clear()
            case 5:
                await server.cut()
            case 6:
                server.put(kinds.SERVICE, f"s{self.made}", "n")
            case 7:
                server.compact()
        await asyncio.sleep(self.chance.choice((0, 0, 0.01)))

    def link(self, cluster, text):
        self.fleet.link(cluster, text)
        self.wanted[cluster] = text.partition(" ")[0]

    def is_true(self):
        """Whether the mesh knows of each cluster what its API server would say."""
        followed = {one.cluster for one in self.fleet.supervisor.clusters()}
        return followed == {OWN, "cluster2", *self.wanted} and all(
            self.fleet.names(cluster) == self.names_at(self.wanted.get(cluster))
            for cluster in ("cluster3", "cluster4")
        )

    def names_at(self, server):
        if server is None:
            return []
        return sorted(name for _, name in self.fleet.remotes[server]._of(kinds.SERVICE).objects)


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_happens_in_whatever_order_ends_true_and_harms_no_healthy_cluster(
    fleet, seed
):
    fleet.link("cluster2")
    await kube_server.eventually(lambda: fleet.names("cluster2"))
    fleet.fewest = 1
    disorder = Disorder(fleet, random.Random(seed))

    for _ in range(STEPS):
        await disorder.step()
    for server in fleet.remotes.values():
        server.faults.clear()

    await kube_server.eventually(disorder.is_true, within_s=pace.patience(15))
    assert fleet.fewest == 1
    assert fleet.status("cluster2").generation == 1
