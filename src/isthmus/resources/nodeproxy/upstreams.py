"""The clusters of a node's Envoy, and who answers for services.

An endpoint of a service is the end of a tunnel at a pod, and says which identity it must prove: its
cluster has a transport socket for each. What takes no tunnels, and what is behind gateways, are
addresses of listeners inside the proxy. So one service may have endpoints of all kinds.

Source: spec section 7.4.
"""

from typing import Final

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from google.protobuf import any_pb2, message

from isthmus.resources.envoy import messages, pools
from isthmus.resources.nodeproxy import sockets
from isthmus.views import view

Cluster = cluster_pb2.Cluster
Passage = view.nodeslices.Passage
Upstream = view.nodeslices.Upstream

CONNECT_S: Final = 10.0
TUNNEL_S: Final = 2.0
"""How long an endpoint has that others may stand in for: long enough for one lost packet."""

MOST_STREAMS: Final = 100
"""How many connections share one tunnel, as in Istio's node proxies."""

PING_S, PONG_S = 15.0, 10.0
INSIDE: Final[messages.Fields] = {
    "max_concurrent_streams": {"value": MOST_STREAMS},
    "initial_stream_window_size": {"value": 1 << 22},
    "initial_connection_window_size": {"value": 1 << 25},
}
"""Of connections inside the proxy: one that nobody reads holds little, and holds up no other."""

NO_LIMITS: Final = {
    "thresholds": [
        {
            "max_connections": {"value": pools.UNLIMITED},
            "max_pending_requests": {"value": pools.UNLIMITED},
            "max_requests": {"value": pools.UNLIMITED},
        }
    ]
}

TARGET: Final = ("envoy.filters.listener.original_dst", "local")
"""The namespace and key of an endpoint's metadata that say where it is."""

BY_KIND: Final = "envoy.transport_socket_match"
"""The namespace of an endpoint's metadata by which a cluster finds its transport socket."""

KIND, INNER = "kind", "inside"

AUTHORITY: Final = "authority"
"""The key beside `PROOF` that says what is asked for at a gateway."""

PROOF: Final = ("isthmus.tunnel", "identity")
"""The namespace and key of an endpoint's metadata that say who it must be."""


def common(slice_: view.nodeslices.UpstreamCluster) -> message.Message:
    """Return one of the clusters that every node has."""
    name = slice_.upstream.value
    match slice_.upstream:
        case Upstream.OUTBOUND | Upstream.OTHERS:
            # Each has the name of the listener that it leads to.
            return _inside(name, listener=name)
        case Upstream.TUNNELS:
            return _where_it_was_going(
                name,
                original_dst_lb_config={
                    "upstream_port_override": {"value": view.nodeslices.TUNNEL_PORT}
                },
                transport_socket=sockets.of_tunnels(slice_.trust_domains),
                typed_extension_protocol_options=_http2(),
            )
        case Upstream.GATEWAYS:
            return _where_it_was_going(
                name,
                transport_socket=sockets.of_tunnels(slice_.trust_domains),
                typed_extension_protocol_options=_http2(),
            )
        case Upstream.PLAINTEXT:
            return _where_it_was_going(name)
        case Upstream.TUNNELLED:
            # Who ends a tunnel has made sure that the authority is an address of the pod.
            by_header = {"use_http_header": True, "http_header_name": ":authority"}
            return _handed_over(name, original_dst_lb_config=by_header)
        case Upstream.ARRIVED:
            return _handed_over(name)


def service(slice_: view.nodeslices.ServiceCluster) -> message.Message:
    """Return the cluster of a port of a service."""
    if slice_.is_plain:
        return _endpoints_of(slice_, connect_timeout=messages.seconds(CONNECT_S))
    # Most services have one identity: the usual socket is the first one's, since each holds memory.
    first, *others = [str(one) for one in slice_.identities] or [sockets.NOBODY]
    inner = _socket(INNER, sockets.inside((TARGET[0], PROOF[0])))
    tunnels = [_socket(one, sockets.of_inner_tunnels([one])) for one in others]
    asked = messages.struct({AUTHORITY: slice_.authority})
    return _endpoints_of(
        slice_,
        connect_timeout=messages.seconds(TUNNEL_S),
        metadata={"filter_metadata": {PROOF[0]: asked}},
        transport_socket_matches=[inner, *tunnels],
        transport_socket=sockets.of_inner_tunnels([first]),
        typed_extension_protocol_options=_http2(),
    )


def _endpoints_of(slice_: view.nodeslices.ServiceCluster, **more: object) -> message.Message:
    result: message.Message = Cluster(
        name=slice_.name,
        alt_stat_name=slice_.shown,
        type=Cluster.EDS,
        eds_cluster_config={"service_name": slice_.name, "eds_config": messages.from_ads()},
        circuit_breakers=NO_LIMITS,
        upstream_bind_config=sockets.left_from_pod(),
        **more,
        # Only those who can answer are told; with the last of them gone nobody shall be called.
        common_lb_config={"healthy_panic_threshold": {"value": 0}},
    )
    return result


def _socket(kind: str, socket: messages.Fields) -> messages.Fields:
    return {"name": kind, "match": messages.struct({KIND: kind}), "transport_socket": socket}


def assignment(slice_: view.nodeslices.ServiceEndpoints) -> message.Message:
    """Return who answers for a port of a service."""
    if slice_.is_plain:
        told = [_called(one) for one in slice_.endpoints]
    else:
        told = [_endpoint(one) for one in slice_.endpoints]
    if slice_.far:
        far = {"endpoint": {"address": address_inside(slice_.far, slice_.cluster_name)}}
        weight = {"value": slice_.far_weight}
        told.append({**far, "load_balancing_weight": weight, "metadata": _of_kind(INNER)})
    result: message.Message = endpoint_pb2.ClusterLoadAssignment(
        cluster_name=slice_.cluster_name, endpoints=[{"lb_endpoints": told}] if told else []
    )
    return result


def _called(endpoint: view.nodeslices.Endpoint) -> messages.Fields:
    where = messages.socket_address(endpoint.address, port=endpoint.port)
    return {
        "endpoint": {"address": where},
        "load_balancing_weight": {"value": endpoint.weight},
    }


def _endpoint(endpoint: view.nodeslices.Endpoint) -> messages.Fields:
    if endpoint.identity is None:
        target = f"{endpoint.address}:{endpoint.port}"
        where, known = address_inside(Passage.PLAINTEXT.value, target), _of_kind(INNER)
        known["filter_metadata"][TARGET[0]] = messages.struct({TARGET[1]: target})
    else:
        port = view.nodeslices.TUNNEL_PORT
        where = messages.socket_address(endpoint.address, port=port)
        known = _of_kind(str(endpoint.identity))
    return {
        "endpoint": {"address": where},
        "load_balancing_weight": {"value": endpoint.weight},
        "metadata": known,
    }


def _of_kind(kind: str) -> dict[str, dict[str, object]]:
    return {"filter_metadata": {BY_KIND: messages.struct({KIND: kind})}}


def address_inside(listener: str, endpoint: str) -> messages.Fields:
    """Return the address of a listener inside; `endpoint` tells endpoints there apart."""
    inside = {"server_listener_name": listener, "endpoint_id": endpoint}
    return {"envoy_internal_address": inside}


def _inside(name: str, *, listener: str) -> message.Message:
    endpoint = {"endpoint": {"address": address_inside(listener, name)}}
    result: message.Message = Cluster(
        name=name,
        type=Cluster.STATIC,
        connect_timeout=messages.seconds(CONNECT_S),
        circuit_breakers=NO_LIMITS,
        load_assignment={"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        transport_socket=sockets.inside(),
    )
    return result


def _handed_over(name: str, **more: object) -> message.Message:
    """Return a cluster that leads to the pod itself, in the name of whoever calls it."""
    return _where_it_was_going(name, upstream_bind_config=sockets.made_in_pod(), **more)


def _where_it_was_going(name: str, **more: object) -> message.Message:
    result: message.Message = Cluster(
        name=name,
        type=Cluster.ORIGINAL_DST,
        lb_policy=Cluster.CLUSTER_PROVIDED,
        connect_timeout=messages.seconds(CONNECT_S),
        circuit_breakers=NO_LIMITS,
        **({"upstream_bind_config": sockets.left_from_pod()} | more),
    )
    return result


def _http2() -> dict[str, any_pb2.Any]:
    # A node that vanishes without a word is noticed, also by tunnels on which nothing is said.
    ping = {"interval": messages.seconds(PING_S), "timeout": messages.seconds(PONG_S)}
    spoken = {"max_concurrent_streams": {"value": MOST_STREAMS}, "connection_keepalive": ping}
    return _spoken(spoken)


def _spoken(spoken: messages.Fields) -> dict[str, any_pb2.Any]:
    options = http_protocol_options_pb2.HttpProtocolOptions(
        explicit_http_config={"http2_protocol_options": spoken}
    )
    return {pools.HTTP_OPTIONS: messages.packed(options)}
