"""Names that pods may ask their own proxies for, and the addresses that these answer.

A table says at each moment what exists; a name that is not in it is asked elsewhere. A headless
service stands for the addresses of its endpoints of all clusters that can be dialled from where
the client is; those of other networks cannot.

Source: spec sections 2.4 and 4.10.
"""

from collections.abc import Iterable, Iterator

from isthmus.engine import collections, graph, reader
from isthmus.mesh.identities import ClusterId
from isthmus.mesh.services import Resolution, Service, ServiceKey
from isthmus.mesh.workloads import Endpoint, Health
from isthmus.views import addressing, facts, outbound, view, visibility

Slices = collections.Collection[view.SliceKey, view.Slice]
Seen = tuple[view.NamesScope, ServiceKey]
HostKey = tuple[view.NamesScope, str]


def declare(
    graph_: graph.Graph,
    known: facts.Facts,
    scopes: collections.Collection[view.Scope, int],
) -> Slices:
    """Declare the tables of names."""
    places = graph_.derive("views/scopes of names", scopes, _names_only)

    def seen(
        read: reader.Reader, key: ServiceKey, service: Service
    ) -> Iterator[tuple[Seen, Service]]:
        for scope in read.items(places):
            if visibility.is_visible(service, client=scope.namespace):
                yield (scope, key), service

    def named(
        read: reader.Reader, key: Seen, service: Service
    ) -> Iterator[tuple[HostKey, view.NamedHost]]:
        scope, _ = key
        for host in _hosts(read, known, service, scope=scope):
            yield (scope, host.host), host

    visible = graph_.derive("views/services with names", known.model.services, seen)
    hosts = graph_.derive("views/named hosts", visible, named)
    by_scope = graph_.index_by_key("views/named hosts by scope", hosts, lambda key: (key[0],))

    def table(
        read: reader.Reader, scope: view.NamesScope, _: None
    ) -> Iterator[tuple[view.SliceKey, view.Slice]]:
        found = read.lookup(by_scope, scope).values()
        ordered = tuple(sorted(found, key=lambda one: one.host))
        yield view.keyed(scope, view.NamesSlice(ordered))

    return graph_.derive("views/tables of names", places, table)


def _names_only(
    _: reader.Reader, scope: view.Scope, __: int
) -> Iterator[tuple[view.NamesScope, None]]:
    if isinstance(scope, view.NamesScope):
        yield scope, None


def _hosts(
    read: reader.Reader, known: facts.Facts, service: Service, *, scope: view.NamesScope
) -> Iterator[view.NamedHost]:
    name, namespace = service.key.name, service.key.namespace
    if service.resolution is Resolution.HEADLESS:
        endpoints = _published(read, known, service, scope=scope)
        addresses = _in_order(endpoints, own=scope.cluster)
        yield from _pods(service, endpoints, own=scope.cluster)
    else:
        addresses = addressing.addresses_of(
            read, known, service, cluster=scope.cluster, naming=scope.naming
        )
    if addresses and service.has_full_name_only:
        yield view.NamedHost(service.hostname, addresses, "", namespace)
    elif addresses:
        yield view.NamedHost(service.hostname, addresses, name, namespace)


def _published(
    read: reader.Reader, known: facts.Facts, service: Service, *, scope: view.NamesScope
) -> list[Endpoint]:
    horizon = view.HorizonScope(scope.cluster, scope.network, scope.requested_networks)
    candidates = known.candidates_of(read, service.key)
    wanted = {Health.HEALTHY, Health.UNHEALTHY if service.publishes_not_ready else Health.HEALTHY}
    return [
        one
        for one in outbound.reachable(candidates, service=service, horizon=horizon)
        if one.health in wanted
    ]


def _in_order(endpoints: Iterable[Endpoint], *, own: ClusterId) -> tuple[str, ...]:
    """Return the addresses of endpoints, each once, the own cluster's first."""
    ordered = sorted(endpoints, key=lambda one: (one.cluster != own, one.cluster, one.address))
    return tuple(dict.fromkeys(one.address for one in ordered))


def _pods(
    service: Service, endpoints: Iterable[Endpoint], *, own: ClusterId
) -> Iterator[view.NamedHost]:
    """Yield the names of single pods; of one name in several clusters the own cluster's counts."""
    by_name = dict[str, list[Endpoint]]()
    for one in endpoints:
        if one.hostname:
            by_name.setdefault(one.hostname.lower(), []).append(one)
    for name, same in sorted(by_name.items()):
        chosen = min((one.cluster != own, one.cluster) for one in same)[1]
        yield view.NamedHost(
            f"{name}.{service.hostname}",
            _in_order((one for one in same if one.cluster == chosen), own=own),
            f"{name}.{service.key.name}",
            service.key.namespace,
        )
