"""HTTPRoutes whose parent is called within the mesh: a Service, or a ServiceEntry.

All routes of one namespace for one parent are one VirtualService, in their order. Whether they are
those of who offers the service or of some of its clients, views decide.

Source: the Gateway API's rules for routes of a service mesh.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Final

from isthmus.engine import collections, graph, reader
from isthmus.fleet import sources
from isthmus.gateways import attaching
from isthmus.mesh import policies
from isthmus.registry import fields, http_routes, naming, settings

Key = sources.ObjectKey
Place = tuple[str, str, attaching.Called]
"""Cluster and namespace of routes, and what they are for."""

MESH: Final = "mesh"
ANY: Final = policies.HttpMatch()
PORTS: Final = 65536


def declare(
    graph_: graph.Graph,
    sources_: sources.Sources,
    routes: collections.Collection[Key, http_routes.Parsed],
    *,
    seat: settings.Seat,
) -> collections.Collection[Key, policies.VirtualService]:
    """Declare what leads calls within the mesh in `graph_`."""
    by_place = graph_.index("mesh_routes.by_place", routes, lambda key, one: set(_places(key, one)))

    def leading(
        read: reader.Reader, key: Key, route: http_routes.Parsed
    ) -> Iterable[tuple[Key, policies.VirtualService]]:
        for place in sorted(set(_places(key, route))):
            _, namespace, called = place
            together = read.lookup(by_place, place)
            hosts = _hosts(read, sources_, key, called, domain=seat.domain)
            ranked = {
                one.order: one.route
                for other in sorted(together)
                for one in _of(read, sources_, other, together[other], called)
            }
            if key == min(together) and hosts and ranked:
                name = f"{called.kind}~{called.namespace}~{called.name}"
                yield (
                    Key(key.cluster, namespace, name),
                    policies.VirtualService(
                        namespace=namespace,
                        name=name,
                        hosts=hosts,
                        http=tuple(ranked[order] for order in sorted(ranked)),
                        is_kubernetes=True,
                    ),
                )

    return graph_.derive("mesh_routes", routes, leading)


def _places(key: Key, route: http_routes.Parsed) -> Iterator[Place]:
    for reference in route.object_.spec.parent_refs or ():
        called = attaching.called_by(route.object_, reference)
        if called is not None:
            yield key.cluster, key.namespace, called


def _hosts(
    read: reader.Reader,
    sources_: sources.Sources,
    key: Key,
    called: attaching.Called,
    *,
    domain: str,
) -> tuple[str, ...]:
    if called.kind == attaching.SERVICE:
        return (naming.service_host(called.name, called.namespace, domain),)
    entry = read.get(sources_.service_entries, Key(key.cluster, called.namespace, called.name))
    if entry is None:
        return ()
    said = fields.Fields(entry.spec, path="spec", problems=fields.Problems()).texts("hosts")
    return tuple(one.lower() for one in said if one)


def _of(
    read: reader.Reader,
    sources_: sources.Sources,
    key: Key,
    route: http_routes.Parsed,
    called: attaching.Called,
) -> Iterator[http_routes.Ranked]:
    """Yield the routes of an object for one parent, for the ports that it names."""
    ports = set[int]()
    for reference in route.object_.spec.parent_refs or ():
        if attaching.called_by(route.object_, reference) == called:
            there = None
            if reference.section_name and called.kind == attaching.SERVICE:
                place = Key(key.cluster, called.namespace, called.name)
                there = read.get(sources_.services, place)
            listed = there.spec.ports if there is not None else ()
            ports.add(attaching.port_of([(one.name, one.port) for one in listed], reference))
    ports.discard(-1)
    if 0 in ports:
        yield from route.within
        return
    for port in sorted(ports):
        for one in route.within:
            matches = tuple(
                dataclasses.replace(match, port=port) for match in one.route.matches or (ANY,)
            )
            meant = dataclasses.replace(one.route, matches=matches)
            yield http_routes.Ranked((*one.order[:4], one.order[4] * PORTS + port), meant)
