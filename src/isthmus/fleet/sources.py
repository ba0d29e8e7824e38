"""The hand-over to `registry`: every cluster's objects, by kind, tagged with the cluster.

The collections are filled from outside in transactions, one cluster and generation at a time;
what reads them never learns of connections, credentials or generations.

Source: design rule 4 (everything per cluster is keyed by cluster and generation).
"""

from collections.abc import Callable, Collection, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Final, cast

from isthmus.engine import collections, graph
from isthmus.fleet import pods
from isthmus.kube import gateway_api, objects
from isthmus.mesh import identities
from isthmus.mesh.identities import ClusterId

ObjectKey = identities.ObjectKey

HOME: Final = ClusterId("")
"""Stands for the cluster that a control plane runs in where that is no cluster of its mesh."""


@dataclass(frozen=True, slots=True)
class Sources:
    """One collection a kind. Istio's own kinds come from the configuration cluster only."""

    namespaces: collections.Source[ObjectKey, objects.Namespace]
    nodes: collections.Source[ObjectKey, objects.Node]
    services: collections.Source[ObjectKey, objects.Service]
    endpoint_slices: collections.Source[ObjectKey, objects.EndpointSlice]
    pods: collections.Source[ObjectKey, objects.AnyPod]
    config_maps: collections.Source[ObjectKey, objects.ConfigMap]
    trust_bundles: collections.Source[ObjectKey, objects.ConfigMap]
    gateways: collections.Source[ObjectKey, objects.Gateway]
    virtual_services: collections.Source[ObjectKey, objects.FreeForm]
    destination_rules: collections.Source[ObjectKey, objects.FreeForm]
    service_entries: collections.Source[ObjectKey, objects.ServiceEntry]
    peer_authentications: collections.Source[ObjectKey, objects.PeerAuthentication]
    authorization_policies: collections.Source[ObjectKey, objects.FreeForm]
    request_authentications: collections.Source[ObjectKey, objects.FreeForm]
    gateway_classes: collections.Source[ObjectKey, gateway_api.GatewayClass]
    kubernetes_gateways: collections.Source[ObjectKey, gateway_api.Gateway]
    http_routes: collections.Source[ObjectKey, gateway_api.HttpRoute]


def table(collection: str) -> MutableMapping[ObjectKey, objects.Object]:
    """Return an empty table for objects of a kind; that of pods takes much less for each."""
    if collection == "pods":
        # Sound: nothing but pods is put among them.
        return cast("MutableMapping[ObjectKey, objects.Object]", pods.Pods())
    return {}


Nodes = Collection[tuple[ClusterId, str]]


def finding_pods(sources_: Sources) -> Callable[[Nodes], Iterator[ObjectKey]] | None:
    """Return what finds the pods of some nodes, if it takes less than to go through all pods."""
    kept = sources_.pods.content
    return kept.on_nodes if isinstance(kept, pods.Pods) else None


def declare(graph_: graph.Graph) -> Sources:
    """Declare the sources in `graph_`, empty."""
    return Sources(
        namespaces=graph_.source("namespaces"),
        nodes=graph_.source("nodes"),
        services=graph_.source("services"),
        endpoint_slices=graph_.source("endpoint_slices"),
        pods=graph_.source("pods", content=pods.Pods()),
        config_maps=graph_.source("config_maps"),
        trust_bundles=graph_.source("trust_bundles"),
        gateways=graph_.source("gateways"),
        virtual_services=graph_.source("virtual_services"),
        destination_rules=graph_.source("destination_rules"),
        service_entries=graph_.source("service_entries"),
        peer_authentications=graph_.source("peer_authentications"),
        authorization_policies=graph_.source("authorization_policies"),
        request_authentications=graph_.source("request_authentications"),
        gateway_classes=graph_.source("gateway_classes"),
        kubernetes_gateways=graph_.source("kubernetes_gateways.objects"),
        http_routes=graph_.source("http_routes.objects"),
    )
