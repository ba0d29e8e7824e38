"""TLS of tunnels, and from where sockets of a node's Envoy leave.

A tunnel shows the certificate of the pod that calls, which is fetched when it is first needed,
and accepts exactly the identity that the connection says it expects; whatever that is, it must be
of a trust domain of the mesh.

Two of Envoy's messages are newer than the generated ones that we have, so they are told as
structures with their type's name.

Source: spec section 7.4.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from envoy.config.core.v3 import extension_pb2, socket_option_pb2
from envoy.extensions.local_address_selectors.filter_state_override.v3 import config_pb2
from envoy.extensions.transport_sockets.internal_upstream.v3 import internal_upstream_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, tls_pb2
from envoy.type.metadata.v3 import metadata_pb2
from xds.type.v3 import typed_struct_pb2

from isthmus.mesh.identities import SpiffeId, TrustDomain
from isthmus.resources.envoy import messages, pools, tls

ALPN: Final = ("h2",)
NOBODY: Final = "nobody"
"""A secret that there never is: where it is not known who calls, no tunnel is made."""

_SOL_SOCKET, _SO_MARK = 1, 36
_EXTENSIONS: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls."
_TLS_1_3: Final = common_pb2.TlsParameters.TLSv1_3


def of_tunnels(trust_domains: Sequence[TrustDomain]) -> messages.Fields:
    """Return the transport socket of tunnels that pods of this node begin."""
    common = _common(trust_domains)
    common["custom_tls_certificate_selector"] = _on_demand()
    return messages.extension(tls.SOCKET, tls_pb2.UpstreamTlsContext(common_tls_context=common))


def of_tunnel_end(identity: SpiffeId, trust_domains: Sequence[TrustDomain]) -> messages.Fields:
    """Return the transport socket of tunnels that end at a pod of this node."""
    common = _common(trust_domains)
    common["tls_certificate_sds_secret_configs"] = [
        {"name": str(identity), "sds_config": tls.from_agent()}
    ]
    return messages.extension(
        tls.SOCKET,
        tls_pb2.DownstreamTlsContext(
            require_client_certificate={"value": True}, common_tls_context=common
        ),
    )


def of_inner_tunnels(identities: Sequence[str]) -> messages.Fields:
    """Return the transport socket of tunnels inside of others, that end at one of `identities`."""
    common = _accepting([_named({"exact": identity}) for identity in identities])
    common["custom_tls_certificate_selector"] = _on_demand()
    return messages.extension(tls.SOCKET, tls_pb2.UpstreamTlsContext(common_tls_context=common))


def inside(
    metadata: Iterable[str] = (), *, around: messages.Fields | None = None
) -> messages.Fields:
    """Return the transport socket to a listener inside, which learns the endpoint's metadata.

    `around` is what goes on in it: plain bytes, unless said otherwise.
    """
    passed = [{"kind": metadata_pb2.MetadataKind(host={}), "name": name} for name in metadata]
    return messages.extension(
        "envoy.transport_sockets.internal_upstream",
        internal_upstream_pb2.InternalUpstreamTransport(
            passthrough_metadata=passed, transport_socket=around or tls.raw_socket()
        ),
    )


def left_from_pod() -> messages.Fields:
    """Return that sockets are made in the network of the connection's pod, and marked.

    By the mark the pod's packet rules let them through.
    """
    mark = {
        "level": _SOL_SOCKET,
        "name": _SO_MARK,
        "int_value": pools.MARK,
        "state": socket_option_pb2.SocketOption.STATE_PREBIND,
    }
    return {**made_in_pod(), "socket_options": [mark]}


def made_in_pod() -> messages.Fields:
    """Return that sockets are made in the network of the connection's pod."""
    chosen = extension_pb2.TypedExtensionConfig(
        **messages.extension(
            "envoy.upstream.local_address_selector.filter_state_override", config_pb2.Config()
        )
    )
    return {
        "source_address": {"address": "0.0.0.0", "port_value": 0},  # noqa: S104, RUF100  # any
        "local_address_selector": chosen,
    }


def _common(trust_domains: Sequence[TrustDomain]) -> messages.Fields:
    return _accepting([_named({"prefix": f"spiffe://{domain}/"}) for domain in trust_domains])


def _accepting(matchers: Sequence[messages.Fields]) -> messages.Fields:
    return {
        "tls_params": {
            "tls_minimum_protocol_version": _TLS_1_3,
            "tls_maximum_protocol_version": _TLS_1_3,
        },
        "alpn_protocols": list(ALPN),
        "combined_validation_context": {
            "default_validation_context": {"match_typed_subject_alt_names": list(matchers)},
            "validation_context_sds_secret_config": {
                "name": tls.ROOTS,
                "sds_config": tls.from_agent(),
            },
        },
    }


def _named(matcher: messages.Fields) -> messages.Fields:
    return {"san_type": common_pb2.SubjectAltNameMatcher.URI, "matcher": matcher}


def _on_demand() -> messages.Fields:
    source = {
        "api_config_source": {
            "api_type": "GRPC",
            "transport_api_version": "V3",
            "set_node_on_first_message_only": True,
            "grpc_services": [{"envoy_grpc": {"cluster_name": tls.SECRETS_CLUSTER}}],
        },
        "initial_fetch_timeout": "0s",
        "resource_api_version": "V3",
    }
    by_state = {
        "@type": f"{_EXTENSIONS}cert_mappers.filter_state_override.v3.Config",
        "default_value": NOBODY,
    }
    return _told_as_structure(
        "envoy.tls.certificate_selectors.on_demand_secret",
        f"{_EXTENSIONS}cert_selectors.on_demand_secret.v3.Config",
        {
            "config_source": source,
            "certificate_mapper": {
                "name": "envoy.tls.certificate_mappers.filter_state_override",
                "typed_config": by_state,
            },
        },
    )


def _told_as_structure(name: str, url: str, value: Mapping[str, object]) -> messages.Fields:
    told = typed_struct_pb2.TypedStruct(type_url=url, value=messages.struct(value))
    return messages.extension(name, told)
