"""A real Envoy takes what it can use and refuses what it cannot."""

import asyncio
import contextlib
import json

import aiohttp
import grpc
import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from google.protobuf import json_format

from isthmus.resources.snapshot import CLUSTERS, ENDPOINTS, LISTENERS, Resource, Snapshot
from isthmus.testing import envoys, pace
from isthmus.xds.messages import Accepted, Refused

ADS = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}
API_TYPES = pytest.mark.parametrize("api_type", ["DELTA_GRPC", "GRPC"])


def bootstrap(port, api_type):
    node = {
        "id": "sidecar~127.0.0.1~sleep-1.default~default.svc.cluster.local",
        "cluster": "sleep.default",
    }
    asked = {"cds_config": ADS, "lds_config": ADS}
    return envoys.following(port, node=node, sources=asked, api_type=api_type, token="good")


def resource(type_url, name, message, fields):
    body = json_format.ParseDict({**fields}, message).SerializeToString()
    return Resource(type_url, name, f"{hash(body):x}", body)


def cluster(name, **fields):
    wanted = fields or {"type": "EDS", "eds_cluster_config": {"eds_config": ADS}}
    return resource(CLUSTERS, name, cluster_pb2.Cluster(), {"name": name, **wanted})


def endpoints(name, port):
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    lb_endpoints = [{"endpoint": {"address": address}}]
    fields = {"cluster_name": name, "endpoints": [{"lb_endpoints": lb_endpoints}]}
    return resource(ENDPOINTS, name, endpoint_pb2.ClusterLoadAssignment(), fields)


def listener(name, to):
    assert tcp_proxy_pb2
    proxy = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": name,
        "cluster": to,
    }
    fields = {
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{"name": "tcp", "typed_config": proxy}]}],
    }
    return resource(LISTENERS, name, listener_pb2.Listener(), fields)


def snapshot(*resources):
    held = {}
    for each in resources:
        held.setdefault(each.type_url, {})[each.name] = each
    return Snapshot(held)


@contextlib.asynccontextmanager
async def envoy(port, api_type, directory):
    path = directory / "bootstrap.json"
    admin = {"address": {"pipe": {"path": str(directory / "admin.sock")}}}
    path.write_text(json.dumps({**bootstrap(port, api_type), "admin": admin}))
    process = await asyncio.create_subprocess_exec(
        str(envoys.binary()),
        *("-c", str(path), "--use-dynamic-base-id", "--concurrency", "1", "-l", "error"),
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def outcomes(watch, *wanted):
    """Collect outcomes until each wanted type has one; the newest of each counts."""
    found = {}
    while not set(wanted) <= found.keys():
        report = await asyncio.wait_for(watch.reports.get(), pace.patience(20))
        found[report.outcome.type_url] = report.outcome
    return found


@API_TYPES
async def test_envoy_takes_a_cluster_its_endpoints_and_a_listener(
    serving, discovery, tmp_path, api_type
):
    discovery.held = snapshot(cluster("a"), endpoints("a", 9), listener("l", "a"))
    async with serving() as (service, _, port), envoy(port, api_type, tmp_path):
        watch = await discovery.watch()
        found = await outcomes(watch, CLUSTERS, ENDPOINTS, LISTENERS)
        [status] = service.statuses()

    assert all(isinstance(each, Accepted) for each in found.values())
    assert all(held.sent == held.acked for held in status.types.values())
    assert status.node.envoy_version.startswith("1.4")


@API_TYPES
async def test_a_changed_cluster_warms_although_envoy_does_not_ask_again(
    serving, discovery, tmp_path, api_type
):
    discovery.held = snapshot(cluster("a"), endpoints("a", 9), listener("l", "a"))
    changed = cluster(
        "a",
        type="EDS",
        eds_cluster_config={"eds_config": ADS},
        connect_timeout="3s",
    )
    async with serving() as (_, _, port), envoy(port, api_type, tmp_path):
        watch = await discovery.watch()
        await outcomes(watch, CLUSTERS, ENDPOINTS, LISTENERS)
        discovery.give(
            snapshot(changed, endpoints("a", 9), listener("l", "a")), {CLUSTERS: frozenset({"a"})}
        )
        found = await outcomes(watch, CLUSTERS, ENDPOINTS)

    assert all(isinstance(each, Accepted) for each in found.values())


@API_TYPES
async def test_envoy_refuses_a_bad_cluster_by_name_and_recovers(
    serving, discovery, tmp_path, api_type
):
    address = {"socket_address": {"address": "no-address", "port_value": 80}}
    lb_endpoints = [{"endpoint": {"address": address}}]
    assignment = {"cluster_name": "bad", "endpoints": [{"lb_endpoints": lb_endpoints}]}
    bad = cluster("bad", type="STATIC", load_assignment=assignment)
    discovery.held = snapshot(bad, cluster("a"), endpoints("a", 9))
    async with serving() as (_, _, port), envoy(port, api_type, tmp_path):
        watch = await discovery.watch()
        first = (await asyncio.wait_for(watch.reports.get(), pace.patience(20))).outcome
        discovery.give(snapshot(cluster("a"), endpoints("a", 9)), {CLUSTERS: frozenset({"bad"})})
        while not isinstance(
            (await asyncio.wait_for(watch.reports.get(), pace.patience(20))).outcome, Accepted
        ):
            continue

    assert isinstance(first, Refused)
    assert first.type_url == CLUSTERS
    assert first.names == ("bad",)
    assert "no-address" in first.message


class Lossy(grpc.GenericRpcHandler):
    """A discovery service in front of another, which loses endpoints while it is told to."""

    def __init__(self):
        self.loses = False

    def over(self, inner):
        self._inner = inner
        return self

    def service(self, details):
        found = self._inner.service(details)

        async def carry(requests, context):
            await found.stream_stream(requests, LossyContext(context, self))

        return found and grpc.stream_stream_rpc_method_handler(carry)


class LossyContext:
    def __init__(self, context, lossy):
        self._context, self._lossy = context, lossy

    def __getattr__(self, name):
        return getattr(self._context, name)

    async def write(self, content):
        if not (self._lossy.loses and ENDPOINTS.encode() in content):
            await self._context.write(content)


async def warms(directory, count):
    """Wait until so many clusters warm; Envoy asks for no clusters while any does."""
    async with asyncio.timeout(pace.patience(20)):
        while await warming(directory) != count:  # noqa: ASYNC110  # Envoy tells nobody
            await asyncio.sleep(0.05)


async def warming(directory):
    connector = aiohttp.UnixConnector(str(directory / "admin.sock"))
    async with aiohttp.ClientSession(connector=connector) as session:
        query = {"filter": "^cluster_manager.warming_clusters$"}
        async with session.get("http://envoy/stats", params=query) as answer:
            return int((await answer.text()).rpartition(":")[2])


@API_TYPES
async def test_a_cluster_that_warmed_when_its_stream_broke_is_done_on_the_next(
    serving, discovery, tmp_path, api_type
):
    wanted = {"type": "EDS", "eds_cluster_config": {"eds_config": ADS}}
    changed = cluster("a", **wanted, connect_timeout="3s")
    discovery.held = snapshot(cluster("a"), endpoints("a", 9))
    lossy = Lossy()
    async with serving(through=lossy.over) as (service, _, port), envoy(port, api_type, tmp_path):
        watch = await discovery.watch()
        await outcomes(watch, CLUSTERS, ENDPOINTS)
        lossy.loses = True
        discovery.give(snapshot(changed, endpoints("a", 9)), {CLUSTERS: frozenset({"a"})})
        await warms(tmp_path, 1)
        lossy.loses = False
        discovery.opened.clear()
        [status] = service.statuses()
        service.end(status.id, reason="the control plane was killed")
        await outcomes(await discovery.watch(), ENDPOINTS)
        await warms(tmp_path, 0)
