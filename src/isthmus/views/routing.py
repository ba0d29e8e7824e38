"""Which cluster a request goes to: a service's own, or as a VirtualService says.

What leads to a service or subset that is not there goes to a cluster without endpoints, which
answers 503; it never falls through to another.

Source: spec sections 4.7, 4.11 and 8.2.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from isthmus.mesh import policies
from isthmus.mesh.services import Service
from isthmus.mesh.traffic import HashKey
from isthmus.views import names, view, visibility

Resolve = Callable[[policies.Destination], str]
"""Returns the name of the cluster that a destination stands for."""


Keys = Callable[[policies.Destination], HashKey | None]
"""Returns what binds the requests to a destination to one of its endpoints."""


def plain(
    host: str, *, port: int, cluster_name: str, key: HashKey | None = None
) -> tuple[view.Route, ...]:
    """Return the one route of a service for which no VirtualService says anything."""
    target = view.RouteTarget(cluster_name)
    return (view.Route(targets=(target,), operation=f"{host}:{port}/*", key=key),)


def chosen(
    candidates: Sequence[policies.VirtualService], *, client: str
) -> policies.VirtualService | None:
    """Return the VirtualService that holds for clients in a namespace."""
    for virtual in candidates:
        if visibility.is_exported(virtual.export_to, owner=virtual.namespace, client=client):
            return virtual
    return None


def routes_of(
    virtual: policies.VirtualService, *, port: int, resolve: Resolve, key_of: Keys
) -> tuple[view.Route, ...]:
    """Return the routes that a VirtualService describes for a port; 0 stands for any port."""
    named = (virtual.namespace, virtual.name)
    return tuple(
        dataclasses.replace(
            _route(route, match=match, resolve=resolve, key_of=key_of), virtual=named
        )
        for route in virtual.http
        for match in (route.matches or (policies.HttpMatch(),))
        if route.destinations and match.port in {0, port}
    )


def cluster_for(
    destination: policies.Destination,
    service: Service | None,
    *,
    subsets: Sequence[str],
    port: int,
) -> str:
    """Return the cluster of a destination, or the one without endpoints.

    The destination names `service`, whose rule knows `subsets`. Where it names none of several
    ports, it means that of the route.
    """
    if service is None or destination.subset not in subsets:
        return names.BLACK_HOLE
    numbers = [declared.number for declared in service.ports]
    number = destination.port or (numbers[0] if len(numbers) == 1 else port)
    if number not in numbers:
        return names.BLACK_HOLE
    return names.outbound(service.hostname, port=number, subset=destination.subset)


def assembled(
    name: str, hosts: Sequence[view.VirtualHost], *, fallback_cluster: str
) -> view.RouteSlice:
    """Return one set of routes; of equal domains the first host's wins, as Envoy demands."""
    return view.RouteSlice(name, tuple(_distinct(hosts)), fallback_cluster)


def _distinct(hosts: Sequence[view.VirtualHost]) -> Iterator[view.VirtualHost]:
    taken = set[str]()
    for host in sorted(hosts, key=lambda one: one.name):
        domains = tuple(domain for domain in host.domains if domain not in taken)
        taken.update(domains)
        if domains:
            yield view.VirtualHost(host.name, domains, host.routes)


def _route(
    route: policies.HttpRoute, *, match: policies.HttpMatch, resolve: Resolve, key_of: Keys
) -> view.Route:
    weighted = [one for one in route.destinations if one.weight] or route.destinations[:1]
    targets = tuple(
        view.RouteTarget(resolve(destination), destination.weight or 1) for destination in weighted
    )
    return view.Route(
        targets=targets,
        path=match.path,
        method=match.method,
        headers=match.headers,
        timeout_s=route.timeout_s,
        # One key for all that a route leads to: of several the first one's.
        key=next((key for key in map(key_of, weighted) if key is not None), None),
    )
