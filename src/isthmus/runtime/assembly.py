"""The pure rooms put together: objects of all clusters in, encoded resources of all scopes out."""

from collections.abc import Iterator
from dataclasses import dataclass

from isthmus.engine import collections, graph, reader
from isthmus.fleet import sources
from isthmus.mesh.identities import ClusterId
from isthmus.registry import model
from isthmus.registry import settings as registry_settings
from isthmus.resources import building, snapshot
from isthmus.views import compiler, view

Resources = collections.Collection[view.SliceKey, snapshot.Resource]

TYPE_OF = {
    view.Kind.CLUSTER: snapshot.CLUSTERS,
    view.Kind.ENDPOINTS: snapshot.ENDPOINTS,
    view.Kind.LISTENER: snapshot.LISTENERS,
    view.Kind.ROUTE: snapshot.ROUTES,
    view.Kind.NAMES: snapshot.NAMES,
    view.Kind.ADDRESS: snapshot.ADDRESSES,
    view.Kind.AUTHORIZATION: snapshot.AUTHORIZATIONS,
}
"""The type of resource that a kind of slice becomes."""


@dataclass(frozen=True, slots=True)
class Mesh:
    """The compiler: everything between the clusters' objects and the proxies' resources.

    Attributes:
        seat: Where it is configured.
    """

    seat: registry_settings.Seat
    graph: graph.Graph
    sources: sources.Sources
    model: model.Model
    views: compiler.Views
    resources: Resources


def assemble(
    *,
    config_cluster: ClusterId,
    revision: str,
    system_namespace: str,
    domain: str,
    is_external: bool = False,
    shared: str = "",
) -> Mesh:
    """Put the compiler together, empty.

    `is_external` and `shared` are those of a `registry.settings.Seat`.
    """
    seat = registry_settings.Seat(
        config_cluster,
        system_namespace,
        "" if revision == "default" else revision,
        domain,
        is_external=is_external,
        shared=shared,
    )
    graph_ = graph.Graph()
    sources_ = sources.declare(graph_)
    model_ = model.seated(graph_, sources_, seat=seat)
    views_ = compiler.build(graph_, model_)
    resources_: Resources = graph_.derive("resources", views_.slices, _encoded)
    return Mesh(seat, graph_, sources_, model_, views_, resources_)


def _encoded(
    read: reader.Reader, key: view.SliceKey, slice_: view.Slice
) -> Iterator[tuple[view.SliceKey, snapshot.Resource]]:
    del read
    yield key, building.build(slice_)
