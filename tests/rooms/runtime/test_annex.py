"""The annex: a real process that signs and injects, told by whoever keeps it."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl

import aiohttp
import msgspec
import pytest
from cryptography import x509

from isthmus.base import clock, metrics, tasks
from isthmus.inject.settings import InjectionSettings
from isthmus.mesh import identities
from isthmus.runtime.annex import keeping, messages
from isthmus.testing import certificates, pace
from isthmus.wire import notary, tls, webhook

NAME = "istiod.istio-system.svc"
DOMAIN = identities.TrustDomain("cluster.local")
IDENTITY = identities.SpiffeId(DOMAIN, "sample", "sleep")
REVIEW = {
    "apiVersion": "admission.k8s.io/v1",
    "kind": "AdmissionReview",
    "request": {
        "uid": "u1",
        "namespace": "sample",
        "object": {"metadata": {"name": "one"}, "spec": {"containers": [{"name": "app"}]}},
    },
}


async def until(holds):
    async with asyncio.timeout(pace.patience(10)):
        while True:
            if holds():
                return
            await asyncio.sleep(0.01)


class World:
    """A control plane of which there is nothing but an annex, and what that is told."""

    def __init__(self, heard, hang_s=keeping.HANG_S):
        now = clock.SystemClock().now()
        self.files = certificates.files(now=now)
        self.signer = certificates.signer(now=now)
        shown = tls.issue(self.signer, names=(NAME,), now=now)
        self.state = messages.State(
            authority=self.files,
            chain_pem=shown.chain_pem,
            key_pem=shown.key_pem,
            injection=InjectionSettings(network="network1"),
            unready="",
            usual_s=3600,
            longest_s=7200,
        )
        self.counters = webhook.Counters(metrics.Metrics())
        self.port = heard.getsockname()[1]
        self.annex = keeping.Annex(
            heard,
            state=lambda: self.state,
            counters=self.counters,
            log_level="warning",
            system_clock=clock.SystemClock(),
            hang_s=hang_s,
        )

    def wanted(self, lifetime_s=0):
        return notary.Wanted(certificates.request(), lifetime_s, IDENTITY, DOMAIN, "c1", "sleep-1")

    async def signed(self):
        """Have something signed; a process that is still starting lets everybody come again."""
        async with asyncio.timeout(pace.patience(20)):
            while isinstance(outcome := await self.annex.sign(self.wanted()), notary.Unsigned):
                assert outcome.status == notary.COME_AGAIN
        return outcome

    async def changed(self, **fields):
        """Tell it another state, and wait until it has taken it: what is said comes in order."""
        self.state = msgspec.structs.replace(self.state, **fields)
        self.annex.look()
        await until(lambda: self.annex.told is self.state)

    async def review(self):
        context = ssl.create_default_context(cadata=self.signer.roots_pem)
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                f"https://127.0.0.1:{self.port}/inject",
                json=REVIEW,
                ssl=context,
                server_hostname=NAME,
            ) as answer,
        ):
            return (await answer.json())["response"]


@contextlib.contextmanager
def bound(**more):
    """Make a world whose annex is not yet started."""
    with socket.socket() as heard:
        heard.bind(("127.0.0.1", 0))
        yield World(heard, **more)


@contextlib.asynccontextmanager
async def running(**more):
    with bound(**more) as made:
        async with tasks.Nursery() as nursery:
            nursery.keep("annex", made.annex.run)
            yield made


@pytest.fixture
async def world():
    async with running() as made:
        yield made


async def test_it_signs_with_the_authority_that_it_was_told(world):
    signed = await world.signed()

    leaf = x509.load_pem_x509_certificate(signed.chain[0].encode())
    leaf.verify_directly_issued_by(world.signer.issuer.certificate)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [str(IDENTITY)]
    lived = leaf.not_valid_after_utc - clock.SystemClock().now()
    assert 3500 < lived.total_seconds() <= 3600


async def test_it_says_why_it_does_not_sign(world):
    await world.signed()

    assert await world.annex.sign(world.wanted(lifetime_s=7201)) == notary.Unsigned(
        "INVALID_ARGUMENT",
        "TTL_ERROR",
        "requested lifetime 7201 s is greater than the max allowed 7200 s",
    )

    await world.changed(authority={})

    assert (await world.annex.sign(world.wanted())).counted_as == "CA_NOT_READY"


async def test_it_gives_pods_their_proxy_over_tls_by_the_settings_of_the_moment(world):
    await world.signed()
    first = await world.review()
    await world.changed(injection=None)
    second = await world.review()

    assert first["allowed"]
    assert first["patchType"] == "JSONPatch"
    assert not second["allowed"]
    assert "no settings yet" in json.dumps(second)


async def test_it_has_begun_when_pods_get_their_proxy_and_for_good(world):
    world.state = msgspec.structs.replace(world.state, unready="not all clusters are known yet")
    await world.signed()
    assert not world.annex.has_begun()

    world.state = msgspec.structs.replace(world.state, unready="")
    await until(world.annex.has_begun)
    assert (await world.review())["allowed"]

    os.kill(world.annex.pid, signal.SIGKILL)
    await until(lambda: world.annex.told is None)
    assert world.annex.has_begun()
    await world.signed()


async def test_what_it_counts_is_counted_by_whoever_keeps_it(world):
    await world.signed()
    for _ in range(3):
        await world.review()

    await until(lambda: world.counters.requests.values.get((), 0) == 3)
    assert world.counters.success.values[()] == 3
    assert world.counters.failure.values.get((), 0) == 0


async def test_when_it_is_killed_the_next_one_answers_what_it_was_asked(world):
    await world.signed()
    killed = world.annex.pid
    os.kill(killed, signal.SIGSTOP)
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(world.signed()) for _ in range(5)]
        reviewed = group.create_task(world.review())
        await asyncio.sleep(0)
        os.kill(killed, signal.SIGKILL)

    assert world.annex.pid != killed
    assert [type(each.result()) for each in asked] == [notary.Signed] * 5
    assert reviewed.result()["allowed"]


async def test_it_ends_with_whoever_keeps_it_and_not_by_a_signal_to_all():
    async with running() as made:
        await made.signed()
        last = made.annex.pid
        os.kill(last, signal.SIGTERM)
        await made.signed()
        assert made.annex.pid == last

    with pytest.raises(ProcessLookupError):
        os.kill(last, 0)


async def test_it_ends_with_whoever_keeps_it_although_it_does_not_run():
    async with running() as made:
        await until(lambda: made.annex.pid)
        os.kill(made.annex.pid, signal.SIGSTOP)

    with pytest.raises(ProcessLookupError):
        os.kill(made.annex.pid, 0)


async def test_one_that_hangs_is_ended_and_the_next_one_answers():
    async with running(hang_s=2.0) as made:
        await made.signed()
        hung = made.annex.pid
        os.kill(hung, signal.SIGSTOP)
        await made.signed()
        assert made.annex.pid != hung


async def test_settings_that_cannot_be_told_leave_the_last_in_force_and_nothing_else_waits(world):
    await world.signed()
    pid, odd = world.annex.pid, InjectionSettings(never=({1: "a"},))
    world.state = msgspec.structs.replace(world.state, injection=odd, authority={})
    world.annex.look()
    await until(lambda: world.annex.told.authority == {})

    assert (await world.review())["allowed"]
    assert (await world.annex.sign(world.wanted())).counted_as == "CA_NOT_READY"
    assert world.annex.pid == pid


@pytest.mark.parametrize(
    "injection",
    [
        InjectionSettings(never=({1: "a"},)),
        InjectionSettings(never=({"matchLabels": {"a": 1 << 70}},)),
        InjectionSettings(image="a" * (messages.MOST_BYTES + 1)),
    ],
    ids=["keys that are no text", "numbers too large", "too large"],
)
def test_settings_that_the_other_side_could_not_read_are_not_told(injection):
    state = messages.State({}, "", "", InjectionSettings(), "", 1, 1)

    messages.check(state)
    with pytest.raises(messages.Untellable):
        messages.check(msgspec.structs.replace(state, injection=injection))


async def test_who_asks_one_that_does_not_read_is_told_to_come_again(world):
    await world.signed()
    os.kill(world.annex.pid, signal.SIGSTOP)
    for note in ("one", "two"):
        await world.changed(chain_pem="a" * (messages.MOST_BYTES - 20_000), unready=note)

    assert (await world.annex.sign(world.wanted())).status == notary.COME_AGAIN


async def test_who_asks_when_too_many_wait_is_told_to_come_again():
    with bound() as made:
        async with asyncio.TaskGroup() as group:
            waiting = [
                group.create_task(made.annex.sign(made.wanted()))
                for _ in range(keeping.MOST_WAITING)
            ]
            await asyncio.sleep(0)
            refused = await made.annex.sign(made.wanted())
            for each in waiting:
                each.cancel()

    assert (refused.status, refused.counted_as) == ("UNAVAILABLE", "CA_NOT_READY")
