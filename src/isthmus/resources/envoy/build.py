"""The door of this room: a slice goes in, bytes with a version come out.

The slice is all that goes in, so equal slices give equal bytes, whoever asks and whenever.
"""

import hashlib
from typing import Final, assert_never

from google.protobuf import message

from isthmus.resources import name_tables, snapshot
from isthmus.resources.envoy import clusters, endpoints, gateways, inbound, listeners, routes
from isthmus.views import view

VERSION_BYTES: Final = 6


def build(slice_: view.Slice) -> snapshot.Resource:
    """Return the resource that says `slice_` to Envoy."""
    match slice_:
        case view.ClusterSlice(name=name):
            return _resource(snapshot.CLUSTERS, name=name, body=clusters.cluster_of(slice_))
        case view.EndpointsSlice(cluster_name=name):
            return _resource(snapshot.ENDPOINTS, name=name, body=endpoints.assignment_of(slice_))
        case view.NamesSlice():
            return _resource(
                snapshot.NAMES, name=view.NAME_TABLE, body=name_tables.table_of(slice_)
            )
        case view.RouteSlice(name=name):
            return _resource(snapshot.ROUTES, name=name, body=routes.configuration_of(slice_))
        case _:
            name = view.listener_name(slice_)
            return _resource(snapshot.LISTENERS, name=name, body=_listener(slice_))


def _listener(slice_: view.ListenerSlice) -> message.Message:
    match slice_:
        case view.CatchAllOutbound():
            return listeners.catch_all(slice_)
        case view.OutboundHttp():
            return listeners.http(slice_)
        case view.OutboundTcp():
            return listeners.tcp(slice_)
        case view.Inbound():
            return inbound.listener(slice_)
        case _:
            return _of_gateway(slice_)


def _of_gateway(
    slice_: view.GatewayTls | view.GatewayTcp | view.GatewayHttp,
) -> message.Message:
    match slice_:
        case view.GatewayTls():
            return gateways.by_server_name(slice_)
        case view.GatewayTcp():
            return gateways.tcp(slice_)
        case view.GatewayHttp():
            return gateways.http(slice_)
    assert_never(slice_)


def _resource(type_url: snapshot.TypeUrl, *, name: str, body: message.Message) -> snapshot.Resource:
    encoded = body.SerializeToString(deterministic=True)
    version = hashlib.blake2b(encoded, digest_size=VERSION_BYTES).hexdigest()
    return snapshot.Resource(type_url, name, version, encoded)
