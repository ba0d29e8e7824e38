"""Two tunnels, one in the other, to what stands behind a gateway of another network.

The outer one ends at the gateway, is shared by all calls of a pod, and shows the pod's certificate
there. The inner one goes on to a pod that the gateway chooses; it carries a single call, so that
each call has its own choice, and accepts exactly the identities of the service.

Source: spec section 7.4.
"""

from typing import Final

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from google.protobuf import message

from isthmus.resources.envoy import messages, pools
from isthmus.resources.nodeproxy import calls, sockets, upstreams
from isthmus.views import view

Passage = view.nodeslices.Passage

OWN_NETWORK: Final = "x-forwarded-network"


def listener(slice_: view.nodeslices.InnerListener) -> message.Message:
    """Return the listener that passes calls on through inner tunnels."""
    told: messages.Fields = {"header": {"key": OWN_NETWORK, "value": str(slice_.network)}}
    return calls.onward(
        slice_.name, asked=slice_.authority, headers=[told], log_path=slice_.access_log
    )


def cluster(slice_: view.nodeslices.InnerCluster) -> message.Message:
    """Return the cluster whose endpoints are ways through gateways."""
    single = {"max_concurrent_streams": {"value": 1}}
    options = http_protocol_options_pb2.HttpProtocolOptions(
        explicit_http_config={"http2_protocol_options": single},
        common_http_protocol_options={"max_requests_per_connection": {"value": 1}},
    )
    result: message.Message = cluster_pb2.Cluster(
        name=slice_.name,
        type=cluster_pb2.Cluster.EDS,
        eds_cluster_config={"service_name": slice_.name, "eds_config": messages.from_ads()},
        connect_timeout=messages.seconds(upstreams.CONNECT_S),
        circuit_breakers=upstreams.NO_LIMITS,
        transport_socket=sockets.inside(
            (upstreams.TARGET[0], upstreams.PROOF[0]),
            around=sockets.of_inner_tunnels(slice_.identities),
        ),
        typed_extension_protocol_options={pools.HTTP_OPTIONS: messages.packed(options)},
        common_lb_config={"healthy_panic_threshold": {"value": 0}},
    )
    return result


def assignment(slice_: view.nodeslices.Doors) -> message.Message:
    """Return the gateways through which inner tunnels lead."""
    told = [_door(one, slice_.authority) for one in slice_.doors]
    result: message.Message = endpoint_pb2.ClusterLoadAssignment(
        cluster_name=slice_.cluster_name, endpoints=[{"lb_endpoints": told}]
    )
    return result


def _door(door: view.nodeslices.Door, authority: str) -> messages.Fields:
    target = f"{door.address}:{door.port}"
    known = {
        upstreams.TARGET[0]: messages.struct({upstreams.TARGET[1]: target}),
        upstreams.PROOF[0]: messages.struct(
            {upstreams.PROOF[1]: str(door.identity), upstreams.AUTHORITY: authority}
        ),
    }
    return {
        "endpoint": {"address": upstreams.address_inside(Passage.GATEWAY.value, target)},
        "load_balancing_weight": {"value": door.weight},
        "metadata": {"filter_metadata": known},
    }
