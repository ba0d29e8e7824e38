"""The filters of listeners: looking at the first bytes, routing requests, passing bytes on.

Nothing waits for first bytes longer than the client takes to send them, as in Istio.

Source: spec sections 4.8, 4.9 and 4.12.
"""

import enum
from collections.abc import Sequence
from typing import Final

from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.listener.http_inspector.v3 import http_inspector_pb2
from envoy.extensions.filters.listener.original_dst.v3 import original_dst_pb2
from envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,
)
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from google.protobuf import message

from isthmus.resources.envoy import access_logs, messages

PLAIN: Final = "raw_buffer"
TLS: Final = "tls"
SNIFFED_HTTP: Final = ("http/1.1", "h2c")
SERVER_NAME: Final = "istio-envoy"

Manager = http_connection_manager_pb2.HttpConnectionManager


class Side(enum.Enum):
    """Which way the traffic goes, seen from the workload."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"


def original_destination() -> messages.Fields:
    """Return the listener filter that finds out where a captured connection was going."""
    return messages.extension("envoy.filters.listener.original_dst", original_dst_pb2.OriginalDst())


def tls_inspector(*, except_ports: Sequence[int] = ()) -> messages.Fields:
    """Return the listener filter that reads server name and protocols of TLS."""
    inspector = messages.extension(
        "envoy.filters.listener.tls_inspector", tls_inspector_pb2.TlsInspector()
    )
    return inspector | _except(except_ports)


def http_inspector(*, except_ports: Sequence[int] = ()) -> messages.Fields:
    """Return the listener filter that tells HTTP from other plain text."""
    inspector = messages.extension(
        "envoy.filters.listener.http_inspector", http_inspector_pb2.HttpInspector()
    )
    return inspector | _except(except_ports)


def pass_on(cluster: str, *, log_path: str, stat_prefix: str = "") -> messages.Fields:
    """Return the network filter that passes bytes to one cluster."""
    return messages.extension(
        "envoy.filters.network.tcp_proxy",
        tcp_proxy_pb2.TcpProxy(
            stat_prefix=stat_prefix or cluster,
            cluster=cluster,
            access_log=access_logs.of_traffic(log_path),
        ),
    )


def route_by_discovery(route_name: str, *, stat_prefix: str, log_path: str) -> messages.Fields:
    """Return the network filter that routes a client's requests."""
    return _manager(
        Manager(
            rds={"route_config_name": route_name, "config_source": messages.from_ads()},
            **_common(stat_prefix, side=Side.OUTBOUND, log_path=log_path),
        )
    )


def route_inline(routes: object, *, side: Side, stat_prefix: str, log_path: str) -> messages.Fields:
    """Return the network filter that routes requests by `routes`, a RouteConfiguration."""
    if side is Side.OUTBOUND:
        return _manager(
            Manager(route_config=routes, **_common(stat_prefix, side=side, log_path=log_path))
        )
    return _manager(
        Manager(
            route_config=routes,
            forward_client_cert_details=Manager.APPEND_FORWARD,
            set_current_client_cert_details={
                "subject": {"value": True},
                "dns": True,
                "uri": True,
            },
            server_header_transformation=Manager.PASS_THROUGH,
            **_common(stat_prefix, side=side, log_path=log_path),
        )
    )


def _manager(configured: message.Message) -> messages.Fields:
    return messages.extension("envoy.filters.network.http_connection_manager", configured)


def _common(stat_prefix: str, *, side: Side, log_path: str) -> messages.Fields:
    reporter = "source" if side is Side.OUTBOUND else "destination"
    return {
        "stat_prefix": stat_prefix,
        "server_name": SERVER_NAME,
        "normalize_path": {"value": True},
        "use_remote_address": {"value": False},
        "stream_idle_timeout": messages.FOREVER,
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "http_filters": [
            messages.extension("envoy.filters.http.router", router_pb2.Router()),
        ],
        "access_log": [*access_logs.of_traffic(log_path), access_logs.of_verified(reporter)],
    }


def _except(ports: Sequence[int]) -> messages.Fields:
    """Return the condition that turns a listener filter off at some destination ports."""
    rules: list[messages.Fields] = [
        {"destination_port_range": {"start": port, "end": port + 1}} for port in ports
    ]
    if not rules:
        return {}
    # Envoy takes no list of fewer than two alternatives.
    return {"filter_disabled": rules[0] if len(rules) == 1 else {"or_match": {"rules": rules}}}
