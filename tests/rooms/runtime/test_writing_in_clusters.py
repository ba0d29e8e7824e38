"""What a control plane writes into clusters: roots, webhook bundles, and who may."""

import asyncio
import base64
import contextlib
import datetime

import pytest

from fakes import kube_server
from isthmus.base import tasks
from isthmus.kube import client, kinds
from isthmus.runtime import leadership, rootcerts, stewardship, webhooks
from isthmus.testing import pace

ROOT = "-----ROOT-----\n"
SYSTEM = "istio-system"
LOCK = leadership.NAMESPACE_LOCK


class Time:
    """Time that tests turn; waiting takes none of the machine's."""

    def __init__(self):
        self.at = 1000.0

    def now(self):
        return datetime.datetime.fromtimestamp(self.at, datetime.UTC)

    def monotonic(self):
        return self.at

    async def sleep(self, delay_s):
        until = self.at + delay_s
        while self.at < until:  # noqa: ASYNC110  # tests turn the time by hand
            await asyncio.sleep(0.001)


@pytest.fixture
async def server():
    async with kube_server.serving() as running:
        running.put(kinds.NAMESPACE, SYSTEM)
        yield running


@pytest.fixture
async def writes(server):
    async with client.Client(server.access()) as opened:
        yield opened


@contextlib.asynccontextmanager
async def at_work(*works):
    async with tasks.Nursery() as nursery:
        for number, work in enumerate(works):
            _ = nursery.keep(f"work {number}", work)
        yield nursery


def root_of(server, namespace):
    found = server.get(kinds.CONFIG_MAP, rootcerts.NAME, namespace)
    return found and found["data"].get("root-cert.pem")


# --- roots ----------------------------------------------------------------------------------------


async def test_every_namespace_gets_the_root_but_those_that_are_ignored(server, writes):
    for name in ("a", "kube-system", "kube-public", "kube-node-lease"):
        server.put(kinds.NAMESPACE, name)

    async with at_work(rootcerts.RootCertificates(writes, root=lambda: ROOT).run):
        await kube_server.eventually(
            lambda: root_of(server, "a") and root_of(server, "kube-system")
        )

    assert root_of(server, "kube-public") is None
    assert server.get(kinds.CONFIG_MAP, rootcerts.NAME, "a")["metadata"]["labels"] == {
        "istio.io/config": "true"
    }


async def test_a_new_namespace_gets_the_root_within_50_ms(server, writes):
    async with at_work(rootcerts.RootCertificates(writes, root=lambda: ROOT).run):
        await kube_server.eventually(lambda: root_of(server, SYSTEM))
        server.put(kinds.NAMESPACE, "new")

        await kube_server.eventually(lambda: root_of(server, "new"), within_s=pace.patience(0.05))


async def test_a_root_that_was_changed_or_deleted_is_put_back_and_other_keys_stay(server, writes):
    async with at_work(rootcerts.RootCertificates(writes, root=lambda: ROOT).run):
        await kube_server.eventually(lambda: root_of(server, SYSTEM))
        data = {"root-cert.pem": "evil", "own": "kept"}
        server.put(kinds.CONFIG_MAP, rootcerts.NAME, SYSTEM, data=data)
        await kube_server.eventually(lambda: root_of(server, SYSTEM) == ROOT)
        kept = server.get(kinds.CONFIG_MAP, rootcerts.NAME, SYSTEM)["data"]["own"]
        server.remove(kinds.CONFIG_MAP, rootcerts.NAME, SYSTEM)
        await kube_server.eventually(lambda: root_of(server, SYSTEM) == ROOT)

    assert kept == "kept"


async def test_what_is_right_is_never_written_again(server, writes):
    roots = rootcerts.RootCertificates(writes, root=lambda: ROOT)
    async with at_work(roots.run):
        await kube_server.eventually(lambda: root_of(server, SYSTEM))
        server.put(kinds.NAMESPACE, "last")
        await kube_server.eventually(lambda: root_of(server, "last"))
        version = server.version
        roots.root_changed()
        server.put(kinds.NAMESPACE, "later")
        await kube_server.eventually(lambda: root_of(server, "later"))

    assert server.version == version + 2


async def test_somebody_who_disagrees_for_ever_makes_no_storm_of_writes(server, writes):
    async with at_work(rootcerts.RootCertificates(writes, root=lambda: ROOT).run):
        await kube_server.eventually(lambda: root_of(server, SYSTEM))
        for _ in range(50):
            server.put(kinds.CONFIG_MAP, rootcerts.NAME, SYSTEM, data={"root-cert.pem": "evil"})
            await asyncio.sleep(0.01)

    assert server.count("PUT") < 10


async def test_a_new_root_reaches_every_namespace(server, writes):
    server.put(kinds.NAMESPACE, "a")
    current = [ROOT]
    roots = rootcerts.RootCertificates(writes, root=lambda: current[0])
    async with at_work(roots.run):
        await kube_server.eventually(lambda: root_of(server, "a"))
        current[0] = "new"
        roots.root_changed()
        await kube_server.eventually(lambda: root_of(server, "a") == "new")


async def test_a_namespace_that_is_closed_to_us_stops_nothing(server, writes):
    server.put(kinds.NAMESPACE, "closed")
    server.faults.append(kube_server.failing("/api/v1/namespaces/closed/", 403))

    async with at_work(rootcerts.RootCertificates(writes, root=lambda: ROOT).run):
        await kube_server.eventually(lambda: root_of(server, SYSTEM))

    assert server.count("GET /api/v1/namespaces/closed/") == 1


# --- webhooks -------------------------------------------------------------------------------------


def hook(server, name="istio-sidecar-injector", revision="default", bundle=""):
    server.put(
        kinds.MUTATING_WEBHOOK,
        name,
        metadata={"labels": {"istio.io/rev": revision}},
        webhooks=[
            {"name": "rev.namespace.sidecar-injector.istio.io",
             "clientConfig": {"caBundle": bundle, "url": "https://x/inject"}},
            {"name": "other.example.com", "clientConfig": {"caBundle": "theirs"}},
        ],
    )  # fmt: skip


def bundles_of(server, name="istio-sidecar-injector"):
    stored = server.get(kinds.MUTATING_WEBHOOK, name)
    return [one["clientConfig"]["caBundle"] for one in stored["webhooks"]]


ENCODED = base64.b64encode(ROOT.encode()).decode()


async def test_injectors_of_our_revision_get_the_bundle_and_nothing_else_changes(server, writes):
    hook(server)
    hook(server, "foreign", revision="canary")

    work = webhooks.WebhookBundles(writes, revision="default", bundle=lambda: ROOT).run
    async with at_work(work):
        await kube_server.eventually(lambda: bundles_of(server)[0] == ENCODED)

    stored = server.get(kinds.MUTATING_WEBHOOK, "istio-sidecar-injector")
    assert bundles_of(server)[1] == "theirs"
    assert stored["webhooks"][0]["clientConfig"]["url"] == "https://x/inject"
    assert bundles_of(server, "foreign") == ["", "theirs"]


async def test_a_bundle_that_is_overwritten_is_put_back_within_50_ms(server, writes):
    work = webhooks.WebhookBundles(writes, revision="default", bundle=lambda: ROOT).run
    async with at_work(work):
        hook(server)
        await kube_server.eventually(lambda: bundles_of(server)[0] == ENCODED)
        hook(server)
        await kube_server.eventually(
            lambda: bundles_of(server)[0] == ENCODED, within_s=pace.patience(0.05)
        )


async def test_a_right_bundle_is_not_written(server, writes):
    hook(server, bundle=ENCODED)
    work = webhooks.WebhookBundles(writes, revision="default", bundle=lambda: ROOT)
    async with at_work(work.run):
        await kube_server.eventually(lambda: server.requests)
        work.bundle_changed()
        hook(server, "second")
        await kube_server.eventually(lambda: bundles_of(server, "second")[0] == ENCODED)

    assert server.count("PUT") == 1


# --- leadership -----------------------------------------------------------------------------------


def record(**fields):
    return leadership.Record(**{"holder_identity": "pod-a", "holder_key": "default"} | fields)


@pytest.mark.parametrize(
    ("held", "candidate", "unchanged_s", "may"),
    [
        (leadership.Record(), leadership.Candidate("pod-b"), 0, True),
        (record(), leadership.Candidate("pod-a"), 0, True),
        (record(), leadership.Candidate("pod-b"), 29, False),
        (record(), leadership.Candidate("pod-b"), 31, True),
        (record(lease_duration_seconds=1), leadership.Candidate("pod-b"), 2, True),
        (record(holder_key="^default"), leadership.Candidate("pod-b"), 0, True),
        (record(), leadership.Candidate("pod-b", is_remote=True), 0, False),
        (record(holder_key="canary"), leadership.Candidate("pod-b"), 0, True),
        (
            record(),
            leadership.Candidate("pod-b", revision="canary", is_default=False),
            0,
            False,
        ),
    ],
)
def test_who_may_take_the_lock(held, candidate, unchanged_s, may):
    assert leadership.may_take(held, candidate=candidate, unchanged_s=unchanged_s) is may


def stand(writes, pod, time, log, **fields):
    election = leadership.Election(
        writes, leadership.Candidate(pod, **fields), namespace=SYSTEM, system_clock=time
    )

    async def work():
        log.append(pod)
        await asyncio.Event().wait()

    return election, lambda: election.run(work)


async def test_one_of_two_leads_and_the_other_takes_over_when_it_ends(server, writes):
    time, log = Time(), []
    first, run_first = stand(writes, "a", time, log)
    second, run_second = stand(writes, "b", time, log)

    async with tasks.Nursery() as outer:
        async with at_work(run_first):
            await kube_server.eventually(lambda: log == ["a"])
            _ = outer.keep("second", run_second)
            time.at += 3
            await asyncio.sleep(0.02)
            assert (first.holds(), second.holds()) == (True, False)
        time.at += 3
        await kube_server.eventually(lambda: log == ["a", "b"] or setattr(time, "at", time.at + 1))

    stored = server.get(kinds.CONFIG_MAP, LOCK, SYSTEM)["metadata"]["annotations"]
    assert '"leaderTransitions":2' in stored[leadership.ANNOTATION]


async def test_who_ends_before_it_hears_that_it_leads_gives_the_lock_back(server, writes):
    written = asyncio.Event()

    async def unheard(request):
        """Store the lock, and never say so."""
        if request.method == "POST":
            server._create(kinds.CONFIG_MAP, SYSTEM, await request.json())
            written.set()
            await asyncio.Event().wait()

    server.faults.append(unheard)
    _, run = stand(writes, "a", Time(), [])
    async with at_work(run):
        await asyncio.wait_for(written.wait(), pace.patience(5))

    stored = server.get(kinds.CONFIG_MAP, LOCK, SYSTEM)["metadata"]["annotations"]
    assert '"holderIdentity":""' in stored[leadership.ANNOTATION]


async def test_a_leader_that_cannot_renew_stops_before_anybody_else_may_begin(server, writes):
    time, log = Time(), []
    election, run = stand(writes, "a", time, log)
    async with at_work(run):
        await kube_server.eventually(lambda: log == ["a"])
        server.faults.append(kube_server.failing("/", 500))
        time.at += leadership.RENEW_DEADLINE_S

        assert not election.holds()


async def test_a_race_for_the_lock_has_one_winner(server, writes):
    time, log = Time(), []
    runs = [stand(writes, f"pod-{number}", time, log) for number in range(5)]
    async with at_work(*(run for _, run in runs)):
        await kube_server.eventually(lambda: log)
        await asyncio.sleep(0.02)

        assert sum(election.holds() for election, _ in runs) == 1


# --- stewardship ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "invited"),
    [("cluster1", True), ("*", True), ("x,cluster1", True), ("", False), (" cluster1", False)],
)
def test_who_is_invited(annotation, invited):
    assert stewardship.is_invited(annotation, cluster="cluster1") is invited


@contextlib.asynccontextmanager
async def steward(*, manages_remotes=True):
    post = stewardship.Stewardship(
        stewardship.Steward("cluster1", "pod", manages_remotes=manages_remotes), root=lambda: ROOT
    )
    try:
        yield post
    finally:
        await post.close()


def invite(server, annotation):
    annotations = {stewardship.ANNOTATION: annotation}
    server.put(kinds.NAMESPACE, SYSTEM, metadata={"annotations": annotations})


async def test_our_own_cluster_is_always_written_in(server, writes):
    hook(server)
    async with steward(manages_remotes=False) as post:
        post.added("cluster1", writes)
        await kube_server.eventually(lambda: root_of(server, SYSTEM) == ROOT)
        await kube_server.eventually(lambda: bundles_of(server)[0] == ENCODED)


async def test_a_remote_cluster_is_written_in_once_it_invites_us_and_no_longer_than_that(
    server, writes
):
    hook(server)
    async with steward() as post:
        post.added("cluster2", writes)
        await kube_server.eventually(lambda: server.count("GET /api/v1/namespaces") > 1)
        assert root_of(server, SYSTEM) is None
        invite(server, "cluster1")
        await kube_server.eventually(lambda: root_of(server, SYSTEM) == ROOT)
        await kube_server.eventually(lambda: bundles_of(server)[0] == ENCODED)
        invite(server, "other")
        await kube_server.eventually(
            lambda: (
                '"holderIdentity":""'
                in server.get(kinds.CONFIG_MAP, LOCK, SYSTEM)["metadata"]["annotations"][
                    leadership.ANNOTATION
                ]
            )
        )
        server.remove(kinds.CONFIG_MAP, rootcerts.NAME, SYSTEM)
        await asyncio.sleep(0.05)

    assert root_of(server, SYSTEM) is None


async def test_a_remote_cluster_is_left_alone_by_a_control_plane_that_manages_none(server, writes):
    invite(server, "*")
    async with steward(manages_remotes=False) as post:
        post.added("cluster2", writes)
        await asyncio.sleep(0.05)

    assert server.requests == []


async def test_a_removed_cluster_is_written_in_no_more_and_its_lock_is_free(server, writes):
    async with steward() as post:
        post.added("cluster1", writes)
        await kube_server.eventually(lambda: root_of(server, SYSTEM))
        post.removed("cluster1")
        await kube_server.eventually(
            lambda: (
                '"holderIdentity":""'
                in server.get(kinds.CONFIG_MAP, LOCK, SYSTEM)["metadata"]["annotations"][
                    leadership.ANNOTATION
                ]
            )
        )
