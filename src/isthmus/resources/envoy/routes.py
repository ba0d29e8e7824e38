"""A slice's routes as Envoy's RouteConfiguration.

Hosts are already in the order of their names; what no host answers for falls to the last one.

Source: spec sections 4.8, 4.9 and 4.11.
"""

from typing import Final, assert_never

from envoy.config.route.v3 import route_pb2
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2
from google.protobuf import message

from isthmus.mesh.traffic import HashKey, HashOf
from isthmus.resources.envoy import messages
from isthmus.views import view

RETRY_ON: Final = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"
RETRY_INBOUND: Final = "reset-before-request"
ATTEMPTS: Final = 2
# Istio's 5 lets one retry in sixty go to the endpoint that just failed, where there are but two.
HOST_ATTEMPTS: Final = 16
UNAVAILABLE: Final = 503
MAX_BODY: Final = 1024 * 1024


def configuration_of(routes: view.RouteSlice) -> message.Message:
    """Return the message that routes requests by host, path and header."""
    result: message.Message = route_pb2.RouteConfiguration(
        name=routes.name,
        virtual_hosts=[*(_host(host) for host in routes.hosts), *_fallback(routes)],
        validate_clusters={"value": False},
        ignore_port_in_host_matching=True,
        max_direct_response_body_size_bytes={"value": MAX_BODY},
    )
    return result


def inbound(port: view.InboundPort) -> message.Message:
    """Return the routes of a port that the workload serves: all requests to itself."""
    retry = {"retry_on": RETRY_INBOUND, "num_retries": {"value": ATTEMPTS}}
    action = _timeouts(0.0) | {"cluster": port.cluster_name, "retry_policy": retry}
    number = port.service_port or port.port
    host = {
        "name": f"inbound|http|{number}",
        "domains": ["*"],
        "routes": [{"name": "default", "match": {"prefix": "/"}, "route": action}],
    }
    result: message.Message = route_pb2.RouteConfiguration(
        name=port.cluster_name, virtual_hosts=[host], validate_clusters={"value": False}
    )
    return result


def _fallback(routes: view.RouteSlice) -> list[messages.Fields]:
    """Return the host for requests to hosts that the mesh does not know."""
    if any("*" in host.domains for host in routes.hosts):
        return []
    route: messages.Fields = {"match": {"prefix": "/"}}
    if routes.fallback_cluster:
        name = "allow_any"
        route |= {"name": name, "route": {"cluster": routes.fallback_cluster} | _timeouts(0.0)}
    else:
        name = "block_all"
        route |= {"name": name, "direct_response": {"status": routes.fallback_status}}
    return [
        {
            "name": name,
            "domains": ["*"],
            "routes": [route],
            "include_request_attempt_count": True,
        }
    ]


def _host(host: view.VirtualHost) -> messages.Fields:
    return {
        "name": host.name,
        "domains": list(host.domains),
        "routes": [_route(route) for route in host.routes],
        "include_request_attempt_count": True,
    }


def _route(route: view.Route) -> messages.Fields:
    result: messages.Fields = {
        "name": route.name,
        "match": _match(route),
        "route": _timeouts(route.timeout_s) | _targets(route) | _retries(route) | _bound(route.key),
    }
    if route.operation:
        result["decorator"] = {"operation": route.operation}
    if route.virtual is not None:
        said = {"config": messages.object_path("virtual-service", route.virtual)}
        result["metadata"] = {"filter_metadata": {"istio": messages.struct(said)}}
    return result


def _match(route: view.Route) -> messages.Fields:
    headers = [_header(name, matcher) for name, matcher in route.headers]
    if route.method:
        headers.append(_header(":method", route.method))
    kind, _, text = route.path.partition(":")
    if kind == "exact":
        return {"path": text, "headers": headers}
    return {"prefix": text or "/", "headers": headers}


def _header(name: str, matcher: str) -> messages.Fields:
    kind, separator, text = matcher.partition(":")
    if not separator or kind not in {"exact", "prefix"}:
        kind, text = "exact", matcher
    return {"name": name, "string_match": {kind: text}}


def _targets(route: view.Route) -> messages.Fields:
    if len(route.targets) == 1:
        return {"cluster": route.targets[0].cluster_name}
    shares = [
        {"name": target.cluster_name, "weight": {"value": target.weight}}
        for target in route.targets
    ]
    return {"weighted_clusters": {"clusters": shares}}


def _timeouts(timeout_s: float) -> messages.Fields:
    limit = messages.seconds(timeout_s)
    streams = {"max_stream_duration": limit, "grpc_timeout_header_max": limit}
    return {"timeout": limit, "max_stream_duration": streams}


def _bound(key: HashKey | None) -> messages.Fields:
    """Return what binds requests to an endpoint."""
    return {} if key is None else {"hash_policy": [_hashed(key)]}


def _hashed(key: HashKey) -> messages.Fields:
    match key.of:
        case HashOf.HEADER:
            return {"header": {"header_name": key.name}}
        case HashOf.COOKIE:
            ttl = None if key.ttl_s is None else messages.seconds(key.ttl_s)
            return {"cookie": {"name": key.name, "ttl": ttl, "path": key.path}}
        case HashOf.SOURCE_IP:
            return {"connection_properties": {"source_ip": True}}
        case HashOf.QUERY_PARAMETER:
            return {"query_parameter": {"name": key.name}}
    assert_never(key.of)


def _retries(route: view.Route) -> messages.Fields:
    if not route.has_retries:
        return {}
    other_hosts = messages.extension(
        "envoy.retry_host_predicates.previous_hosts", previous_hosts_pb2.PreviousHostsPredicate()
    )
    return {
        "retry_policy": {
            "retry_on": RETRY_ON,
            "num_retries": {"value": ATTEMPTS},
            "retry_host_predicate": [other_hosts],
            "host_selection_retry_max_attempts": HOST_ATTEMPTS,
            "retriable_status_codes": [UNAVAILABLE],
        }
    }
