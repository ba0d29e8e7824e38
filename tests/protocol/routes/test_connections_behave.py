"""Where a VirtualService sends connections that carry no requests, and TLS by the name it asks for.

Real Envoy listeners, as the product builds them for a sidecar and for a gateway; only where clusters
lead is replaced, by servers that say their name to whoever sends something first.
"""

import collections
import contextlib
import json
import socket
import socketserver
import ssl
import subprocess
import threading
import time

import pytest

from isthmus.resources import snapshot
from isthmus.testing import builders, envoys, pace

SERVICES = ("raw", "other", "secure")
LIMIT_S = pace.patience(20.0)


def to(name, **more):
    return {"destination": {"host": name}, **more}


def mesh_with(**routes):
    mesh = builders.Mesh()
    cluster = mesh.cluster("c", network="n")
    cluster.service("raw", ready=["10.1.0.1"], ports={"tcp": 9000})
    cluster.service("other", ready=["10.1.0.2"], ports={"tcp": 9000})
    cluster.service("secure", ready=["10.1.0.3"], ports={"tls": 9000})
    for host, spec in routes.items():
        mesh.virtual_service(host, {"hosts": [host], **spec})
    return mesh


def own_listener(mesh, host):
    """Return the listener at a service's address, for a client."""
    seen = mesh.snapshot_of(mesh.proxy("c/client").pod)
    # Addresses are given in the order in which services are made.
    name = f"10.96.0.{1 + SERVICES.index(host)}_9000"
    return envoys.as_json(envoys.decoded(seen.of(snapshot.LISTENERS)[name]))


SPLIT = [to("raw", weight=80), to("other", weight=20)]
BY_NAME = [
    {"match": [{"sniHosts": ["a.example.com", "*.b.com"]}], "route": [to("other")]},
    {
        "match": [{"sniHosts": ["half.com"]}],
        "route": [to("other", weight=50), to("raw", weight=50)],
    },
]


def in_range(subnet):
    return {"match": [{"destinationSubnets": [subnet]}], "route": [to("other")]}


class Greeting(socketserver.BaseRequestHandler):
    def handle(self):
        if self.request.recv(4096):
            self.request.sendall(self.server.name.encode())


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, name):
        super().__init__(("127.0.0.1", 0), Greeting)
        self.name = name
        threading.Thread(target=self.serve_forever, daemon=True).start()


def place(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


@pytest.fixture(scope="module")
def ports(tmp_path_factory):
    """Return where each listener is reached."""
    listeners = {
        "plain": own_listener(mesh_with(), "raw"),
        "split": own_listener(mesh_with(raw={"tcp": [{"route": SPLIT}]}), "raw"),
        "elsewhere": own_listener(
            mesh_with(raw={"tcp": [{"match": [{"port": 1}], "route": [to("other")]}]}), "raw"
        ),
        "in range": own_listener(mesh_with(raw={"tcp": [in_range("10.96.0.0/16")]}), "raw"),
        "out of range": own_listener(mesh_with(raw={"tcp": [in_range("192.0.2.0/24")]}), "raw"),
        "by name": own_listener(mesh_with(secure={"tls": BY_NAME}), "secure"),
    }
    with contextlib.ExitStack() as stack:
        free = [stack.enter_context(socket.socket()) for _ in listeners]
        for one in free:
            one.bind(("127.0.0.1", 0))
        numbers = {name: one.getsockname()[1] for name, one in zip(listeners, free, strict=True)}
    for name, listener in listeners.items():
        listener["address"] = place(numbers[name])
        listener["name"] = name
        del listener["bind_to_port"]
    with contextlib.ExitStack() as stack:
        servers = {name: stack.enter_context(Server(name)) for name in SERVICES}
        for server in servers.values():
            stack.callback(server.shutdown)
        folder = tmp_path_factory.mktemp("connections")
        process = start(folder, listeners.values(), servers)
        stack.callback(process.wait, 10)
        stack.callback(process.terminate)
        until_listening(folder / "log", process)
        yield numbers


def start(folder, listeners, servers):
    clusters = [
        {
            "name": f"outbound|9000||{name}.default.svc.cluster.local",
            "type": "STATIC",
            "load_assignment": {
                "cluster_name": name,
                "endpoints": [
                    {"lb_endpoints": [{"endpoint": {"address": place(server.server_address[1])}}]}
                ],
            },
        }
        for name, server in servers.items()
    ]
    static = {"listeners": list(listeners), "clusters": clusters}
    path = folder / "bootstrap.json"
    path.write_text(json.dumps({"node": {"id": "a", "cluster": "b"}, "static_resources": static}))
    command = [str(envoys.binary()), "-c", str(path), "-l", "info", "--disable-hot-restart"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    more = ["--concurrency", "1", "--log-path", str(folder / "log")]
    return subprocess.Popen([*command, *more], **quiet)


def until_listening(log, process):
    until = time.monotonic() + LIMIT_S
    while not (log.exists() and "starting main dispatch loop" in log.read_text()):
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < until
        time.sleep(0.05)


def hello(name):
    """Return the first bytes of TLS that asks for a name."""
    context = ssl.create_default_context()
    sent = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return sent.read()


def answered_by(port, sent=b"hello"):
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(sent)
        return connection.recv(100).decode()


def test_connections_go_to_their_own_service(ports):
    assert answered_by(ports["plain"]) == "raw"


def test_connections_are_split_by_weight(ports):
    counted = collections.Counter(answered_by(ports["split"]) for _ in range(400))

    assert set(counted) == {"raw", "other"}
    # 80 is expected, with a standard deviation of 8.
    assert 45 <= counted["other"] <= 115


def test_a_route_for_another_port_does_not_count(ports):
    assert answered_by(ports["elsewhere"]) == "raw"


def test_a_route_for_a_range_counts_where_the_service_is_in_it(ports):
    assert answered_by(ports["in range"]) == "other"
    assert answered_by(ports["out of range"]) == "raw"


@pytest.mark.parametrize(
    ("name", "server"),
    [("a.example.com", "other"), ("x.b.com", "other"), ("c.example.com", "secure")],
)
def test_tls_goes_where_the_name_that_it_asks_for_leads(ports, name, server):
    assert answered_by(ports["by name"], hello(name)) == server


def test_tls_is_split_by_weight(ports):
    counted = {answered_by(ports["by name"], hello("half.com")) for _ in range(40)}

    assert counted == {"raw", "other"}


def test_what_is_no_tls_goes_to_its_own_service(ports):
    assert answered_by(ports["by name"], b"not TLS at all\n") == "secure"
