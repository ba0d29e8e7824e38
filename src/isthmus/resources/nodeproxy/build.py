"""Says slices to the Envoy of a node.

Source: spec sections 7.2 and 7.4.
"""

from typing import assert_never

from google.protobuf import message

from isthmus.resources import snapshot, versions
from isthmus.resources.nodeproxy import calls, doubled, inside, pods, upstreams
from isthmus.views import view

TYPES = {
    view.nodeslices.Kind.CLUSTER: snapshot.CLUSTERS,
    view.nodeslices.Kind.ENDPOINTS: snapshot.ENDPOINTS,
    view.nodeslices.Kind.LISTENER: snapshot.LISTENERS,
    view.nodeslices.Kind.EXTENSION: pods.EXTENSIONS,
    view.nodeslices.Kind.ROUTES: snapshot.ROUTES,
}


def build(slice_: view.nodeslices.TunnelSlice) -> snapshot.Resource:
    """Return the resource that says `slice_` to the Envoy of a node."""
    kind, name = view.nodeslices.kind_of(slice_), view.nodeslices.name_of(slice_)
    return versions.resource(TYPES[kind], _message(slice_, name), name=name)


def _message(slice_: view.nodeslices.TunnelSlice, name: str) -> message.Message:
    match slice_:
        case view.nodeslices.InnerListener():
            return doubled.listener(slice_)
        case view.nodeslices.InnerCluster():
            return doubled.cluster(slice_)
        case view.nodeslices.Doors():
            return doubled.assignment(slice_)
        case (
            view.nodeslices.Ways()
            | view.nodeslices.OtherWays()
            | view.nodeslices.PassageListener()
            | view.nodeslices.UpstreamCluster()
            | view.nodeslices.ServiceCluster()
            | view.nodeslices.ServiceEndpoints()
        ):
            return _of_node(slice_, name)
        case _:
            return _of_pod(slice_, name)


def _of_node(
    slice_: view.nodeslices.Ways
    | view.nodeslices.OtherWays
    | view.nodeslices.PassageListener
    | view.nodeslices.UpstreamCluster
    | view.nodeslices.ServiceCluster
    | view.nodeslices.ServiceEndpoints,
    name: str,
) -> message.Message:
    match slice_:
        case view.nodeslices.Ways():
            return inside.ways(slice_, name)
        case view.nodeslices.OtherWays():
            return inside.others(slice_, name)
        case view.nodeslices.PassageListener():
            return calls.passage(slice_, name)
        case view.nodeslices.UpstreamCluster():
            return upstreams.common(slice_)
        case view.nodeslices.ServiceCluster():
            return upstreams.service(slice_)
        case view.nodeslices.ServiceEndpoints():
            return upstreams.assignment(slice_)
    assert_never(slice_)


def _of_pod(
    slice_: view.nodeslices.PodListener
    | view.nodeslices.TunnelPolicies
    | view.nodeslices.TunnelRoutes,
    name: str,
) -> message.Message:
    match slice_:
        case view.nodeslices.TunnelPolicies():
            return pods.judge(slice_, name)
        case view.nodeslices.TunnelRoutes():
            return pods.routes(slice_, name)
        case view.nodeslices.OutboundListener():
            return pods.outbound(slice_, name)
        case view.nodeslices.PlaintextListener():
            return pods.plaintext(slice_, name)
        case view.nodeslices.TunnelListener():
            return pods.tunnel_end(slice_, name)
    assert_never(slice_)
