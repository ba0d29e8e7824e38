"""Who may call, and what is proof."""

import asyncio

import pytest

from isthmus.base import clock
from isthmus.mesh.identities import ClusterId
from isthmus.runtime import authentication
from isthmus.wire import callers

GOOD = {
    "authenticated": True,
    "audiences": ["istio-ca"],
    "user": {
        "username": "system:serviceaccount:sample:sleep",
        "groups": ["system:serviceaccounts", "system:authenticated"],
        "extra": {
            "authentication.kubernetes.io/pod-name": ["sleep-1"],
            "authentication.kubernetes.io/pod-uid": ["u-1"],
        },
    },
}


class Reviews:
    def __init__(self, status=GOOD):
        self.status = status
        self.asked = []

    async def __call__(self, cluster, token, audiences):
        self.asked.append((cluster, token))
        if isinstance(self.status, Exception):
            raise self.status
        return self.status


class HandClock(clock.SystemClock):
    def __init__(self):
        self.at = 1000.0

    def monotonic(self):
        return self.at


def authenticator(reviews, *, known=("c1", "c2"), hand_clock=None, sole_domain="cluster.local"):
    return authentication.TokenAuthenticator(
        reviews,
        own_cluster=ClusterId("c1"),
        known_clusters=lambda: [ClusterId(name) for name in known],
        audiences=("istio-ca",),
        system_clock=hand_clock or HandClock(),
        sole_domain=lambda: sole_domain,
    )


def shown(token="t", cluster="c2", **more):
    return callers.Credentials(token, cluster, **more)


async def test_the_cluster_that_the_caller_names_reviews_its_token():
    reviews = Reviews()

    caller = await authenticator(reviews).authenticate(shown())

    assert reviews.asked == [("c2", "t")]
    assert caller == callers.Caller(ClusterId("c2"), "sample", "sleep", "sleep-1", "u-1")


async def test_an_unknown_cluster_is_refused_and_no_other_is_tried():
    reviews = Reviews()

    with pytest.raises(callers.CallerRefused, match="not known here"):
        await authenticator(reviews).authenticate(shown(cluster="c9"))

    assert reviews.asked == []


async def test_naming_no_cluster_is_only_fine_while_there_is_one():
    assert (await authenticator(Reviews(), known=("c1",)).authenticate(shown(cluster=""))).cluster
    with pytest.raises(callers.CallerRefused):
        await authenticator(Reviews()).authenticate(shown(cluster=""))


@pytest.mark.parametrize(
    "change",
    [
        {"authenticated": False},
        {"authenticated": "true"},
        {"error": "expired"},
        {"audiences": []},
        {"audiences": ["api"]},
        {"audiences": None},
        {"user": None},
        {"user": {"username": "system:serviceaccount:a:b", "groups": []}},
        {"user": {"username": "kubernetes-admin", "groups": ["system:serviceaccounts"]}},
        {"user": {"username": "a:b:c:d", "groups": ["system:serviceaccounts"]}},
        {"user": {"username": "system:serviceaccount:a:b:c", "groups": ["system:serviceaccounts"]}},
    ],
)
async def test_a_review_that_does_not_prove_a_service_account_proves_nobody(change):
    with pytest.raises(callers.CallerRefused):
        await authenticator(Reviews({**GOOD, **change})).authenticate(shown())


async def test_an_answer_is_kept_for_a_minute_and_by_cluster():
    reviews, hand_clock = Reviews(), HandClock()
    asked = authenticator(reviews, hand_clock=hand_clock)

    await asked.authenticate(shown())
    await asked.authenticate(shown())
    await asked.authenticate(shown(cluster="c1"))
    hand_clock.at += 61
    await asked.authenticate(shown())

    assert reviews.asked == [("c2", "t"), ("c1", "t"), ("c2", "t")]


async def test_a_cluster_that_cannot_be_asked_is_asked_again_next_time():
    reviews = Reviews(TimeoutError())
    asked = authenticator(reviews)

    with pytest.raises(authentication.NobodyJudges, match="could not be asked"):
        await asked.authenticate(shown())
    reviews.status = GOOD

    assert (await asked.authenticate(shown())).service_account == "sleep"


async def test_who_could_not_be_judged_is_not_told_that_the_proof_is_bad():
    with pytest.raises(authentication.NobodyJudges) as caught:
        await authenticator(Reviews(TimeoutError())).authenticate(shown())

    assert not isinstance(caught.value, callers.CallerRefused)


async def test_a_storm_of_callers_asks_their_cluster_about_few_at_a_time():
    busy, most = 0, 0

    async def review(cluster, token, audiences):
        nonlocal busy, most
        busy, most = busy + 1, max(most, busy + 1)
        await asyncio.sleep(0)
        busy -= 1
        return GOOD

    asked = authenticator(review)
    async with asyncio.TaskGroup() as group:
        for number in range(200):
            group.create_task(asked.authenticate(shown(token=f"t{number}")))

    assert most == authentication.AT_ONCE


async def test_a_certificate_alone_proves_nothing_while_clusters_share_a_trust_domain():
    identity = ("spiffe://cluster.local/ns/sample/sa/sleep",)
    certificate = shown(token="", peer_identities=identity)

    assert await authenticator(Reviews(), known=("c1",)).authenticate(certificate)
    with pytest.raises(callers.CallerRefused, match="does not prove which cluster"):
        await authenticator(Reviews()).authenticate(certificate)
    linked = authenticator(Reviews(), known=("c1",), sole_domain=None)
    with pytest.raises(callers.CallerRefused, match="does not prove which cluster"):
        await linked.authenticate(certificate)


async def test_a_certificate_of_another_trust_domain_proves_nothing():
    certificate = shown(token="", peer_identities=("spiffe://b.local/ns/sample/sa/sleep",))

    with pytest.raises(callers.CallerRefused, match=r"`b.local`, which is not ours"):
        await authenticator(Reviews(), known=("c1",)).authenticate(certificate)


async def test_nothing_shown_is_refused_and_the_token_is_never_part_of_a_text():
    with pytest.raises(callers.CallerRefused):
        await authenticator(Reviews()).authenticate(shown(token=""))

    assert "secret-token" not in repr(shown(token="secret-token"))


@pytest.mark.looptime
async def test_who_waits_while_many_come_at_once_is_asked_about_all_the_same():
    async def reviews(cluster, token, audiences):
        del cluster, audiences
        await asyncio.sleep(authentication.DEADLINE_S * 0.6)
        return GOOD if token else {}

    judge = authenticator(reviews)
    async with asyncio.TaskGroup() as group:
        for number in range(authentication.AT_ONCE * 3):
            group.create_task(judge.authenticate(shown(token=f"t{number}")))
    # Nobody was sent away: that would have ended the group with an error.
    assert (await judge.authenticate(shown(token="t0"))).pod == "sleep-1"
