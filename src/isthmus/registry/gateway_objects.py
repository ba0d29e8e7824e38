"""Gateway objects of networking.istio.io: the ports and hosts of gateways.

Source: spec sections 3.5 and 6.4.
"""

from typing import Final

from isthmus.kube import objects
from isthmus.mesh.policies import Gateway, GatewayServer, ServerTls
from isthmus.registry import config, fields

TLS_MODES: Final = {mode.value: mode for mode in ServerTls if mode is not ServerTls.NONE}
PROTOCOLS: Final = frozenset(
    {"HTTP", "HTTP2", "HTTPS", "GRPC", "GRPC-WEB", "TCP", "TLS", "MONGO", "MYSQL", "REDIS"}
)
NEEDS_TLS: Final = frozenset({"HTTPS", "TLS"})
MOST_PORT: Final = 65535
UNSUPPORTED: Final = {"bind": "bind", "default_endpoint": "defaultEndpoint"}
PORT_UNSUPPORTED: Final = {"target_port": "targetPort"}
TLS_UNSUPPORTED: Final = {
    "https_redirect": "httpsRedirect",
    "credential_name": "credentialName",
    "credential_names": "credentialNames",
    "server_certificate": "serverCertificate",
    "private_key": "privateKey",
    "ca_certificates": "caCertificates",
    "ca_crl": "caCrl",
    "subject_alt_names": "subjectAltNames",
    "min_protocol_version": "minProtocolVersion",
    "max_protocol_version": "maxProtocolVersion",
    "cipher_suites": "cipherSuites",
    "verify_certificate_hash": "verifyCertificateHash",
    "verify_certificate_spki": "verifyCertificateSpki",
    "tls_certificates": "tlsCertificates",
}
"""Of a server, its port and its TLS: the attribute, and the field as its author knows it."""


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
    return GatewayServer(
        port=server.port.number,
        port_name=server.port.name,
        protocol=protocol,
        hosts=hosts,
        tls=TLS_MODES.get(mode, ServerTls.NONE),
    )


def _host(text: str, namespace: str) -> str:
    """Return `host` or `<namespace>/host`, with the object's own namespace for a dot."""
    host = text.lower().rstrip(".")
    if host.startswith("./"):
        return f"{namespace}/{host[2:]}"
    return host.removeprefix("*/")
