"""The endpoints of all services, from each place where proxies stand.

Proxies of all namespaces of a cluster and network share them. A namespace that has rules of its
own for a service gets slices of its own, which count more.
"""

from collections.abc import Iterator

from isthmus.engine import collections, graph, reader
from isthmus.mesh.services import Resolution, Service, ServiceKey
from isthmus.views import assignments, facts, rules, view, visibility

Slices = collections.Collection[view.SliceKey, view.Slice]
Seen = tuple[view.HorizonScope, ServiceKey]
SeenBy = tuple[view.OutboundScope, ServiceKey]
Sliced = Iterator[tuple[view.SliceKey, view.Slice]]


def declare(
    graph_: graph.Graph,
    known: facts.Facts,
    scopes: collections.Collection[view.Scope, int],
) -> tuple[Slices, ...]:
    """Declare the slices of endpoints of sidecars."""
    return _shared(graph_, known, scopes), _overruled(graph_, known, scopes)


def horizon_of(scope: view.OutboundScope) -> view.HorizonScope:
    """Return the place where the proxies of a scope stand."""
    return view.HorizonScope(scope.cluster, scope.network, scope.requested_networks)


def _shared(
    graph_: graph.Graph,
    known: facts.Facts,
    scopes: collections.Collection[view.Scope, int],
) -> Slices:
    def is_horizon(
        _: reader.Reader, scope: view.Scope, __: int
    ) -> Iterator[tuple[view.HorizonScope, None]]:
        if isinstance(scope, view.HorizonScope):
            yield scope, None

    horizons = graph_.derive("views/horizons", scopes, is_horizon)

    def seen(
        read: reader.Reader, key: ServiceKey, service: Service
    ) -> Iterator[tuple[Seen, Service]]:
        if service.resolution is not Resolution.ALIAS:
            for horizon in read.items(horizons):
                yield (horizon, key), service

    exposed = graph_.derive("views/services by horizon", known.model.services, seen)

    def sliced(read: reader.Reader, key: Seen, service: Service) -> Sliced:
        horizon, name = key
        root = read.value(known.model.settings).root_namespace
        found = known.rules_of(read, name)
        rule = rules.chosen(found, service, client=None, root=root)
        for slice_ in assignments.outbound(
            service,
            known.candidates_of(read, name),
            rule=rule,
            horizon=horizon,
            table=read.value(known.gateways),
        ):
            yield view.keyed(horizon, slice_)

    return graph_.derive("views/endpoints", exposed, sliced)


def _overruled(
    graph_: graph.Graph,
    known: facts.Facts,
    scopes: collections.Collection[view.Scope, int],
) -> Slices:
    def is_outbound(
        _: reader.Reader, scope: view.Scope, __: int
    ) -> Iterator[tuple[view.OutboundScope, None]]:
        if isinstance(scope, view.OutboundScope):
            yield scope, None

    places = graph_.derive("views/namespaces with proxies", scopes, is_outbound)

    def differing(
        read: reader.Reader, key: ServiceKey, found: tuple[object, ...]
    ) -> Iterator[tuple[SeenBy, Service]]:
        service = read.get(known.model.services, key)
        ruled = known.rules_of(read, key)
        if service is None or service.resolution is Resolution.ALIAS:
            return
        root = read.value(known.model.settings).root_namespace
        usual = rules.chosen(ruled, service, client=None, root=root)
        for scope in read.items(places):
            own = rules.chosen(ruled, service, client=scope.namespace, root=root)
            if own != usual and visibility.is_visible(service, client=scope.namespace):
                yield (scope, key), service

    overruled = graph_.derive("views/services with rules of a namespace", known.rules, differing)

    def sliced(read: reader.Reader, key: SeenBy, service: Service) -> Sliced:
        scope, name = key
        root = read.value(known.model.settings).root_namespace
        found = known.rules_of(read, name)
        rule = rules.chosen(found, service, client=scope.namespace, root=root)
        for slice_ in assignments.outbound(
            service,
            known.candidates_of(read, name),
            rule=rule,
            horizon=horizon_of(scope),
            table=read.value(known.gateways),
        ):
            yield view.keyed(scope, slice_)

    return graph_.derive("views/endpoints by rules of a namespace", overruled, sliced)
