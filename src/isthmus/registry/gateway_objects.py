"""Gateway objects of networking.istio.io: the ports and hosts of gateways.

Source: spec sections 3.5 and 6.4.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from isthmus.kube import objects
from isthmus.mesh.policies import Gateway, GatewayServer, ServerTls, TlsLimits, TlsVersion
from isthmus.registry import config, fields, texts

TLS_MODES: Final = {mode.value: mode for mode in ServerTls if mode is not ServerTls.NONE}
PROTOCOLS: Final = frozenset(
    {"HTTP", "HTTP2", "HTTPS", "GRPC", "GRPC-WEB", "TCP", "TLS", "MONGO", "MYSQL", "REDIS"}
)
NEEDS_TLS: Final = frozenset({"HTTPS", "TLS"})
MOST_PORT: Final = 65535
UNSUPPORTED: Final = {"bind": "bind", "default_endpoint": "defaultEndpoint"}
PORT_UNSUPPORTED: Final = {"target_port": "targetPort"}
TLS_UNSUPPORTED: Final = {
    "credential_names": "credentialNames",
    "server_certificate": "serverCertificate",
    "private_key": "privateKey",
    "ca_certificates": "caCertificates",
    "ca_crl": "caCrl",
    "subject_alt_names": "subjectAltNames",
    "verify_certificate_hash": "verifyCertificateHash",
    "verify_certificate_spki": "verifyCertificateSpki",
    "tls_certificates": "tlsCertificates",
}
"""Of a server, its port and its TLS: the attribute, and the field as its author knows it."""

NARROWING: Final = (
    "ca_crl",
    "subject_alt_names",
    "verify_certificate_hash",
    "verify_certificate_spki",
)
"""Of these, whoever left one out would let in more clients than its author meant."""

WAY: Final = "kubernetes://"
AUTOMATIC: Final = "TLS_AUTO"
CIPHERS: Final = frozenset(
    {
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-CHACHA20-POLY1305",
        "ECDHE-ECDSA-AES128-SHA",
        "ECDHE-RSA-AES128-SHA",
        "ECDHE-ECDSA-AES256-SHA",
        "ECDHE-RSA-AES256-SHA",
        "AES128-GCM-SHA256",
        "AES256-GCM-SHA384",
        "AES128-SHA",
        "AES256-SHA",
    }
)
"""What proxies know. One that they do not know would cost them the whole listener."""


def read(
    origin: config.Origin, object_: objects.Gateway, problems: fields.Problems
) -> Gateway | None:
    """Say what a Gateway means; None without a server that can be used."""
    servers = []
    for number, server in enumerate(object_.spec.servers):
        found = _server(server, f"spec.servers[{number}]", origin, problems)
        if found is not None:
            servers.append(found)
    if not servers:
        problems.add("spec.servers", "has no server that can be used")
        return None
    return Gateway(
        namespace=origin.namespace,
        name=origin.name,
        selector=tuple(sorted((object_.spec.selector or {}).items())),
        servers=tuple(servers),
    )


def _name_unsupported(server: objects.GatewayServer, path: str, problems: fields.Problems) -> None:
    """Name what is set and has no effect."""
    for part, names, at in (
        (server, UNSUPPORTED, path),
        (server.port, PORT_UNSUPPORTED, f"{path}.port"),
        (server.tls, TLS_UNSUPPORTED, f"{path}.tls"),
    ):
        for field, name in names.items():
            if getattr(part, field, None):
                problems.add(f"{at}.{name}", "is not supported and left out")


def _server(
    server: objects.GatewayServer, path: str, origin: config.Origin, problems: fields.Problems
) -> GatewayServer | None:
    _name_unsupported(server, path, problems)
    protocol = server.port.protocol.upper()
    mode = server.tls.mode if server.tls else ""
    if not 0 < server.port.number <= MOST_PORT:
        problems.add(f"{path}.port.number", f"is no port: `{server.port.number}`")
        return None
    if protocol not in PROTOCOLS:
        problems.add(f"{path}.port.protocol", f"is not supported: `{protocol[:40]}`")
        return None
    if mode and mode not in TLS_MODES:
        problems.add(f"{path}.tls.mode", f"is not supported: `{mode[:40]}`")
        return None
    if protocol in NEEDS_TLS and not mode:
        # Istio reads an absent mode as PASSTHROUGH, which is its enum's zero.
        mode = ServerTls.PASSTHROUGH.value
    hosts = tuple(dict.fromkeys(_host(host, origin.namespace) for host in server.hosts if host))
    if not hosts:
        problems.add(f"{path}.hosts", "must name a host")
        return None
    plain = GatewayServer(
        port=server.port.number,
        port_name=server.port.name,
        protocol=protocol,
        hosts=hosts,
        tls=TLS_MODES.get(mode, ServerTls.NONE),
    )
    return plain if server.tls is None else _with_tls(plain, server.tls, f"{path}.tls", problems)


def _with_tls(
    server: GatewayServer, tls: objects.GatewayTls, path: str, problems: fields.Problems
) -> GatewayServer | None:
    """Add what is said about TLS; None if it would let in more clients than it says."""
    redirected = replace(server, redirects=tls.https_redirect is True)
    if not server.tls.is_ended:
        return redirected
    if any(getattr(tls, one, None) for one in NARROWING):
        problems.add(path, "would let in more clients than it says: nothing listens for it")
        return None
    limits = _limits(tls, path, problems)
    credential = _credential(tls, path, problems)
    if limits is None or credential is None:
        return None
    return replace(redirected, limits=limits, credential=credential)


def _credential(tls: objects.GatewayTls, path: str, problems: fields.Problems) -> str | None:
    """Return the name of the Secret; None if none can be meant."""
    said = tls.credential_name
    name = said.removeprefix(WAY) if isinstance(said, str) else ""
    if not name:
        problems.add(f"{path}.credentialName", "must name a Secret beside the gateway")
        return None
    if not texts.is_object_name(name):
        problems.add(
            f"{path}.credentialName",
            f"is no name of a Secret in the gateway's own namespace: `{name[:80]}`",
        )
        return None
    return name


def _limits(tls: objects.GatewayTls, path: str, problems: fields.Problems) -> TlsLimits | None:
    """Return what is accepted of clients; None if that is not understood: never more than meant."""
    usual = TlsLimits()
    lowest = _version(
        tls.min_protocol_version, usual.lowest, f"{path}.minProtocolVersion", problems
    )
    highest = _version(
        tls.max_protocol_version, usual.highest, f"{path}.maxProtocolVersion", problems
    )
    ciphers = _ciphers(tls.cipher_suites, f"{path}.cipherSuites", problems)
    if lowest is None or highest is None or ciphers is None:
        return None
    if lowest.value > highest.value:
        problems.add(f"{path}.minProtocolVersion", "is above `maxProtocolVersion`")
        return None
    return TlsLimits(lowest, highest, ciphers)


def _version(
    said: object, usual: TlsVersion, path: str, problems: fields.Problems
) -> TlsVersion | None:
    if said is None or said == "" or said == AUTOMATIC:
        return usual
    found = TlsVersion.__members__.get(said) if isinstance(said, str) else None
    if found is None:
        problems.add(path, f"is no version of TLS: `{str(said)[:40]}`")
    return found


def _ciphers(said: object, path: str, problems: fields.Problems) -> tuple[str, ...] | None:
    if said is None:
        return ()
    if not isinstance(said, Sequence) or isinstance(said, str | bytes):
        problems.add(path, "is no list")
        return None
    known = tuple(dict.fromkeys(one for one in said if isinstance(one, str) and one in CIPHERS))
    for one in said:
        if one not in known:
            problems.add(path, f"proxies do not know `{str(one)[:60]}`: it is left out")
    if said and not known:
        problems.add(path, "none of these ciphers is known")
        return None
    return known


def _host(text: str, namespace: str) -> str:
    """Return `host` or `<namespace>/host`, with the object's own namespace for a dot."""
    host = text.lower().rstrip(".")
    if host.startswith("./"):
        return f"{namespace}/{host[2:]}"
    return host.removeprefix("*/")
