"""Tunnels in tunnels that a waypoint begins, to what stands behind gateways of other networks.

The outer one ends at the gateway, the inner one at whoever it passes that on to, who must prove an
identity of the service. Each connection has an inner tunnel of its own, so that the gateway chooses
for each.

Source: spec section 7.4.
"""

from typing import Final

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import base_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from google.protobuf import message

from isthmus.resources.envoy import filters, hbone, messages, pools, tls
from isthmus.views import view

Cluster = cluster_pb2.Cluster
OWN_NETWORK: Final = "x-forwarded-network"
ATTEMPTS: Final = 3
"""Another gateway is tried when one cannot be reached."""


def listener(way: view.waypoints.Onward) -> message.Message:
    """Return the listener that passes calls on through inner tunnels."""
    told = {OWN_NETWORK: str(way.network), hbone.BAGGAGE: way.baggage}
    passing = hbone.passed_on(way.name, way.authority, told, way.access_log_path)
    passing.max_connect_attempts.value = ATTEMPTS
    proxied = messages.extension("envoy.filters.network.tcp_proxy", passing)
    result: message.Message = listener_pb2.Listener(
        name=way.name,
        internal_listener={},
        listener_filters=[filters.original_destination()],
        filter_chains=[{"name": way.name, "filters": [proxied]}],
    )
    return result


def cluster(way: view.waypoints.OnwardCluster) -> message.Message:
    """Return the cluster of inner tunnels, whose endpoints are ways through gateways."""
    single = {"max_concurrent_streams": {"value": 1}}
    options = http_protocol_options_pb2.HttpProtocolOptions(
        explicit_http_config={"http2_protocol_options": single},
        common_http_protocol_options={"max_requests_per_connection": {"value": 1}},
    )
    told = [_through(one, way.authority) for one in way.gateways]
    spoken = tls.inner_tunnel_start(way.identities, by_domain=way.by_domain)
    result: message.Message = Cluster(
        name=way.name,
        type=Cluster.STATIC,
        connect_timeout=messages.seconds(hbone.CONNECT_S),
        circuit_breakers=hbone.NO_LIMITS,
        load_assignment={"cluster_name": way.name, "endpoints": [{"lb_endpoints": told}]},
        transport_socket=hbone.to_inside(spoken),
        typed_extension_protocol_options={pools.HTTP_OPTIONS: messages.packed(options)},
    )
    return result


def _through(gateway: view.waypoints.Beyond, authority: str) -> messages.Fields:
    host = f"[{gateway.address}]" if ":" in gateway.address else gateway.address
    where = f"{host}:{gateway.port}"
    inside = {"server_listener_name": view.waypoints.OUTER_START, "endpoint_id": where}
    told = {
        hbone.TARGET[0]: messages.struct({hbone.TARGET[1]: where}),
        hbone.PROOF[0]: messages.struct(
            {hbone.PROOF[1]: gateway.identity, hbone.AUTHORITY: authority}
        ),
    }
    return {
        "endpoint": {"address": {"envoy_internal_address": inside}},
        "load_balancing_weight": {"value": gateway.weight},
        "metadata": base_pb2.Metadata(filter_metadata=told),
    }
