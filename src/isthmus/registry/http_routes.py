"""HTTPRoutes at Gateways: for each listener and host, the routes of all objects in their order.

An exact path comes before a prefix, a longer path before a shorter one, then who asks for a method,
for more headers, for more parameters; of equals the older object counts, then the first by name.

Source: the Gateway API's reference for HTTPRoute.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from isthmus.base import errors
from isthmus.engine import collections, graph, reader
from isthmus.fleet import sources
from isthmus.gateways import attaching, listeners, rules
from isthmus.kube import gateway_api, objects
from isthmus.mesh import gateway_classes, policies, requests
from isthmus.registry import checked, config, fields, patterns, settings, texts, virtual_services

Key = sources.ObjectKey
Order = tuple[tuple[int, ...], str, str, str, int]


@dataclass(frozen=True, slots=True)
class Ranked:
    """One route with its place among those of all objects."""

    order: Order
    route: policies.HttpRoute


KIND: Final = attaching.KIND
NOT_FOUND: Final = 404
NOWHERE: Final = Ranked(
    ((), "", "", "", 0),
    policies.HttpRoute((), (), treatment=requests.Treatment(answer=requests.Answer(NOT_FOUND))),
)


@dataclass(frozen=True, slots=True)
class Parsed:
    """An HTTPRoute, understood.

    Attributes:
        routes: At Gateways.
        within: For calls within the mesh, if a parent is called there.
    """

    object_: gateway_api.HttpRoute
    routes: tuple[Ranked, ...]
    within: tuple[Ranked, ...] = ()


@dataclass(frozen=True, slots=True)
class Nodes:
    """What this module declares."""

    values: collections.Collection[Key, Parsed]
    by_gateway: collections.Index[Key, Key, Parsed]
    findings: checked.Findings


def declare(graph_: graph.Graph, sources_: sources.Sources, *, seat: settings.Seat) -> Nodes:
    """Declare the HTTPRoutes in `graph_`."""

    def check(
        read: reader.Reader, key: Key, found: gateway_api.HttpRoute
    ) -> Iterable[tuple[Key, checked.Checked[Parsed]]]:
        if key.cluster != seat.cluster:
            return

        def has_port(namespace: str, name: str, port: int) -> bool:
            service = read.get(sources_.services, Key(key.cluster, namespace, name))
            return service is not None and any(one.port == port for one in service.spec.ports)

        yield key, parsed(found, checks=checks_with(has_port, domain=seat.domain))

    both = graph_.derive("http_routes.checked", sources_.http_routes, check)
    values = checked.values_of(graph_, "http_routes", both)
    return Nodes(
        values=values,
        by_gateway=graph_.index("http_routes.by_gateway", values, _parents),
        findings=checked.findings_of(graph_, "http_routes", both),
    )


def checks_with(has_port: rules.HasPort, *, domain: str = "cluster.local") -> rules.Checks:
    """Return how parts of rules are judged."""
    return rules.Checks(has_port, patterns.is_regex, texts.is_header, domain)


def _parents(key: Key, route: Parsed) -> set[Key]:
    found = (
        attaching.parent_of(route.object_, one) for one in route.object_.spec.parent_refs or ()
    )
    return {Key(key.cluster, *one) for one in found if one is not None}


def parsed(found: gateway_api.HttpRoute, *, checks: rules.Checks) -> checked.Checked[Parsed]:
    """Say what an HTTPRoute means; what cannot be said costs its own rule."""
    references = found.spec.parent_refs or ()
    is_within = any(attaching.called_by(found, one) is not None for one in references)
    routes, said = _ranked(found, checks)
    within = tuple[Ranked, ...]()
    if is_within:
        # Who is called within the mesh may hand on to other namespaces, as his callers may.
        within, more = _ranked(found, dataclasses.replace(checks, crosses=True))
        is_elsewhere = any(attaching.parent_of(found, one) is not None for one in references)
        said = (*said, *more) if is_elsewhere else more
    findings = tuple(_finding(found, text) for text in dict.fromkeys(said) if text)
    return checked.Checked(Parsed(found, routes, within), findings)


def _ranked(
    found: gateway_api.HttpRoute, checks: rules.Checks
) -> tuple[tuple[Ranked, ...], tuple[str, ...]]:
    """Return the routes of an object with their places, and what is wrong with it."""
    meta = found.metadata
    said = rules.read(
        found.spec.rules or ({"backendRefs": []},), namespace=meta.namespace, checks=checks
    )
    origin = config.Origin(KIND, meta.namespace, meta.name, checks.domain)
    problems = fields.Problems()
    ranked = []
    for number, entry in enumerate(said.entries):
        spec = {"hosts": ["*"], "http": [entry.route]}
        meant = virtual_services.read(origin, objects.FreeForm(meta, spec=spec), problems)
        order = (entry.rank, meta.creation_timestamp, meta.namespace, meta.name, number)
        ranked += [Ranked(order, one) for one in (meant.http if meant is not None else ())]
    return tuple(ranked), (*said.unsupported, said.backend_message, *problems.texts())


def _finding(found: gateway_api.HttpRoute, happened: str) -> errors.Finding:
    return errors.Finding(
        config.OBJECT_DOUBTFUL,
        f"{KIND} {found.metadata.namespace}/{found.metadata.name}",
        happened,
        still_working="its other rules are used; requests for a missing backend get 500",
        hint="correct the rule, or remove what is not supported",
    )


def hosts_at(
    read: reader.Reader,
    sources_: sources.Sources,
    gateway: gateway_api.Gateway,
    behaviour: gateway_classes.Behaviour,
    routes: Iterable[tuple[Key, Parsed]],
) -> dict[tuple[str, str], list[Ranked]]:
    """Return the routes of each listener and host of a Gateway, in their order."""
    found = dict[tuple[str, str], dict[Order, Ranked]]()
    me = (gateway.metadata.namespace, gateway.metadata.name)
    for key, route in routes:
        namespace = read.get(sources_.namespaces, Key(key.cluster, "", key.namespace))
        labels = (namespace.metadata.labels if namespace is not None else None) or {}
        for reference in route.object_.spec.parent_refs or ():
            if attaching.parent_of(route.object_, reference) != me:
                continue
            at = attaching.attached(route.object_, reference, gateway, behaviour, labels=labels)
            for listener, hosts in at.listeners:
                for host in hosts:
                    known = found.setdefault((listener, host), {})
                    known |= {one.order: one for one in route.routes}
    for one in listeners.judged(gateway, behaviour):
        if one.is_served and one.listener.protocol == "HTTP" and one.listener.hostname:
            # Nothing leads there, also not by a wider listener.
            found.setdefault((one.listener.name, one.listener.hostname.lower()), {})
    return {
        place: [known[order] for order in sorted(known)] or [NOWHERE]
        for place, known in found.items()
    }


def virtuals_of(
    found: dict[tuple[str, str], list[Ranked]], *, namespace: str, gateway_name: str
) -> Iterator[policies.VirtualService]:
    """Yield what leads from each listener and host; a Gateway's listener is called after both."""
    for (listener, host), routes in sorted(found.items()):
        name = f"{gateway_name}~{listener}"
        yield policies.VirtualService(
            namespace=namespace,
            name=f"{name}~{host}",
            hosts=(host,),
            gateways=(f"{namespace}/{name}",),
            http=tuple(one.route for one in routes),
            is_kubernetes=True,
        )
