"""A real Envoy as the gateway of a mesh, callers that speak HBONE by hand, and a server behind.

What Envoy runs with is what the product tells a gateway, with three things changed that a test has
no other way to give: files in the place of the agent's secrets, and free ports of loopback in the
place of the gateway's own and of the pods'.
"""

import asyncio
import contextlib
import datetime
import functools
import json
import socket
import ssl
import time

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from isthmus.testing import envoys, pace

LIMIT_S = pace.patience(10.0)
GATEWAY = "spiffe://cluster.local/ns/istio-gateways/sa/istio-eastwest"
CALLER = "spiffe://cluster.local/ns/sample/sa/sleep"
SERVER = "spiffe://cluster.local/ns/sample/sa/helloworld"
FOREIGN = "spiffe://elsewhere/ns/sample/sa/sleep"
ROOT, OTHER_ROOT = "root", "other root"


# --- certificates


@functools.cache
def key(name):
    return ec.generate_private_key(ec.SECP256R1())


@functools.cache
def certificate(identity, *, of=ROOT):
    """Return a certificate as PEM; a root's own is of itself."""
    now = datetime.datetime.fromtimestamp(time.time(), datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, identity[:60])]))
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, of)]))
        .public_key(key(identity).public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=identity == of, path_length=None), critical=True)
    )
    if identity != of:
        names = [x509.UniformResourceIdentifier(identity)]
        built = built.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return built.sign(key(of), hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def key_pem(identity):
    form = serialization.PrivateFormat.PKCS8
    plain = serialization.NoEncryption()
    return key(identity).private_bytes(serialization.Encoding.PEM, form, plain).decode()


def files(folder, identity, *, of=ROOT):
    """Return paths of a certificate and its key."""
    name = f"{abs(hash((identity, of)))}"
    paths = folder / f"{name}.pem", folder / f"{name}.key"
    paths[0].write_text(certificate(identity, of=of))
    paths[1].write_text(key_pem(identity))
    return [str(path) for path in paths]


def trusting(folder, identity, *, of=ROOT, purpose=ssl.Purpose.SERVER_AUTH):
    """Return a context that shows an identity, and believes what the root has signed."""
    context = ssl.create_default_context(purpose, cadata=certificate(ROOT, of=ROOT))
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    if identity:
        context.load_cert_chain(*files(folder, identity, of=of))
    return context


def identity_of(shown):
    """Return the identity in a peer's certificate."""
    return next(value for kind, value in shown["subjectAltName"] if kind == "URI")


# --- the gateway


async def closed(writer):
    """Close a connection, for whatever reason it ends."""
    writer.close()
    with contextlib.suppress(ssl.SSLError, OSError, TimeoutError):
        async with asyncio.timeout(LIMIT_S):
            await writer.wait_closed()


def changed(document, found):
    """Return Envoy's configuration with the changes that the module names."""
    if isinstance(document, list):
        return [changed(one, found) for one in document]
    if not isinstance(document, dict):
        return document
    fresh = {key_: changed(value, found) for key_, value in document.items()}
    if "tls_certificate_sds_secret_configs" in fresh:
        del fresh["tls_certificate_sds_secret_configs"]
        certificate_, key_ = found.files
        fresh["tls_certificates"] = [
            {"certificate_chain": {"filename": certificate_}, "private_key": {"filename": key_}}
        ]
        context = fresh.pop("combined_validation_context")["default_validation_context"]
        root = {"inline_string": certificate(ROOT, of=ROOT)}
        fresh["validation_context"] = {**context, "trusted_ca": root}
    if "socket_address" in fresh and fresh["socket_address"]["port_value"] == 15008:
        place = fresh["socket_address"]
        is_own = place["address"] == "0.0.0.0"
        port = found.port if is_own else found.ports.get(place["address"], found.server_port)
        fresh["socket_address"] = {"address": "127.0.0.1", "port_value": port}
    return fresh


class Door:
    """A gateway that runs, and what is behind it."""

    identity = GATEWAY

    def __init__(self, folder):
        self.folder = folder
        self.files = files(folder, self.identity)
        self.port = self.server_port = 0
        self.ports = {}
        self.arrived = []

    async def serve(self, reader, writer):
        """End an inner tunnel as a pod's proxy would: say who is there, and repeat what it says."""
        with contextlib.suppress(ssl.SSLError, OSError, EOFError):
            who = identity_of(writer.get_extra_info("peercert"))
            said = await reader.readline()
            self.arrived.append((who, said))
            writer.write(f"{who} ".encode() + said)
            await writer.drain()
        await closed(writer)

    async def ask(self, authority, **how):
        """Return the status of a request for an outer tunnel; 0 if it is refused before."""
        async with contextlib.AsyncExitStack() as stack:
            tunnel = await stack.enter_async_context(self.tunnel(authority, **how))
            return tunnel.status

    @contextlib.asynccontextmanager
    async def tunnel(self, authority, *, who=CALLER, of=ROOT, method="CONNECT"):
        """Ask for an outer tunnel."""
        context = trusting(self.folder, who, of=of)
        context.set_alpn_protocols(["h2"])
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context)
        except (ssl.SSLError, OSError):
            yield Tunnel(None, None, 0)
            return
        try:
            tunnel = Tunnel(reader, writer)
            with contextlib.suppress(ssl.SSLError, OSError, EOFError):
                assert identity_of(writer.get_extra_info("peercert")) == self.identity
                async with asyncio.timeout(LIMIT_S):
                    await tunnel.ask(authority, method=method)
            yield tunnel
        finally:
            await closed(writer)


STATUSES = {0x88: 200, 0x8C: 400, 0x8D: 404, 0x8E: 500}
"""What a server's first header says, by its place in HTTP/2's table; any other counts as 503."""

REFUSED = 429
TOO_MANY = b"\x48\x03429"
"""Such a header where it is not in the table: `:status`, and three digits."""

DATA, HEADERS, RESET, SETTINGS, AWAY = 0, 1, 3, 4, 7


def frame(kind, payload=b"", *, flags=0, stream=0):
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags))
    return head + stream.to_bytes(4, "big") + payload


class Tunnel:
    """One stream of HTTP/2, by hand: the first one of its connection."""

    def __init__(self, reader, writer, status=0):
        self._reader, self._writer = reader, writer
        self.status = status

    async def ask(self, authority, *, method):
        name = authority.encode()
        if method == "CONNECT":
            head = b"\x02\x07CONNECT\x01" + bytes((len(name),)) + name
        else:
            head = b"\x82\x87\x84\x01" + bytes((len(name),)) + name
        ended = 0 if method == "CONNECT" else 1
        self._writer.write(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + frame(SETTINGS)
            + frame(HEADERS, head, flags=4 | ended, stream=1)
        )
        while True:
            kind, flags, payload = await self._read()
            del flags
            if kind == HEADERS:
                is_refused = payload.startswith(TOO_MANY)
                self.status = REFUSED if is_refused else STATUSES.get(payload[0], 503)
                return
            if kind in {RESET, AWAY}:
                return

    async def _read(self):
        head = await self._reader.readexactly(9)
        payload = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
        if head[3] == SETTINGS and not head[4] & 1:
            self._writer.write(frame(SETTINGS, flags=1))
        return head[3], head[4], payload

    def write(self, content):
        self._writer.write(frame(DATA, content, stream=1))

    async def read(self):
        """Return what comes next through the tunnel; empty at its end."""
        while True:
            kind, flags, payload = await self._read()
            if kind == DATA and payload:
                return payload
            if kind in {RESET, AWAY} or (kind == DATA and flags & 1):
                return b""

    async def talk(self, context, said):
        """Open the inner tunnel, say something, and return the answer and who answered."""
        there, here = ssl.MemoryBIO(), ssl.MemoryBIO()
        inner = context.wrap_bio(there, here)
        async with asyncio.timeout(LIMIT_S):
            await self._until(inner.do_handshake, there, here)
            inner.write(said + b"\n")
            self.write(here.read())
            answer = await self._until(inner.read, there, here)
        return answer.decode().strip(), identity_of(inner.getpeercert())

    async def _until(self, step, there, here):
        while True:
            try:
                found = step()
            except ssl.SSLWantReadError:
                if here.pending:
                    self.write(here.read())
                content = await self.read()
                if not content:
                    raise EOFError("the tunnel ended") from None
                there.write(content)
            else:
                if here.pending:
                    self.write(here.read())
                return found


def unused():
    """Return a port of loopback on which nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextlib.asynccontextmanager
async def running(told, folder, *, serves=True, dead=()):
    """Run a gateway with what it was told, and a server behind it; nobody is at `dead` addresses."""
    door = Door(folder)
    async with contextlib.AsyncExitStack() as stack:
        context = trusting(folder, SERVER, purpose=ssl.Purpose.CLIENT_AUTH)
        server = await asyncio.start_server(door.serve, "127.0.0.1", 0, ssl=context)
        door.server_port = server.sockets[0].getsockname()[1]
        if not serves:
            server.close()
        else:
            stack.callback(server.close)
        door.port = unused()
        door.ports = dict.fromkeys(dead, unused())
        document = changed(json.loads(json.dumps(envoys.bootstrap(told))), door)
        stack.enter_context(envoys.running(document, directory=folder))
        yield door
