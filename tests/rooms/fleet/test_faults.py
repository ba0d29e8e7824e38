"""Whatever an API server does, its cluster keeps its endpoints, and the others do not notice."""

import asyncio
import json

import pytest
from aiohttp import web
from typing_extensions import override

from fakes import kube_server
from fakes.fleets import OWN, fleet_of
from isthmus.base import clock
from isthmus.kube import kinds
from isthmus.testing import pace

SERVICES = "/api/v1/services"
NOTICED_S = pace.patience(0.25)


@pytest.fixture
async def fleet():
    async with fleet_of("cluster2", "cluster3") as running:
        for server in (running.local, *running.remotes.values()):
            server.put(kinds.NAMESPACE, "kube-system", metadata={"labels": {"of": server.url}})
        for cluster in ("cluster2", "cluster3"):
            running.link(cluster)
        await kube_server.eventually(
            lambda: running.names("cluster2") and running.names("cluster3")
        )
        await kube_server.eventually(running.supervisor.ready.is_set)
        running.fewest = 1
        yield running


async def hung(request):
    """Take a request and never answer."""
    await asyncio.Event().wait()


async def trickled(request):
    """Answer one byte at a time, for ever."""
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.01)


async def spoiled(request):
    """Answer what is no JSON."""
    return web.Response(body=b'{"items": [{"metadata"', content_type="application/json")


async def foreign(request):
    """Answer as a proxy in between would."""
    return web.Response(status=302, headers={"Location": "http://169.254.169.254/"})


async def watch_ends_with_error(request):
    """End watches by an event that says that the version is too old."""
    if request.query.get("watch") != "true":
        return None
    status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
    body = json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"
    return web.Response(body=body, content_type="application/json")


FAULTS = {
    "401": kube_server.failing("/", 401),
    "403": kube_server.failing("/", 403),
    "410": kube_server.failing("/", 410),
    "429": kube_server.failing("/", 429, **{"Retry-After": "1"}),
    "500": kube_server.failing("/", 500),
    "hang": hung,
    "trickle": trickled,
    "no JSON": spoiled,
    "redirect": foreign,
    "ERROR 410": watch_ends_with_error,
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_faulty_api_server_loses_nothing_and_delays_nobody(fleet, fault):
    faulty, healthy = fleet.remotes["cluster2"], fleet.remotes["cluster3"]
    faulty.faults.append(FAULTS[fault])
    await faulty.cut()
    await asyncio.sleep(0.05)

    for number in range(5):
        healthy.put(kinds.SERVICE, f"s{number}", "n")
        fleet.local.put(kinds.SERVICE, f"s{number}", "n")
        await kube_server.eventually(
            lambda number=number: (
                f"s{number}" in fleet.names("cluster3") and f"s{number}" in fleet.names(OWN)
            ),
            within_s=NOTICED_S,
        )

    assert fleet.fewest == 1
    assert fleet.names("cluster2") == ["cluster2-service"]
    assert fleet.status("cluster2").known


@pytest.mark.parametrize("fault", FAULTS)
async def test_an_api_server_that_is_well_again_is_believed_again(fleet, fault):
    server = fleet.remotes["cluster2"]
    server.faults.append(FAULTS[fault])
    await server.cut()
    await asyncio.sleep(0.05)
    server.put(kinds.SERVICE, "meanwhile", "n")
    server.remove(kinds.SERVICE, "cluster2-service", "n")
    server.compact()

    server.faults.clear()
    if fault in ("hang", "trickle"):
        await server.cut_connections()

    await kube_server.eventually(
        lambda: fleet.names("cluster2") == ["meanwhile"], within_s=pace.patience(10)
    )
    await kube_server.eventually(
        lambda: not fleet.status("cluster2").error, within_s=pace.patience(10)
    )
    assert fleet.status("cluster2").age_s == 0


async def test_a_storm_of_410_is_one_relist_each_and_loses_nothing(fleet):
    server = fleet.remotes["cluster2"]
    for number in range(20):
        server.put(kinds.SERVICE, f"s{number}", "n")
        server.compact()
        await server.cut()

    await kube_server.eventually(
        lambda: len(fleet.names("cluster2")) == 21, within_s=pace.patience(10)
    )

    assert fleet.fewest == 1
    lists = sum(
        request == f"GET {SERVICES}" and "watch" not in query
        for request, query in zip(server.requests, server.queries, strict=True)
    )
    assert lists <= 22


async def test_another_cluster_in_the_place_of_a_linked_one_is_not_believed(fleet):
    server = fleet.remotes["cluster2"]
    own = server.get(kinds.NAMESPACE, "kube-system")
    linked, own["metadata"]["uid"] = own["metadata"]["uid"], "another"
    await server.cut()
    server.remove(kinds.SERVICE, "cluster2-service", "n")
    server.remove(kinds.ENDPOINT_SLICE, "cluster2-slice", "n")
    server.compact()
    await kube_server.eventually(lambda: "another cluster" in fleet.status("cluster2").error)
    await asyncio.sleep(1.0)

    assert fleet.fewest == 1
    assert [one.code for one in fleet.supervisor.findings()] == ["ISM-FLEET-015"]

    own["metadata"]["uid"] = linked
    await kube_server.eventually(
        lambda: not fleet.supervisor.findings(), within_s=pace.patience(10)
    )
    await kube_server.eventually(lambda: not fleet.names("cluster2"), within_s=pace.patience(10))


async def test_a_cluster_that_refuses_a_credential_is_asked_less_than_once_a_second(fleet):
    server = fleet.remotes["cluster2"]
    server.faults.append(kube_server.failing("/", 401))
    await server.cut()
    await kube_server.eventually(lambda: "401" in fleet.status("cluster2").error)
    asked = len(server.requests)
    await asyncio.sleep(2.0)

    # Delays grow to seven seconds; these are the first two.
    assert len(server.requests) - asked <= 25


class NotingClock(clock.SystemClock):
    """Waits a hundredth of the time, and notes how long it was to be."""

    def __init__(self):
        self.waits = []

    @override
    async def sleep(self, delay_s):
        self.waits.append(delay_s)
        await asyncio.sleep(delay_s / 100)


async def test_who_leaves_is_heard_of_soon_after_our_own_api_server_came_back():
    """Drill, seed 2: removed just then, a cluster was gone after 4.6 s; 5 s were promised."""
    noting = NotingClock()
    async with fleet_of(system_clock=noting) as fleet:
        await fleet.supervisor.ready.wait()
        secrets = kube_server.failing("/api/v1/namespaces/istio-system/secrets", 503)
        fleet.local.faults.append(secrets)
        await fleet.local.cut()
        await kube_server.eventually(lambda: len(noting.waits) > 18)

    assert 1.0 < max(noting.waits) < 3.0
