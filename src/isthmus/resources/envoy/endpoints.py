"""A slice's endpoints as Envoy's ClusterLoadAssignment.

This is built most often of all, so it says nothing that Envoy assumes by itself.

Source: spec section 4.11; performance rule 7.
"""

import functools
from typing import Final, assert_never

from envoy.config.core.v3 import base_pb2, health_check_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from google.protobuf import message

from isthmus.mesh.workloads import Health
from isthmus.resources.envoy import messages
from isthmus.views import view

SOCKET_MATCH: Final = "envoy.transport_socket_match"
SPEAKS_MTLS: Final = {"tlsMode": "istio"}


def assignment_of(endpoints: view.EndpointsSlice) -> message.Message:
    """Return the message that says which endpoints a cluster has."""
    result: message.Message = endpoint_pb2.ClusterLoadAssignment(
        cluster_name=endpoints.cluster_name,
        endpoints=[_group(group) for group in endpoints.groups],
    )
    return result


def _group(group: view.LocalityGroup) -> messages.Fields:
    place = group.locality
    return {
        "locality": {"region": place.region, "zone": place.zone, "sub_zone": place.subzone},
        "priority": group.priority,
        "load_balancing_weight": {"value": group.weight} if group.weight else None,
        "lb_endpoints": [_endpoint(endpoint) for endpoint in group.endpoints],
    }


def _endpoint(endpoint: view.LbEndpoint) -> messages.Fields:
    return {
        "endpoint": {"address": messages.socket_address(endpoint.address, port=endpoint.port)},
        "health_status": _health(endpoint.health),
        "load_balancing_weight": {"value": endpoint.weight},
        "metadata": _metadata(endpoint.workload, endpoint.speaks_mtls),
    }


def _health(health: Health) -> int:
    match health:
        case Health.HEALTHY:
            return int(health_check_pb2.HEALTHY)
        case Health.UNHEALTHY:
            return int(health_check_pb2.UNHEALTHY)
        case Health.DRAINING:
            return int(health_check_pb2.DRAINING)
    assert_never(health)


@functools.lru_cache(maxsize=65536)
def _metadata(workload: str, speaks_mtls: bool) -> message.Message:
    """Return an endpoint's metadata; many endpoints of one workload share one message."""
    by_filter = {}
    if speaks_mtls:
        by_filter[SOCKET_MATCH] = messages.struct(SPEAKS_MTLS)
    if workload:
        by_filter["istio"] = messages.struct({"workload": workload})
    result: message.Message = base_pb2.Metadata(filter_metadata=by_filter)
    return result
