"""The listeners inside a node's Envoy for endpoints to which no tunnel of its own leads.

Whoever chose such an endpoint asks for a tunnel (`CONNECT`), as of any other: here it ends, and its
bytes go on as they are, or it goes on through a gateway of another network.

Source: spec section 7.4.
"""

from collections.abc import Sequence
from typing import Final

from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,
)
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from google.protobuf import message

from isthmus.resources.envoy import access_logs, actions, messages
from isthmus.resources.nodeproxy import inside, states, upstreams
from isthmus.views import view

Manager = http_connection_manager_pb2.HttpConnectionManager
Passage = view.nodeslices.Passage
Upstream = view.nodeslices.Upstream

CONNECT: Final = "CONNECT"
REQUESTS: Final = route_components_pb2.RouteMatch.ConnectMatcher()
ASKED_AT_GATEWAYS: Final = f"%DYNAMIC_METADATA({upstreams.PROOF[0]}:{upstreams.AUTHORITY})%"

RETRY_ON: Final = "connect-failure,refused-stream,gateway-error,reset"
RETRIES: Final = 2
"""Another gateway is tried when one cannot be reached."""

ANSWER_S: Final = 5.0
"""How long a gateway, and whom it chooses, have for their yes."""


def passage(slice_: view.nodeslices.PassageListener, name: str) -> message.Message:
    """Return the listener that passes calls on to endpoints that were chosen."""
    if slice_.passage is Passage.PLAINTEXT:
        host = _virtual_host(_terminated(Upstream.PLAINTEXT.value))
        return _managed_listener(name, host, log_path=slice_.access_log)
    proxy = tcp_proxy_pb2.TcpProxy(
        stat_prefix=name,
        cluster=Upstream.GATEWAYS.value,
        idle_timeout=messages.FOREVER,
        access_log=access_logs.of_traffic(slice_.access_log),
        tunneling_config={"hostname": ASKED_AT_GATEWAYS},
    )
    told = [states.noted([states.expected_by_endpoint(*upstreams.PROOF)]), inside.proxied(proxy)]
    result: message.Message = inside.listener(name, filter_chains=[{"filters": told}])
    return result


def onward(
    name: str, *, asked: str, headers: Sequence[messages.Fields], log_path: str
) -> message.Message:
    """Return a listener that asks for `asked` at endpoints of the cluster of its name."""
    host = _virtual_host(_tunnelled(name, host_rewrite_literal=asked))
    return _managed_listener(
        name, {**host, "request_headers_to_add": list(headers)}, log_path=log_path
    )


def _managed_listener(name: str, host: messages.Fields, *, log_path: str) -> message.Message:
    """Return a listener inside that knows one virtual host."""
    manager = _manager(name, host, log_path=log_path)
    result: message.Message = inside.listener(name, filter_chains=[_managed(manager)])
    return result


def _manager(name: str, host: messages.Fields, *, log_path: str) -> message.Message:
    result: message.Message = Manager(
        stat_prefix=name.partition("|")[0],
        codec_type=Manager.HTTP2,
        http2_protocol_options=upstreams.INSIDE | {"allow_connect": True},
        upgrade_configs=[{"upgrade_type": CONNECT}],
        stream_idle_timeout=messages.FOREVER,
        server_header_transformation=Manager.PASS_THROUGH,
        generate_request_id={"value": False},
        skip_xff_append=True,
        http_filters=[_filter_of_router()],
        access_log=access_logs.of_traffic(log_path),
        route_config={"virtual_hosts": [host]},
    )
    return result


def _managed(manager: message.Message) -> messages.Fields:
    told = messages.extension("envoy.filters.network.http_connection_manager", manager)
    return {"filters": [told]}


def _filter_of_router() -> messages.Fields:
    router = router_pb2.Router(suppress_envoy_headers=True)
    return messages.extension("envoy.filters.http.router", router)


def _virtual_host(action: messages.Fields) -> messages.Fields:
    route: messages.Fields = {"match": {"connect_matcher": REQUESTS}, "route": action}
    return {"name": "all", "domains": ["*"], "routes": [route]}


def _terminated(cluster: str) -> messages.Fields:
    """Return that requests end here, and what they carry goes on as it is."""
    upgraded = {"upgrade_type": CONNECT, "connect_config": {}}
    return {"cluster": cluster, "timeout": messages.FOREVER, "upgrade_configs": [upgraded]}


def _tunnelled(cluster: str, **more: object) -> messages.Fields:
    """Return that requests are passed on, and made again where they found nobody."""
    policy = {
        "retry_on": RETRY_ON,
        "num_retries": {"value": RETRIES},
        "per_try_timeout": messages.seconds(ANSWER_S),
        "retry_host_predicate": [actions.avoiding_tried()],
        "host_selection_retry_max_attempts": actions.HOST_ATTEMPTS,
    }
    return {"cluster": cluster, "timeout": messages.FOREVER, "retry_policy": policy, **more}
