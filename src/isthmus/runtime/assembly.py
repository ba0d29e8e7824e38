"""The pure rooms put together: objects of all clusters in, encoded resources of all scopes out."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from isthmus.engine import collections, graph, reader
from isthmus.fleet import sources
from isthmus.mesh import allocations, peering
from isthmus.mesh.identities import ClusterId
from isthmus.mesh.services import ServiceKey
from isthmus.registry import model
from isthmus.registry import settings as registry_settings
from isthmus.resources import building, snapshot
from isthmus.resources import peering as records
from isthmus.views import compiler, view

Resources = collections.Collection[view.SliceKey, snapshot.Resource]
Restless = collections.Source[view.SliceKey, int]

TYPE_OF = {
    view.Kind.CLUSTER: snapshot.CLUSTERS,
    view.Kind.ENDPOINTS: snapshot.ENDPOINTS,
    view.Kind.LISTENER: snapshot.LISTENERS,
    view.Kind.ROUTE: snapshot.ROUTES,
    view.Kind.NAMES: snapshot.NAMES,
    view.Kind.SECRET: snapshot.SECRETS,
    view.Kind.ADDRESS: snapshot.ADDRESSES,
    view.Kind.AUTHORIZATION: snapshot.AUTHORIZATIONS,
}
"""The type of resource that a kind of slice becomes."""


@dataclass(frozen=True, slots=True)
class Mesh:
    """The compiler: everything between the clusters' objects and the proxies' resources.

    Attributes:
        seat: Where it is configured.
        exports: What linked clusters are told, by the name of the resource.
        restless: Sets of endpoints that change often where they are seen, with their sizes; filled
            from outside. These alone are told in parts where clients can be.
    """

    seat: registry_settings.Seat
    graph: graph.Graph
    sources: sources.Sources
    model: model.Model
    views: compiler.Views
    resources: Resources
    exports: collections.Collection[str, snapshot.Resource]
    restless: Restless


@dataclass(frozen=True, slots=True)
class Ways:
    """How a control plane differs from most, as in `registry.settings.Seat`."""

    is_external: bool = False
    shared: str = ""
    is_linked: bool = False
    link_namespaces: tuple[str, ...] = ()
    skips_domains: bool = False
    ranges: allocations.Ranges = allocations.USUAL
    most_tunnels: int = 0
    tells_all_in_parts: bool = False


USUAL: Final = Ways()


def assemble(
    *,
    config_cluster: ClusterId,
    revision: str,
    system_namespace: str,
    domain: str,
    ways: Ways = USUAL,
) -> Mesh:
    """Put the compiler together, empty."""
    seat = registry_settings.Seat(
        config_cluster,
        system_namespace,
        "" if revision == "default" else revision,
        domain,
        is_external=ways.is_external,
        shared=ways.shared,
        link_namespaces=ways.link_namespaces,
        is_linked=ways.is_linked,
        skips_domains=ways.skips_domains,
        ranges=ways.ranges,
        most_tunnels=ways.most_tunnels,
    )
    graph_ = graph.Graph()
    sources_ = sources.declare(graph_)
    model_ = model.seated(graph_, sources_, seat=seat)
    views_ = compiler.build(graph_, model_)
    restless: Restless = graph_.source("resources told in parts")
    chosen = None if ways.tells_all_in_parts else restless
    encoded = functools.partial(_encoded, restless=chosen)
    resources_: Resources = graph_.derive("resources", views_.slices, encoded)
    exports = graph_.derive("resources of exports", model_.peers.exports, _exported)
    return Mesh(seat, graph_, sources_, model_, views_, resources_, exports, restless)


def _encoded(
    read: reader.Reader, key: view.SliceKey, slice_: view.Slice, *, restless: Restless | None = None
) -> Iterator[tuple[view.SliceKey, snapshot.Resource]]:
    is_apart: bool | None = None
    if isinstance(slice_, view.EndpointsSlice) and slice_.is_apart and restless is not None:
        is_apart = read.get(restless, key) is not None
    yield key, building.build(slice_, is_apart=is_apart)


def _exported(
    _: reader.Reader, __: ServiceKey, export: peering.Export
) -> Iterator[tuple[str, snapshot.Resource]]:
    found = records.service_resource(export)
    yield found.name, found
