"""A remote cluster passes from one control plane to another: roots, webhook bundles, the lock."""

import asyncio
import base64
import contextlib
import json

import pytest

from fakes import kube_server
from isthmus.base import clock
from isthmus.kube import client, kinds
from isthmus.runtime import leadership, rootcerts, stewardship
from isthmus.testing import pace

SYSTEM = "istio-system"
HOOK = "istio-sidecar-injector"
OURS, THEIRS = "-----ROOT OF cluster1-----\n", "-----ROOT OF cluster3-----\n"
HANDED_OVER_S = pace.patience(5.0)


class HastyClock(clock.SystemClock):
    """Waits a tenth of the time."""

    async def sleep(self, delay_s):
        await asyncio.sleep(delay_s / 10)


@pytest.fixture
async def server():
    """The cluster that is handed over."""
    async with kube_server.serving() as running:
        running.put(kinds.NAMESPACE, SYSTEM)
        running.put(kinds.NAMESPACE, "sample")
        hook(running, "")
        yield running


@pytest.fixture
async def writes(server):
    async with client.Client(server.access()) as opened:
        yield opened


def hook(server, bundle):
    webhook = {
        "name": "namespace.sidecar-injector.istio.io",
        "clientConfig": {"caBundle": base64.b64encode(bundle.encode()).decode()},
    }
    labels = {"istio.io/rev": "default"}
    server.put(kinds.MUTATING_WEBHOOK, HOOK, metadata={"labels": labels}, webhooks=[webhook])


@contextlib.asynccontextmanager
async def steward(cluster, root, *, revision="default"):
    pod = f"istiod-of-{cluster}" if revision == "default" else f"{revision}-of-{cluster}"
    post = stewardship.Stewardship(
        stewardship.Steward(cluster, pod, revision=revision, manages_remotes=True),
        root=lambda: root,
        system_clock=HastyClock(),
    )
    try:
        yield post
    finally:
        await post.close()


@pytest.fixture
async def both(writes):
    """Control planes of cluster1 and cluster3, with roots of their own, that follow cluster2."""
    async with steward("cluster1", OURS) as first, steward("cluster3", THEIRS) as second:
        first.added("cluster2", writes)
        second.added("cluster2", writes)
        yield first, second


def invite(server, annotation):
    annotations = {stewardship.ANNOTATION: annotation}
    server.put(kinds.NAMESPACE, SYSTEM, metadata={"annotations": annotations})


def holder(server):
    stored = server.get(kinds.CONFIG_MAP, leadership.NAMESPACE_LOCK, SYSTEM)
    record = json.loads(stored["metadata"]["annotations"][leadership.ANNOTATION]) if stored else {}
    return record.get("holderIdentity", "")


def written(server):
    """Return the roots in the cluster's namespaces, and in its webhook."""
    found = [server.get(kinds.CONFIG_MAP, rootcerts.NAME, name) for name in (SYSTEM, "sample")]
    webhook = server.get(kinds.MUTATING_WEBHOOK, HOOK)["webhooks"][0]
    bundle = base64.b64decode(webhook["clientConfig"]["caBundle"]).decode()
    return {bundle, *(one["data"][rootcerts.KEY] if one else "" for one in found)}


async def belongs_to(server, cluster, root):
    await kube_server.eventually(
        lambda: holder(server) == f"istiod-of-{cluster}" and written(server) == {root},
        within_s=HANDED_OVER_S,
    )


async def test_the_annotation_hands_a_cluster_over_and_back(server, both):
    invite(server, "cluster1")
    await belongs_to(server, "cluster1", OURS)

    invite(server, "cluster3")
    await belongs_to(server, "cluster3", THEIRS)

    invite(server, "cluster1")
    await belongs_to(server, "cluster1", OURS)


@pytest.mark.parametrize("annotation", ["*", "cluster1,cluster3"])
async def test_of_two_that_are_named_one_writes_and_nobody_fights(server, both, annotation):
    invite(server, annotation)
    await kube_server.eventually(lambda: holder(server) and written(server) in ({OURS}, {THEIRS}))
    [root] = written(server)
    puts = server.count("PUT /apis/admissionregistration"), server.count("PUT /api/v1/namespaces/s")
    # The other one looks at the lock again, and at everything else.
    await asyncio.sleep(3 * leadership.RETRY_S / 10)

    assert root == (OURS if holder(server) == "istiod-of-cluster1" else THEIRS)
    assert written(server) == {root}
    assert puts == (
        server.count("PUT /apis/admissionregistration"),
        server.count("PUT /api/v1/namespaces/s"),
    )


async def test_when_the_leader_ends_the_other_one_rewrites_everything(server, both, writes):
    first, second = both
    invite(server, "*")
    await kube_server.eventually(lambda: holder(server) and written(server) in ({OURS}, {THEIRS}))
    if holder(server) == "istiod-of-cluster1":
        await first.close()
        await belongs_to(server, "cluster3", THEIRS)
    else:
        await second.close()
        await belongs_to(server, "cluster1", OURS)


async def test_a_leader_whose_remote_secret_goes_frees_the_lock_though_its_client_closes(server):
    invite(server, "*")
    async with steward("cluster1", OURS) as post:
        async with client.Client(server.access()) as followed:
            post.added("cluster2", followed)
            await belongs_to(server, "cluster1", OURS)
            post.removed("cluster2")
        await kube_server.eventually(lambda: not holder(server), within_s=pace.patience(1))


def said_of_lock(server):
    path = leadership.NAMESPACE_LOCK
    return [one.partition(" ")[0] for one in server.requests if one.endswith(path)]


@pytest.mark.parametrize("how", ["annotation", "credential"])
async def test_the_last_word_of_one_post_comes_before_the_first_of_the_next(server, writes, how):
    invite(server, "cluster1")
    async with steward("cluster1", OURS) as post:
        post.added("cluster2", writes)
        await belongs_to(server, "cluster1", OURS)
        late = [0.1]

        async def slow(request):
            if late and request.path.endswith(leadership.NAMESPACE_LOCK):
                await asyncio.sleep(late.pop())

        server.faults.append(slow)
        server.requests.clear()
        if how == "annotation":
            invite(server, "nobody")
        else:
            post.removed("cluster2")
        await kube_server.eventually(lambda: not late)
        if how == "annotation":
            invite(server, "cluster1")
        else:
            post.added("cluster2", writes)
        await kube_server.eventually(lambda: len(said_of_lock(server)) >= 4)

        # Looked and gave back; looked and took.
        assert said_of_lock(server)[:4] == ["GET", "PUT", "GET", "PUT"]


async def test_an_invitation_that_flickers_ends_with_the_last_word(server, both):
    for number in range(20):
        invite(server, ("cluster1", "cluster3", "nobody")[number % 3])
        await asyncio.sleep(0.005)
    invite(server, "cluster3")

    await belongs_to(server, "cluster3", THEIRS)


async def test_who_is_invited_stays_while_the_api_server_is_away(server, both):
    invite(server, "cluster1")
    await belongs_to(server, "cluster1", OURS)
    server.faults.append(kube_server.failing("/", 503))
    await server.cut()
    hook(server, "")
    await asyncio.sleep(0.05)

    server.faults.clear()

    await belongs_to(server, "cluster1", OURS)


async def test_a_system_namespace_that_is_made_anew_must_invite_again(server, both):
    invite(server, "cluster1")
    await belongs_to(server, "cluster1", OURS)
    server.remove(kinds.NAMESPACE, SYSTEM)
    await kube_server.eventually(lambda: not holder(server))
    hook(server, "")

    server.put(kinds.NAMESPACE, SYSTEM)
    await asyncio.sleep(0.05)
    assert "" in written(server)
    invite(server, "cluster3")

    await belongs_to(server, "cluster3", THEIRS)


async def test_each_revision_keeps_its_own_webhooks_whoever_leads(server, writes):
    invite(server, "cluster1")
    canary_hook = {"name": "rev.sidecar-injector.istio.io", "clientConfig": {"caBundle": "b2xk"}}
    labels = {"istio.io/rev": "canary"}
    server.put(
        kinds.MUTATING_WEBHOOK, "canary", metadata={"labels": labels}, webhooks=[canary_hook]
    )
    async with (
        steward("cluster1", OURS) as usual,
        steward("cluster1", THEIRS, revision="canary") as canary,
    ):
        usual.added("cluster2", writes)
        await belongs_to(server, "cluster1", OURS)
        canary.added("cluster2", writes)
        wanted = base64.b64encode(THEIRS.encode()).decode()
        await kube_server.eventually(
            lambda: (
                server.get(kinds.MUTATING_WEBHOOK, "canary")["webhooks"][0]["clientConfig"]
                == {"caBundle": wanted}
            )
        )

    assert written(server) == {OURS}
