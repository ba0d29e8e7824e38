"""One real Envoy that starts TLS as DestinationRules say, its agent's secrets, and TLS servers.

Clusters are those that the product builds for a client's sidecar; only where they lead is replaced.
The agent's side is the product's own: secrets from files, over a socket.
"""

import asyncio
import contextlib
import datetime
import functools
import http.client
import http.server
import json
import socket
import ssl
import threading
import time

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from isthmus.resources import snapshot
from isthmus.testing import builders, envoys, pace
from isthmus.wire import sds, sdsfiles

HOST = "api.example.com"
LIMIT_S = pace.patience(20.0)


# --- certificates


@functools.cache
def key(name):
    return ec.generate_private_key(ec.SECP256R1())


def certificate(name, *, of="ca"):
    """Return a certificate as PEM; one that is its own authority is `of` itself."""
    now = datetime.datetime.fromtimestamp(time.time(), datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, of)]))
        .public_key(key(name).public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=2))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=name == of, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    )
    return built.sign(key(of), hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def key_pem(name):
    form, kind = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key(name).private_bytes(serialization.Encoding.PEM, form, kind).decode()


class Files:
    """Certificates on the proxy's disk, and their paths."""

    def __init__(self, folder):
        self._folder = folder

    def write(self, name, text):
        path = self._folder / name
        path.write_text(text)
        return str(path)

    def roots(self, name="ca"):
        return self.write(f"{name}.crt", certificate(name, of=name))

    def pair(self, name, *, of="ca"):
        chain = self.write(f"{name}-{of}.pem", certificate(name, of=of))
        return chain, self.write(f"{name}.key", key_pem(name))


# --- servers


class Server(http.server.ThreadingHTTPServer):
    """Speaks TLS and answers with the name that was asked for and the client's certificate."""

    daemon_threads = True

    def __init__(self, files, *, name=HOST, of="ca", clients=""):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(*files.pair(name, of=of))
        self.context.sni_callback = self._asked
        if clients:
            self.context.verify_mode = ssl.CERT_REQUIRED
            self.context.load_verify_locations(files.roots(clients))
        self.asked = [""]
        self.plain = []
        super().__init__(("127.0.0.1", 0), Answer)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def _asked(self, _socket, name, _context):
        self.asked.append(name or "")

    def finish_request(self, request, client_address):
        begin = request.recv(8, socket.MSG_PEEK)
        if begin[:1] != HANDSHAKE:
            # Whoever connects and leaves without a word has told nobody anything.
            self.plain += [begin] if begin else []
            return
        with (
            contextlib.suppress(OSError),
            self.context.wrap_socket(request, server_side=True) as wrapped,
        ):
            super().finish_request(wrapped, client_address)

    def handle_error(self, request, client_address):
        pass

    def close(self):
        self.shutdown()
        self.server_close()


HANDSHAKE = b"\x16"
"""With this byte TLS begins."""


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        subject = (self.connection.getpeercert() or {}).get("subject", ())
        names = dict(pair for part in subject for pair in part)
        told = {"sni": self.server.asked[-1], "client": names.get("commonName", "")}
        body = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


# --- the proxy


def cluster_of(tls, *, host, protocol):
    """Return the cluster of a client for a host of a ServiceEntry, under a rule about TLS."""
    mesh = builders.Mesh()
    client = mesh.cluster("c", network="n").pod("client")
    port = {"number": 80, "name": "it", "protocol": protocol}
    resolution = "NONE" if "*" in host else "DNS"
    mesh.service_entry("it", {"hosts": [host], "ports": [port], "resolution": resolution})
    mesh.destination_rule("it", {"host": host, "trafficPolicy": {"tls": tls}})
    found = mesh.graph.items(mesh.model.findings).values()
    assert not [one for one in found if one.subject.startswith("DestinationRule")]
    found = mesh.snapshot_of(client).of(snapshot.CLUSTERS)[f"outbound|80||{host}"]
    return envoys.as_json(envoys.decoded(found))


class Case:
    """A rule about TLS and the server that its client meets."""

    def __init__(self, server, *, host=HOST, protocol="HTTP", **tls):
        self.server, self.protocol = server, protocol
        self.cluster = cluster_of({"mode": "SIMPLE", **tls}, host=host, protocol=protocol)


def _place(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _cluster(name, case):
    kept = {key: value for key, value in case.cluster.items() if key not in REPLACED}
    return {**kept, "name": name, "type": "STATIC", **_leading_to(case.server.server_port)}


REPLACED = {"type", "lb_policy", "load_assignment", "dns_lookup_family", "alt_stat_name"}


def _leading_to(port):
    ends = [{"lb_endpoints": [{"endpoint": {"address": _place(port)}}]}]
    return {"load_assignment": {"cluster_name": "x", "endpoints": ends}}


def _listener(name, case, port):
    kind = "type.googleapis.com/envoy.extensions.filters."
    passing = {
        "@type": f"{kind}network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": name,
        "cluster": name,
    }
    routes = [{"match": {"prefix": "/"}, "route": {"cluster": name}}]
    router = {"@type": f"{kind}http.router.v3.Router"}
    reading = {
        "@type": f"{kind}network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
        "route_config": {"virtual_hosts": [{"name": "a", "domains": ["*"], "routes": routes}]},
    }
    chosen = passing if case.protocol == "TCP" else reading
    filters = [{"name": "it", "typed_config": chosen}]
    return {"name": name, "address": _place(port), "filter_chains": [{"filters": filters}]}


@contextlib.contextmanager
def serving_secrets(shelf):
    """Serve a shelf as an agent does; yield the port."""
    loop, ready = asyncio.new_event_loop(), threading.Event()
    found = []

    async def serve():
        server = grpc.aio.server(handlers=(sds.handler(shelf),))
        found.extend((server.add_insecure_port("127.0.0.1:0"), asyncio.Event()))
        await server.start()
        ready.set()
        await found[1].wait()
        await server.stop(None)

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(LIMIT_S)
    try:
        yield found[0], loop.call_soon_threadsafe
    finally:
        loop.call_soon_threadsafe(found[1].set)
        thread.join()
        loop.close()


class Started:
    """A running Envoy with a listener for each case."""

    def __init__(self, directory, cases):
        self.cases = cases
        self.shelf = sds.Shelf(sdsfiles.read)
        with contextlib.ExitStack() as stack:
            port, self._soon = stack.enter_context(serving_secrets(self.shelf))
            with contextlib.ExitStack() as held:
                sockets = [held.enter_context(socket.socket()) for _ in cases]
                for one in sockets:
                    one.bind(("127.0.0.1", 0))
                free = [one.getsockname()[1] for one in sockets]
            self.port = dict(zip(cases, free, strict=True))
            options = {
                "@type": f"type.googleapis.com/{envoys.HTTP2}",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
            agent = {
                "name": "sds-grpc",
                "type": "STATIC",
                "typed_extension_protocol_options": {envoys.HTTP2: options},
                **_leading_to(port),
            }
            document = {
                "static_resources": {
                    "clusters": [agent, *(_cluster(*each) for each in cases.items())],
                    "listeners": [
                        _listener(name, case, self.port[name]) for name, case in cases.items()
                    ],
                }
            }
            stack.enter_context(envoys.running(document, directory=directory))
            # It listens when every cluster has its files, or has waited for them.
            self.until(self._listens)
            self.close = stack.pop_all().close

    def _listens(self):
        return self.ask(next(iter(self.cases))) != "ConnectionRefusedError"

    def refresh(self):
        """Look at files again, as agents do from time to time."""
        self._soon(self.shelf.refresh)

    def ask(self, name, host=HOST):
        """Return what a server said, or the status or failure that came instead."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port[name], timeout=LIMIT_S)
        with contextlib.closing(connection):
            try:
                connection.request("GET", "/", headers={"host": host})
                answer = connection.getresponse()
                told = answer.read()
            except (OSError, http.client.HTTPException) as error:
                return type(error).__name__
        return json.loads(told) if answer.status == 200 else answer.status

    def until(self, claim):
        """Wait until a claim holds."""
        ends = time.monotonic() + LIMIT_S
        while not claim():
            assert time.monotonic() < ends
            time.sleep(0.02)
