"""A real Envoy as a waypoint, callers that speak HBONE by hand, and pods in plain text behind it.

What Envoy runs with is what the product tells a waypoint, changed as `tunnelled` says; ports of
pods are free ones of loopback.
"""

import asyncio
import contextlib
import http.server
import json
import threading

import tunnelled

from isthmus.fleet.sources import ObjectKey
from isthmus.kube import objects
from isthmus.mesh.proxies import ProxyKind
from isthmus.resources import consistency, snapshot
from isthmus.testing import builders, envoys, shapes

APPS = "apps"
HOST = "web.apps.svc.cluster.local"
PORTS = {"http": 80, "tcp": 9000, "any": 7000}
KINDS = (snapshot.CLUSTERS, snapshot.ENDPOINTS, snapshot.LISTENERS, snapshot.ROUTES)
NAME = "gateway.networking.k8s.io/gateway-name"
MANAGED = "gateway.istio.io/managed"
PLAIN = builders.Shape(proxy=None)
CLIENT = "spiffe://cluster.local/ns/apps/sa/client"
OTHER = "spiffe://cluster.local/ns/elsewhere/sa/other"


def a_mesh():
    """Return a mesh with a namespace that wants a waypoint, and services in it and elsewhere."""
    mesh = builders.Mesh()
    mesh.cluster("east", network="n1")
    label(mesh, {"istio.io/use-waypoint": "waypoint"})
    for name, addresses in {"web": ["10.1.0.1"], "next": ["10.1.0.2"]}.items():
        serve(mesh, name, addresses)
    serve(mesh, "outside", ["10.1.0.3"], namespace="elsewhere")
    return mesh


def label(mesh, labels, *, namespace=APPS):
    east = mesh.clusters["east"]
    meta = shapes.metadata(namespace, "", labels)
    mesh.put(mesh.sources.namespaces, ObjectKey(east.id, "", namespace), objects.Namespace(meta))


def serve(mesh, name, addresses, *, namespace=APPS, shape=PLAIN, ports=None):
    east = mesh.clusters["east"]
    east.service(name, namespace=namespace, ready=addresses, ports=ports or PORTS, shape=shape)


def waypoint(mesh, *, serves="service", cluster="east"):
    """Add a waypoint as its controller makes it, and return its pod."""
    east = mesh.clusters[cluster]
    labels = {
        MANAGED: "istio.io-mesh-controller",
        NAME: "waypoint",
        "istio.io/waypoint-for": serves,
    }
    shape = builders.Shape(proxy=ProxyKind.WAYPOINT, account="waypoint")
    pod = east.pod("waypoint-0", namespace=APPS, shape=shape,
                   labels={**labels, "networking.istio.io/tunnel": "http"})  # fmt: skip
    service = shapes.service_of(
        shapes.metadata("waypoint", APPS, labels),
        ports={"mesh": 15008},
        vip="10.96.255.1",
        shape=builders.Shape(),
    )
    mesh.put(mesh.sources.services, ObjectKey(east.id, APPS, "waypoint"), service)
    east.endpoints("waypoint", namespace=APPS, ready=[pod.address], ports={"mesh": 15008})
    return pod


def told(mesh, pod):
    """Return all that a waypoint is told."""
    found = mesh.snapshot_of(pod)
    assert consistency.missing(found) == ()
    return [one for kind in KINDS for one in found.of(kind).values()]


# --- pods


class Pod(http.server.ThreadingHTTPServer):
    """A server that stands for a pod, and tells what it was asked."""

    def __init__(self, address):
        self.pod = address
        super().__init__(("127.0.0.1", 0), Answer)


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        names = {key.lower(): value for key, value in self.headers.items()}
        body = json.dumps({"pod": self.server.pod, "path": self.path, "headers": names}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_):
        """Say nothing."""


# --- calls


class Door(tunnelled.Door):
    """A waypoint that runs."""

    identity = "spiffe://cluster.local/ns/apps/sa/waypoint"

    async def ask(self, path="/", *, authority=f"{HOST}:80", who=CLIENT, method="GET", **headers):
        """Return the status and what the pod says; the tunnel's status where there is none."""
        async with self.tunnel(authority, who=who) as tunnel:
            if tunnel.status != 200:
                return tunnel.status, {}
            lines = [f"{method} {path} HTTP/1.1", "host: any.example", "connection: close"]
            lines += [f"{name}: {value}" for name, value in headers.items()]
            tunnel.write("\r\n".join([*lines, "", ""]).encode())
            return await answer_of(tunnel)

    async def pod(self, path="/", **how):
        """Return which pod answers, or the status."""
        status, said = await self.ask(path, **how)
        return said["pod"] if status == 200 else status


async def answer_of(tunnel):
    content = b""
    with contextlib.suppress(EOFError, OSError):
        async with asyncio.timeout(tunnelled.LIMIT_S):
            while more := await tunnel.read():
                content += more
    head, _, body = content.partition(b"\r\n\r\n")
    if not head:
        return 0, {}
    status = int(head.split()[1])
    return status, json.loads(body) if status == 200 else {}


@contextlib.asynccontextmanager
async def running(mesh, folder, pod=None):
    """Run the waypoint of a mesh."""
    pod = pod or waypoint(mesh)
    door = Door(folder)
    async with contextlib.AsyncExitStack() as stack:
        servers = {one.address: Pod(one.address) for one in mesh.pods if one.proxy is None}
        for one in servers.values():
            threading.Thread(target=one.serve_forever, daemon=True).start()
            stack.callback(one.server_close)
            stack.callback(one.shutdown)
        door.port = tunnelled.unused()
        document = json.loads(json.dumps(envoys.bootstrap(told(mesh, pod))))
        document = placed(tunnelled.changed(document, door), servers)
        stack.enter_context(envoys.running(document, directory=folder))
        yield door


def placed(document, servers):
    """Return Envoy's configuration with the pods where their servers are."""
    if isinstance(document, list):
        return [placed(one, servers) for one in document]
    if not isinstance(document, dict):
        return document
    fresh = {key: placed(value, servers) for key, value in document.items()}
    server = servers.get(fresh.get("socket_address", {}).get("address"))
    if server is not None:
        place = {"address": "127.0.0.1", "port_value": server.server_address[1]}
        fresh["socket_address"] = place
    return fresh
