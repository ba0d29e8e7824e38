"""A gateway of the Gateway API in a real Envoy, as the product tells it, and servers behind it.

Only addresses are changed, to free ports of loopback: that of the listener and those of the pods,
which speak plain text, so that what a client needs for TLS is left out.
Each server answers with its pod's address and what it was asked.
"""

import contextlib
import http.client
import json
import socket
import threading
from http import server

import msgspec

from isthmus.fleet.sources import ObjectKey
from isthmus.kube import gateway_api
from isthmus.mesh.proxies import ProxyKind
from isthmus.resources import consistency, snapshot
from isthmus.testing import builders, envoys, pace

APPS = "apps"
KINDS = (snapshot.CLUSTERS, snapshot.ENDPOINTS, snapshot.LISTENERS, snapshot.ROUTES)
NAME = "gateway.networking.k8s.io/gateway-name"


def a_mesh():
    """Return a mesh with two services, `web` and `api`, and the class `istio`."""
    mesh = builders.Mesh()
    east = mesh.cluster("east", network="n1")
    shape = builders.Shape(proxy=None)
    for name, address in (("web", "10.1.0.1"), ("api", "10.1.0.2")):
        east.service(name, namespace=APPS, ready=[address], ports={"http": 80}, shape=shape)
    put(mesh, "gateway_classes", gateway_api.GatewayClass, "istio",
        {"controllerName": "istio.io/gateway-controller"}, namespace="")  # fmt: skip
    return mesh


def put(mesh, source, decode, name, spec, *, namespace=APPS, **metadata):
    written = {"metadata": {"name": name, "namespace": namespace, **metadata}, "spec": spec}
    key = ObjectKey(mesh.clusters["east"].id, namespace, name)
    mesh.put(getattr(mesh.sources, source), key, msgspec.convert(written, decode))


def gateway(mesh, *listeners):
    listeners = listeners or ({"name": "http", "port": 8000, "protocol": "HTTP"},)
    spec = {"gatewayClassName": "istio", "listeners": listeners}
    put(mesh, "kubernetes_gateways", gateway_api.Gateway, "door", spec)


def route(mesh, name, *rules, hosts=(), parent=None, **metadata):
    spec = {"parentRefs": [parent or {"name": "door"}], "hostnames": hosts, "rules": rules}
    put(mesh, "http_routes", gateway_api.HttpRoute, name, spec, **metadata)


def to(name, **more):
    return {"name": name, "port": 80, **more}


def told(mesh):
    shape = builders.Shape(proxy=ProxyKind.ROUTER, account="door-istio")
    pod = mesh.clusters["east"].pod("door", namespace=APPS, labels={NAME: "door"}, shape=shape)
    found = mesh.snapshot_of(pod)
    assert consistency.missing(found) == ()
    return [one for kind in KINDS for one in found.of(kind).values()]


class Pod(server.ThreadingHTTPServer):
    """A server that stands for a pod."""

    def __init__(self, address):
        self.pod = address
        super().__init__(("127.0.0.1", 0), Answer)


class Answer(server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        names = {key.lower(): value for key, value in self.headers.items()}
        said = {"pod": self.server.pod, "path": self.path, "headers": names}
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_):
        """Say nothing."""


class Door:
    """A gateway that runs; ports are those of its Gateway."""

    def __init__(self, ports):
        self._ports = ports

    def ask(self, path="/", *, host="any.example", port=8000, method="GET", **headers):
        """Return the status, and what was answered or where to go."""
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", self._ports[port], timeout=pace.patience(10))
        ) as connection:
            connection.request(method, path, headers={"host": host, **headers})
            answer = connection.getresponse()
            body = answer.read()
            if answer.status == 200:
                return 200, json.loads(body), dict(answer.getheaders())
            return answer.status, answer.getheader("location", ""), dict(answer.getheaders())

    def pod(self, path="/", **how):
        """Return which pod answers, or the status."""
        status, said, _ = self.ask(path, **how)
        return said["pod"] if status == 200 else status


@contextlib.contextmanager
def running(mesh, folder):
    """Run the gateway of a mesh."""
    with contextlib.ExitStack() as stack:
        servers = {one.address: Pod(one.address) for one in mesh.pods if one.address}
        for one in servers.values():
            threading.Thread(target=one.serve_forever, daemon=True).start()
            stack.callback(one.server_close)
            stack.callback(one.shutdown)
        ports = dict[int, int]()

        def placed(document):
            if isinstance(document, list):
                return [placed(one) for one in document]
            if not isinstance(document, dict):
                return document
            fresh = {key: placed(value) for key, value in document.items()}
            fresh.pop("transport_socket_matches", None)
            place = fresh.get("socket_address", {})
            if place.get("address") == "0.0.0.0":
                ports[place["port_value"]] = port = unused()
                fresh["socket_address"] = {"address": "127.0.0.1", "port_value": port}
            elif place.get("address") in servers:
                port = servers[place["address"]].server_address[1]
                fresh["socket_address"] = {"address": "127.0.0.1", "port_value": port}
            return fresh

        document = placed(json.loads(json.dumps(envoys.bootstrap(told(mesh)))))
        stack.enter_context(envoys.running(document, directory=folder))
        yield Door(ports)


def unused():
    """Return a port of loopback on which nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
