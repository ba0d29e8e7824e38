"""Tunnels that a proxy with one identity of its own begins: waypoints, for Envoy.

An endpoint at the end of a tunnel is an address inside the proxy. The listener there knows from
the endpoint's metadata where the tunnel leads and who must be at its end.

Source: spec sections 4.7 and 7.4.
"""

from collections.abc import Mapping
from typing import Final

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.common.set_filter_state.v3 import value_pb2
from envoy.extensions.filters.network.set_filter_state.v3 import set_filter_state_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.extensions.transport_sockets.internal_upstream.v3 import internal_upstream_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from envoy.type.metadata.v3 import metadata_pb2
from google.protobuf import message

from isthmus.mesh.networks import HBONE_PORT
from isthmus.resources.envoy import access_logs, filters, messages, pools, tls
from isthmus.views import view

Value = value_pb2.FilterStateValue
Cluster = cluster_pb2.Cluster

TARGET: Final = ("envoy.filters.listener.original_dst", "local")
"""The namespace and key of an endpoint's metadata that say where it is."""

PROOF: Final = ("isthmus.tunnel", "identity")
"""The namespace and key of an endpoint's metadata that say who it must be."""

AUTHORITY: Final = "authority"
"""The key beside `PROOF` that says what is asked for at a gateway."""

BY_ENDPOINT: Final = f"%DYNAMIC_METADATA({PROOF[0]}:{AUTHORITY})%"
BAGGAGE: Final = "baggage"
EXPECTED: Final = "envoy.network.upstream_subject_alt_names"
MATCH: Final[Mapping[str, str]] = {"tunnel": "http"}
"""By it a cluster knows the endpoints at the end of tunnels."""

WHERE_TO: Final = "%DOWNSTREAM_LOCAL_ADDRESS%"
CONNECT_S: Final = 10.0
MOST_STREAMS: Final = 100
PING_S, PONG_S = 15.0, 10.0

NO_LIMITS: Final[messages.Fields] = {
    "thresholds": [
        {
            name: {"value": pools.UNLIMITED}
            for name in ("max_connections", "max_pending_requests", "max_requests")
        }
    ]
}


def to_inside(spoken: messages.Fields | None = None) -> messages.Fields:
    """Return the transport socket to a listener inside, which learns the endpoint's metadata.

    `spoken` is the transport socket of what goes through it; None for plain text.
    """
    host = metadata_pb2.MetadataKind(host={})
    return messages.extension(
        "envoy.transport_sockets.internal_upstream",
        internal_upstream_pb2.InternalUpstreamTransport(
            passthrough_metadata=[{"kind": host, "name": one[0]} for one in (TARGET, PROOF)],
            transport_socket=spoken or tls.raw_socket(),
        ),
    )


def address(endpoint: view.LbEndpoint) -> messages.Fields:
    """Return the address inside the proxy of an endpoint at the end of a tunnel."""
    inside = {"server_listener_name": view.waypoints.TUNNEL_START, "endpoint_id": where(endpoint)}
    return {"envoy_internal_address": inside}


def where(endpoint: view.LbEndpoint) -> str:
    """Return where a tunnel to an endpoint leads."""
    host = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
    return f"{host}:{endpoint.port}"


def listener(start: view.waypoints.TunnelStart) -> message.Message:
    """Return the listener inside that begins tunnels."""
    namespace, key = PROOF
    expected = Value(
        object_key=EXPECTED,
        factory_key=EXPECTED,
        format_string={
            "text_format_source": {"inline_string": f"%DYNAMIC_METADATA({namespace}:{key})%"}
        },
        shared_with_upstream=Value.TRANSITIVE,
    )
    asked = BY_ENDPOINT if start.to_gateways else WHERE_TO
    passing = passed_on(start.name, asked, {BAGGAGE: start.baggage}, start.access_log_path)
    told = [
        messages.extension(
            "envoy.filters.network.set_filter_state",
            set_filter_state_pb2.Config(on_new_connection=[expected]),
        ),
        messages.extension("envoy.filters.network.tcp_proxy", passing),
    ]
    result: message.Message = listener_pb2.Listener(
        name=start.name,
        internal_listener={},
        listener_filters=[filters.original_destination()],
        filter_chains=[{"name": start.name, "filters": told}],
    )
    return result


def passed_on(
    cluster: str, asked: str, headers: Mapping[str, str], log_path: str
) -> tcp_proxy_pb2.TcpProxy:
    """Return what passes bytes on through tunnels of a cluster, in which `asked` is asked for."""
    passing = tcp_proxy_pb2.TcpProxy(
        stat_prefix=cluster.partition("|")[0],
        cluster=cluster,
        idle_timeout=messages.FOREVER,
        tunneling_config={"hostname": asked},
        access_log=access_logs.of_traffic(log_path),
    )
    for key, value in headers.items():
        if value:
            # Envoy reads a percent sign as the beginning of a command.
            told = {"key": key, "value": value.replace("%", "%%")}
            passing.tunneling_config.headers_to_add.add(header=told)
    return passing


def cluster(tunnels: view.waypoints.TunnelCluster) -> message.Message:
    """Return the cluster of all tunnels: where each leads, its connection says."""
    ping = {"interval": messages.seconds(PING_S), "timeout": messages.seconds(PONG_S)}
    spoken = {"max_concurrent_streams": {"value": MOST_STREAMS}, "connection_keepalive": ping}
    options = http_protocol_options_pb2.HttpProtocolOptions(
        explicit_http_config={"http2_protocol_options": spoken}
    )
    port: messages.Fields = {"upstream_port_override": {"value": HBONE_PORT}}
    result: message.Message = Cluster(
        name=tunnels.name,
        type=Cluster.ORIGINAL_DST,
        lb_policy=Cluster.CLUSTER_PROVIDED,
        connect_timeout=messages.seconds(CONNECT_S),
        circuit_breakers=NO_LIMITS,
        original_dst_lb_config={} if tunnels.to_gateways else port,
        transport_socket=tls.tunnel_start(tunnels.trust_domains, by_domain=tunnels.by_domain),
        typed_extension_protocol_options={pools.HTTP_OPTIONS: messages.packed(options)},
    )
    return result
