import asyncio
import contextlib
import json
import shutil
import struct

import aiohttp
import kubernetes_asyncio
import pytest
import yaml
from kubernetes_asyncio import stream

from fakes.lab_cluster import pod, service
from isthmus.lab.apiserver import api as apis
from isthmus.lab.apiserver import pki, spdy, streams
from isthmus.testing import pace

_POD = "/api/v1/namespaces/default/pods/one"
_KUBECTL = shutil.which("kubectl")


@pytest.fixture
async def web_page():
    """A server in the pod: answers every connection with what it said, and who."""

    async def answer(reader, writer):
        with contextlib.suppress(ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            body = b"hello " + head.split()[1]
            length = str(len(body)).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: " + length + b"\r\n\r\n" + body)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture
async def session(front):
    async with aiohttp.ClientSession(
        front.url, connector=aiohttp.TCPConnector(ssl=front.tls(front.authority.admin))
    ) as found:
        yield found


@pytest.fixture
def kubeconfig(front, tmp_path):
    path = tmp_path / "kubeconfig"
    path.write_text(pki.kubeconfig(front.authority, name="c1", server=front.url))
    return path


async def _kubectl(kubeconfig, *arguments, stdin=b""):
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        _KUBECTL, f"--kubeconfig={kubeconfig}", *arguments, stdin=pipe, stdout=pipe, stderr=pipe
    )
    out, err = await asyncio.wait_for(process.communicate(stdin), pace.patience(20))
    return process.returncode, out.decode(), err.decode()


async def _frames(socket):
    found = {}
    async for message in socket:
        channel, content = message.data[0], message.data[1:]
        found[channel] = found.get(channel, b"") + content
    return found


async def test_exec_carries_input_output_errors_and_the_exit_status(session):
    argv = ["sh", "-c", "cat; echo oops >&2; exit 3"]
    query = [("command", each) for each in argv]
    query += [("stdin", "true"), ("stdout", "true"), ("stderr", "true")]
    protocols = ("v5.channel.k8s.io",)
    async with session.ws_connect(f"{_POD}/exec", params=query, protocols=protocols) as socket:
        await socket.send_bytes(b"\x00in")
        await socket.send_bytes(b"\xff\x00")
        found = await _frames(socket)

    assert socket.protocol == "v5.channel.k8s.io"
    assert (found[1], found[2]) == (b"in", b"oops\n")
    status = json.loads(found[3])
    assert status["reason"] == "NonZeroExitCode"
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]


async def test_exec_of_an_unknown_program_says_so(session):
    protocols = ("v4.channel.k8s.io",)
    query = {"command": "/no/such/program"}
    async with session.ws_connect(f"{_POD}/exec", params=query, protocols=protocols) as socket:
        found = await _frames(socket)

    assert json.loads(found[3])["status"] == "Failure"
    assert "/no/such/program" in json.loads(found[3])["message"]


async def test_exec_without_a_websocket_is_refused(session):
    async with session.post(f"{_POD}/exec", params={"command": "true"}) as answer:
        assert answer.status == 400
        assert (await answer.json())["message"] == "Upgrade request required"


async def test_the_python_client_runs_programs(front, kubeconfig):
    configuration = kubernetes_asyncio.client.Configuration()
    await kubernetes_asyncio.config.load_kube_config(
        str(kubeconfig), client_configuration=configuration
    )
    async with stream.WsApiClient(configuration) as client:
        core = kubernetes_asyncio.client.CoreV1Api(client)
        answer = await core.connect_get_namespaced_pod_exec(
            "one", "default", command=["echo", "hi"], stdout=True, stderr=True, stdin=False
        )

    assert answer == "hi\n"


async def test_logs_pass_on_what_was_asked(front, session):
    front.runtime.logs_of["one", "main"] = [b"a\n", b"b\n"]
    query = {"tailLines": "2", "timestamps": "true", "sinceSeconds": "5", "limitBytes": "3"}

    async with session.get(f"{_POD}/log", params=query) as answer:
        assert await answer.text() == "a\nb"

    [asked] = front.runtime.asked
    assert asked == {
        "container": "main",
        "follow": False,
        "tail": 2,
        "previous": False,
        "since_s": 5,
        "timestamps": True,
    }


async def test_logs_of_what_has_not_started_are_a_400(session):
    async with session.get(f"{_POD}/log") as answer:
        assert answer.status == 400
        assert (
            'container "main" in pod "one" is waiting to start' in (await answer.json())["message"]
        )


def test_a_pod_with_several_containers_needs_a_name():
    found = pod(containers=[{"name": "a"}, {"name": "b"}], initContainers=[{"name": "i"}])

    with pytest.raises(apis.ApiError) as caught:
        streams.container_of(found, "")
    assert caught.value.message == (
        "a container name must be specified for pod one, choose one of: [a b]"
        " or one of the init containers: [i]"
    )
    with pytest.raises(apis.ApiError, match="container c is not valid for pod one"):
        streams.container_of(found, "c")
    assert streams.container_of(found, "i") == "i"


async def test_forwarding_by_channels_names_the_port_first(session, web_page):
    url = f"{_POD}/portforward?ports={web_page}"
    async with session.ws_connect(url, protocols=("v4.channel.k8s.io",)) as socket:
        await socket.send_bytes(b"\x00GET /x HTTP/1.1\r\n\r\n")
        found = await _frames(socket)

    port = struct.pack("<H", web_page)
    assert found[1] == port
    assert found[0].startswith(port + b"HTTP/1.1 200 OK")
    assert found[0].endswith(b"hello /x")


class _Spdy:
    """The client's side of a tunnel."""

    def __init__(self, socket):
        self._socket = socket
        self._frames = spdy.Connection()
        self.heard = []

    async def send(self, *frames):
        for frame in frames:
            await self._socket.send_bytes(self._frames.send(frame))

    async def until(self, wanted):
        async with asyncio.timeout(pace.patience(5)):
            while wanted not in self.heard:
                message = await self._socket.receive_bytes()
                self.heard += self._frames.receive(message)

    async def connect(self, first, *, port):
        common = {"port": str(port), "requestid": str(first)}
        await self.send(
            spdy.Opened(first, {"streamtype": "error", **common}),
            spdy.Data(first, b"", is_last=True),
            spdy.Opened(first + 2, {"streamtype": "data", **common}),
        )

    def content(self, stream):
        return b"".join(
            f.content for f in self.heard if isinstance(f, spdy.Data) and f.stream == stream
        )


@pytest.fixture
async def tunnel(session):
    protocols = ("SPDY/3.1+portforward.k8s.io",)
    async with session.ws_connect(f"{_POD}/portforward", protocols=protocols) as socket:
        yield _Spdy(socket)


async def test_a_tunnel_carries_several_connections_at_once(tunnel, web_page):
    for first in (1, 5):
        await tunnel.connect(first, port=web_page)
    for number in (7, 3):
        await tunnel.send(spdy.Data(number, f"GET /{number} HTTP/1.1\r\n\r\n".encode()))
    for number in (3, 7):
        await tunnel.until(spdy.Data(number, b"", is_last=True))

    assert tunnel.content(3).endswith(b"hello /3")
    assert tunnel.content(7).endswith(b"hello /7")
    assert tunnel.content(1) == b""


async def test_a_refused_port_is_told_on_the_error_stream(tunnel, unused_tcp_port):
    await tunnel.connect(1, port=unused_tcp_port)
    await tunnel.until(spdy.Data(1, b"", is_last=True))

    said = tunnel.content(1).decode()
    assert said.startswith(f"error forwarding port {unused_tcp_port} to pod one")
    assert "connection refused" in said


async def test_a_tunnel_answers_pings_and_refuses_unknown_streams(tunnel):
    await tunnel.send(spdy.Ping(7), spdy.Opened(1, {"streamtype": "else"}))

    await tunnel.until(spdy.Ping(7))
    await tunnel.until(spdy.Reset(1, spdy.REFUSED_STREAM))


async def test_a_pod_is_proxied(session, web_page):
    async with session.get(f"{_POD}:{web_page}/proxy/deep/page?q=1") as answer:
        assert await answer.text() == "hello /deep/page?q=1"


async def test_a_service_is_proxied_to_a_pod_of_it(front, session, web_page):
    ports = [{"name": "http", "port": 80, "targetPort": web_page}]
    await front.api.create("services", service("one", ports=ports))
    await front.until(
        "endpointslices.discovery.k8s.io",
        lambda s: s["metadata"]["name"].startswith("one-") and s.get("endpoints"),
    )

    async with session.get("/api/v1/namespaces/default/services/one:http/proxy/x") as answer:
        assert await answer.text() == "hello /x"


async def test_nothing_behind_a_proxy_is_a_503(session, unused_tcp_port):
    async with session.get(f"{_POD}:{unused_tcp_port}/proxy/") as answer:
        assert answer.status == 503
        assert "error trying to reach service" in (await answer.json())["message"]


@pytest.mark.skipif(_KUBECTL is None, reason="there is no kubectl here")
async def test_kubectl_runs_programs_and_passes_their_status(kubeconfig):
    code, out, _ = await _kubectl(
        kubeconfig, "exec", "-i", "one", "--", "sh", "-c", "cat; exit 4", stdin=b"in"
    )

    assert (code, out) == (4, "in")


@pytest.mark.skipif(_KUBECTL is None, reason="there is no kubectl here")
async def test_kubectl_forwards_ports(kubeconfig, web_page):
    pipe = asyncio.subprocess.PIPE
    arguments = ("port-forward", "pod/one", f":{web_page}")
    process = await asyncio.create_subprocess_exec(
        _KUBECTL, f"--kubeconfig={kubeconfig}", *arguments, stdout=pipe, stderr=pipe
    )
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), pace.patience(20))).decode()
        port = int(line.split(":")[1].split(" ")[0])
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
            for path in ("/a", "/b"):
                async with client.get(path) as answer:
                    assert await answer.text() == f"hello {path}"
    finally:
        process.terminate()
        await process.communicate()


@pytest.mark.skipif(_KUBECTL is None, reason="there is no kubectl here")
async def test_kubectl_shows_logs(front, kubeconfig):
    front.runtime.logs_of["one", "main"] = [b"a\n", b"b\n"]

    assert await _kubectl(kubeconfig, "logs", "one") == (0, "a\nb\n", "")


def test_a_kubeconfig_has_one_context(front):
    text = pki.kubeconfig(front.authority, name="c1", server="https://127.0.0.1:1")

    assert yaml.safe_load(text)["current-context"] == "c1"
