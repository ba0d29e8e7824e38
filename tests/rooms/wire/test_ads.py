"""Discovery streams over real sockets, spoken by a real gRPC client."""

import asyncio
import datetime

import grpc
import pytest
from envoy.service.discovery.v3 import discovery_pb2

from fakes.discovery_streams import GOOD, NODE, Stream
from isthmus.base import clock, errors
from isthmus.resources.snapshot import (
    ADDRESSES,
    AUTHORIZATIONS,
    CLUSTERS,
    ENDPOINTS,
    LISTENERS,
)
from isthmus.testing import certificates, pace
from isthmus.wire import ads, encoding, listening, nodes, streams, tls
from isthmus.xds.messages import Refused


async def test_a_proxy_gets_what_it_should_have_and_then_each_change(serving, discovery):
    discovery.change({CLUSTERS: {"a": "1"}})
    async with serving() as (_, channel, _):
        stream = Stream(channel)
        await stream.say(CLUSTERS)
        first = await stream.hear()
        await stream.say(CLUSTERS, nonce=first.nonce)
        discovery.change({CLUSTERS: {"a": "1", "b": "1"}})
        second = await stream.hear()
        stream.call.cancel()

    assert [(each.name, each.resource.value) for each in first.resources] == [("a", b"1")]
    assert [each.name for each in second.resources] == ["b"]


async def test_a_proxy_is_led_to_new_clusters_when_it_has_answered_that_it_has_them(
    serving, discovery
):
    discovery.change({CLUSTERS: {"a": "1"}, ENDPOINTS: {"a": "1"}, LISTENERS: {"l": "1"}})
    async with serving() as (_, channel, _):
        stream = Stream(channel)
        await stream.say(LISTENERS)
        await stream.hear()
        await stream.say(CLUSTERS)
        clusters = await stream.hear()
        discovery.change({**discovery.world, LISTENERS: {"l": "2"}, AUTHORIZATIONS: {"p": "1"}})
        await stream.say(AUTHORIZATIONS)
        second = await stream.hear()
        await stream.say(CLUSTERS, nonce=clusters.nonce)
        third = await stream.hear()
        stream.call.cancel()

    assert (second.type_url, third.type_url) == (AUTHORIZATIONS, LISTENERS)
    assert third.resources[0].resource.value == b"2"


async def test_both_forms_are_served(serving, discovery):
    discovery.change({CLUSTERS: {"a": "1"}})
    async with serving() as (_, channel, _):
        stream = Stream(channel, delta=False)
        await stream.say(CLUSTERS)
        answer = await stream.hear()
        stream.call.cancel()

    assert answer.type_url == CLUSTERS
    assert [each.value for each in answer.resources] == [b"1"]


async def test_a_caller_is_proven_before_its_first_message_is_read(serving):
    async with serving() as (_, channel, _):
        error = await Stream(channel, metadata=()).ended()

    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert error.details() == "authentication failure"


async def test_a_judge_that_cannot_be_reached_asks_the_caller_to_come_again(serving, discovery):
    class Away:
        async def authenticate(self, _credentials):
            raise errors.IsthmusError("cannot reach cluster `c1`")

    discovery.authenticator = Away()
    async with serving() as (_, channel, _):
        error = await Stream(channel).ended()

    assert error.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("node", "metadata", "code"),
    [
        ("", {}, grpc.StatusCode.INVALID_ARGUMENT),
        ("sidecar~10.0.0.1~x", {}, grpc.StatusCode.INVALID_ARGUMENT),
        (NODE.replace("default", "other"), {}, grpc.StatusCode.PERMISSION_DENIED),
        (NODE.replace("sleep-1", "sleep-2"), {}, grpc.StatusCode.PERMISSION_DENIED),
        (NODE, {"CLUSTER_ID": "c2"}, grpc.StatusCode.PERMISSION_DENIED),
        (NODE, {"SERVICE_ACCOUNT": "admin"}, grpc.StatusCode.PERMISSION_DENIED),
        (NODE, {"LABELS": {"x": "y" * 70_000}}, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_a_node_must_agree_with_the_proof(serving, node, metadata, code):
    async with serving() as (_, channel, _):
        stream = Stream(channel)
        await stream.say(CLUSTERS, node=node, metadata=metadata)
        error = await stream.ended()

    assert error.code() is code


async def test_a_proxy_that_may_have_nothing_is_refused(serving, discovery):
    discovery.problem = nodes.NodeRefused("unknown revision", status="PERMISSION_DENIED")
    async with serving() as (_, channel, _):
        stream = Stream(channel)
        await stream.say(CLUSTERS)
        error = await stream.ended()

    assert error.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_proxy_that_comes_too_early_is_told_to_come_again(serving, discovery):
    discovery.problem = ads.NotReady("clusters are still being read")
    async with serving() as (_, channel, _):
        stream = Stream(channel)
        await stream.say(CLUSTERS)
        error = await stream.ended()

    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "not ready to serve discovery information" in error.details()


async def test_a_proxy_that_comes_early_is_told_once_the_mesh_is_known(serving, discovery):
    known, asked = [], asyncio.Event()

    def is_ready():
        asked.set()
        return bool(known)

    async with serving() as (service, channel, _):
        service.patience.is_ready = is_ready
        stream = Stream(channel)
        await stream.say(CLUSTERS)
        await asyncio.wait_for(asked.wait(), pace.patience(5))
        assert not discovery.watches
        discovery.change({CLUSTERS: {"a": "1"}})
        known.append(True)
        told = await stream.hear()
        stream.call.cancel()

    assert [one.name for one in told.resources] == ["a"]


async def test_a_proxy_that_has_waited_long_enough_is_told_to_come_again(serving, discovery):
    discovery.problem = ads.NotReady("clusters are still being read")
    async with serving(ready_s=0.01) as (service, channel, _):
        service.patience.is_ready = lambda: False
        stream = Stream(channel)
        await stream.say(CLUSTERS)
        error = await stream.ended()

    assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_silent_client_is_sent_away(serving):
    async with serving(first_message_s=0.05) as (_, channel, _):
        error = await Stream(channel).ended()

    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_client_that_leaves_before_it_speaks_is_no_error(serving):
    async with serving() as (service, channel, _):
        stream = Stream(channel)
        await stream.call.done_writing()

        assert await stream.call.read() is grpc.aio.EOF
        assert service.statuses() == ()


@pytest.mark.parametrize("content", [b"\xff\xff", b"\x1a\x02\xff\xff"])
async def test_what_is_no_request_ends_the_stream(serving, content):
    async with serving() as (_, channel, _):
        stream = Stream(channel)
        await stream.call.write(content)
        error = await stream.ended()

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_later_message_that_is_no_request_ends_the_stream(serving):
    async with serving() as (_, channel, _):
        stream = Stream(channel)
        await stream.say(CLUSTERS)
        await stream.hear()
        await stream.call.write(b"\xff\xff")
        error = await stream.ended()

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("names", [["n" * 2_000], [""] * (encoding.MOST_NAMES + 1)])
async def test_names_are_bounded(serving, names):
    async with serving() as (_, channel, _):
        stream = Stream(channel)
        await stream.say(ENDPOINTS, *names)
        error = await stream.ended()

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_messages_are_bounded(serving):
    async with serving() as (_, channel, _):
        stream = Stream(channel)
        await stream.call.write(b"\x0a" * (encoding.MOST_BYTES + 1))
        error = await stream.ended()

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_who_comes_again_may_say_of_all_workloads_that_it_has_them(serving, discovery):
    discovery.change({ADDRESSES: {"here": "1"}})
    message = discovery_pb2.DeltaDiscoveryRequest(type_url=ADDRESSES)
    message.node.id = NODE
    for number in range(20_000):
        message.initial_resource_versions[f"cluster//Pod/namespace-of-pod/{number:064}"] = "1" * 12

    async with serving() as (_, channel, _):
        stream = Stream(channel)
        await stream.call.write(message.SerializeToString())
        said = await stream.hear()

    assert [one.name for one in said.resources] == ["here"]
    assert len(said.removed_resources) == 20_000


@pytest.mark.parametrize("asks_for_policies", [True, False])
async def test_a_node_proxy_hears_of_policies_before_the_workloads_that_name_them(
    serving, discovery, asks_for_policies
):
    discovery.change({ADDRESSES: {"workload": "1"}, AUTHORIZATIONS: {"policy": "1"}})
    types = [ADDRESSES, AUTHORIZATIONS] if asks_for_policies else [ADDRESSES]

    async with serving(together_s=5 if asks_for_policies else 0.01) as (_, channel, _):
        stream = Stream(channel)
        for type_url in types:
            await stream.say(type_url)
        heard = [(await stream.hear()).type_url for _ in types]

    assert heard == types[::-1]


async def test_an_illegal_request_ends_the_stream_and_forgets_the_proxy(serving, discovery):
    async with serving() as (service, channel, _):
        stream = Stream(channel)
        await stream.say(CLUSTERS)
        await stream.hear()
        await stream.say(CLUSTERS, error="refused without a nonce")
        error = await stream.ended()

        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert discovery.watches[0].closed.is_set()
        assert service.statuses() == ()


async def test_the_newest_streams_of_a_pod_win(serving):
    async with serving() as (service, channel, _):
        old, *newer = [Stream(channel) for _ in range(3)]
        for stream in (old, *newer):
            await stream.say(CLUSTERS)
            await stream.hear()
        error = await old.ended()

        assert error.code() is grpc.StatusCode.ABORTED
        assert [each.id for each in service.statuses()] == [
            "sleep-1.default-2",
            "sleep-1.default-3",
        ]
        for stream in newer:
            stream.call.cancel()


async def test_new_streams_are_bounded_in_number_per_second(serving):
    async with serving(streams_per_s=1) as (_, channel, _):
        first = Stream(channel)
        await first.say(CLUSTERS)
        await first.hear()
        error = await Stream(channel).ended()
        first.call.cancel()

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_one_pod_cannot_use_up_what_all_may_open(serving):
    async with serving(pod_streams_per_s=1) as (service, channel, _):
        first = Stream(channel)
        await first.say(CLUSTERS)
        await first.hear()
        error = await Stream(channel).ended()
        assert error.details() == "too many new streams of one pod; come again"

        other = Stream(channel, metadata=(("authorization", "Bearer other"), GOOD[1]))
        await other.say(CLUSTERS, node=NODE.replace("sleep-1", "sleep-2"))
        await other.hear()
        service.clock.passed = 1.0
        again = Stream(channel)
        await again.say(CLUSTERS)
        await again.hear()
        for stream in (first, other, again):
            stream.call.cancel()


@pytest.mark.parametrize("first", [CLUSTERS, LISTENERS])
async def test_who_has_clusters_and_asks_for_no_endpoints_is_told_all_the_same(
    serving, discovery, first
):
    discovery.change({CLUSTERS: {"a": "2"}, LISTENERS: {"l": "1"}})
    has = {CLUSTERS: (("a", "1"),), LISTENERS: ()}
    async with serving() as (_, channel, _):
        stream = Stream(channel)
        await stream.say(first, has=has[first])
        told = set()
        if first == LISTENERS:
            told.add((await stream.hear()).type_url)
        [second] = {CLUSTERS, LISTENERS} - {first}
        await stream.say(second, has=has[second], node="")
        while len(told) < 2:
            told.add((await stream.hear()).type_url)
        stream.call.cancel()

    assert told == {CLUSTERS, LISTENERS}


async def test_an_old_stream_ends_so_that_proxies_spread(serving):
    async with serving(age_s=0.05) as (_, channel, _):
        stream = Stream(channel)
        await stream.say(CLUSTERS)
        error = await stream.ended()

    assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_stream_can_be_ended_by_the_control_plane(serving):
    async with serving() as (service, channel, _):
        stream = Stream(channel)
        await stream.say(CLUSTERS)
        await stream.hear()
        service.end(service.statuses()[0].id, reason="the cluster left the mesh")
        service.end("nobody-1", reason="the cluster left the mesh")
        error = await stream.ended()

    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert error.details() == "the cluster left the mesh"


async def test_a_refusal_is_reported_with_its_culprit_and_shown(serving, discovery):
    discovery.change({CLUSTERS: {"a": "1"}})
    async with serving() as (service, channel, _):
        stream = Stream(channel)
        await stream.say(CLUSTERS)
        offer = await stream.hear()
        await stream.say(CLUSTERS, nonce=offer.nonce, error="cluster a: no such filter")
        await stream.say(ENDPOINTS, "e")
        await stream.hear()
        [shown] = streams.syncz(service.statuses())
        stream.call.cancel()

    outcome = discovery.watches[0].reports.get_nowait().outcome
    assert isinstance(outcome, Refused)
    assert outcome.names == ("a",)
    assert shown["proxy"] == "sleep-1.default"
    assert shown["cluster_sent"] == offer.nonce
    assert shown["cluster_acked"] == ""
    assert shown["resources"][CLUSTERS]["lastError"] == "cluster a: no such filter"
    assert "endpoint_sent" in shown


async def test_a_refusal_is_shown_until_its_culprit_is_told_anew(serving, discovery):
    """The rest is offered again at once, and accepted: that mends nothing."""
    discovery.change({CLUSTERS: {"a": "1", "b": "1"}})
    async with serving() as (service, channel, _):
        stream = Stream(channel)
        await stream.say(CLUSTERS)
        offer = await stream.hear()
        await stream.say(CLUSTERS, nonce=offer.nonce, error="cluster a: no such filter")
        rest = await stream.hear()
        await stream.say(CLUSTERS, nonce=rest.nonce)
        await stream.say(ENDPOINTS, "e")
        await stream.hear()
        [during] = streams.syncz(service.statuses())
        discovery.change({CLUSTERS: {"a": "2", "b": "1"}})
        await stream.hear()
        [after] = streams.syncz(service.statuses())
        stream.call.cancel()

    assert during["cluster_sent"] == during["cluster_acked"] == rest.nonce
    assert during["resources"][CLUSTERS]["lastError"] == "cluster a: no such filter"
    assert during["resources"][CLUSTERS]["refused"] == ["a"]
    assert "lastError" not in after["resources"][CLUSTERS]


async def test_what_is_accepted_is_shown_as_accepted(serving, discovery):
    discovery.change({CLUSTERS: {"a": "1"}})
    async with serving() as (service, channel, _):
        stream = Stream(channel, delta=False)
        await stream.say(CLUSTERS)
        offer = await stream.hear()
        await stream.say(CLUSTERS, nonce=offer.nonce)
        await stream.say(ENDPOINTS, "e")
        await stream.hear()
        [status] = service.statuses()
        stream.call.cancel()

    held = status.types[CLUSTERS]
    assert held.sent == held.acked == offer.nonce
    assert isinstance(held.sent_at, datetime.datetime)
    assert streams.connections([status])["totalClients"] == 1


async def test_the_service_runs_over_tls(discovery):
    now = clock.SystemClock().now()
    signer = certificates.signer(now=now)
    serving = tls.Serving(tls.issue(signer, names=("istiod.istio-system.svc",), now=now))
    server, port = listening.listen(
        (ads.Service(discovery).handler(),),
        address="127.0.0.1:0",
        serving=serving,
    )
    credentials = grpc.ssl_channel_credentials(serving.certificate.roots_pem.encode())
    options = (("grpc.ssl_target_name_override", "istiod.istio-system.svc"),)
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
        stream = Stream(channel)
        await stream.say(CLUSTERS)
        answer = await stream.hear()
        stream.call.cancel()
    await server.stop(None)

    assert answer.type_url == CLUSTERS


async def test_a_version_that_nobody_runs_any_more_is_not_counted(serving):
    async with serving() as (service, channel, _):
        stream = Stream(channel)
        await stream.say(CLUSTERS, metadata={"ISTIO_VERSION": "1.30.3"})
        await stream.hear()
        assert service.counters.connected.values == {("1.30.3",): 1}
        service.end(service.statuses()[0].id, reason="enough")
        await stream.ended()

        assert service.counters.connected.values == {}
