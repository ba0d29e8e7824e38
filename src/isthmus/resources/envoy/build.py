"""Says slices to Envoy."""

import functools
from typing import Final, assert_never

from google.protobuf import message

from isthmus.resources import name_tables, snapshot, versions
from isthmus.resources.envoy import (
    clusters,
    endpoints,
    gateways,
    hbone,
    inbound,
    listeners,
    members,
    onward,
    routes,
    secrets,
    tunnels,
    waypoints,
)
from isthmus.views import view

SHARED: Final = 4096
"""So many clusters are remembered: most namespaces see the same ones, and share their bytes."""


def build(slice_: view.EnvoySlice) -> snapshot.Resource:
    """Return the resource that says `slice_` to Envoy."""
    match slice_:
        case (
            view.ClusterSlice()
            | view.waypoints.Door()
            | view.waypoints.PodCluster()
            | view.waypoints.TunnelCluster()
            | view.waypoints.OnwardCluster()
        ):
            return _clusters(slice_)
        case view.EndpointsSlice():
            return _endpoints(slice_)
        case view.NamesSlice():
            return versions.resource(
                snapshot.NAMES, name_tables.table_of(slice_), name=view.NAME_TABLE
            )
        case view.TrustSlice():
            return secrets.bundles(view.TRUST, slice_.bundles)
        case view.RouteSlice() | view.tunnels.TunnelRoutes() | view.tunnels.WorkloadRoutes():
            return _routes(slice_)
        case _:
            name = view.listener_name(slice_)
            return versions.resource(snapshot.LISTENERS, _listener(slice_), name=name)


@functools.lru_cache(maxsize=SHARED)
def _clusters(slice_: view.Clusters) -> snapshot.Resource:
    return versions.resource(snapshot.CLUSTERS, _cluster(slice_), name=view.name_of(slice_))


def _endpoints(slice_: view.EndpointsSlice) -> snapshot.Resource:
    if slice_.is_apart:
        return members.build(slice_)
    return versions.encoded(snapshot.ENDPOINTS, endpoints.encoded(slice_), name=slice_.cluster_name)


def _cluster(slice_: view.Clusters) -> message.Message:
    match slice_:
        case view.ClusterSlice():
            return clusters.cluster_of(slice_)
        case view.waypoints.Door():
            return waypoints.door(slice_)
        case view.waypoints.PodCluster():
            return waypoints.pod(slice_)
        case view.waypoints.TunnelCluster():
            return hbone.cluster(slice_)
        case view.waypoints.OnwardCluster():
            return onward.cluster(slice_)
    assert_never(slice_)


def _routes(slice_: view.Routes) -> snapshot.Resource:
    name = view.name_of(slice_)
    if isinstance(slice_, view.RouteSlice):
        return versions.encoded(snapshot.ROUTES, routes.encoded(slice_), name=name)
    return versions.resource(snapshot.ROUTES, tunnels.routes(slice_), name=name)


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
        case view.waypoints.ServicePort() | view.waypoints.TunnelStart() | view.waypoints.Onward():
            return _inside(slice_)
        case _:
            return _of_gateway(slice_)


def _inside(slice_: view.InnerSlice) -> message.Message:
    if isinstance(slice_, view.waypoints.ServicePort):
        return waypoints.listener(slice_)
    if isinstance(slice_, view.waypoints.Onward):
        return onward.listener(slice_)
    return hbone.listener(slice_)


def _of_gateway(slice_: view.GatewaySlice) -> message.Message:
    match slice_:
        case view.GatewayTls():
            return gateways.by_server_name(slice_)
        case view.GatewayTcp():
            return gateways.tcp(slice_)
        case view.GatewayHttp():
            return gateways.http(slice_)
        case view.tunnels.GatewayTunnels():
            return tunnels.listener(slice_)
    assert_never(slice_)
