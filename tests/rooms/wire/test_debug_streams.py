"""Debug types on discovery streams, asked as Istio's own command line does."""

import asyncio
import contextlib
import functools
import json

import grpc
import pytest
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2
from envoy.service.status.v3 import csds_pb2

from isthmus.mesh.identities import ClusterId
from isthmus.testing import pace
from isthmus.wire import ads, callers, debugging, debugstreams, listening

C1, C2 = ClusterId("c1"), ClusterId("c2")
NODE = "sidecar~127.0.0.1~test-1.istio-system~istio-system.svc.cluster.local"
CALLERS = {
    "admin": callers.Caller(C1, "istio-system", "default"),
    "remote": callers.Caller(C2, "istio-system", "default"),
    "shop": callers.Caller(C1, "shop", "a"),
}
STATUS = {
    "cluster_id": "c1", "proxy": "a.shop", "istio_version": "1.30.3",
    "cluster_sent": "1", "cluster_acked": "1", "listener_sent": "2", "listener_acked": "1",
    "route_sent": "", "route_acked": "", "endpoint_sent": "3", "endpoint_acked": "3",
    "resources": {
        "type.googleapis.com/envoy.config.cluster.v3.Cluster": {
            "sent": "1", "acked": "1", "sentTime": "2026-01-01T00:00:00+00:00"
        }
    },
}  # fmt: skip
DUMP = {"configs": [{"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump"}]}


class FakeReports:
    def page(self, name):
        if name == "syncz":
            return [STATUS]
        if name == "adsz":
            return {"clients": [{"connectionId": "a.shop-1", "metadata": {"CLUSTER_ID": "c1"}}]}
        return {"page": name}

    def page_of(self, name, proxy, query, viewer):
        if proxy != "a.shop" or not viewer.may_see(cluster=C1, namespace="shop"):
            return None
        return DUMP if name == "config_dump" else []


class Authenticator:
    """Knows three callers; a token proves nothing in any cluster but that of its caller."""

    async def authenticate(self, credentials):
        caller = CALLERS.get(credentials.token)
        if caller is None or credentials.claimed_cluster != caller.cluster:
            raise callers.CallerRefused("the token proves nothing")
        return caller


@pytest.fixture
async def streams(discovery):
    discovery.authenticator = Authenticator()
    service = ads.Service(discovery)
    desk = debugging.Desk(
        FakeReports(), own_cluster=C1, system_namespace="istio-system", at_once=1000
    )
    service.asides = debugstreams.Asides(desk, pod="istiod-1")
    server = grpc.aio.server(options=listening.OPTIONS)
    server.add_generic_rpc_handlers((service.handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield functools.partial(asked, channel), functools.partial(refusal, channel)
    await server.stop(None)


@pytest.fixture
def asking(streams):
    return streams[0]


@pytest.fixture
def refusing(streams):
    """Before anything is read: who writes on a stream that is ending may see another status."""
    return streams[1]


def called(channel, *, token, cluster):
    metadata = [("authorization", f"Bearer {token}")] if token else []
    metadata += [("clusterid", cluster)] if cluster else []
    return channel.stream_stream(f"/{ads.SERVICE}/StreamAggregatedResources")(metadata=metadata)


async def refusal(channel, *, token, cluster):
    """Return the status with which a stream ends on which nobody asks anything."""
    call = called(channel, token=token, cluster=cluster)
    return await asyncio.wait_for(call.code(), pace.patience(5))


async def asked(channel, type_url, *names, token="admin", cluster=""):
    """Ask once; return the answer, or the status with which the stream ended."""
    call = called(channel, token=token, cluster=cluster)
    # The first request of this client names a time as the nonce that it answers.
    request = discovery_pb2.DiscoveryRequest(
        type_url=type_url,
        resource_names=names,
        node=base_pb2.Node(id=NODE),
        response_nonce="2026-11-21 06:00:00.1 +0000 UTC",
    )
    with contextlib.suppress(grpc.aio.AioRpcError):
        await call.write(request.SerializeToString())
        content = await asyncio.wait_for(call.read(), pace.patience(5))
        if content is not grpc.aio.EOF:
            call.cancel()
            return discovery_pb2.DiscoveryResponse.FromString(content)
    return await call.code()


async def test_proxy_status_hears_of_every_proxy_and_who_it_was_that_answered(asking):
    answer = await asking("istio.io/debug/syncz")

    [resource] = answer.resources
    config = csds_pb2.ClientConfig()
    assert resource.Unpack(config)
    assert config.node.id == "a.shop"
    assert config.node.metadata["CLUSTER_ID"] == "c1"
    states = {one.WhichOneof("per_xds_config"): one.status for one in config.xds_config}
    assert states == {
        "cluster_config": csds_pb2.SYNCED,
        "listener_config": csds_pb2.STALE,
        "route_config": csds_pb2.NOT_SENT,
        "endpoint_config": csds_pb2.SYNCED,
    }
    assert [one.config_status for one in config.generic_xds_configs] == [csds_pb2.SYNCED]
    said = json.loads(answer.control_plane.identifier)
    assert (said["Component"], said["ID"]) == ("istiod", "istiod-1")


async def test_proxy_status_of_one_proxy_gets_the_sections_of_its_dump(asking):
    answer = await asking("istio.io/debug/config_dump", "a.shop")

    assert [one.type_url for one in answer.resources] == [DUMP["configs"][0]["@type"]]
    assert list((await asking("istio.io/debug/config_dump", "z.shop")).resources) == []


async def test_internal_debug_gets_the_page_as_text(asking):
    [resource] = (await asking("istio.io/debug", "clusterz")).resources
    [absent] = (await asking("istio.io/debug", "config_dump?proxyID=z.shop")).resources

    assert resource.type_url == "istio.io/debug"
    assert json.loads(resource.value) == {"page": "clusterz"}
    assert absent.value.decode() == debugging.NOT_CONNECTED


async def test_connections_are_told_as_nodes(asking):
    [resource] = (await asking("istio.io/connections")).resources
    node = base_pb2.Node()

    assert resource.Unpack(node)
    assert node.id == "a.shop-1"


OPEN = {"config_dump", "edsz", "ndsz"}
TYPES = [
    *(("istio.io/debug", f"{name}?proxyID=a.shop") for name in debugging.OF_PROXY),
    *(("istio.io/debug", name) for name in (*debugging.PAGES, "list", "pprof", "../syncz")),
    ("istio.io/debug/syncz", ""),
    ("istio.io/debug/registryz", ""),
    ("istio.io/debug/config_dump", "a.shop"),
    ("istio.io/connect", ""),
    ("istio.io/connections", ""),
]


@pytest.mark.parametrize(("type_url", "name"), TYPES)
async def test_each_caller_sees_through_streams_what_it_sees_elsewhere(
    asking, refusing, type_url, name
):
    names = [name] if name else []
    page = (name if type_url == "istio.io/debug" else type_url.rpartition("/")[2]).partition("?")[0]

    assert not isinstance(await asking(type_url, *names), grpc.StatusCode)
    mine = await asking(type_url, *names, token="shop", cluster="c1")
    assert (mine is grpc.StatusCode.PERMISSION_DENIED) == (page not in OPEN)
    for token, cluster in (("", ""), ("forged", ""), ("admin", "c2"), ("remote", "")):
        status = await refusing(token=token, cluster=cluster)
        assert status is grpc.StatusCode.UNAUTHENTICATED, (token, cluster)


async def test_a_remote_system_namespace_sees_no_page_about_the_mesh(asking):
    status = await asking("istio.io/debug/syncz", token="remote", cluster="c2")

    assert status is grpc.StatusCode.PERMISSION_DENIED


async def test_a_proxy_that_names_no_cluster_is_judged_as_before(asking):
    """Only questions may leave the cluster out; the authenticator here refuses it for others."""
    status = await asking("type.googleapis.com/envoy.config.cluster.v3.Cluster", token="shop")

    assert status is grpc.StatusCode.UNAUTHENTICATED
