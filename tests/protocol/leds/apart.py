"""Two real Envoys told of one mesh: one of whole assignments, one of each endpoint by itself."""

import asyncio
import contextlib
import functools
import json
import re

import aiohttp
import grpc

from isthmus.base import metrics
from isthmus.ca import keys, pem
from isthmus.mesh.identities import ClusterId
from isthmus.runtime import assembly, connections
from isthmus.testing import builders, certificates, envoys, pace
from isthmus.wire import ads, callers, listening, sds

ADS = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}
LIMIT_S = pace.patience(30.0)
WHOLE, APART = "GRPC", "DELTA_GRPC"
"""Only who hears of differences can be told of endpoints one by one."""


class Judge(callers.Authenticator):
    async def authenticate(self, credentials):
        return callers.Caller(ClusterId("east"), "default", "default", "caller", "u1")


class World:
    """A mesh of two clusters, and who is told of it.

    Sets of endpoints turn when a test says so, or are all told in parts to those who can be.
    """

    def __init__(self, folder, *, turns=False):
        self.folder = folder
        self.builder = builder = builders.Mesh()
        self.east = builder.cluster("east", network="n1")
        self.west = builder.cluster("west", network="n2")
        self.west.gateway(external="10.9.0.1")
        builder.gateway_object(
            "cross", builders.passing(15443, "*.local"), namespace="istio-system"
        )
        restless = builder.graph.source("told in parts")
        encoded = functools.partial(assembly._encoded, restless=restless if turns else None)
        self.mesh = assembly.Mesh(
            None,
            builder.graph,
            builder.sources,
            builder.model,
            builder.views,
            builder.graph.derive("resources", builder.views.slices, encoded),
            builder.graph.derive("told exports", builder.model.peers.exports, assembly._exported),
            restless,
        )
        self.proxies = connections.Connections(
            self.mesh, authenticator=Judge(), unready=lambda _: ""
        )
        self.proxies.tells_apart = True
        self.metrics = metrics.Metrics()
        self.service = ads.Service(self.proxies, registered=self.metrics)
        self.admins = {}

    def turn(self, name, *, in_parts):
        """Have a set of endpoints told in parts from now on, or whole."""
        with self.mesh.graph.transaction() as transaction:
            if in_parts:
                transaction.put(self.mesh.restless, name, 1)
            else:
                transaction.delete(self.mesh.restless, name)

    def pushed(self, kind):
        """Return how many messages of a kind went out, and how large they were in all."""
        counters = self.service.counters
        size = counters.size.sums.get((kind,), 0)
        return int(counters.pushes.values.get((kind,), 0)), int(size)

    async def endpoints(self, api_type):
        """Return what an Envoy has, by cluster."""
        page = f"http://127.0.0.1:{self.admins[api_type]}/config_dump?include_eds"
        async with aiohttp.ClientSession() as session, session.get(page) as answer:
            dump = await answer.json()
        found = {}
        weighed = {
            one["cluster"]["name"]
            for part in dump["configs"]
            for one in part.get("dynamic_active_clusters", ())
            if "locality_weighted_lb_config" in one["cluster"].get("common_lb_config", ())
        }
        for part in dump["configs"]:
            for one in part.get("dynamic_endpoint_configs", ()):
                said = one["endpoint_config"]
                name = said["cluster_name"]
                groups = said.get("endpoints", ())
                found[name] = sorted(_said(one, is_weighed=name in weighed) for one in groups)
        return found

    async def until_alike(self, holds=lambda _: True):
        """Wait until both Envoys have the same, of which something holds; return it."""
        whole = apart = None
        try:
            async with asyncio.timeout(LIMIT_S):
                while True:
                    whole = await self.endpoints(WHOLE)
                    apart = await self.endpoints(APART)
                    if whole == apart and holds(whole):
                        return whole
                    await asyncio.sleep(0.02)
        except TimeoutError:
            names = sorted({*(whole or ()), *(apart or ())})
            unlike = [
                f"{name}\n whole {_short(whole.get(name))}\n apart {_short(apart.get(name))}"
                for name in names
                if whole.get(name) != apart.get(name) or "web" in name
            ]
            raise AssertionError("\n".join(unlike)) from None


def _short(groups):
    found = re.findall(r'"(?:address|load_balancing_weight|priority|zone)": "?[\w.-]+', str(groups))
    return None if groups is None else [one.partition(": ")[2].strip('"') for one in found]


def _said(group, *, is_weighed):
    """Return a group in one form; its weight only where Envoy looks at it."""
    members = sorted(json.dumps(one, sort_keys=True) for one in group.pop("lb_endpoints", ()))
    if not is_weighed:
        group.pop("load_balancing_weight", None)
    return json.dumps({**group, "lb_endpoints": members}, sort_keys=True).replace('\\"', '"')


@contextlib.asynccontextmanager
async def running(folder, prepare, *, turns=False):
    """Run a world that `prepare` has filled, until both Envoys have all of it."""
    world = World(folder, turns=turns)
    prepare(world)
    async with contextlib.AsyncExitStack() as stack:
        discovery = grpc.aio.server(options=listening.OPTIONS)
        shelf = sds.Shelf()
        shelf.put(certificate())
        discovery.add_generic_rpc_handlers((world.service.handler(), sds.handler(shelf)))
        port = discovery.add_insecure_port("127.0.0.1:0")
        await discovery.start()
        stack.push_async_callback(discovery.stop, None)
        for api_type in (WHOLE, APART):
            path, address = folder / f"{api_type}.json", folder / f"{api_type}.address"
            path.write_text(json.dumps(bootstrap(port, api_type)))
            log = stack.enter_context((folder / f"{api_type}.log").open("w"))
            process = await asyncio.create_subprocess_exec(
                str(envoys.binary()),
                *("-c", str(path), "--admin-address-path", str(address)),
                *("--use-dynamic-base-id", "--concurrency", "1", "-l", "warning"),
                stderr=log,
            )
            stack.push_async_callback(process.wait)
            stack.callback(process.kill)
            world.admins[api_type] = await _port_in(address)
        yield world


async def _port_in(path):
    async with asyncio.timeout(LIMIT_S):
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


def bootstrap(port, api_type):
    node = {
        "id": "sidecar~10.0.0.1~caller.default~default.svc.cluster.local",
        "cluster": "caller.default",
        "metadata": {"CLUSTER_ID": "east"},
    }
    asked = {"cds_config": ADS}
    names = ("ads", "sds-grpc")
    return envoys.following(port, node=node, sources=asked, api_type=api_type, names=names)
