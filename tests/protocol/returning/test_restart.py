"""A real Envoy that comes back to a control plane that has started anew is told what changed.

It has no listeners: their ports are fixed.
"""

import asyncio
import contextlib

import aiohttp
import grpc

from fakes import assembled, told_envoys
from isthmus.base import metrics
from isthmus.runtime import connections
from isthmus.testing import builders
from isthmus.wire import ads, listening, sds

EMPTY_BYTES = 120
"""An answer that says only that nothing is new is shorter."""

WEB = "outbound|80||web.default.svc.cluster.local"


class Plane:
    """A control plane that has just started, of a mesh of many services."""

    def __init__(self, web, *, policy=None):
        mesh = builders.Mesh()
        east = mesh.cluster("east", network="n1")
        east.pod("caller", address="10.0.0.1")
        for number in range(20):
            east.service(f"s{number}", ready=[f"10.2.{number}.{one}" for one in range(1, 10)])
        east.service("web", ready=web)
        if policy:
            mesh.destination_rule("web", {"host": "web", "trafficPolicy": policy})
        discovery = connections.Connections(
            assembled.mesh_of(mesh), authenticator=told_envoys.Judge(), unready=lambda _: ""
        )
        self.service = ads.Service(discovery, registered=metrics.Metrics())

    def told_bytes(self):
        """Return how much went out, by type, without answers that say nothing."""
        counters = self.service.counters
        return {
            kind: int(size)
            for (kind,), size in counters.size.sums.items()
            if size > EMPTY_BYTES * counters.pushes.values[(kind,)]
        }


class Fleet:
    """One real Envoy, and the port at which control planes follow each other."""

    def __init__(self, folder):
        self.folder = folder
        self.port = self.admin = 0

    @contextlib.asynccontextmanager
    async def plane(self, *args, **more):
        made, server = Plane(*args, **more), grpc.aio.server(options=listening.OPTIONS)
        secrets = sds.handler(told_envoys.shelf())
        server.add_generic_rpc_handlers((made.service.handler(), secrets))
        self.port = server.add_insecure_port(f"127.0.0.1:{self.port}")
        await server.start()
        try:
            yield made
        finally:
            await server.stop(None)

    async def has(self, *wanted):
        """Wait until the Envoy uses exactly these endpoints of the service, with no cluster waiting."""
        expected = {f"{one}:80" for one in wanted}
        async with asyncio.timeout(told_envoys.LIMIT_S), aiohttp.ClientSession() as session:
            while True:
                lines = await self._page(session, "clusters")
                stats = await self._page(session, "stats?filter=warming_clusters")
                prefix = f"{WEB}::"
                rows = (one for one in lines.splitlines() if one.startswith(prefix))
                found = {place for one in rows if (place := one.split("::")[1])[:3] == "10."}
                if found == expected and stats.strip().endswith(": 0"):
                    return
                await asyncio.sleep(0.02)

    async def _page(self, session, name):
        async with session.get(f"http://127.0.0.1:{self.admin}/{name}") as answer:
            return await answer.text()

    @contextlib.asynccontextmanager
    async def envoy(self):
        document = told_envoys.bootstrap(self.port)
        async with told_envoys.running(document, self.folder) as (_, self.admin):
            yield


async def synced(plane):
    """Wait until the proxy has come back and has answered all that it was told."""
    async with asyncio.timeout(told_envoys.LIMIT_S):
        while True:
            known = [one.types for one in plane.service.statuses()]
            if (
                known
                and len(known[0]) > 1
                and all(one.sent and one.sent == one.acked for one in known[0].values())
            ):
                return
            await asyncio.sleep(0.02)


async def test_after_a_restart_an_envoy_is_told_what_changed_and_nothing_else(tmp_path):
    near = ["10.1.0.1", "10.1.0.2"]
    fleet = Fleet(tmp_path)
    async with contextlib.AsyncExitStack() as stack:
        async with fleet.plane(near) as plane:
            await stack.enter_async_context(fleet.envoy())
            await fleet.has(*near)
            await synced(plane)
            assert plane.told_bytes().keys() == {"cluster", "endpoint"}
            first = plane.told_bytes()["endpoint"]

        async with fleet.plane(near) as plane:
            await synced(plane)
            assert plane.told_bytes() == {}

        async with fleet.plane(near[:1]) as plane:
            await fleet.has(*near[:1])
            await synced(plane)
            assert plane.told_bytes().keys() == {"endpoint"}
            assert plane.told_bytes()["endpoint"] < first / 10

        policy = {"connectionPool": {"tcp": {"maxConnections": 7}}}
        async with fleet.plane(near[:1], policy=policy) as plane:
            await fleet.has(*near[:1])
            await synced(plane)
            # The cluster waits for its endpoints, which are what they were.
            assert plane.told_bytes().keys() == {"cluster", "endpoint"}
            assert plane.told_bytes()["endpoint"] < first / 10
