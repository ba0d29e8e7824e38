"""A slice's endpoints as Envoy's ClusterLoadAssignment.

This is built most often of all, so it says nothing that Envoy assumes by itself, and its bytes are
put together from addresses and from the bytes of all else, which endpoints of one workload share.
`assignment_of` says the same through the protobuf library; a test holds the two equal.

Source: spec section 4.11; performance rule 7.
"""

import functools
from collections.abc import Iterator
from typing import Final, assert_never

from envoy.config.core.v3 import base_pb2, health_check_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from google.protobuf import message

from isthmus.base import varints
from isthmus.mesh.localities import Locality
from isthmus.mesh.workloads import Health
from isthmus.resources.envoy import hbone, messages
from isthmus.views import view

SOCKET_MATCH: Final = "envoy.transport_socket_match"
PLAIN: Final = {"tlsMode": "disabled"}
"""By it a cluster knows the endpoints that do not speak the mesh's TLS; the others say nothing."""

CLUSTER_NAME: Final = b"\x0a"
GROUP: Final = b"\x12"
MEMBER: Final = b"\x12"
"""Fields of ClusterLoadAssignment and LocalityLbEndpoints, as protobuf writes them."""

ENDPOINT: Final = b"\x0a"
ADDRESS: Final = b"\x0a"
SOCKET: Final = b"\x0a"
SOCKET_ADDRESS: Final = b"\x12"
PORT: Final = b"\x18"
"""Fields of LbEndpoint, of Endpoint, of Address, and both of SocketAddress."""

RECENT: Final = 256
"""So many places' endpoints are remembered as bytes: several views see one that has changed."""


def assignment_of(endpoints: view.EndpointsSlice) -> message.Message:
    """Return the message that says which endpoints a cluster has."""
    result: message.Message = endpoint_pb2.ClusterLoadAssignment(
        cluster_name=endpoints.cluster_name,
        endpoints=[_group(group) for group in endpoints.groups],
    )
    return result


def encoded(endpoints: view.EndpointsSlice) -> bytes:
    """Return the message of `assignment_of`, serialized deterministically."""
    groups = [_encoded_group(group) for group in endpoints.groups]
    return b"".join((named(endpoints.cluster_name), *groups))


def named(cluster: str) -> bytes:
    """Return how an assignment begins."""
    return _field(CLUSTER_NAME, cluster.encode()) if cluster else b""


def _encoded_group(group: view.Group) -> bytes:
    if isinstance(group, view.Members):
        return _encoded_bunch(group)
    return _group_of(group, members(group.endpoints))


@functools.lru_cache(maxsize=RECENT)
def _encoded_bunch(found: view.Members) -> bytes:
    # Its members are remembered in it alone, and not once more by themselves.
    return _group_of(found, _said(found))


def _group_of(group: view.Group, said: bytes) -> bytes:
    rank = _rank(group.weight, group.priority)
    return _field(GROUP, b"".join((_place(group.locality), said, rank)))


def members(found: view.Told) -> bytes:
    """Return endpoints as they stand in a place."""
    if isinstance(found, view.Members):
        return _encoded_members(found)
    return b"".join([_encoded_endpoint(one) for one in found])


@functools.lru_cache(maxsize=RECENT)
def _encoded_members(found: view.Members) -> bytes:
    return _said(found)


def _said(found: view.Members) -> bytes:
    parts = list[bytes]()
    for like, end, addresses in found.alike():
        if end:
            parts += [_encoded_endpoint(found.told(one, like, end)) for one in addresses]
            continue
        framed = _Framed(found.told("", like, end))
        for one in addresses:
            parts += framed.around(one)
    return b"".join(parts)


class _Framed:
    """What stands around the addresses of endpoints of which all else is alike."""

    def __init__(self, sample: view.LbEndpoint) -> None:
        self._port = b"%b%b" % (PORT, varints.written(sample.port))
        like = (sample.health, sample.weight, sample.workload, sample.speaks_mtls)
        self._rest = _all_else(*like)
        self._end = self._port + self._rest
        self._begins = dict[int, bytes]()

    def around(self, address: str) -> tuple[bytes, bytes, bytes]:
        """Return what is before an address, the address, and what is behind it."""
        said = address.encode()
        begin = self._begins.get(len(said))
        if begin is None:
            begin = self._begins[len(said)] = self._begin(said)
        return begin, said, self._end

    def _begin(self, said: bytes) -> bytes:
        whole = _field(MEMBER, _located(said, self._port) + self._rest)
        return whole[: len(whole) - len(self._end) - len(said)]


@functools.lru_cache(maxsize=1024)
def _place(locality: Locality) -> bytes:
    fields = {"locality": _locality(locality)}
    return bytes(
        endpoint_components_pb2.LocalityLbEndpoints(**fields).SerializeToString(deterministic=True)
    )


@functools.lru_cache(maxsize=4096)
def _rank(weight: int, priority: int) -> bytes:
    fields = {"priority": priority, "load_balancing_weight": {"value": weight} if weight else None}
    return bytes(
        endpoint_components_pb2.LocalityLbEndpoints(**fields).SerializeToString(deterministic=True)
    )


def each(found: view.Told) -> Iterator[tuple[str, int, bytes]]:
    """Yield address, port and message of each endpoint by itself."""
    if not isinstance(found, view.Members):
        for one in found:
            yield one.address, one.port, _unframed(_encoded_endpoint(one))
        return
    for like, end, addresses in found.alike():
        framed = _Framed(found.told("", like, end))
        for address in addresses:
            if end:
                said = _encoded_endpoint(found.told(address, like, end))
            else:
                said = b"".join(framed.around(address))
            yield address, like.port, _unframed(said)


def _unframed(said: bytes) -> bytes:
    begin = len(MEMBER)
    while said[begin] & varints.CONTINUES:
        begin += 1
    return said[begin + 1 :]


def _encoded_endpoint(endpoint: view.LbEndpoint) -> bytes:
    """Return an endpoint as it stands among others, with what says how long it is."""
    if endpoint.tunnel_end:
        return _field(MEMBER, _serialized(_endpoint(endpoint)))
    like = (endpoint.health, endpoint.weight, endpoint.workload, endpoint.speaks_mtls)
    port = b"%b%b" % (PORT, varints.written(endpoint.port))
    return _field(MEMBER, _located(endpoint.address.encode(), port) + _all_else(*like))


def _located(address: bytes, port: bytes) -> bytes:
    """Return the field `endpoint`, of which hardly two are alike."""
    socket = _field(SOCKET_ADDRESS, address) + port
    return _field(ENDPOINT, _field(ADDRESS, _field(SOCKET, socket)))


@functools.lru_cache(maxsize=256)
def _all_else(health: Health, weight: int, workload: str, speaks_mtls: bool) -> bytes:
    """Return the fields after `endpoint`; those of one workload share them."""
    return _serialized(_described(health, weight, workload, speaks_mtls))


def _serialized(fields: messages.Fields) -> bytes:
    said = endpoint_components_pb2.LbEndpoint(**fields)
    return bytes(said.SerializeToString(deterministic=True))


def _field(tag: bytes, body: bytes) -> bytes:
    """Return a field of bytes as protobuf writes it: tag, length, content."""
    size = len(body)
    if size < varints.CONTINUES:
        return b"%b%c%b" % (tag, size, body)
    return b"%b%b%b" % (tag, varints.written(size), body)


def _locality(place: Locality) -> messages.Fields:
    return {"region": place.region, "zone": place.zone, "sub_zone": place.subzone}


def _group(group: view.Group) -> messages.Fields:
    return {
        "locality": _locality(group.locality),
        "priority": group.priority,
        "load_balancing_weight": {"value": group.weight} if group.weight else None,
        "lb_endpoints": [_endpoint(endpoint) for endpoint in group.endpoints],
    }


def _endpoint(endpoint: view.LbEndpoint) -> messages.Fields:
    if endpoint.tunnel_end == view.waypoints.INSIDE:
        return _inside(endpoint)
    if endpoint.tunnel_end:
        return _tunnelled(endpoint)
    return {
        "endpoint": {"address": messages.socket_address(endpoint.address, port=endpoint.port)},
        **_described(endpoint.health, endpoint.weight, endpoint.workload, endpoint.speaks_mtls),
    }


def _described(health: Health, weight: int, workload: str, speaks_mtls: bool) -> messages.Fields:
    by_filter = {}
    if not speaks_mtls:
        by_filter[SOCKET_MATCH] = messages.struct(PLAIN)
    if workload:
        by_filter["istio"] = messages.struct({"workload": workload})
    return {
        "health_status": _health(health),
        "load_balancing_weight": {"value": weight},
        "metadata": base_pb2.Metadata(filter_metadata=by_filter),
    }


def _inside(endpoint: view.LbEndpoint) -> messages.Fields:
    """Return a listener inside, which makes the tunnels itself."""
    inside = {"server_listener_name": endpoint.address, "endpoint_id": endpoint.address}
    told = {SOCKET_MATCH: messages.struct(hbone.MATCH)}
    return {
        "endpoint": {"address": {"envoy_internal_address": inside}},
        "health_status": _health(endpoint.health),
        "load_balancing_weight": {"value": endpoint.weight},
        "metadata": base_pb2.Metadata(filter_metadata=told),
    }


def _tunnelled(endpoint: view.LbEndpoint) -> messages.Fields:
    told = {
        SOCKET_MATCH: messages.struct(hbone.MATCH),
        hbone.TARGET[0]: messages.struct({hbone.TARGET[1]: hbone.where(endpoint)}),
        hbone.PROOF[0]: messages.struct({hbone.PROOF[1]: endpoint.tunnel_end}),
    }
    if endpoint.workload:
        told["istio"] = messages.struct({"workload": endpoint.workload})
    return {
        "endpoint": {"address": hbone.address(endpoint)},
        "health_status": _health(endpoint.health),
        "load_balancing_weight": {"value": endpoint.weight},
        "metadata": base_pb2.Metadata(filter_metadata=told),
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
