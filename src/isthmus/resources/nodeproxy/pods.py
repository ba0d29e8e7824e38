"""The three listeners of a pod: sockets of the node's Envoy inside of the pod's own network.

Each closes connections that lead to its own port, which nobody has redirected: they would turn in a
circle.

Source: spec sections 7.2 and 7.4.
"""

import re
from collections.abc import Sequence
from typing import Final

from envoy.config.core.v3 import extension_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.http.original_src.v3 import original_src_pb2 as http_original_src_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.listener.original_src.v3 import original_src_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,
)
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from google.protobuf import message

from isthmus.mesh.authorization import Action
from isthmus.resources import snapshot
from isthmus.resources.envoy import access_logs, filters, messages
from isthmus.resources.nodeproxy import inside, judging, sockets, states
from isthmus.views import view

Listener = listener_pb2.Listener
Manager = http_connection_manager_pb2.HttpConnectionManager
Upstream = view.nodeslices.Upstream

EXTENSIONS: Final = snapshot.TypeUrl(snapshot.PREFIX + "envoy.config.core.v3.TypedExtensionConfig")
MARK: Final = 0x111
"""By it packet rules know connections to the pod itself that are made in the name of a caller."""
JUDGE: Final = snapshot.PREFIX + "envoy.extensions.filters.http.rbac.v3.RBAC"
AUTHORITY: Final = ":authority"
CONNECT: Final = route_components_pb2.RouteMatch.ConnectMatcher()
PORT: Final = "[1-9][0-9]{0,4}"
"""Just one way to write a port: who judges by it and who connects to it must read the same."""


def outbound(slice_: view.nodeslices.OutboundListener, name: str) -> message.Message:
    """Return the listener that takes what a pod calls."""
    known = states.noted(states.of_application(slice_.pod))
    told = [known, inside.pass_on(Upstream.OUTBOUND.value)]
    return _captured(slice_.pod, view.nodeslices.OUTBOUND_PORT, name=name, told=told)


def plaintext(slice_: view.nodeslices.PlaintextListener, name: str) -> message.Message:
    """Return the listener that takes what calls a pod without a tunnel."""
    judges = judging.connections(slice_.policies)
    passing = tcp_proxy_pb2.TcpProxy(
        stat_prefix="inbound_plaintext",
        cluster=Upstream.ARRIVED.value,
        idle_timeout=messages.FOREVER,
        access_log=access_logs.of_traffic(slice_.access_log),
    )
    if judges:
        # Envoy judges with a client's first bytes: before, not even a server's greeting may pass.
        passing.upstream_connect_mode = tcp_proxy_pb2.ON_DOWNSTREAM_DATA
        passing.max_early_data_bytes.value = filters.EARLY_BYTES
    known = states.noted(states.of_pod(slice_.pod))
    told = [known, *judges, messages.extension("envoy.filters.network.tcp_proxy", passing)]
    return _captured(
        slice_.pod, view.nodeslices.PLAINTEXT_PORT, name=name, told=told, more=(_IN_NAME_OF_CALLER,)
    )


def tunnel_end(slice_: view.nodeslices.TunnelListener, name: str) -> message.Message:
    """Return the listener that ends tunnels to a pod."""
    ended = Manager(
        stat_prefix="inbound_tunnel",
        codec_type=Manager.HTTP2,
        http2_protocol_options={"allow_connect": True},
        upgrade_configs=[{"upgrade_type": "CONNECT"}],
        stream_idle_timeout=messages.FOREVER,
        server_header_transformation=Manager.PASS_THROUGH,
        rds={
            "route_config_name": view.nodeslices.routes_name(slice_.pod.uid),
            "config_source": messages.from_ads(),
        },
        http_filters=[
            *(_judge_by_discovery(action, slice_.pod.uid) for action in judging.IN_ORDER),
            messages.extension(
                "envoy.filters.http.original_src", http_original_src_pb2.OriginalSrc(mark=MARK)
            ),
            messages.extension("envoy.filters.http.router", router_pb2.Router()),
        ],
        access_log=access_logs.of_traffic(slice_.access_log),
    )
    told = [
        states.noted(states.of_pod(slice_.pod)),
        messages.extension("envoy.filters.network.http_connection_manager", ended),
    ]
    result: message.Message = Listener(
        name=name,
        address=_address(slice_.pod, view.nodeslices.TUNNEL_PORT),
        filter_chains=[
            {
                "transport_socket": sockets.of_tunnel_end(
                    slice_.pod.identity, slice_.trust_domains
                ),
                "filters": told,
            }
        ],
    )
    return result


def judge(slice_: view.nodeslices.TunnelPolicies, name: str) -> message.Message:
    """Return what one of a pod's two judges of tunnels goes by."""
    rules = judging.tunnels(
        slice_.policies, slice_.action, address=slice_.address, names=slice_.names
    )
    told: message.Message = extension_pb2.TypedExtensionConfig(**messages.extension(name, rules))
    return told


def _judge_by_discovery(action: Action, pod_uid: str) -> messages.Fields:
    """Return a filter that is told by itself what it goes by.

    A listener with new filters would leave open tunnels to the old ones.
    """
    source = {"config_source": messages.from_ads(), "type_urls": [JUDGE]}
    return {
        "name": view.nodeslices.policies_name(action, pod_uid),
        "config_discovery": source,
    }


_IN_NAME_OF_CALLER: Final = messages.extension(
    "envoy.filters.listener.original_src", original_src_pb2.OriginalSrc(mark=MARK)
)


def _captured(
    pod: view.nodeslices.EnrolledPod,
    port: int,
    *,
    name: str,
    told: list[messages.Fields],
    more: Sequence[messages.Fields] = (),
) -> message.Message:
    result: message.Message = Listener(
        name=name,
        address=_address(pod, port),
        listener_filters=[filters.original_destination(), *more],
        filter_chains=[
            # Without filters: Envoy closes the connection.
            {"name": "circle", "filter_chain_match": {"destination_port": {"value": port}}},
        ],
        default_filter_chain={"name": "captured", "filters": told},
    )
    return result


def _address(pod: view.nodeslices.EnrolledPod, port: int) -> messages.Fields:
    return {
        "socket_address": {
            "address": "0.0.0.0",  # noqa: S104, RUF100  # of the pod's network
            "port_value": port,
            "network_namespace_filepath": pod.namespace_path,
        }
    }


def routes(slice_: view.nodeslices.TunnelRoutes, name: str) -> message.Message:
    """Return that tunnels lead to ports of the pod's own address, and to nothing else.

    By that address, or by the name and port of a service, which stand for one of its ports.
    """
    address = slice_.address
    own = {
        "name": AUTHORITY,
        "string_match": {"safe_regex": {"regex": f"{re.escape(address)}:{PORT}"}},
    }
    refused = {"match": {"connect_matcher": CONNECT}, "direct_response": {"status": 400}}
    passing = {"match": {"connect_matcher": CONNECT, "headers": [own]}, "route": _passed()}
    circles = [f"{address}:{port}" for port in view.nodeslices.OWN_PORTS]
    result: message.Message = route_pb2.RouteConfiguration(
        name=name,
        virtual_hosts=[
            {"name": "circles", "domains": circles, "routes": [refused]},
            *(_named(one, address) for one in slice_.names),
            {"name": "all", "domains": ["*"], "routes": [passing, refused]},
        ],
    )
    return result


def _named(name: view.nodeslices.TunnelName, address: str) -> messages.Fields:
    target = f"{address}:{name.port}"
    route = {"match": {"connect_matcher": CONNECT}, "route": _passed(host_rewrite_literal=target)}
    if name.port in view.nodeslices.OWN_PORTS:
        route = {"match": {"connect_matcher": CONNECT}, "direct_response": {"status": 400}}
    return {"name": name.authority, "domains": [name.authority], "routes": [route]}


def _passed(**more: object) -> messages.Fields:
    return {
        "cluster": Upstream.TUNNELLED.value,
        "timeout": messages.FOREVER,
        "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}],
        **more,
    }
