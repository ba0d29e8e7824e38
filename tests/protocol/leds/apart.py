"""Two real Envoys told of one mesh: one of whole assignments, one of each endpoint by itself."""

import asyncio
import contextlib
import json
import re

import aiohttp
import grpc

from fakes import assembled, told_envoys
from isthmus.base import metrics
from isthmus.runtime import connections
from isthmus.testing import builders
from isthmus.views import view
from isthmus.wire import ads, listening, sds

WHOLE, APART = "GRPC", "DELTA_GRPC"
"""Only who hears of differences can be told of endpoints one by one."""


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
        self.mesh = assembled.mesh_of(builder, turns=turns)
        self.proxies = connections.Connections(
            self.mesh, authenticator=told_envoys.Judge(), unready=lambda _: ""
        )
        self.proxies.tells_apart = True
        self.metrics = metrics.Metrics()
        self.service = ads.Service(self.proxies, registered=self.metrics)
        self.admins = {}

    def turn(self, name, *, in_parts):
        """Have a set of endpoints told in parts from now on, or whole."""
        resources = self.mesh.graph.items(self.mesh.resources)
        with self.mesh.graph.transaction() as transaction:
            for key in (one for one in resources if one.name == name and _is_set(one)):
                if in_parts:
                    transaction.put(self.mesh.restless, key, 1)
                else:
                    transaction.delete(self.mesh.restless, key)

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
            async with asyncio.timeout(told_envoys.LIMIT_S):
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


def _is_set(key):
    return key.kind is view.Kind.ENDPOINTS and key.scope.is_apart


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
        secrets = sds.handler(told_envoys.shelf())
        discovery.add_generic_rpc_handlers((world.service.handler(), secrets))
        port = discovery.add_insecure_port("127.0.0.1:0")
        await discovery.start()
        stack.push_async_callback(discovery.stop, None)
        for api_type in (WHOLE, APART):
            envoy = told_envoys.running(told_envoys.bootstrap(port, api_type), folder, api_type)
            _, world.admins[api_type] = await stack.enter_async_context(envoy)
        yield world
