"""A slice's routes as Envoy's RouteConfiguration.

Hosts are already in the order of their names; what no host answers for falls to the last one.

Source: spec sections 4.8, 4.9 and 4.11.
"""

import functools
from typing import Final, assert_never

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from google.protobuf import message

from isthmus.base import same
from isthmus.mesh.traffic import HashKey, HashOf
from isthmus.resources.envoy import actions, callers, conditions, messages
from isthmus.views import view

RETRY_INBOUND: Final = "reset-before-request"
ATTEMPTS: Final = 2
MAX_BODY: Final = 1024 * 1024
SHARED: Final = 4096
"""So many hosts are remembered as bytes."""


def configuration_of(routes: view.RouteSlice) -> message.Message:
    """Return the message that routes requests by host, path and header."""
    hosts = [*(_host(host) for host in routes.hosts), *_fallback(routes)]
    return _of_hosts(routes, hosts, name=routes.name)


def encoded(routes: view.RouteSlice) -> bytes:
    """Return the message of `configuration_of`, serialized deterministically.

    Namespaces share most of their hosts: each of these is serialized once. Name and hosts are the
    first two fields, so that one part follows the other.
    """
    return b"".join(
        (
            _written(route_pb2.RouteConfiguration(name=routes.name)),
            *[_encoded_host(same.Same(host)) for host in routes.hosts],
            _written(route_pb2.RouteConfiguration(virtual_hosts=_fallback(routes))),
            _written(_of_hosts(routes, [])),
        )
    )


@functools.lru_cache(maxsize=SHARED)
def _encoded_host(host: same.Same[view.VirtualHost]) -> bytes:
    return _written(route_pb2.RouteConfiguration(virtual_hosts=[_host(host.it)]))


def _written(part: message.Message) -> bytes:
    return bytes(part.SerializeToString(deterministic=True))


def _of_hosts(
    routes: view.RouteSlice, hosts: list[messages.Fields], *, name: str = ""
) -> message.Message:
    result: message.Message = route_pb2.RouteConfiguration(
        name=name,
        virtual_hosts=hosts,
        validate_clusters={"value": False},
        ignore_port_in_host_matching=True,
        max_direct_response_body_size_bytes={"value": MAX_BODY},
        request_headers_to_add=[_caller()] if routes.names_caller else [],
    )
    return result


def _caller() -> messages.Fields:
    """Return the header that tells a server who has called the proxy before it."""
    return {
        "header": {"key": "x-forwarded-client-cert", "value": f"URI={callers.PEER_TEXT}"},
        "append_action": base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
    }


def inbound(port: view.InboundPort, *, names_caller: bool = False) -> message.Message:
    """Return the routes of a port that the workload serves: all requests to itself.

    `names_caller` says whether it must be told who has called, since no certificate says so.
    """
    retry = {"retry_on": RETRY_INBOUND, "num_retries": {"value": ATTEMPTS}}
    action = _timeouts(0.0) | {"cluster": port.cluster_name, "retry_policy": retry}
    number = port.service_port or port.port
    host = {
        "name": f"inbound|http|{number}",
        "domains": ["*"],
        "routes": [{"name": "default", "match": {"prefix": "/"}, "route": action}],
    }
    result: message.Message = route_pb2.RouteConfiguration(
        name=port.cluster_name,
        virtual_hosts=[host],
        validate_clusters={"value": False},
        request_headers_to_add=[_caller()] if names_caller else [],
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
    levels = route_components_pb2.VirtualHost
    needs = levels.ALL if host.needs_tls else levels.NONE
    return {
        "name": host.name,
        "require_tls": needs,
        "domains": list(host.domains),
        "routes": [_route(route) for route in host.routes],
        "include_request_attempt_count": True,
    }


def _route(route: view.Route) -> messages.Fields:
    treatment = route.treatment
    result: messages.Fields = {
        "name": route.name,
        "match": conditions.match_of(route),
        **actions.changes(treatment.headers),
        **actions.per_filter(treatment),
    }
    result |= actions.instead(treatment) or {"route": _action(route)}
    if route.operation:
        result["decorator"] = {"operation": route.operation}
    if route.virtual is not None:
        said = {"config": messages.object_path("virtual-service", route.virtual)}
        result["metadata"] = {"filter_metadata": {"istio": messages.struct(said)}}
    return result


def _action(route: view.Route) -> messages.Fields:
    return {
        **_timeouts(route.timeout_s),
        **actions.targets(route),
        **actions.rewriting(route.treatment),
        **actions.copying(route),
        **actions.retries(route),
        **_bound(route.key),
    }


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
