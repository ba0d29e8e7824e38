"""A slice's cluster as Envoy's Cluster: discovery, balancing, limits and encryption.

Source: spec sections 4.8, 4.9, 4.11 and 8.1.
"""

from typing import Final, assert_never

from envoy.config.cluster.v3 import cluster_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from google.protobuf import any_pb2, message

from isthmus.mesh import policies
from isthmus.mesh.services import Protocol
from isthmus.resources.envoy import messages, tls
from isthmus.views import view

Cluster = cluster_pb2.Cluster

UNLIMITED: Final = 2**32 - 1
HTTP_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

# A peer that vanished without a word is noticed within half a minute of silence. Without probes
# a connection through a gateway that is gone would be kept until the kernel gives up, after
# a quarter of an hour and more.
KEEPALIVE: Final = {"keepalive_time": 15, "keepalive_interval": 5, "keepalive_probes": 3}


def cluster_of(cluster: view.ClusterSlice) -> message.Message:
    """Return the message that says how a cluster is reached."""
    result: message.Message = Cluster(
        name=cluster.name,
        alt_stat_name=f"{cluster.name};",
        connect_timeout=messages.seconds(cluster.connect_timeout_s),
        circuit_breakers=_limits(cluster.max_connections),
        metadata=_metadata(cluster),
        typed_extension_protocol_options=_http_options(cluster.protocol),
        **_discovery(cluster),
        **_encryption(cluster),
        **_outlier(cluster.outlier),
        **_sockets(cluster),
    )
    return result


def _discovery(cluster: view.ClusterSlice) -> messages.Fields:
    balanced: messages.Fields = {
        "lb_policy": _balancer(cluster.balancer),
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
    }
    match cluster.discovery:
        case view.Discovery.EDS:
            source = {"service_name": cluster.name, "eds_config": messages.from_ads()}
            return balanced | {"type": Cluster.EDS, "eds_cluster_config": source}
        case view.Discovery.ORIGINAL_DST:
            return {"type": Cluster.ORIGINAL_DST, "lb_policy": Cluster.CLUSTER_PROVIDED}
        case view.Discovery.STATIC_EMPTY:
            return {"type": Cluster.STATIC}
        case view.Discovery.STRICT_DNS:
            return balanced | {
                "type": Cluster.STRICT_DNS,
                "dns_lookup_family": Cluster.V4_PREFERRED,
                "load_assignment": _by_name(cluster),
            }
    assert_never(cluster.discovery)


def _by_name(cluster: view.ClusterSlice) -> messages.Fields:
    address = messages.socket_address(cluster.dns_name, port=cluster.dns_port)
    return {
        "cluster_name": cluster.name,
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
    }


def _balancer(balancer: policies.LoadBalancer) -> int:
    match balancer:
        case policies.LoadBalancer.LEAST_REQUEST:
            return int(Cluster.LEAST_REQUEST)
        case policies.LoadBalancer.ROUND_ROBIN:
            return int(Cluster.ROUND_ROBIN)
        case policies.LoadBalancer.RANDOM:
            return int(Cluster.RANDOM)
    assert_never(balancer)


def _limits(max_connections: int) -> messages.Fields:
    limit = {"value": UNLIMITED}
    connections = {"value": max_connections} if max_connections else limit
    return {
        "thresholds": [
            {
                "max_connections": connections,
                "max_pending_requests": limit,
                "max_requests": limit,
                "max_retries": limit,
                "track_remaining": True,
            }
        ]
    }


def _metadata(cluster: view.ClusterSlice) -> messages.Fields | None:
    if cluster.service is None:
        return None
    host, name, namespace = cluster.service
    services = [{"host": host, "name": name, "namespace": namespace}]
    return {"filter_metadata": {"istio": messages.struct({"services": services})}}


def _http_options(protocol: Protocol) -> dict[str, any_pb2.Any]:
    options = http_protocol_options_pb2.HttpProtocolOptions
    if protocol.is_http2:
        chosen = options(explicit_http_config={"http2_protocol_options": {}})
    elif protocol is Protocol.AUTO:
        chosen = options(use_downstream_protocol_config={"http2_protocol_options": {}})
    else:
        return {}
    return {HTTP_OPTIONS: messages.packed(chosen)}


def _encryption(cluster: view.ClusterSlice) -> messages.Fields:
    if cluster.tls is view.UpstreamTls.NONE:
        return {}
    socket = tls.client_socket(
        cluster.sni, identities=cluster.sans, speaks_http2=cluster.protocol.is_http2
    )
    if cluster.tls is view.UpstreamTls.MUTUAL:
        return {"transport_socket": socket}
    return {
        "transport_socket_matches": [
            {
                "name": "tlsMode-istio",
                "match": messages.struct({"tlsMode": "istio"}),
                "transport_socket": socket,
            },
            {
                "name": "tlsMode-disabled",
                "match": messages.struct({}),
                "transport_socket": tls.raw_socket(),
            },
        ]
    }


def _outlier(outlier: policies.OutlierDetection | None) -> messages.Fields:
    if outlier is None:
        return {}
    detection: messages.Fields = {
        "interval": messages.seconds(outlier.interval_s),
        "base_ejection_time": messages.seconds(outlier.base_ejection_s),
        "max_ejection_percent": {"value": outlier.max_ejection_percent},
        "enforcing_success_rate": {"value": 0},
    }
    limits = {
        "consecutive_5xx": outlier.consecutive_5xx,
        "consecutive_gateway_failure": outlier.consecutive_gateway_errors,
    }
    for name, limit in limits.items():
        if limit is not None:
            detection[name] = {"value": limit}
            detection[f"enforcing_{name}"] = {"value": 100 if limit else 0}
    return {"outlier_detection": detection}


def _sockets(cluster: view.ClusterSlice) -> messages.Fields:
    if cluster.bind_address:
        # The redirect rules let this source address through, so that no mark is needed.
        source = {"address": cluster.bind_address, "port_value": 0}
        return {"upstream_bind_config": {"source_address": source}}
    if cluster.discovery is view.Discovery.STATIC_EMPTY:
        return {}
    probes = {name: {"value": amount} for name, amount in KEEPALIVE.items()}
    return {"upstream_connection_options": {"tcp_keepalive": probes}}
