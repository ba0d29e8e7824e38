"""A cluster that really listens with TLS on loopback, and the clients that talk to it."""

import asyncio
import contextlib
import datetime
import ipaddress
import os
import shutil
import socket
import ssl
from dataclasses import dataclass

import yaml
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from isthmus.lab.apiserver import api as apis
from isthmus.lab.apiserver import http, listening
from isthmus.testing import pace

ADMIN = apis.User("admin", groups=("system:masters",))


class OneAdmin:
    """Takes every bearer of the token `admin` for the administrator, and refuses others."""

    async def authenticate(self, request):
        if request.headers.get("Authorization") != "Bearer admin":
            raise apis.ApiError(401, "Unauthorized", "Unauthorized")
        return ADMIN

    async def authorize(self, user, attributes):
        if attributes.resource == "leases":
            raise apis.ApiError(403, "Forbidden", "leases are forbidden here")


class OnlyLogs:
    """Has one line of log for every pod."""

    async def log(self, request, pod):
        return web.Response(text=f"hello from {pod['metadata']['name']}\n")


async def review(user, body):
    if body["kind"] == "SelfSubjectReview":
        return {**body, "status": {"userInfo": {"username": user.name}}}
    return {**body, "status": {"allowed": True, "resourceRules": [], "nonResourceRules": []}}


async def issue_token(account, request):
    status = {
        "token": f"for-{account['metadata']['name']}",
        "expirationTimestamp": "2100-01-01T00:00:00Z",
    }
    return {**request, "status": status}


def certificate(folder):
    """Make a certificate for loopback; returns its path and its key's."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lab")])
    begin = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=36_500))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    paths = folder / "server.crt", folder / "server.key"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


@dataclass
class Served:
    """A cluster and where it is."""

    api: apis.Api
    url: str
    ca: str
    kubeconfig: str
    home: str
    runner: web.AppRunner

    async def stop(self):
        """Stop serving."""
        await self.runner.cleanup()

    def trusting(self):
        """Return the TLS context of a client that trusts this cluster alone."""
        return ssl.create_default_context(cafile=self.ca)

    async def kubectl(self, *words, given="", ok=True):
        """Run kubectl and return what it printed."""
        program = shutil.which("kubectl")
        assert program, "kubectl is needed for this test"
        running = await asyncio.create_subprocess_exec(
            program,
            *words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={"KUBECONFIG": self.kubeconfig, "HOME": self.home, "PATH": os.environ["PATH"]},
        )
        async with asyncio.timeout(pace.patience(30)):
            printed, _ = await running.communicate(given.encode())
        text = printed.decode()
        assert (running.returncode == 0) is ok, text
        return text


@contextlib.asynccontextmanager
async def served(folder, *, bookmark_s=60.0):
    """Serve a new cluster until the end of the block."""
    chain, key = certificate(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    api = apis.Api()
    api.review = review
    api.issue_token = issue_token
    app = http.application(api, OneAdmin(), OnlyLogs(), bookmark_s=bookmark_s)
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"https://127.0.0.1:{listener.getsockname()[1]}"
    runner = await listening.listen(app, [listener], context=context)
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(kubeconfig(url, str(chain))))
    try:
        yield Served(api, url, str(chain), str(path), str(folder), runner)
    finally:
        await runner.cleanup()
        listener.close()


def kubeconfig(url, ca):
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "lab",
        "clusters": [{"name": "lab", "cluster": {"server": url, "certificate-authority": ca}}],
        "users": [{"name": "admin", "user": {"token": "admin"}}],
        "contexts": [
            {"name": "lab", "context": {"cluster": "lab", "user": "admin", "namespace": "default"}}
        ],
    }
