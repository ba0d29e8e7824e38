"""Where tunnels end, for Envoy: who may come in, and where what is in them goes.

Only CONNECT is answered, and only for what is in the table: whatever else is asked for, or by a
request that is no tunnel, leads nowhere. A gateway has names of shared services in it, behind which
inner tunnels end; a sidecar has ports of its own workload, by its addresses and its services.

Source: spec section 7.4.
"""

import datetime
import re
from typing import Final

from envoy.config.core.v3 import base_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,
)
from google.protobuf import message

from isthmus.resources.envoy import (
    access_logs,
    actions,
    callers,
    filters,
    listeners,
    messages,
    rates,
    rbac,
    tls,
)
from isthmus.views import view

CONNECT: Final = "CONNECT"
ANY_PORT: Final = ":*"
RETRIES: Final = 2
HELLO_WITHIN: Final = datetime.timedelta(seconds=15)
MOST_BUFFERED_BYTES: Final = 32 * 1024
STREAM_WINDOW_BYTES: Final = 1024 * 1024
CONNECTION_WINDOW_BYTES: Final = 16 * 1024 * 1024
MOST_STREAMS: Final = 1024
"""Of one connection; clients open another one then."""

REFUSED: Final = 400
PORT: Final = (
    "(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
)
"""Just one way to write a port: who judges by it and who connects to it must read the same."""

Manager = http_connection_manager_pb2.HttpConnectionManager


def listener(tunnels: view.tunnels.GatewayTunnels) -> message.Message:
    """Return the listener that ends outer tunnels."""
    result: message.Message = listener_pb2.Listener(
        name=tunnels.name,
        address=messages.socket_address(listeners.ANY_ADDRESS, port=tunnels.port),
        traffic_direction=base_pb2.INBOUND,
        per_connection_buffer_limit_bytes={"value": MOST_BUFFERED_BYTES},
        filter_chains=[
            {
                "name": tunnels.name,
                "filters": [_manager(tunnels)],
                "transport_socket": tls.tunnel_end(
                    tunnels.trust_domains, by_domain=tunnels.by_domain
                ),
                "transport_socket_connect_timeout": HELLO_WITHIN,
            }
        ],
        access_log=access_logs.of_refused(tunnels.access_log_path),
    )
    return result


def _manager(tunnels: view.tunnels.GatewayTunnels) -> messages.Fields:
    routed = Manager(
        codec_type=Manager.HTTP2,
        stat_prefix=tunnels.name,
        server_name=filters.SERVER_NAME,
        rds={"route_config_name": tunnels.route_name, "config_source": messages.from_ads()},
        # A tunnel is as idle as what goes through it.
        stream_idle_timeout=messages.FOREVER,
        request_headers_timeout=HELLO_WITHIN,
        upgrade_configs=[{"upgrade_type": CONNECT}],
        http2_protocol_options={
            "allow_connect": True,
            "max_concurrent_streams": {"value": MOST_STREAMS},
            "initial_stream_window_size": {"value": STREAM_WINDOW_BYTES},
            "initial_connection_window_size": {"value": CONNECTION_WINDOW_BYTES},
        },
        http_filters=[
            # First: who asks too often shall cost least.
            *([rates.of_callers(tunnels.most_each)] if tunnels.most_each else []),
            *rbac.http_filters(tunnels.policies),
            *([callers.noted()] if tunnels.notes_callers else []),
            messages.extension("envoy.filters.http.router", router_pb2.Router()),
        ],
        access_log=access_logs.of_traffic(tunnels.access_log_path),
    )
    return messages.extension("envoy.filters.network.http_connection_manager", routed)


def routes(told: view.tunnels.TunnelRoutes | view.tunnels.WorkloadRoutes) -> message.Message:
    """Return where each name that may be asked for leads."""
    if isinstance(told, view.tunnels.WorkloadRoutes):
        return _to_workload(told)
    result: message.Message = route_pb2.RouteConfiguration(
        name=told.name,
        virtual_hosts=[_host(host) for host in told.hosts],
        validate_clusters={"value": False},
    )
    return result


def _host(host: view.tunnels.TunnelHost) -> messages.Fields:
    action: messages.Fields = {
        "cluster": host.cluster_name,
        "timeout": messages.FOREVER,
        "upgrade_configs": [{"upgrade_type": CONNECT, "connect_config": {}}],
        # The other end of a tunnel has heard nothing yet when it cannot be reached.
        "retry_policy": {
            "retry_on": "connect-failure",
            "num_retries": {"value": RETRIES},
            "retry_host_predicate": [actions.avoiding_tried()],
            "host_selection_retry_max_attempts": actions.HOST_ATTEMPTS,
        },
    }
    match: messages.Fields = {"connect_matcher": {}}
    if host.authority.endswith(ANY_PORT):
        wanted = f"{re.escape(host.authority.removesuffix(ANY_PORT))}:{PORT}"
        match["headers"] = [
            {"name": ":authority", "string_match": {"safe_regex": {"regex": wanted}}}
        ]
    return {
        "name": host.authority,
        "domains": [host.authority],
        "routes": [{"name": host.authority, "match": match, "route": action}],
    }


def _to_workload(told: view.tunnels.WorkloadRoutes) -> message.Message:
    """Return where tunnels to the workload beside the proxy lead: to ports of its own."""
    places = [f"[{one}]" if ":" in one else one for one in told.addresses]
    circles = [f"{place}:{port}" for place in places for port in view.nodeslices.OWN_PORTS]
    refused = {"match": {"connect_matcher": {}}, "direct_response": {"status": REFUSED}}
    hosts: list[messages.Fields] = [{"name": "circles", "domains": circles, "routes": [refused]}]
    for host in told.hosts:
        route = _to_own_port(answering=f"{places[0]}:{host.port}")
        hosts.append({"name": host.authority, "domains": [host.authority], "routes": [route]})
    anywhere = [*(_to_own_port(place) for place in places), refused]
    result: message.Message = route_pb2.RouteConfiguration(
        name=view.name_of(told),
        virtual_hosts=[
            *(hosts if places else []),
            {"name": "own", "domains": ["*"], "routes": anywhere},
        ],
        validate_clusters={"value": False},
    )
    return result


def _to_own_port(place: str = "", *, answering: str = "") -> messages.Fields:
    """Return the route of tunnels to any port of `place`, or of those that `answering` answers."""
    match: messages.Fields = {"connect_matcher": {}}
    if place:
        asked = {"safe_regex": {"regex": f"{re.escape(place)}:{PORT}"}}
        match["headers"] = [{"name": ":authority", "string_match": asked}]
    return {
        "match": match,
        "route": {
            "cluster": view.tunnels.INSIDE,
            "timeout": messages.FOREVER,
            "upgrade_configs": [{"upgrade_type": CONNECT, "connect_config": {}}],
        },
        "typed_per_filter_config": callers.leading_to(answering) if answering else {},
    }
