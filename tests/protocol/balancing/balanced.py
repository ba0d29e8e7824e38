"""A running Envoy that balances among servers on this machine, and what it says of itself."""

import contextlib
import http.client
import http.server
import json
import socket
import subprocess
import threading
import time
import urllib.request

from isthmus.mesh.localities import Locality
from isthmus.mesh.services import Protocol
from isthmus.resources.envoy import build
from isthmus.testing import envoys, pace
from isthmus.views import view

NAME = "outbound|80||web.default.svc.cluster.local"
LIMIT_S = pace.patience(20.0)


class Servers:
    """HTTP servers, each of which answers with its own name, and fails on demand."""

    def __init__(self, *names):
        self.failing, self.failure = set(), 500
        self.asked = dict.fromkeys(names, 0)
        self._servers = {name: self._start(name) for name in names}

    def port(self, name):
        return self._servers[name].server_address[1]

    def endpoint(self, name, **fields):
        return view.LbEndpoint("127.0.0.1", self.port(name), **{"weight": 1, **fields})

    def _start(self, name):
        servers = self

        class Answer(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1

            def do_GET(self):
                servers.asked[name] += 1
                body = name.encode()
                self.send_response(servers.failure if name in servers.failing else 200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        return server

    def close(self):
        for server in self._servers.values():
            server.shutdown()
            server.server_close()


class Envoy:
    """A real Envoy that was told of `resources`; its admin page answers for it."""

    def __init__(self, resources, directory):
        path = directory / "bootstrap.json"
        admin = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}}
        path.write_text(json.dumps(envoys.bootstrap(resources) | {"admin": admin}))
        self._admin = directory / "admin"
        command = [str(envoys.binary()), "-c", str(path), "--admin-address-path", str(self._admin)]
        self._process = subprocess.Popen(
            [*command, "--use-dynamic-base-id", "--concurrency", "1"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(self._answers)

    def _answers(self):
        """Whether it has begun; it may go on waiting for certificates, which none of this needs."""
        assert self._process.poll() is None, "Envoy has ended"
        with contextlib.suppress(OSError):
            return self._admin.exists() and self.page("server_info")
        return False

    def page(self, words):
        address = self._admin.read_text()
        with urllib.request.urlopen(f"http://{address}/{words}", timeout=LIMIT_S) as answer:
            return json.load(answer)

    def cluster(self, name=NAME):
        """Return what Envoy says of a cluster."""

        def found():
            statuses = self.page("clusters?format=json").get("cluster_statuses", ())
            return [one for one in statuses if one["name"] == name]

        [status] = until(found)
        return status

    def hosts(self, name=NAME):
        """Return priority and weight by address, as Envoy uses them."""
        return {
            one["address"]["socket_address"]["address"]: (one.get("priority", 0), one["weight"])
            for one in self.cluster(name).get("host_statuses", ())
        }

    def ejected(self, name=NAME):
        """Return the ports of endpoints that outlier detection has put off."""
        return {
            one["address"]["socket_address"]["port_value"]
            for one in self.cluster(name)["host_statuses"]
            if one["health_status"].get("failed_outlier_check")
        }

    def counted(self, name):
        """Return how often something has happened, in all clusters together."""
        found = self.page(f"stats?format=json&filter={name}")["stats"]
        return sum(one.get("value", 0) for one in found)

    def port(self):
        until(lambda: self.page("server_info")["state"] == "LIVE")
        [listener] = self.page("listeners?format=json")["listener_statuses"]
        return listener["local_address"]["socket_address"]["port_value"]

    def close(self):
        self._process.terminate()
        self._process.wait(LIMIT_S)


def listening(cluster, groups, *, key=None, has_retries=False):
    """Return a listener that leads to a cluster, which balances among groups of endpoints."""
    route = view.Route((view.RouteTarget(cluster.name),), has_retries=has_retries, key=key)
    slices = (
        cluster,
        view.EndpointsSlice(cluster.name, tuple(groups)),
        view.GatewayHttp(0, "http.80"),
        view.RouteSlice("http.80", (view.VirtualHost("web:80", ("*",), (route,)),)),
    )
    return [build.build(one) for one in slices]


def plain_cluster(**fields):
    return view.ClusterSlice(NAME, view.Discovery.EDS, protocol=Protocol.HTTP, **fields)


def group(*endpoints, priority=0, place=None):
    place = place or Locality(f"r{priority}")
    return view.LocalityGroup(place, sum(one.weight for one in endpoints), endpoints, priority)


def ask(port, **headers):
    """Send one request; return status and body."""
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", port, timeout=pace.patience(10))
    ) as sent:
        sent.request("GET", "/", headers=headers)
        answer = sent.getresponse()
        return answer.status, answer.read().decode()


def until(holds, *, limit_s=LIMIT_S):
    """Wait until `holds()`; return what it said."""
    deadline = time.monotonic() + limit_s
    while not (said := holds()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)
    return said


def free_address():
    """Return an address of this machine where nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()
