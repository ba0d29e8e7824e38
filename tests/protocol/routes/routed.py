"""One real Envoy with a listener for each VirtualService, and servers that tell what reached them.

Each listener and its routes are those that the product builds for a client's sidecar; only where
clusters lead is replaced, by servers that answer with their own name and the request they got.
"""

import contextlib
import http.client
import http.server
import json
import socket
import subprocess
import threading
from dataclasses import dataclass

from isthmus.node import bootstrap as node_bootstrap
from isthmus.resources import snapshot
from isthmus.testing import builders, envoys, pace

SERVICES = ("web", "other")
PORT = 80


def told(spec):
    """Return the listener and the clusters' names for a client under a VirtualService."""
    mesh = builders.Mesh()
    cluster = mesh.cluster("c", network="n")
    for number, name in enumerate(SERVICES, 1):
        cluster.service(name, ready=[f"10.1.0.{number}"], ports={"http": PORT})
    client = cluster.pod("client")
    for name, delegate in spec.get("delegates", {}).items():
        mesh.virtual_service(name, delegate)
    mesh.virtual_service("it", {"hosts": ["web"], "http": spec["http"]})
    seen = mesh.snapshot_of(client)
    routes = envoys.as_json(envoys.decoded(seen.of(snapshot.ROUTES)[str(PORT)]))
    listener = envoys.as_json(envoys.decoded(seen.of(snapshot.LISTENERS)[f"0.0.0.0_{PORT}"]))
    manager = listener["filter_chains"][0]["filters"][0]
    config = {key: value for key, value in manager["typed_config"].items() if key != "rds"}
    return {**manager, "typed_config": {**config, "route_config": routes}}


@dataclass(frozen=True)
class Answer:
    """What a client got; `seen` is the request as a server saw it."""

    status: int
    headers: dict
    body: str

    @property
    def seen(self):
        return json.loads(self.body)

    @property
    def server(self):
        return self.seen["server"]


class Server(http.server.ThreadingHTTPServer):
    """Answers with its name and the request, after as many errors as it was asked for."""

    daemon_threads = True

    def __init__(self, name):
        super().__init__(("127.0.0.1", 0), Echo)
        self.name = name
        self.paths = []
        self.heard = threading.Condition()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def close(self):
        self.shutdown()
        self.server_close()

    def was_asked_for(self, path, *, limit_s=5.0):
        with self.heard:
            return self.heard.wait_for(lambda: path in self.paths, limit_s)


class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        with self.server.heard:
            self.server.paths.append(self.path)
            self.server.heard.notify_all()
            times = self.server.paths.count(self.path)
        failing = int(self.headers.get("x-fail", "0"))
        lines = {name.lower(): value for name, value in self.headers.items()}
        body = json.dumps(
            {"server": self.server.name, "path": self.path, "headers": lines, "times": times}
        ).encode()
        self.send_response(503 if times <= failing else 200)
        self.send_header("content-length", str(len(body)))
        self.send_header("x-served-by", self.server.name)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_OPTIONS = do_GET  # noqa: N815

    def log_message(self, *_):
        pass


class Routed:
    """A running Envoy; `port` says where a named VirtualService holds."""

    def __init__(self, directory, specs):
        self.servers = {name: Server(name) for name in SERVICES}
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in specs]
            for one in sockets:
                one.bind(("127.0.0.1", 0))
            self.port = {
                name: one.getsockname()[1] for name, one in zip(specs, sockets, strict=True)
            }
        listeners = [
            {
                "name": f"l{self.port[name]}",
                "address": place(self.port[name]),
                "filter_chains": [{"filters": [told(spec)]}],
            }
            for name, spec in specs.items()
        ]
        clusters = [
            {
                "name": f"outbound|{PORT}||{name}.default.svc.cluster.local",
                "type": "STATIC",
                "load_assignment": {
                    "cluster_name": name,
                    "endpoints": [
                        {"lb_endpoints": [{"endpoint": {"address": place(server.server_port)}}]}
                    ],
                },
            }
            for name, server in self.servers.items()
        ]
        path = directory / "bootstrap.json"
        path.write_text(
            json.dumps(
                {
                    "node": {"id": "a", "cluster": "b"},
                    "layered_runtime": {"layers": [node_bootstrap.RUNTIME]},
                    "static_resources": {
                        "listeners": listeners,
                        "clusters": [*clusters, {"name": "BlackHoleCluster", "type": "STATIC"}],
                    },
                }
            )
        )
        self._log = directory / "log"
        command = [str(envoys.binary()), "-c", str(path), "-l", "info", "--disable-hot-restart"]
        self._process = subprocess.Popen(
            [*command, "--concurrency", "1", "--log-path", str(self._log)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def is_up(self):
        assert self._process.poll() is None, self._log.read_text()[-3000:]
        return self._log.exists() and "starting main dispatch loop" in self._log.read_text()

    def get(self, name, path="/", *, method="GET", host="web", **headers):
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.port[name], timeout=pace.patience(10)
        )
        with contextlib.closing(connection):
            lines = {key.replace("_", "-"): value for key, value in headers.items()}
            connection.request(method, path, headers={"host": host, **lines})
            got = connection.getresponse()
            return Answer(
                got.status,
                {key.lower(): value for key, value in got.getheaders()},
                got.read().decode(),
            )

    def close(self):
        self._process.terminate()
        self._process.wait(10)
        for server in self.servers.values():
            server.close()


def place(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
