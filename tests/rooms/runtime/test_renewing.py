"""Tokens are renewed before they end, whoever's clock is a little wrong."""

import asyncio
import contextlib

import pytest

from fakes import kube_server
from fakes import linked as two
from isthmus.fleet import rotating
from isthmus.kube import kinds
from isthmus.runtime import renewing

SHORT = {"duration_s": 600}
SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {"ports": [{"port": 80}]},
}


@pytest.fixture
async def linked():
    async with two.clusters() as both:
        await both.remote_admin.create(kinds.SERVICE, SERVICE)
        yield both


@contextlib.asynccontextmanager
async def led(linked, **life):
    """Follow the remote cluster and keep its token, as a leader does."""
    await linked.link(**life)
    async with two.running(linked):
        await kube_server.eventually(lambda: "web" in linked.known())
        linked.fewest = len(linked.known())
        renewal = renewing.Renewal(linked.supervisor, system_clock=linked.clock)
        work = asyncio.get_running_loop().create_task(
            renewal.run(linked.primary_admin, lambda: True)
        )
        try:
            yield renewal
        finally:
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work


def token(linked):
    return linked.supervisor.client("cluster2").access.token


async def rounds(count=3):
    """Let a leader look so many times."""
    await asyncio.sleep(count * renewing.LOOK_S / 100)


async def test_a_token_is_renewed_at_half_its_life_and_nothing_is_missed(linked):
    async with led(linked, **SHORT) as renewal:
        first = token(linked)
        linked.clock.ahead_s = 301

        await kube_server.eventually(lambda: token(linked) != first)

        assert linked.fewest == len(linked.known())
        assert renewal.findings() == []
        stored = await rotating.holder_of(linked.primary_admin, "cluster2", namespace=two.NAMESPACE)
        said = rotating.token_in(stored, "cluster2")
        annotations = stored["metadata"]["annotations"]
        assert annotations[rotating.EXPIRES] == rotating.shown(said.expires)
        assert (bool(said.secret), said.life_s) == (True, 600)


async def test_a_token_is_left_alone_before_half_of_its_life(linked):
    async with led(linked, **SHORT):
        first, linked.clock.ahead_s = token(linked), 290
        await rounds()

        assert token(linked) == first


async def test_a_secret_that_does_not_ask_for_it_is_not_renewed_but_warned_of(linked):
    async with led(linked, **SHORT, renews=False) as renewal:
        first, linked.clock.ahead_s = token(linked), 450
        await rounds()

        assert token(linked) == first
        assert renewal.findings() == []
        assert [one.code for one in linked.supervisor.findings()] == ["ISM-FLEET-016"]


async def test_a_renewal_that_is_refused_is_a_finding_until_it_succeeds(linked):
    async with led(linked, **SHORT) as renewal:
        name = rotating.RENEWAL_ROLE
        role = await linked.remote_admin.get(kinds.ROLE, name, namespace=two.NAMESPACE)
        await linked.remote_admin.delete(kinds.ROLE, name, namespace=two.NAMESPACE)
        first, linked.clock.ahead_s = token(linked), 301
        await kube_server.eventually(renewal.findings)
        [finding] = renewal.findings()

        role["metadata"].pop("resourceVersion")
        await linked.remote_admin.create(kinds.ROLE, role)
        await kube_server.eventually(lambda: token(linked) != first)

        assert finding.code == "ISM-FLEET-019"
        linked.clock.ahead_s = 0
        await kube_server.eventually(lambda: not renewal.findings())


async def test_what_was_written_by_somebody_else_meanwhile_is_not_overwritten(linked):
    async with led(linked, **SHORT):
        linked.clock.ahead_s = 301
        made = await linked.link(duration_s=3600)
        await kube_server.eventually(lambda: token(linked) == two.token_of(made))
        await rounds()

        assert token(linked) == two.token_of(made)


@pytest.mark.parametrize("ahead_s", [-120, 120])
async def test_a_clock_that_is_two_minutes_wrong_changes_nothing(linked, ahead_s):
    linked.clock.ahead_s = ahead_s
    async with led(linked, **SHORT) as renewal:
        first = token(linked)
        await rounds()

        assert token(linked) == first
        assert linked.supervisor.findings() == ()
        assert renewal.findings() == []
        assert linked.status.status == "synced"


async def test_a_token_counts_as_ended_two_minutes_late_and_its_cluster_stays(linked):
    async with led(linked, **SHORT, renews=False):
        # Ten minutes and two; some seconds may pass while this runs.
        linked.clock.ahead_s = 690
        soon = [one.code for one in linked.supervisor.findings()]
        linked.clock.ahead_s = 725
        ended = [one.code for one in linked.supervisor.findings()]

        assert (soon, ended) == (["ISM-FLEET-016"], ["ISM-FLEET-017"])
        assert len(linked.known()) == linked.fewest
