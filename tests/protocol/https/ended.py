"""A real Envoy as a gateway, told over its own stream by the product, and Secrets that change.

Nothing is between: objects of an API server become a mesh, resources and Envoy's secrets. Routes
answer at once, with the name of what was meant, so that no server stands behind.
"""

import asyncio
import base64
import contextlib
import datetime
import functools
import json
import socket
import ssl
import time

import grpc
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fakes import kube_server
from isthmus.base import clock, tasks
from isthmus.fleet.sources import ObjectKey
from isthmus.kube import client, kinds, objects
from isthmus.mesh.identities import ClusterId
from isthmus.resources import snapshot
from isthmus.runtime import assembly, connections, credentials
from isthmus.testing import envoys, pace
from isthmus.wire import ads, callers, listening

C1 = ClusterId("c1")
SHOP = "shop"
ACCOUNT = "gateway"
ADS = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}
LIMIT_S = pace.patience(20.0)


# --- certificates


@functools.cache
def key(name):
    return ec.generate_private_key(ec.SECP256R1())


def certificate(name, *, of="ca", hosts=(), ended=False, uri=""):
    """Return a certificate as PEM; one that is its own authority is `of` itself."""
    now = datetime.datetime.fromtimestamp(time.time(), datetime.UTC)
    ends = now + datetime.timedelta(hours=-1 if ended else 1)
    names = [x509.DNSName(host) for host in hosts]
    names += [x509.UniformResourceIdentifier(uri)] if uri else []
    built = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, of)]))
        .public_key(key(name).public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=2))
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca=name == of, path_length=None), critical=True)
    )
    if names:
        built = built.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return built.sign(key(of), hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def key_pem(name):
    return (
        key(name)
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        .decode()
    )


def content(name, **more):
    """Return what a Secret of type kubernetes.io/tls holds, as text."""
    chain = certificate(name, hosts=[f"{name}.example.com"], **more)
    return {"tls.crt": chain, "tls.key": key_pem(name)}


# --- the mesh


class Setting:
    """A gateway's Envoy, the control plane that tells it, and the API server behind that."""

    def __init__(self, server, folder):
        self.server = server
        self.folder = folder
        self.readable = {("get", SHOP), ("get", f"{SHOP}-cacert")}
        self.reviews = []
        self.mesh = assembly.assemble(
            config_cluster=C1, revision="", system_namespace="istio-system", domain="cluster.local"
        )
        self.connections = connections.Connections(
            self.mesh, authenticator=Authenticator(), unready=lambda _: ""
        )
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            other.bind(("127.0.0.1", 0))
            self.port, self.plain_port = one.getsockname()[1], other.getsockname()[1]
        self.virtual("shop.example.com")
        self.virtual("other.example.com")

    def virtual(self, host):
        spec = {
            "hosts": [host],
            "gateways": ["doors"],
            "http": [{"directResponse": {"status": 200, "body": {"string": host}}}],
        }
        self._put(
            self.mesh.sources.virtual_services,
            host,
            objects.FreeForm(objects.Metadata(name=host, namespace="front"), spec=spec),
        )

    def doors(self, *servers):
        spec = objects.GatewaySpec(selector={}, servers=servers)
        named = objects.Metadata(name="doors", namespace="front")
        self._put(self.mesh.sources.gateways, "doors", objects.Gateway(named, spec=spec))

    def https(self, *hosts, mode="SIMPLE", credential=SHOP, **tls):
        name = f"https-{hosts[0].partition('.')[0].strip('*')}"
        return objects.GatewayServer(
            port=objects.GatewayPort(number=self.port, name=name, protocol="HTTPS"),
            hosts=hosts,
            tls=objects.GatewayTls(mode=mode, credential_name=credential, **tls),
        )

    def _put(self, source, name, value):
        with self.mesh.graph.transaction() as transaction:
            transaction.put(source, ObjectKey(C1, "front", name), value)

    def secret(self, name, texts, kind="kubernetes.io/tls"):
        coded = {file: base64.b64encode(text.encode()).decode() for file, text in texts.items()}
        self.server.put(kinds.SECRET, name, "front", type=kind, data=coded)

    def findings(self):
        return [(one.subject, one.happened) for one in self.credentials.findings()]

    def held(self):
        """Return the names of the secrets that a gateway which comes now is told."""
        [scopes] = self.mesh.graph.items(self.mesh.views.proxy_scopes).values()
        return set(self.connections.catalog.snapshot(scopes).of(snapshot.SECRETS))

    async def review(self, request):
        """Answer whether an account may read a Secret; None for any other request."""
        if not request.path.endswith("/localsubjectaccessreviews"):
            return None
        spec = (await request.json())["spec"]
        asked = spec["resourceAttributes"]
        self.reviews.append((spec["user"], asked["namespace"], asked["verb"], asked["name"]))
        is_ours = spec["user"] == f"system:serviceaccount:front:{ACCOUNT}"
        allowed = is_ours and (asked["verb"], asked["name"]) in self.readable
        return web.json_response({"status": {"allowed": allowed}})

    # --- clients

    async def ask(self, host, *, name="", **more):
        """Return the answer's body, or its status if it is not 200; TLS asks for `name`."""
        context = trusting(**more)
        reader, writer = await asyncio.wait_for(
            asyncio.open_connection(
                "127.0.0.1", self.port, ssl=context, server_hostname=name or host
            ),
            LIMIT_S,
        )
        return await _said(reader, writer, host)

    async def ask_plainly(self, host):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.plain_port)
        return await _said(reader, writer, host)

    async def until(self, claim):
        """Ask again until a claim about what is answered holds."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                with contextlib.suppress(OSError, EOFError, ssl.SSLError):
                    if await claim():
                        return
                await asyncio.sleep(0.02)

    async def shown(self, host):
        """Return the subject of the certificate that is shown for a name."""
        context = trusting()
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=context, server_hostname=host
        )
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        del reader
        return x509.load_der_x509_certificate(der).serial_number


def trusting(*, client="", client_of="clients", lowest=None, highest=None):
    context = ssl.create_default_context(cadata=certificate("ca"))
    if lowest or highest:
        context.minimum_version = lowest or context.minimum_version
        context.maximum_version = highest or context.maximum_version
    if client:
        path = f"{client}-{client_of}.pem"
        chain = certificate(client, of=client_of) + key_pem(client)
        context.load_cert_chain(_file(path, chain))
    return context


def _file(name, text):
    path = FOLDER[0] / name
    path.write_text(text)
    return str(path)


FOLDER = []


async def _said(reader, writer, host):
    try:
        writer.write(f"GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
        answer = (await asyncio.wait_for(reader.read(), LIMIT_S)).decode()
    finally:
        writer.close()
    if not answer:
        raise EOFError("closed without an answer")
    head, _, body = answer.partition("\r\n\r\n")
    status = int(head.split()[1])
    lines = dict(line.lower().split(": ", 1) for line in head.splitlines()[1:])
    return body if status == 200 else (status, lines.get("location", ""))


class Authenticator:
    async def authenticate(self, credentials):
        return callers.Caller(C1, "front", ACCOUNT, "gw-1", "u1")


@contextlib.asynccontextmanager
async def running(folder, prepare, *, api_type="DELTA_GRPC"):
    """Run everything; `prepare` fills the mesh and the API server before Envoy comes."""
    FOLDER[:] = [folder]
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(kube_server.serving())
        found = Setting(server, folder)
        server.faults.append(found.review)
        api = await stack.enter_async_context(client.Client(server.access()))
        found.credentials = credentials.Credentials(
            found.mesh,
            found.connections.catalog,
            client=lambda _: api,
            system_clock=clock.SystemClock(),
        )
        prepare(found)
        nursery = await stack.enter_async_context(tasks.Nursery())
        nursery.start("credentials", found.credentials.run())
        service = ads.Service(found.connections)
        found.statuses = service.statuses
        discovery = grpc.aio.server(options=listening.OPTIONS)
        discovery.add_generic_rpc_handlers((service.handler(),))
        port = discovery.add_insecure_port("127.0.0.1:0")
        await discovery.start()
        stack.push_async_callback(discovery.stop, None)
        path = folder / "bootstrap.json"
        path.write_text(json.dumps(bootstrap(port, api_type)))
        log = stack.enter_context((folder / "envoy.log").open("w"))
        process = await asyncio.create_subprocess_exec(
            str(envoys.binary()),
            *("-c", str(path), "--use-dynamic-base-id", "--concurrency", "1", "-l", "warning"),
            stderr=log,
        )
        stack.push_async_callback(process.wait)
        stack.callback(process.kill)
        yield found


def bootstrap(port, api_type):
    node = {
        "id": "router~127.0.0.1~gw-1.front~front.svc.cluster.local",
        "cluster": "gw.front",
        "metadata": {"LABELS": {"istio": "ingress"}, "SERVICE_ACCOUNT": ACCOUNT},
    }
    asked = {"cds_config": ADS, "lds_config": ADS}
    return envoys.following(port, node=node, sources=asked, api_type=api_type)
