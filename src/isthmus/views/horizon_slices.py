"""The endpoints of all services, from each place where proxies stand.

Proxies of all namespaces and clusters of a network share them. A cluster gets slices of its own of
services that do not reach beyond it, a namespace where it has rules of its own, and a locality
where endpoints are nearer or farther; these count more. Whoever changes places always finds something: wider slices stay.
"""

import functools
from collections.abc import Callable, Iterable, Iterator

import msgspec

from isthmus.engine import collections, graph, reader
from isthmus.mesh import policies
from isthmus.mesh.identities import ANYWHERE
from isthmus.mesh.services import Service, ServiceKey
from isthmus.mesh.settings import MeshSettings
from isthmus.mesh.traffic import LocalityPreference
from isthmus.views import assignments, facts, preferences, rules, view, visibility

Slices = collections.Collection[view.SliceKey, view.Slice]
Seen = tuple[view.HorizonScope, ServiceKey]
Exposed = collections.Collection[Seen, Service]
Sliced = Iterator[tuple[view.SliceKey, view.Slice]]
Preferring = collections.Collection[ServiceKey, frozenset[str]]


def declare(
    graph_: graph.Graph,
    known: facts.Facts,
    scopes: collections.Collection[view.Scope, int],
    *,
    preferring: Preferring,
) -> tuple[Slices, ...]:
    """Declare the slices of endpoints of sidecars, and of gateways' own calls.

    `preferring` are the services some of whose endpoints are nearer than others.
    """
    sliced = _sliced(known)
    exposed = {
        "views/endpoints": _wide(graph_, known, _only(graph_, "views/horizons", scopes, _is_wide)),
        "views/endpoints by rules of a namespace": _ruled(
            graph_, known, _only(graph_, "views/namespaces with proxies", scopes, _is_ruled)
        ),
        "views/endpoints by nearness": _placed(
            graph_,
            known,
            _only(graph_, "views/places with proxies", scopes, _is_placed),
            preferring,
        ),
    }
    return tuple(graph_.derive(name, one, sliced) for name, one in exposed.items())


def declare_preferring(graph_: graph.Graph, known: facts.Facts) -> Preferring:
    """Declare the services with preferences, and the labels of clients that these look at."""

    def preferring(
        read: reader.Reader, key: ServiceKey, service: Service
    ) -> Iterator[tuple[ServiceKey, frozenset[str]]]:
        settings = read.value(known.model.settings)
        found = [
            preference
            for rule in (None, *known.rules_of(read, key))
            for preference in preferences_of(rule, service, settings=settings)
        ]
        if found and service.is_told_of:
            wanted = (preferences.labels_wanted(preference) for preference in found)
            yield key, frozenset().union(*wanted)

    return graph_.derive("views/services with preferences", known.model.services, preferring)


def declare_labels(
    graph_: graph.Graph, preferring: Preferring
) -> collections.Single[frozenset[str]]:
    """Declare the labels of clients that make any endpoint near."""

    def wanted(read: reader.Reader) -> frozenset[str]:
        return frozenset().union(*read.items(preferring).values())

    return graph_.single("views/labels that make near", wanted)


def preferences_of(
    rule: policies.DestinationRule | None, service: Service, *, settings: MeshSettings
) -> Iterable[LocalityPreference]:
    """Return what makes any endpoints of a service near under a rule."""
    for port in service.ports:
        for subset in rules.subsets_of(rule):
            policy = rules.policy_of(
                rule, port=port.number, subset=subset.name, usual=settings.traffic
            )
            preference = preferences.preference_of(policy, service, usual=settings.locality)
            if preference is not None:
                yield preference


@functools.lru_cache(maxsize=4096)
def horizon_of(
    scope: view.CommonScope | view.OutboundScope | view.GatewayScope,
) -> view.HorizonScope:
    """Return the place where the proxies of a scope stand."""
    return view.HorizonScope(
        scope.cluster,
        scope.network,
        scope.requested_networks,
        begins_tunnels=scope.begins_tunnels,
    )


def _is_wide(scope: view.HorizonScope) -> bool:
    return scope.namespace is None and scope.locality is None


def _is_ruled(scope: view.HorizonScope) -> bool:
    return scope.namespace is not None and scope.locality is None


def _is_placed(scope: view.HorizonScope) -> bool:
    return scope.locality is not None


Horizons = collections.Collection[view.HorizonScope, None]


def _only(
    graph_: graph.Graph,
    name: str,
    scopes: collections.Collection[view.Scope, int],
    is_wanted: Callable[[view.HorizonScope], bool],
) -> Horizons:
    def wanted(
        _: reader.Reader, scope: view.Scope, __: int
    ) -> Iterator[tuple[view.HorizonScope, None]]:
        if isinstance(scope, view.HorizonScope) and is_wanted(scope):
            yield scope, None

    return graph_.derive(name, scopes, wanted)


def _wide(graph_: graph.Graph, known: facts.Facts, horizons: Horizons) -> Exposed:
    def sees(horizon: view.HorizonScope, service: Service) -> bool:
        is_anywhere = horizon.cluster == ANYWHERE
        return service.is_told_of and service.is_cluster_local is not is_anywhere

    return graph_.product("views/services by horizon", known.model.services, horizons, sees)


def _ruled(graph_: graph.Graph, known: facts.Facts, horizons: Horizons) -> Exposed:
    def seen(read: reader.Reader, key: ServiceKey, _: object) -> Iterator[tuple[Seen, Service]]:
        service = read.get(known.model.services, key)
        if service is None or not service.is_told_of:
            return
        for horizon in read.items(horizons):
            if _has_own_rule(read, known, service, horizon):
                yield (horizon, key), service

    return graph_.derive("views/services with rules of a namespace", known.rules, seen)


def _placed(
    graph_: graph.Graph, known: facts.Facts, horizons: Horizons, preferring: Preferring
) -> Exposed:
    def seen(read: reader.Reader, key: ServiceKey, _: object) -> Iterator[tuple[Seen, Service]]:
        service = read.get(known.model.services, key)
        if service is None:
            return
        for horizon in read.items(horizons):
            if horizon.namespace is None or _has_own_rule(read, known, service, horizon):
                yield (horizon, key), service

    return graph_.derive("views/services by place", preferring, seen)


def _rule(
    read: reader.Reader, known: facts.Facts, service: Service, horizon: view.HorizonScope
) -> policies.DestinationRule | None:
    root = read.value(known.model.settings).root_namespace
    return rules.chosen(
        known.rules_of(read, service.key),
        service,
        client=horizon.namespace,
        root=root,
        labels=horizon.selected,
    )


def _has_own_rule(
    read: reader.Reader, known: facts.Facts, service: Service, horizon: view.HorizonScope
) -> bool:
    """Say whether another rule holds here than in the next wider place."""
    namespace = horizon.namespace if horizon.selected else None
    wider = msgspec.structs.replace(horizon, namespace=namespace, selected=())
    usual = _rule(read, known, service, wider)
    own = _rule(read, known, service, horizon)
    return own != usual and visibility.is_visible(service, client=horizon.namespace or "")


def _sliced(known: facts.Facts) -> Callable[[reader.Reader, Seen, Service], Sliced]:
    def sliced(read: reader.Reader, key: Seen, service: Service) -> Sliced:
        horizon, name = key
        for slice_ in assignments.outbound(
            service,
            known.bunches_of(read, name),
            rule=_rule(read, known, service, horizon),
            horizon=horizon,
            settings=read.value(known.model.settings),
        ):
            yield view.keyed(horizon, slice_)

    return sliced
