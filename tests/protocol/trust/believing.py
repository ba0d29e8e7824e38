"""A real Envoy that believes whom the product's secret lists, and callers with any certificate.

Sockets and secret are the product's own; only where the secret comes from is a file here instead
of a stream, so that it can be changed while Envoy runs.
"""

import contextlib
import json
import socket
import ssl

from cryptography import x509
from envoy.config.core.v3 import base_pb2

from isthmus.base import clock
from isthmus.ca import anchors, keys, pem, shapes, signing
from isthmus.mesh import identities
from isthmus.mesh.trust import Bundle
from isthmus.resources.envoy import secrets
from isthmus.testing import certificates as material
from isthmus.testing import envoys
from isthmus.views import view

NOW = clock.SystemClock().now()
TYPE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
KEY = keys.private_pem(material.key("leaf"))


def below(cluster, *, limits=()):
    """Return the intermediate of a cluster; all are below one root."""
    return material.intermediate_certificate(cluster, now=NOW, trust_domains=limits)


def bundle(domain, *certificates):
    return Bundle(identities.TrustDomain(domain), anchors.of(certificates))


def identity(domain, account="sleep"):
    return identities.SpiffeId(identities.TrustDomain(domain), "sample", account)


def minted(domain, *, by, limits=(), account="sleep"):
    """Sign as who holds an intermediate's key can, whatever it is meant for: a chain as PEM."""
    signer = material.signer(by, now=NOW, trust_domains=limits)
    names = x509.SubjectAlternativeName(
        [x509.UniformResourceIdentifier(str(identity(domain, account)))]
    )
    leaf = signing._leaf(  # around the checks that the product makes
        material.key("leaf").public_key(),
        names=names,
        roles=signing.BOTH_ROLES,
        signer=signer,
        stamp=shapes.Stamp(NOW, 7),
        life=signing.Lifetimes().usual,
    )
    return pem.joined((leaf, *signer.chain))


def write(path, text):
    """Put a file there at once, as Envoy wants to see it."""
    fresh = path.with_suffix(".fresh")
    fresh.write_text(text)
    fresh.replace(path)


def list_bundles(folder, *bundles):
    """Say to Envoy who is believed from now on."""
    resource = secrets.bundles(view.TRUST, bundles)
    secret = envoys.as_json(envoys.decoded(resource))
    told = {"version_info": resource.version, "resources": [{"@type": TYPE, **secret}]}
    write(folder / "trust.json", json.dumps(told))


def transport(folder, fields, *, shows):
    """Return a transport socket of the product's as JSON, with its secrets in files.

    `shows` is the chain of certificates that it proves itself with.
    """
    found = envoys.as_json(base_pb2.TransportSocket(**fields))
    common = found["typed_config"]["common_tls_context"]
    del common["tls_certificate_sds_secret_configs"]
    chain, key = {"inline_string": shows}, {"inline_string": KEY}
    common["tls_certificates"] = [{"certificate_chain": chain, "private_key": key}]
    trusted = common["combined_validation_context"]["validation_context_sds_secret_config"]
    assert trusted["name"] == view.TRUST
    assert "ads" in trusted["sds_config"]
    trusted["sds_config"] = {
        "resource_api_version": "V3",
        "path_config_source": {"path": str(folder / "trust.json")},
    }
    return found


def listening(folder, name, socket_, *, filters):
    """Return a listener on a Unix socket of a name."""
    return {
        "name": name,
        "address": {"pipe": {"path": str(folder / name)}},
        "filter_chains": [{"filters": filters, "transport_socket": socket_}],
    }


@contextlib.contextmanager
def running(folder, listeners, clusters=()):
    """Let Envoy run with these."""
    admin = {"address": {"pipe": {"path": str(folder / "admin")}}}
    static = {"listeners": listeners, "clusters": list(clusters)}
    with envoys.running({"admin": admin, "static_resources": static}, directory=folder):
        yield folder


def asked(folder, name, chain):
    """Return the first line of the answer over TLS to who shows a chain of certificates.

    Empty if the other end closes.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(written(folder, "chain.pem", chain), written(folder, "key.pem", KEY))
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(10)
        raw.connect(str(folder / name))
        try:
            with context.wrap_socket(raw) as wire:
                return _said(wire)
        except (ssl.SSLError, ConnectionError):
            return ""


def _said(wire):
    wire.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    return wire.recv(100).split(b"\r\n")[0].decode()


def plainly_asked(folder, name):
    """Return the first line of the answer to who asks in plain text."""
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(10)
        raw.connect(str(folder / name))
        try:
            return _said(raw)
        except ConnectionError:
            return ""


def written(folder, name, text):
    path = folder / name
    path.write_text(text)
    return str(path)


def counted(folder, name):
    """Return the sum of Envoy's counters that end with a name."""
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(folder / "admin"))
        raw.sendall(b"GET /stats HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        told = b"".join(iter(lambda: raw.recv(65536), b"")).decode()
    found = (line.rpartition(": ") for line in told.splitlines())
    return sum(int(value) for key, _, value in found if key.endswith(name))


class Client:
    """A client that takes up again what it agreed on before, if it may."""

    def __init__(self, folder, name, chain):
        self._path = str(folder / name)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname, self._context.verify_mode = False, ssl.CERT_NONE
        self._context.maximum_version = ssl.TLSVersion.TLSv1_2
        self._context.load_cert_chain(
            written(folder, "chain.pem", chain), written(folder, "key.pem", KEY)
        )
        self._session = None
        self.was_resumed = False

    def asked(self):
        """Return the first line of the answer; empty if the other end closes."""
        with socket.socket(socket.AF_UNIX) as raw:
            raw.settimeout(10)
            raw.connect(self._path)
            try:
                with self._context.wrap_socket(raw, session=self._session) as wire:
                    said = _said(wire)
                    self._session, self.was_resumed = wire.session, wire.session_reused
                    return said
            except (ssl.SSLError, ConnectionError):
                return ""
