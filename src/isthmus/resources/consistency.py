"""Whether a snapshot is whole: all that it refers to is in it.

A proxy that is told of a route to a cluster which it is never told of answers 503, and a cluster
whose endpoints never come holds up everything that waits for it. Both are mistakes of ours,
never of a user's object, so that a test or a debug page asks this and no proxy waits for it.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from google.protobuf import any_pb2, descriptor_pool, message, message_factory

from isthmus.resources import snapshot
from isthmus_proto.istio.networking.nds.v1 import nds_pb2
from isthmus_proto.istio.security import authorization_pb2
from isthmus_proto.istio.workload import workload_pb2

MESSAGES: Final = {
    snapshot.CLUSTERS: cluster_pb2.Cluster,
    snapshot.ENDPOINTS: endpoint_pb2.ClusterLoadAssignment,
    snapshot.LISTENERS: listener_pb2.Listener,
    snapshot.ROUTES: route_pb2.RouteConfiguration,
    snapshot.NAMES: nds_pb2.NameTable,
    snapshot.ADDRESSES: workload_pb2.Address,
    snapshot.AUTHORIZATIONS: authorization_pb2.Authorization,
}
NAMES_CLUSTER: Final = frozenset(
    {
        "envoy.config.route.v3.RouteAction.cluster",
        "envoy.config.route.v3.WeightedCluster.ClusterWeight.name",
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.cluster",
    }
)
NAMES_ROUTES: Final = (
    "envoy.extensions.filters.network.http_connection_manager.v3.Rds.route_config_name"
)


def missing(told: snapshot.Snapshot) -> tuple[str, ...]:
    """Return what is referred to and not there, one line each, sorted."""
    gaps = set[str]()
    for kind in (snapshot.LISTENERS, snapshot.ROUTES):
        for name, resource in told.of(kind).items():
            for field, value in _texts(decoded(resource)):
                if field in NAMES_CLUSTER and value not in told.of(snapshot.CLUSTERS):
                    gaps.add(f"`{name}` leads to cluster `{value}`")
                if field == NAMES_ROUTES and value not in told.of(snapshot.ROUTES):
                    gaps.add(f"`{name}` asks for routes `{value}`")
    gaps.update(_without_endpoints(told))
    return tuple(sorted(gaps))


def decoded(resource: snapshot.Resource) -> message.Message:
    """Return the message that a resource holds."""
    result: message.Message = MESSAGES[resource.type_url].FromString(resource.body)
    return result


def _without_endpoints(told: snapshot.Snapshot) -> Iterator[str]:
    for name, resource in told.of(snapshot.CLUSTERS).items():
        cluster = cluster_pb2.Cluster.FromString(resource.body)
        asked = cluster.eds_cluster_config.service_name or name
        if cluster.type == cluster_pb2.Cluster.EDS and asked not in told.of(snapshot.ENDPOINTS):
            yield f"cluster `{name}` asks for endpoints `{asked}`"


def _texts(part: message.Message) -> Iterator[tuple[str, str]]:
    """Yield the full name and value of each text in a message, also inside wrapped ones."""
    if isinstance(part, any_pb2.Any):
        yield from _texts(_unwrapped(part))
        return
    for field, value in part.ListFields():
        for one in _each(value):
            if isinstance(one, str):
                yield field.full_name, one
            elif isinstance(one, message.Message):
                yield from _texts(one)


def _each(value: object) -> Iterable[object]:
    if isinstance(value, str | bytes | int | float | message.Message):
        return (value,)
    # What is left are repeated fields and maps; no map of ours holds a reference.
    return value if isinstance(value, Iterable) else ()


def _unwrapped(wrapped: any_pb2.Any) -> message.Message:
    descriptor = descriptor_pool.Default().FindMessageTypeByName(
        wrapped.type_url.removeprefix(snapshot.PREFIX)
    )
    return message_factory.GetMessageClass(descriptor).FromString(wrapped.value)
