"""One real Envoy with a listener for each policy, and a client that sends bytes as they are.

Each listener is the one that the product builds for a port of HTTP or TCP; only where requests go
is replaced: they are answered at once, with the path and host that a server would have been sent.
"""

import contextlib
import dataclasses
import json
import random
import socket
import subprocess

from isthmus.fleet.sources import ObjectKey
from isthmus.kube import objects
from isthmus.mesh.proxies import ProxyKind
from isthmus.node import bootstrap as node_bootstrap
from isthmus.resources import snapshot
from isthmus.testing import builders, envoys, shapes

SEED, FEW = 7, 50

ECHO = {
    "name": "answered",
    "virtual_hosts": [
        {
            "name": "all",
            "domains": ["*"],
            "routes": [{"match": {"prefix": ""}, "direct_response": {"status": 200}}],
            "response_headers_to_add": [
                {"header": {"key": "x-path", "value": "%REQ(:PATH)%"}},
                {"header": {"key": "x-host", "value": "%REQ(:AUTHORITY)%"}},
            ],
        }
    ],
}
PORTS = {"http": 8080, "tcp": 9000}
HOST = "web.default.svc.cluster.local"
TARGET = {"kind": "Service", "group": "", "name": "web"}
OF_WAYPOINT = {
    "gateway.istio.io/managed": "istio.io-mesh-controller",
    "gateway.networking.k8s.io/gateway-name": "waypoint",
    "networking.istio.io/tunnel": "http",
}


def listeners_under(policies):
    """Return the built filters of an HTTP port and of a TCP port, as JSON."""
    mesh = builders.Mesh()
    mesh.cluster("c", network="n").service("web", ready=["10.1.0.1"], ports=PORTS)
    for number, spec in enumerate(policies):
        mesh.authorization_policy(f"p{number}", spec)
    told = mesh.snapshot_of(mesh.pods[0])
    listener = envoys.as_json(envoys.decoded(told.of(snapshot.LISTENERS)["virtualInbound"]))
    plain = {
        chain["filter_chain_match"]["destination_port"]: chain["filters"]
        for chain in listener["filter_chains"]
        if chain["filter_chain_match"].get("transport_protocol") == "raw_buffer"
        and "destination_port" in chain["filter_chain_match"]
    }
    return plain[PORTS["http"]], plain[PORTS["tcp"]]


def listeners_of_waypoint(policies):
    """Return the same, for policies that name the service, inside of its waypoint."""
    mesh = builders.Mesh()
    cluster = mesh.cluster("c", network="n")
    key = ObjectKey(cluster.id, "", "default")
    wanting = shapes.metadata("default", "", {"istio.io/use-waypoint": "waypoint"})
    mesh.put(mesh.sources.namespaces, key, objects.Namespace(wanting))
    cluster.service("web", ready=["10.1.0.1"], ports=PORTS, shape=builders.Shape(proxy=None))
    shape = builders.Shape(proxy=ProxyKind.WAYPOINT, account="waypoint")
    pod = cluster.pod("waypoint-0", labels=OF_WAYPOINT, shape=shape)
    meta = shapes.metadata("waypoint", "default", OF_WAYPOINT)
    own = shapes.service_of(meta, ports={"mesh": 15008}, vip="10.96.255.1", shape=shapes.USUAL)
    mesh.put(mesh.sources.services, ObjectKey(cluster.id, "default", "waypoint"), own)
    for number, spec in enumerate(policies):
        mesh.authorization_policy(f"p{number}", {**spec, "targetRefs": [TARGET]})
    told = mesh.snapshot_of(pod).of(snapshot.LISTENERS)
    found = (told[f"inbound-vip|{port}|http|{HOST}"] for port in PORTS.values())
    http, tcp = (envoys.as_json(envoys.decoded(one))["filter_chains"] for one in found)
    return http[0]["filters"], tcp[0]["filters"]


PLACES = {"sidecar": listeners_under, "waypoint": listeners_of_waypoint}
"""Where policies are obeyed, and how the filters are had that do so there."""


def answering(filters):
    """Return HTTP filters whose requests are answered at once."""
    *others, manager = filters
    config = {key: value for key, value in manager["typed_config"].items() if key != "rds"}
    return [*others, manager | {"typed_config": config | {"route_config": ECHO}}]


def forwarding(filters, cluster):
    """Return TCP filters that lead to a cluster of ours."""
    *others, proxy = filters
    return [*others, proxy | {"typed_config": proxy["typed_config"] | {"cluster": cluster}}]


def free_ports(number):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@dataclasses.dataclass(frozen=True)
class Judge:
    """A place where policies are obeyed: on which port a named set of them judges.

    Attributes:
        sample: How many of a thousand requests are asked, always the same ones.
    """

    place: str
    http: dict
    tcp: dict
    sample: int

    def some(self, requests):
        """Return those of many requests that are asked here."""
        listed = list(requests)
        kept = max(len(listed) * self.sample // 1000, min(len(listed), FEW))
        return random.Random(SEED).sample(listed, kept)


class Running:
    """A running Envoy that judges by sets of policies, as each place would."""

    def __init__(self, directory, policies, *, backend):
        free = iter(free_ports(2 * len(policies) * len(PLACES)))
        self._ports = {}
        listeners = []
        for place, filters_of in PLACES.items():
            for name, specs in policies.items():
                http, tcp = filters_of(specs)
                ports = self._ports[place, name] = next(free), next(free)
                listeners.append(listening(ports[0], answering(http)))
                listeners.append(listening(ports[1], forwarding(tcp, "backend")))
        path = directory / "bootstrap.json"
        path.write_text(json.dumps(bootstrap(listeners, backend)))
        command = [str(envoys.binary()), "-c", str(path), "-l", "info", "--disable-hot-restart"]
        self._process = subprocess.Popen(
            [*command, "--concurrency", "1", "--log-path", str(directory / "log")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._log = directory / "log"

    def is_up(self):
        assert self._process.poll() is None, self._log.read_text()[-2000:]
        return self._log.exists() and "starting main dispatch loop" in self._log.read_text()

    def at(self, place, sample):
        """Return the judge at a place."""
        named = {name: ports for (at, name), ports in self._ports.items() if at == place}
        http = {name: ports[0] for name, ports in named.items()}
        return Judge(place, http, {name: ports[1] for name, ports in named.items()}, sample)

    def close(self):
        self._process.terminate()
        self._process.wait(10)


def listening(port, filters):
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {"name": f"l{port}", "address": address, "filter_chains": [{"filters": filters}]}


def bootstrap(listeners, backend):
    place = {"socket_address": {"address": "127.0.0.1", "port_value": backend}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": place}}]}]
    cluster = {
        "name": "backend",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "backend", "endpoints": endpoints},
    }
    return {
        "node": {"id": "a", "cluster": "b"},
        "layered_runtime": {"layers": [node_bootstrap.RUNTIME]},
        "static_resources": {"listeners": listeners, "clusters": [cluster]},
    }


class Wire:
    """A connection that is opened anew whenever the other side has closed it."""

    def __init__(self, port):
        self._port = port
        self._socket = None
        self._rest = b""

    def ask(self, request):
        """Send bytes; return status and headers of the answer, (0, {}) for none."""
        for _ in range(2):
            if self._socket is None:
                self._socket = socket.create_connection(("127.0.0.1", self._port), 10)
                self._rest = b""
                is_fresh = True
            else:
                is_fresh = False
            answer = self._answer(request)
            if answer is not None:
                return answer
            self.close()
            if is_fresh:
                break
        return 0, {}

    def _answer(self, request):
        try:
            self._socket.sendall(request)
            while b"\r\n\r\n" not in self._rest:
                more = self._socket.recv(65536)
                if not more:
                    return None
                self._rest += more
            head, _, self._rest = self._rest.partition(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines if ": " in line)
            size = int(headers.get("content-length", 0))
            while len(self._rest) < size:
                self._rest += self._socket.recv(65536)
            self._rest = self._rest[size:]
        except ConnectionError:
            return None
        if headers.get("connection") == "close":
            self.close()
        return int(first.split()[1]), headers

    def close(self):
        if self._socket is not None:
            self._socket.close()
            self._socket = None
