"""A whole way in real Envoys: a client's, gateways' and one that answers for all pods.

What is between them is what the product builds. Replaced are only what needs a machine of its own:
captured traffic (the client listens itself), certificates from an agent (all have one and the
same), and the pods' own proxies, which answer at once with their address.

Addresses stand for ones of loopback, which need no configuration but which no cluster may tell.
"""

import collections
import contextlib
import datetime
import json
import os
import socket
import subprocess
import threading
import time
import urllib.request

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from isthmus.resources import snapshot
from isthmus.resources.envoy import tls
from isthmus.testing import envoys, pace

EXTENSIONS = "type.googleapis.com/envoy.extensions."
IDENTITY = "spiffe://cluster.local/ns/default/sa/default"
NET = f"127.{100 + os.getpid() % 100}"
"""Addresses of this process's own."""

PORTS = {"http": 8080, "grpc": 8081}
PASSING_PORT = 15443
GREETING_S = pace.patience(20.0)


def pod(cluster, number):
    """Return the address of a pod."""
    return f"10.{cluster}.0.{number}"


def door(cluster):
    """Return the address of a cluster's gateway."""
    return f"172.30.0.{cluster}"


def place(told):
    """Return where a pod or gateway is in fact."""
    first, *_ = parts = told.split(".")
    return f"{NET}.{parts[1]}.{parts[3]}" if first == "10" else f"{NET}.{parts[3]}.250"


class Process:
    """A running Envoy."""

    def __init__(self, folder, name, resources, *, concurrency=1):
        self.admin = folder / f"{name}.admin"
        path = folder / f"{name}.json"
        path.write_text(
            json.dumps(
                {
                    "node": {"id": name, "cluster": name},
                    "admin": {"address": address("127.0.0.1", 0)},
                    **resources,
                }
            )
        )
        self._log = folder / f"{name}.log"
        command = [str(envoys.binary()), "-c", str(path), "--disable-hot-restart", "-l", "info"]
        self._process = subprocess.Popen(
            [
                *command,
                *("--concurrency", str(concurrency), "--log-path", str(self._log)),
                *("--file-flush-interval-msec", "20"),
                *("--admin-address-path", str(self.admin)),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def is_up(self):
        assert self._process.poll() is None, self._log.read_text()[-2000:]
        return self._log.exists() and "starting main dispatch loop" in self._log.read_text()

    def ask(self, page):
        with urllib.request.urlopen(f"http://{self.admin.read_text()}/{page}") as answer:
            return answer.read().decode()

    def close(self):
        self._process.terminate()
        self._process.wait(10)


def address(host, port):
    return {"socket_address": {"address": host, "port_value": port}}


def certificates(folder):
    """Write one certificate for all, and return it as Envoy's secrets, by the agent's names."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.fromtimestamp(time.time(), datetime.UTC)
    name = x509.Name([])
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(IDENTITY)]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    chain = {"inline_string": built.public_bytes(serialization.Encoding.PEM).decode()}
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    own = {"certificate_chain": chain, "private_key": {"inline_string": secret.decode()}}
    return [
        {"name": tls.CERTIFICATE, "tls_certificate": own},
        {"name": tls.ROOTS, "validation_context": {"trusted_ca": chain}},
    ]


def here(part):
    """Return a part of a configuration with its file's own secrets, and addresses of loopback."""
    if isinstance(part, list):
        return [here(item) for item in part]
    if not isinstance(part, dict):
        return part
    if "port_value" in part:
        return part | {"address": place(part["address"])}
    return {key: here(value) for key, value in part.items() if key != "sds_config"}


def told(mesh, proxy, kind, name):
    """Return one of the resources that a proxy is told, as JSON."""
    return envoys.as_json(envoys.decoded(mesh.snapshot_of(proxy).of(kind)[name]))


def standing(mesh, proxy, name):
    """Return a cluster with its endpoints in it."""
    cluster = here(told(mesh, proxy, snapshot.CLUSTERS, name))
    assignment = here(told(mesh, proxy, snapshot.ENDPOINTS, name))
    return {
        **{key: value for key, value in cluster.items() if key != "eds_cluster_config"},
        "type": "STATIC",
        "load_assignment": assignment,
    }


def cluster_of(port):
    """Return the name of the client's cluster for a port."""
    return f"outbound|{port}||web.default.svc.cluster.local"


def manager(route, *, filters=()):
    """Return a filter that answers or passes on every request alike."""
    host = {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": ""}, **route}]}
    router = {"@type": f"{EXTENSIONS}filters.http.router.v3.Router"}
    kind = f"{EXTENSIONS}filters.network.http_connection_manager.v3.HttpConnectionManager"
    config = {
        "@type": kind,
        "stat_prefix": "all",
        "stream_idle_timeout": "0s",
        "route_config": {"virtual_hosts": [host], "validate_clusters": False},
        "http_filters": [*filters, {"name": "router", "typed_config": router}],
    }
    return {"name": "http", "typed_config": config}


def served(host, port, *, delay_s=0.0):
    """Return the listener of a pod, which answers with its address, later if the caller asks."""
    accepted = {
        "@type": f"{EXTENSIONS}transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": {
            "alpn_protocols": list(tls.SERVER_ALPN),
            "tls_certificate_sds_secret_configs": [{"name": tls.CERTIFICATE}],
            "validation_context_sds_secret_config": {"name": tls.ROOTS},
        },
    }
    waiting = {"header_delay": {}} if not delay_s else {"fixed_delay": f"{delay_s}s"}
    fault = {
        "@type": f"{EXTENSIONS}filters.http.fault.v3.HTTPFault",
        "delay": {**waiting, "percentage": {"numerator": 100}},
    }
    answer = {"direct_response": {"status": 200, "body": {"inline_string": host}}}
    filters = [manager(answer, filters=[{"name": "fault", "typed_config": fault}])]
    socket_ = {"name": tls.SOCKET, "typed_config": accepted}
    chain = {"transport_socket": socket_, "filters": filters}
    where = address(place(host), port)
    return {"name": f"{host}:{port}", "address": where, "filter_chains": [chain]}


class Way:
    """A client, gateways and pods, of which each answers so many seconds later."""

    def __init__(self, folder, mesh, client, gateways, pods):
        self._secrets = certificates(folder)
        self._folder, self.mesh, self._client = folder, mesh, client
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        listeners = [
            served(host, port, delay_s=delay_s)
            for host, delay_s in pods.items()
            for port in PORTS.values()
        ]
        self.pods = self._started("pods", listeners, [], concurrency=2)
        self.gateways = [self._gateway(one) for one in gateways]
        self._told = folder / "clusters.json"
        self.tell()
        source = {"path_config_source": {"path": str(self._told)}, "resource_api_version": "V3"}
        discovery = {"cds_config": source}
        self.client = self._started(
            "client", self._outbound(), [], concurrency=2, dynamic_resources=discovery
        )
        self._all = [self.pods, *self.gateways, self.client]

    def _started(self, name, listeners, clusters, *, concurrency=1, **more):
        resources = {"listeners": listeners, "clusters": clusters, "secrets": self._secrets}
        resources = {"static_resources": resources, **more}
        return Process(self._folder, name, resources, concurrency=concurrency)

    def _gateway(self, gateway):
        passing = f"0.0.0.0_{PASSING_PORT}"
        listener = told(self.mesh, gateway, snapshot.LISTENERS, passing)
        [host] = gateway.external
        names = [chain["name"] for chain in listener["filter_chains"]]
        clusters = [standing(self.mesh, gateway, name) for name in names]
        own = listener | {"address": address(place(host), PASSING_PORT)}
        return self._started(f"gateway-{host}", [own], clusters)

    def _outbound(self):
        listeners = []
        for name, port in PORTS.items():
            filters = [manager({"route": {"cluster": cluster_of(port), "timeout": "0s"}})]
            chains = [{"filters": filters}]
            where = address("127.0.0.1", self.ports[name])
            listeners.append({"name": name, "address": where, "filter_chains": chains})
        return listeners

    def tell(self):
        """Tell the client of its clusters as they are now."""
        clusters = [
            {"@type": snapshot.CLUSTERS, **standing(self.mesh, self._client, cluster_of(port))}
            for port in PORTS.values()
        ]
        fresh = self._told.with_suffix(".new")
        fresh.write_text(json.dumps({"resources": clusters}))
        # Envoy looks for a file that takes the place of another.
        fresh.rename(self._told)

    def pending(self, port):
        """Return how many calls the client's proxy has sent on and not seen answered."""
        said = self.client.ask(f"stats?filter={PORTS[port]}.*upstream_rq_active$")
        return sum(int(line.rpartition(": ")[2]) for line in said.splitlines())

    def times_told(self):
        """Return how many states of its clusters the client has taken over."""
        said = self.client.ask("stats?filter=cluster_manager.cds.update_success")
        return int(said.rpartition(": ")[2] or 0)

    def is_up(self):
        return all(one.is_up() for one in self._all) and self.times_told() > 0

    def close(self):
        for one in self._all:
            one.close()

    def send(self, port, *, calls, at_once=1, lasting_s=0.0):
        """Send calls over so many kept connections; return how many each pod has answered."""
        left, counts, failures = iter(range(calls)), collections.Counter(), []

        def some():
            with contextlib.closing(Caller(self.ports[port], lasting_s=lasting_s)) as caller:
                try:
                    for _ in left:
                        counts[caller.call()] += 1
                except Exception as error:  # noqa: BLE001, RUF100  # told to the test's own thread
                    failures.append(error)

        threads = [threading.Thread(target=some) for _ in range(at_once)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures, failures
        return counts


class Caller:
    """A kept connection of HTTP/1.1."""

    def __init__(self, port, *, lasting_s):
        self._socket = socket.create_connection(("127.0.0.1", port), GREETING_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answers = self._socket.makefile("rb")
        late = f"x-envoy-fault-delay-request: {lasting_s * 1000:.0f}\r\n" if lasting_s else ""
        self._request = f"GET / HTTP/1.1\r\nhost: web\r\n{late}\r\n".encode()

    def call(self):
        """Return the address of the pod that answers."""
        self._socket.sendall(self._request)
        status = self._answers.readline().split()
        size = 0
        while line := self._answers.readline().strip():
            name, _, value = line.lower().partition(b": ")
            size = int(value) if name == b"content-length" else size
        body = self._answers.read(size).decode()
        assert status[1:2] == [b"200"], (status, body)
        return body

    def close(self):
        self._answers.close()
        self._socket.close()


def free_ports(number):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def busiest(counts, pods):
    """Return the share of the pod with the most calls, as a multiple of its fair share."""
    return max(counts.values()) * pods / counts.total()
