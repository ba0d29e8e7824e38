"""The filters of listeners: looking at the first bytes, routing requests, passing bytes on.

Nothing waits for first bytes longer than the client takes to send them, as in Istio.

Source: spec sections 4.8, 4.9 and 4.12.
"""

from collections.abc import Sequence
from typing import Final

from envoy.config.core.v3 import protocol_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.listener.http_inspector.v3 import http_inspector_pb2
from envoy.extensions.filters.listener.original_dst.v3 import original_dst_pb2
from envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,
)
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from google.protobuf import message

from isthmus.base import hashing
from isthmus.mesh.authentication import JwtRule
from isthmus.mesh.authorization import AuthorizationPolicy
from isthmus.resources.envoy import access_logs, actions, callers, messages, rbac, tokens
from isthmus.views import view

PLAIN: Final = "raw_buffer"
TLS: Final = "tls"
SNIFFED_HTTP: Final = ("http/1.1", "h2c")
SERVER_NAME: Final = "istio-envoy"
EARLY_BYTES: Final = 65536
"""How much a client may send before its server is connected."""

Manager = http_connection_manager_pb2.HttpConnectionManager


Shares = Sequence[view.RouteTarget]
"""How connections are split among clusters; empty: they are not."""


class Side(hashing.Word):
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


def pass_on(cluster: str, *, log_path: str, shares: Shares = ()) -> messages.Fields:
    """Return the network filter that passes bytes to one cluster, or as `shares` say."""
    return messages.extension("envoy.filters.network.tcp_proxy", _proxy(cluster, log_path, shares))


def pass_on_ruled(outbound: view.OutboundTcp) -> messages.Fields:
    """Return the network filter that passes bytes on, as a rule about connections says."""
    proxy = _proxy(outbound.cluster_name, outbound.access_log_path, outbound.shares)
    if outbound.idle_s is not None:
        proxy.idle_timeout.CopyFrom(messages.seconds(outbound.idle_s))
    if outbound.binds_source:
        proxy.hash_policy.add().source_ip.SetInParent()
    return messages.extension("envoy.filters.network.tcp_proxy", proxy)


def judge_and_pass_on(
    cluster: str,
    *,
    log_path: str,
    policies: Sequence[AuthorizationPolicy],
    shares: Shares = (),
    sight: rbac.Sight = rbac.AT_WORKLOADS,
) -> list[messages.Fields]:
    """Return the network filters that pass bytes on, as far as `policies` let them."""
    judges = rbac.network_filters(policies, sight=sight)
    waiting = _proxy(cluster, log_path, shares, peer=_peer(sight))
    if not judges:
        return [messages.extension("envoy.filters.network.tcp_proxy", waiting)]
    # Envoy judges with a client's first bytes: before, not even a server's greeting may pass.
    waiting.upstream_connect_mode = tcp_proxy_pb2.ON_DOWNSTREAM_DATA
    waiting.max_early_data_bytes.value = EARLY_BYTES
    return [*judges, messages.extension("envoy.filters.network.tcp_proxy", waiting)]


def _proxy(
    cluster: str, log_path: str, shares: Shares = (), *, peer: str = access_logs.CERTIFICATE
) -> tcp_proxy_pb2.TcpProxy:
    log = access_logs.of_traffic(log_path, peer=peer)
    if len(shares) <= 1:
        name = shares[0].cluster_name if shares else cluster
        return tcp_proxy_pb2.TcpProxy(stat_prefix=name, cluster=name, access_log=log)
    split = [{"name": share.cluster_name, "weight": share.weight} for share in shares]
    return tcp_proxy_pb2.TcpProxy(
        stat_prefix=cluster, weighted_clusters={"clusters": split}, access_log=log
    )


def route_by_discovery(
    route_name: str,
    *,
    stat_prefix: str,
    log_path: str,
    policies: Sequence[AuthorizationPolicy] = (),
) -> messages.Fields:
    """Return the network filter that routes a client's requests, as far as `policies` let it."""
    return _manager(
        Manager(
            rds={"route_config_name": route_name, "config_source": messages.from_ads()},
            **_common(stat_prefix, side=Side.OUTBOUND, log_path=log_path, policies=policies),
        )
    )


def route_of_strangers(
    route_name: str,
    *,
    stat_prefix: str,
    log_path: str,
    policies: Sequence[AuthorizationPolicy] = (),
) -> messages.Fields:
    """Return the filter that routes requests from outside the mesh, in TLS that ended here.

    Servers are told of the certificate that a client showed, and of none that it only claims.
    """
    return _manager(
        Manager(
            rds={"route_config_name": route_name, "config_source": messages.from_ads()},
            forward_client_cert_details=Manager.SANITIZE_SET,
            set_current_client_cert_details={"subject": {"value": True}, "dns": True, "uri": True},
            **_common(stat_prefix, side=Side.OUTBOUND, log_path=log_path, policies=policies),
        )
    )


def route_inline(  # noqa: PLR0913  # each is a part of the filter
    routes: object,
    *,
    side: Side,
    stat_prefix: str,
    log_path: str,
    policies: Sequence[AuthorizationPolicy] = (),
    sight: rbac.Sight = rbac.AT_WORKLOADS,
    believed: Sequence[JwtRule] = (),
) -> messages.Fields:
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
            **_common(
                stat_prefix,
                side=side,
                log_path=log_path,
                policies=policies,
                sight=sight,
                believed=believed,
            ),
        )
    )


def route_from_tunnel(port: view.waypoints.ServicePort) -> messages.Fields:
    """Return the network filter that routes requests which came through a tunnel."""
    return _manager(
        Manager(
            rds={"route_config_name": port.route_name, "config_source": messages.from_ads()},
            **_common(
                port.name,
                side=Side.OUTBOUND,
                log_path=port.access_log_path,
                policies=port.policies,
                sight=rbac.Sight(callers.by_state, port.port),
                believed=port.tokens,
            ),
        )
    )


def _peer(sight: rbac.Sight) -> str:
    """Return how access logs name the caller."""
    is_noted = sight.named is callers.by_state
    return callers.PEER_TEXT if is_noted else access_logs.CERTIFICATE


def _manager(configured: message.Message) -> messages.Fields:
    return messages.extension("envoy.filters.network.http_connection_manager", configured)


def _common(
    stat_prefix: str,
    *,
    side: Side,
    log_path: str,
    policies: Sequence[AuthorizationPolicy] = (),
    sight: rbac.Sight = rbac.AT_WORKLOADS,
    believed: Sequence[JwtRule] = (),
) -> messages.Fields:
    reporter = "source" if side is Side.OUTBOUND else "destination"
    return {
        "stat_prefix": stat_prefix,
        "server_name": SERVER_NAME,
        "normalize_path": {"value": True},
        "use_remote_address": {"value": False},
        "stream_idle_timeout": messages.FOREVER,
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "http_filters": [
            *tokens.filters(believed),
            *rbac.http_filters(policies, sight=sight),
            *(actions.filters() if side is Side.OUTBOUND else ()),
            messages.extension("envoy.filters.http.router", router_pb2.Router()),
        ],
        "access_log": [
            *access_logs.of_traffic(log_path, peer=_peer(sight)),
            access_logs.of_verified(reporter, peer=_peer(sight)),
        ],
    } | _strictness(policies)


def _strictness(policies: Sequence[AuthorizationPolicy]) -> messages.Fields:
    """Return how requests are read where a policy decides by headers.

    Servers exist for which `x_role` is the same as `x-role`.
    """
    if not rbac.looks_at_headers(policies):
        return {}
    refuse = protocol_pb2.HttpProtocolOptions.REJECT_REQUEST
    return {"common_http_protocol_options": {"headers_with_underscores_action": refuse}}


def _except(ports: Sequence[int]) -> messages.Fields:
    """Return the condition that turns a listener filter off at some destination ports."""
    rules: list[messages.Fields] = [
        {"destination_port_range": {"start": port, "end": port + 1}} for port in ports
    ]
    if not rules:
        return {}
    # Envoy takes no list of fewer than two alternatives.
    return {"filter_disabled": rules[0] if len(rules) == 1 else {"or_match": {"rules": rules}}}
