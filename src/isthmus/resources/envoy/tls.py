"""TLS as Envoy's transport sockets: the mesh's own, for clients and servers, and that of gateways.

Keys and roots of the mesh come from the node's agent under fixed names, never in a resource; those
of gateways for strangers come from the control plane, as resources of their own. Neither side
offers the protocol of Istio's metadata exchange: whoever offers it must speak it, and a stock
Envoy cannot.

Source: spec sections 4.8, 4.9 and 4.12.
"""

import functools
import ipaddress
from collections.abc import Iterable, Sequence
from typing import Final

from envoy.config.core.v3 import config_source_pb2
from envoy.extensions.transport_sockets.raw_buffer.v3 import raw_buffer_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, tls_pb2
from google.protobuf import message

from isthmus.mesh.identities import TrustDomain
from isthmus.mesh.policies import ServerTls, TlsVersion
from isthmus.resources.envoy import messages
from isthmus.views import view

SECRETS_CLUSTER: Final = "sds-grpc"
CERTIFICATE: Final = "default"
ROOTS: Final = "ROOTCA"

PEER_EXCHANGE: Final = "istio-peer-exchange"
MESH: Final = "istio"
MESH_HTTP: Final = ("istio-http/1.0", "istio-http/1.1", "istio-h2")
MESH_TCP: Final = (PEER_EXCHANGE, MESH)
MESH_ALPN: Final = (MESH, PEER_EXCHANGE, *MESH_HTTP)
"""All protocols by which the mesh's own TLS is told from an application's."""

SERVER_ALPN: Final = ("h2", "http/1.1")

CIPHERS: Final = (
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
)

CLIENTS: Final = "-cacert"

VERSIONS: Final = {
    TlsVersion.TLSV1_0: common_pb2.TlsParameters.TLSv1_0,
    TlsVersion.TLSV1_1: common_pb2.TlsParameters.TLSv1_1,
    TlsVersion.TLSV1_2: common_pb2.TlsParameters.TLSv1_2,
    TlsVersion.TLSV1_3: common_pb2.TlsParameters.TLSv1_3,
}

# A client of Envoy's would stop at TLS 1.2 if the highest version were not named.
VERSION_PARAMETERS: Final = {
    "tls_minimum_protocol_version": common_pb2.TlsParameters.TLSv1_2,
    "tls_maximum_protocol_version": common_pb2.TlsParameters.TLSv1_3,
}

NEWEST_ONLY: Final = {
    "tls_minimum_protocol_version": common_pb2.TlsParameters.TLSv1_3,
    "tls_maximum_protocol_version": common_pb2.TlsParameters.TLSv1_3,
}

SOCKET: Final = "envoy.transport_sockets.tls"

SYSTEM: Final = "system"
"""Stands for the operating system's roots where agents are asked for a file."""

FILE_WAIT_S: Final = 2.0
"""So long a cluster waits for its files; then its connections fail until they are there."""


def raw_socket() -> messages.Fields:
    """Return the transport socket that encrypts nothing."""
    return messages.extension("envoy.transport_sockets.raw_buffer", raw_buffer_pb2.RawBuffer())


def client_socket(
    server_name: str, *, identities: Iterable[str], speaks_http2: bool, by_domain: bool = False
) -> messages.Fields:
    """Return the transport socket of a client in the mesh.

    It asks for `server_name`, by which gateways pass the connection on, and accepts a server that
    has one of `identities`, or where none is known any with a known root.
    """
    common = _of_client(tuple(identities), speaks_http2, by_domain=by_domain)
    return messages.extension(
        SOCKET, tls_pb2.UpstreamTlsContext(sni=server_name, common_tls_context=common)
    )


@functools.lru_cache(maxsize=1024)
def _of_client(
    identities: tuple[str, ...], speaks_http2: bool, *, by_domain: bool
) -> message.Message:
    """Return what clients of all servers with these identities have in common; it is shared."""
    matchers = [_uri({"exact": identity}) for identity in identities]
    alpn = (MESH, "h2") if speaks_http2 else (MESH,)
    common = _common(alpn, matchers=matchers, ciphers=(), by_domain=by_domain)
    result: message.Message = tls_pb2.CommonTlsContext(**common)
    return result


def foreign_socket(
    wanted: view.ForeignTls, *, server_name: str, names: Sequence[str]
) -> messages.Fields:
    """Return the transport socket of a client of servers that the mesh's authority has not signed.

    The agent beside the proxy reads the files, by names of Istio's making. Without them no
    connection is made.
    """
    common: messages.Fields = {"tls_params": VERSION_PARAMETERS}
    if wanted.certificate is not None:
        chain, key = wanted.certificate
        common["tls_certificate_sds_secret_configs"] = [
            _secret(f"file-cert:{chain}~{key}", wait_s=FILE_WAIT_S)
        ]
    if wanted.verifies:
        matchers = [] if wanted.asks_as_requested or "*" in names else list(map(_name, names))
        roots = _secret(f"file-root:{wanted.authorities or SYSTEM}", wait_s=FILE_WAIT_S)
        common["combined_validation_context"] = {
            "default_validation_context": {"match_typed_subject_alt_names": matchers},
            "validation_context_sds_secret_config": roots,
        }
    return messages.extension(
        SOCKET, tls_pb2.UpstreamTlsContext(sni=server_name, common_tls_context=common)
    )


def _name(name: str) -> messages.Fields:
    """Return what a server's certificate must hold; a star stands for any beginning."""
    kinds = common_pb2.SubjectAltNameMatcher
    if "://" in name:
        return _uri({"exact": name})
    if name.startswith("*"):
        return {"san_type": kinds.DNS, "matcher": {"suffix": name.removeprefix("*")}}
    kind = kinds.IP_ADDRESS if _is_address(name) else kinds.DNS
    return {"san_type": kind, "matcher": {"exact": name}}


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def server_socket(
    trust_domains: Sequence[TrustDomain], *, by_domain: bool = False
) -> messages.Fields:
    """Return the transport socket of a server that only lets the mesh's identities in."""
    matchers = [_uri({"prefix": f"spiffe://{domain}/"}) for domain in trust_domains]
    return messages.extension(
        SOCKET,
        tls_pb2.DownstreamTlsContext(
            require_client_certificate={"value": True},
            common_tls_context=_common(
                SERVER_ALPN, matchers=matchers, ciphers=CIPHERS, by_domain=by_domain
            ),
        ),
    )


def tunnel_end(trust_domains: Sequence[TrustDomain], *, by_domain: bool = False) -> messages.Fields:
    """Return the transport socket of who ends tunnels: of the mesh only, and TLS 1.3 only."""
    matchers = [_uri({"prefix": f"spiffe://{domain}/"}) for domain in trust_domains]
    common = _common(("h2",), matchers=matchers, ciphers=(), by_domain=by_domain)
    common["tls_params"] = NEWEST_ONLY
    return messages.extension(
        SOCKET,
        tls_pb2.DownstreamTlsContext(
            require_client_certificate={"value": True}, common_tls_context=common
        ),
    )


def tunnel_start(
    trust_domains: Sequence[TrustDomain], *, by_domain: bool = False
) -> messages.Fields:
    """Return the transport socket of who begins tunnels; each connection says who must answer."""
    matchers = [_uri({"prefix": f"spiffe://{domain}/"}) for domain in trust_domains]
    common = _common(("h2",), matchers=matchers, ciphers=(), by_domain=by_domain)
    common["tls_params"] = NEWEST_ONLY
    return messages.extension(SOCKET, tls_pb2.UpstreamTlsContext(common_tls_context=common))


def inner_tunnel_start(identities: Sequence[str], *, by_domain: bool = False) -> messages.Fields:
    """Return the transport socket of tunnels in others, that end at one of `identities`."""
    matchers = [_uri({"exact": identity}) for identity in identities]
    common = _common(("h2",), matchers=matchers, ciphers=(), by_domain=by_domain)
    common["tls_params"] = NEWEST_ONLY
    return messages.extension(SOCKET, tls_pb2.UpstreamTlsContext(common_tls_context=common))


def gateway_socket(chain: view.EndedChain) -> messages.Fields:
    """Return the transport socket that ends TLS of strangers with a certificate of the gateway's."""
    common: messages.Fields = {
        "tls_params": {
            "tls_minimum_protocol_version": VERSIONS[chain.limits.lowest],
            "tls_maximum_protocol_version": VERSIONS[chain.limits.highest],
            "cipher_suites": list(chain.limits.ciphers or CIPHERS),
        },
        "alpn_protocols": list(SERVER_ALPN),
        "tls_certificate_sds_secret_configs": [_from_control_plane(credential(chain.credential))],
    }
    if chain.mode.asks_for_certificates:
        common["validation_context_sds_secret_config"] = _from_control_plane(
            credential(chain.credential, of_clients=True)
        )
    return messages.extension(
        SOCKET,
        tls_pb2.DownstreamTlsContext(
            require_client_certificate={"value": chain.mode is ServerTls.MUTUAL},
            common_tls_context=common,
        ),
    )


def credential(name: str, *, of_clients: bool = False) -> str:
    """Return how a Secret's certificate is asked for, or who may sign certificates of clients."""
    return f"kubernetes://{name}{CLIENTS if of_clients else ''}"


def _from_control_plane(name: str) -> messages.Fields:
    return {"name": name, "sds_config": messages.from_ads()}


def _uri(matcher: messages.Fields) -> messages.Fields:
    return {"san_type": common_pb2.SubjectAltNameMatcher.URI, "matcher": matcher}


def _common(
    alpn: Sequence[str],
    *,
    matchers: Sequence[messages.Fields],
    ciphers: Sequence[str],
    by_domain: bool,
) -> messages.Fields:
    return {
        "tls_params": {**VERSION_PARAMETERS, "cipher_suites": list(ciphers)},
        "alpn_protocols": list(alpn),
        "tls_certificate_sds_secret_configs": [_secret(CERTIFICATE)],
        "combined_validation_context": {
            "default_validation_context": {"match_typed_subject_alt_names": list(matchers)},
            "validation_context_sds_secret_config": believed(by_domain=by_domain),
        },
    }


def believed(*, by_domain: bool) -> messages.Fields:
    """Return where it stands who is believed.

    Where trust domains have bundles the control plane tells them, to any agent's proxy alike;
    else the agent has the mesh's roots.
    """
    return _from_control_plane(view.TRUST) if by_domain else _secret(ROOTS)


def from_agent(*, wait_s: float = 0.0) -> messages.Fields:
    """Return a reference to what the agent beside the proxy serves; 0 waits for it for ever."""
    return {
        "api_config_source": {
            "api_type": config_source_pb2.ApiConfigSource.GRPC,
            "transport_api_version": config_source_pb2.V3,
            "set_node_on_first_message_only": True,
            "grpc_services": [{"envoy_grpc": {"cluster_name": SECRETS_CLUSTER}}],
        },
        "initial_fetch_timeout": messages.seconds(wait_s),
        "resource_api_version": config_source_pb2.V3,
    }


def _secret(name: str, *, wait_s: float = 0.0) -> messages.Fields:
    return {"name": name, "sds_config": from_agent(wait_s=wait_s)}
