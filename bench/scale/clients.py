"""`python -m bench.scale.clients SHAPE HOST:PORT`: the proxies of a whole fleet, in one process.

Each has a connection with TLS and a delta stream, asks for clusters and listeners, then for the
endpoints and routes that these name, and acknowledges what it gets. On standard input they are
told which address to wait for; they answer when each client held a response with it.
"""

import json
import selectors
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,
)
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import struct_pb2

from bench.scale import http2, shapes
from isthmus.resources import snapshot

METHOD: Final = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
MANAGER: Final = "envoy.filters.network.http_connection_manager"
READ: Final = 1 << 18
SYNC_S: Final = 200.0
QUIET_S: Final = 0.5
RETRY_S: Final = 0.2

Request = discovery_pb2.DeltaDiscoveryRequest
Message = Any
"""A message of Envoy's: it has no types here."""

named: dict[bytes, tuple[str, ...]] = {}
"""What resources lead to, by their bytes: most clients are told the same."""


class Client:
    """One proxy's stream."""

    def __init__(self, one: shapes.Proxy, network: str) -> None:
        self.proxy = one
        self.network = network
        self.socket: ssl.SSLSocket | None = None
        self.is_connected = False
        self.retry_at = 0.0
        self.begin()

    def begin(self) -> None:
        """Forget everything, as a proxy that was started anew."""
        headers = (
            ("authorization", f"Bearer {self.proxy.token}"),
            ("clusterid", self.proxy.cluster),
        )
        self.stream = http2.Stream(METHOD, headers)
        self.endpoints: dict[str, bytes] = {}
        self.asked: dict[str, set[str]] = {snapshot.ENDPOINTS: set(), snapshot.ROUTES: set()}
        self.missing = {snapshot.CLUSTERS, snapshot.LISTENERS}
        self.synced_ns = 0
        self.is_connected = False
        for kind in (snapshot.CLUSTERS, snapshot.LISTENERS):
            self.stream.send(
                Request(type_url=kind, node=_node(self.proxy, self.network)).SerializeToString()
            )

    def hear(self, data: bytes, marker: bytes) -> bool:
        """Take in what was read; say whether `marker` is in it."""
        has_marker = False
        for message in self.stream.hear(data):
            answer = discovery_pb2.DeltaDiscoveryResponse.FromString(message)
            for resource in answer.resources:
                has_marker |= self._resource(answer.type_url, resource, marker)
            for name in answer.removed_resources:
                self.endpoints.pop(name, None)
            ack = Request(type_url=answer.type_url, response_nonce=answer.nonce)
            self.stream.send(ack.SerializeToString())
            self.missing.discard(answer.type_url)
        if not self.synced_ns and self.is_synced:
            self.synced_ns = time.monotonic_ns()
        return has_marker

    @property
    def is_synced(self) -> bool:
        """Whether it has an answer to all that it has asked for."""
        return not self.missing and self.asked[snapshot.ENDPOINTS] <= self.endpoints.keys()

    def _resource(self, kind: str, resource: Message, marker: bytes) -> bool:
        body = resource.resource.value
        if kind == snapshot.ENDPOINTS:
            self.endpoints[resource.name] = body
            return bool(marker) and marker in body
        if kind == snapshot.CLUSTERS:
            self._ask(snapshot.ENDPOINTS, _leads(body, _endpoints_of))
        elif kind == snapshot.LISTENERS:
            self._ask(snapshot.ROUTES, _leads(body, _routes_of))
        return False

    def _ask(self, kind: snapshot.TypeUrl, names: Iterable[str]) -> None:
        fresh = [name for name in names if name not in self.asked[kind]]
        if fresh:
            self.asked[kind].update(fresh)
            request = Request(type_url=kind, resource_names_subscribe=fresh)
            self.stream.send(request.SerializeToString())


def _leads(body: bytes, read: Callable[[bytes], Iterable[str]]) -> tuple[str, ...]:
    if body not in named:
        named[body] = tuple(read(body))
    return named[body]


def _endpoints_of(body: bytes) -> Iterable[str]:
    cluster = cluster_pb2.Cluster.FromString(body)
    if cluster.type == cluster_pb2.Cluster.EDS:
        yield cluster.eds_cluster_config.service_name or cluster.name


def _routes_of(body: bytes) -> Iterable[str]:
    for chain in listener_pb2.Listener.FromString(body).filter_chains:
        for one in chain.filters:
            if one.name == MANAGER:
                manager = http_connection_manager_pb2.HttpConnectionManager()
                one.typed_config.Unpack(manager)
                if manager.HasField("rds"):
                    yield manager.rds.route_config_name


def _node(one: shapes.Proxy, network: str) -> Message:
    metadata = struct_pb2.Struct()
    metadata.update(
        {
            "CLUSTER_ID": one.cluster,
            "NETWORK": network,
            "NAMESPACE": one.namespace,
            "SERVICE_ACCOUNT": "client",
            "LABELS": {"app": "client"},
            "INSTANCE_IPS": one.address,
        }
    )
    domain = f"{one.namespace}.svc.cluster.local"
    return {
        "id": f"sidecar~{one.address}~{one.name}.{one.namespace}~{domain}",
        "metadata": metadata,
    }


class Fleet:
    """All clients, driven by one loop."""

    def __init__(self, shape: shapes.Shape, host: str, port: int) -> None:
        self._place = (host, port)
        self._selector = selectors.DefaultSelector()
        self._tls = ssl.create_default_context()
        self._tls.check_hostname = False
        self._tls.verify_mode = ssl.CERT_NONE
        self._tls.set_alpn_protocols(["h2"])
        proxies = [shapes.proxy(shape, number) for number in range(shape.proxies)]
        self.clients = [Client(one, shape.network(one.cluster)) for one in proxies]
        self._marker = b""
        self._seen: dict[int, int] = {}

    def sync(self, count: int | None = None) -> list[float]:
        """Connect `count` or all, until all have what they ask for; return when, sorted."""
        until = time.monotonic() + SYNC_S
        wanted = self.clients[:count]
        while time.monotonic() < until:
            for one in wanted:
                if one.socket is None and time.monotonic() >= one.retry_at:
                    self._connect(one)
            self._turn(0.05)
            if all(one.synced_ns for one in wanted):
                return sorted(one.synced_ns / 1e9 for one in wanted)
        late = [one.proxy.name for one in wanted if not one.is_synced]
        raise TimeoutError(f"{len(late)} of {len(wanted)} have no configuration: {late[:3]}")

    def wait(self, marker: str, *, count: int, timeout_s: float) -> list[int]:
        """Return when each of `count` clients held a response with `marker`, in nanoseconds."""
        self._marker = _said(marker)
        until = time.monotonic() + timeout_s
        while len(self._seen) < count and time.monotonic() < until:
            self._turn(0.05)
        self._marker, seen = b"", self._seen
        self._seen = {}
        return sorted(seen.values())

    def lack(self, marker: str, *, name: str, count: int, timeout_s: float) -> int:
        """Wait until `count` clients have the endpoints `name` without `marker`; return how many."""
        said, found = _said(marker), 0
        until = time.monotonic() + timeout_s
        while found < count and time.monotonic() < until:
            self._turn(0.05)
            found = sum(said not in one.endpoints.get(name, said) for one in self.clients)
        return found

    def rest(self, seconds: float) -> None:
        """Let clients answer whatever comes."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._turn(0.05)

    def drop(self) -> None:
        """Start all clients anew."""
        for one in self.clients:
            self._lose(one, retry_s=0.0)

    def _connect(self, one: Client) -> None:
        try:
            plain = socket.create_connection(self._place, timeout=5)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            one.socket = self._tls.wrap_socket(plain)
        except OSError:
            one.retry_at = time.monotonic() + RETRY_S
            return
        one.socket.setblocking(False)
        self._selector.register(one.socket, selectors.EVENT_READ, one)
        self._write(one)

    def _lose(self, one: Client, *, retry_s: float = RETRY_S) -> None:
        if one.socket is not None:
            self._selector.unregister(one.socket)
            one.socket.close()
        one.socket = None
        one.retry_at = time.monotonic() + retry_s
        one.begin()

    def _turn(self, timeout_s: float) -> None:
        for key, _ in self._selector.select(timeout_s):
            self._read(key.data)

    def _read(self, one: Client) -> None:
        assert one.socket is not None
        try:
            while data := one.socket.recv(READ):
                if one.hear(data, self._marker):
                    self._seen.setdefault(id(one), time.monotonic_ns())
            self._lose(one)
        except ssl.SSLWantReadError:
            self._write(one)
        except (OSError, http2.Ended):
            self._lose(one)

    def _write(self, one: Client) -> None:
        assert one.socket is not None
        if out := one.stream.take():
            one.socket.setblocking(True)
            one.socket.sendall(out)
            one.socket.setblocking(False)


def _said(address: str) -> bytes:
    """Return how an endpoint's message says an address: with its length, so that none is part of one."""
    return bytes([0x12, len(address)]) + address.encode()


def held(one: Client) -> dict[str, list[str]]:
    """Return the addresses that a client has, by cluster of Envoy."""
    found = {}
    for name, body in one.endpoints.items():
        assignment = endpoint_pb2.ClusterLoadAssignment.FromString(body)
        found[name] = sorted(
            f"{endpoint.endpoint.address.socket_address.address} "
            f"{endpoint.load_balancing_weight.value}"
            for group in assignment.endpoints
            for endpoint in group.lb_endpoints
        )
    return found


def answer(fleet: Fleet, asked: dict[str, Any]) -> dict[str, Any]:
    """Obey one command."""
    match asked["act"]:
        case "sync":
            return {"synced_at": fleet.sync(asked.get("count"))}
        case "drop":
            fleet.drop()
            return {"synced_at": fleet.sync()}
        case "wait":
            found = fleet.wait(asked["marker"], count=asked["count"], timeout_s=asked["timeout_s"])
            return {"seen_ns": found}
        case "lack":
            found_ = fleet.lack(
                asked["marker"], name=asked["name"], count=asked["count"], timeout_s=20.0
            )
            return {"count": found_}
        case "rest":
            fleet.rest(asked["seconds"])
            return {}
        case "held":
            names = asked["clusters"]
            return {
                "held": [
                    {name: found.get(name) for name in names}
                    for found in map(held, fleet.clients[: asked["clients"]])
                ]
            }
        case _:
            raise ValueError(asked)


def main() -> None:
    """Obey standard input until it ends."""
    host, _, port = sys.argv[2].rpartition(":")
    fleet = Fleet(shapes.read(sys.argv[1]), host, int(port))
    for line in sys.stdin:
        print(json.dumps(answer(fleet, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
