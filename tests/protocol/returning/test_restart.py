"""A real Envoy that comes back to a control plane that has started anew is told what changed.

It has no listeners: their ports are fixed.
"""

import asyncio
import contextlib
import json

import aiohttp
import grpc

from isthmus.base import metrics
from isthmus.ca import keys, pem
from isthmus.mesh.identities import ClusterId
from isthmus.runtime import assembly, connections
from isthmus.testing import builders, certificates, envoys, pace
from isthmus.wire import ads, callers, listening, sds

LIMIT_S = pace.patience(30.0)
EMPTY_BYTES = 120
"""An answer that says only that nothing is new is shorter."""

ADS = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}
WEB = "outbound|80||web.default.svc.cluster.local"


class Judge(callers.Authenticator):
    async def authenticate(self, credentials):
        return callers.Caller(ClusterId("east"), "default", "default", "caller", "u1")


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
        told = mesh.graph.derive("resources", mesh.views.slices, assembly._encoded)
        exports = mesh.graph.derive("told exports", mesh.model.peers.exports, assembly._exported)
        known = (mesh.graph, mesh.sources, mesh.model, mesh.views)
        made = assembly.Mesh(None, *known, told, exports, mesh.graph.source("told in parts"))
        discovery = connections.Connections(made, authenticator=Judge(), unready=lambda _: "")
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
        shelf = sds.Shelf()
        shelf.put(certificate())
        server.add_generic_rpc_handlers((made.service.handler(), sds.handler(shelf)))
        self.port = server.add_insecure_port(f"127.0.0.1:{self.port}")
        await server.start()
        try:
            yield made
        finally:
            await server.stop(None)

    async def has(self, *wanted):
        """Wait until the Envoy uses exactly these endpoints of the service, with no cluster waiting."""
        expected = {f"{one}:80" for one in wanted}
        async with asyncio.timeout(LIMIT_S), aiohttp.ClientSession() as session:
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
        path, address = self.folder / "envoy.json", self.folder / "address"
        path.write_text(json.dumps(bootstrap(self.port)))
        log = (self.folder / "envoy.log").open("w")
        process = await asyncio.create_subprocess_exec(
            str(envoys.binary()),
            *("-c", str(path), "--admin-address-path", str(address)),
            *("--use-dynamic-base-id", "--concurrency", "1", "-l", "warning"),
            stderr=log,
        )
        try:
            async with asyncio.timeout(LIMIT_S):
                self.admin = await _port_in(address)
            yield
        finally:
            process.kill()
            await process.wait()
            log.close()


async def _port_in(path):
    while True:
        if path.exists() and (text := path.read_text()):
            return int(text.rpartition(":")[2])
        await asyncio.sleep(0.02)


def certificate():
    """Return what Envoy waits for before it uses a cluster with mutual TLS."""
    made = certificates.signer()
    own = {"chain_pem": "".join(map(pem.written, made.chain)), "version": "1"}
    key_pem = keys.private_pem(made.issuer.key)
    roots = sds.roots("ROOTCA", roots_pem=made.roots_pem, version="1")
    return {"default": sds.certificate("default", key_pem=key_pem, **own), "ROOTCA": roots}


def bootstrap(port):
    node = {
        "id": "sidecar~10.0.0.1~caller.default~default.svc.cluster.local",
        "cluster": "caller.default",
        "metadata": {"CLUSTER_ID": "east"},
    }
    return envoys.following(port, node=node, sources={"cds_config": ADS}, names=("ads", "sds-grpc"))


async def synced(plane):
    """Wait until the proxy has come back and has answered all that it was told."""
    async with asyncio.timeout(LIMIT_S):
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
