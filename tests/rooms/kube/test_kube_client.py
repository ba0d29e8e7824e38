"""The client against a scriptable API server."""

import asyncio
import json

import pytest
from aiohttp import WSMsgType, web

from fakes import kube_server
from isthmus.kube import client, kinds, problems
from isthmus.testing import pace


class Instant:
    """Time that passes only when somebody waits."""

    def __init__(self):
        self.slept = []
        self.at = 0.0

    def monotonic(self):
        return self.at

    async def sleep(self, delay_s):
        self.slept.append(delay_s)
        self.at += delay_s
        await asyncio.sleep(0)


@pytest.fixture
async def server():
    async with kube_server.serving() as running:
        yield running


@pytest.fixture
def time():
    return Instant()


@pytest.fixture
async def reads(server, time):
    async with client.Client(server.access(), system_clock=time) as opened:
        yield opened


async def test_an_object_is_created_read_changed_and_deleted(server, reads):
    made = await reads.create(
        kinds.CONFIG_MAP,
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "a", "namespace": "n"},
            "data": {"x": "1"},
        },
    )
    await reads.update(kinds.CONFIG_MAP, {**made, "data": {"x": "2"}})
    await reads.patch(kinds.CONFIG_MAP, "a", {"data": {"y": "3"}}, namespace="n")

    found = await reads.get(kinds.CONFIG_MAP, "a", namespace="n")
    await reads.delete(kinds.CONFIG_MAP, "a", namespace="n")

    assert found["data"] == {"x": "2", "y": "3"}
    assert await reads.find(kinds.CONFIG_MAP, "a", namespace="n") is None


async def test_a_refusal_carries_the_servers_own_words(reads):
    with pytest.raises(problems.ApiError) as caught:
        await reads.get(kinds.SECRET, "nothing", namespace="n")

    assert caught.value.status == 404
    assert caught.value.reason == "NotFound"
    assert 'secrets "nothing" not found' in caught.value.happened
    assert "GET /api/v1/namespaces/n/secrets/nothing" in caught.value.detail


@pytest.mark.parametrize("text", [b"[" * 3000 + b"]" * 3000, b'"\xff"', b"{"])
async def test_an_answer_that_nobody_can_read_is_a_refusal(server, reads, text):
    server.verbatim["bad"] = text
    server.put(kinds.CONFIG_MAP, "a", "n", data={"x": "bad"})

    with pytest.raises(problems.ApiError) as caught:
        await reads.list_(kinds.CONFIG_MAP)

    assert "cannot be read" in caught.value.happened


async def test_a_write_over_a_newer_version_is_refused_as_a_conflict(server, reads):
    old = dict(server.put(kinds.CONFIG_MAP, "a", "n", data={"x": "1"}))
    old["metadata"] = dict(old["metadata"])
    server.put(kinds.CONFIG_MAP, "a", "n", data={"x": "2"})

    with pytest.raises(problems.ApiError) as caught:
        await reads.update(kinds.CONFIG_MAP, old)

    assert caught.value.is_conflict


async def test_lists_are_read_page_by_page(server, reads, monkeypatch):
    for number in range(1203):
        server.put(kinds.CONFIG_MAP, f"c{number}", "n")

    found = await reads.list_(kinds.CONFIG_MAP, namespace="n")

    assert len(found) == 1203
    assert server.count("GET") == 3
    assert found[0]["kind"] == "ConfigMap"


async def test_a_server_that_asks_us_to_wait_is_given_that_time(server, reads, time):
    server.put(kinds.CONFIG_MAP, "a", "n")
    server.faults.append(kube_server.failing("/api", 429, times=2, **{"Retry-After": "7"}))

    await reads.get(kinds.CONFIG_MAP, "a", namespace="n")

    assert time.slept == [7.0, 7.0]


async def test_a_server_that_never_stops_refusing_is_given_up_on(server, reads, time):
    server.faults.append(kube_server.failing("/api", 429, **{"Retry-After": "9999"}))

    with pytest.raises(problems.ApiError):
        await reads.get(kinds.CONFIG_MAP, "a", namespace="n")

    assert time.slept == [20.0] * 4


async def test_nothing_answers_means_unreachable_with_the_address(server, unused_tcp_port):
    gone = client.access.Access(
        server=f"http://127.0.0.1:{unused_tcp_port}", ca_pem="", name="cluster2"
    )

    async with client.Client(gone) as reads:
        with pytest.raises(problems.Unreachable) as caught:
            await reads.get(kinds.NAMESPACE, "default")

    assert caught.value.happened == "cannot reach cluster `cluster2`"
    assert f"127.0.0.1:{unused_tcp_port}" in caught.value.detail


async def test_a_redirect_is_not_followed(server, reads):
    async def elsewhere(request):
        return web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"})

    server.faults.append(elsewhere)

    with pytest.raises(problems.ApiError) as caught:
        await reads.get(kinds.NAMESPACE, "default")

    assert caught.value.status == 302


async def test_a_token_in_a_file_is_read_again(server, time, tmp_path):
    server.put(kinds.NAMESPACE, "default")
    file = tmp_path / "token"
    file.write_text("first\n")
    server.token = "first"

    async with client.Client(server.access(token_path=str(file)), system_clock=time) as reads:
        await reads.get(kinds.NAMESPACE, "default")
        file.write_text("second\n")
        server.token = "second"
        time.at += 60
        found = await reads.get(kinds.NAMESPACE, "default")

    assert found["metadata"]["name"] == "default"


async def test_a_watch_yields_each_event_once_as_a_line(server, reads):
    server.put(kinds.CONFIG_MAP, "a", "n")
    lines = []

    async def follow():
        async for line in reads.watch(kinds.CONFIG_MAP, resource_version="100"):
            lines.append(json.loads(line))
            if len(lines) == 2:
                return

    async with asyncio.timeout(pace.patience(5)), asyncio.TaskGroup() as group:
        group.create_task(follow())
        await kube_server.eventually(lambda: lines)
        server.put(kinds.CONFIG_MAP, "b", "n", data={"long": "x" * 3_000_000})

    assert [line["object"]["metadata"]["name"] for line in lines] == ["a", "b"]


async def test_a_kind_that_is_none_of_ours_is_found_by_asking(server, reads):
    async def discovery(request):
        if request.path != "/apis/example.com/v1":
            return None
        listed = [{"name": "widgets", "kind": "Widget", "namespaced": False}]
        return web.json_response({"resources": listed})

    server.faults.append(discovery)

    kind = await reads.kind_of({"apiVersion": "example.com/v1", "kind": "Widget"})

    assert kind == kinds.Kind("example.com", "v1", "widgets", "Widget", namespaced=False)


async def test_a_kind_that_nobody_serves_is_refused(reads):
    with pytest.raises(problems.KindUnknown):
        await reads.kind_of({"apiVersion": "example.com/v1", "kind": "Gadget"})


async def _run_command(request):
    """Play the container's side: echo what comes in, then end with status 3."""
    if not request.path.endswith("/exec"):
        return None
    stream = web.WebSocketResponse(protocols=("v5.channel.k8s.io", "v4.channel.k8s.io"))
    await stream.prepare(request)
    await stream.send_bytes(b"\1" + " ".join(request.query.getall("command")).encode())
    if request.query.get("stdin"):
        async for message in stream:
            if message.type is WSMsgType.BINARY and message.data[0] == 0:
                await stream.send_bytes(b"\1" + message.data[1:])
            elif message.data[:2] == b"\xff\0":
                break
    await stream.send_bytes(b"\2oops")
    status = {
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": "3"}]},
    }
    await stream.send_bytes(b"\3" + json.dumps(status).encode())
    await stream.close()
    return stream


async def test_a_command_gives_its_output_and_its_exit_status(server, reads):
    server.faults.append(_run_command)

    result = await reads.exec("n", "p", ["echo", "a b"], container="c")

    assert result == client.ExecResult(b"echo a b", b"oops", 3)
    assert server.queries[-1]["container"] == "c"


async def test_a_command_is_given_its_input(server, reads):
    server.faults.append(_run_command)

    result = await reads.exec("n", "p", ["cat"], stdin=b"hello")

    assert result.stdout == b"cathello"


async def test_a_command_in_a_missing_pod_is_refused(reads):
    with pytest.raises(problems.ApiError) as caught:
        await reads.exec("n", "gone", ["true"])

    assert caught.value.status == 404


async def test_a_closed_client_says_so(server):
    reads = client.Client(server.access())

    with pytest.raises(problems.Unreachable):
        await reads.get(kinds.NAMESPACE, "default")
