"""Listeners and routes of sidecars, namespace by namespace."""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from isthmus.base import same
from isthmus.engine import collections, graph, reader
from isthmus.mesh import policies
from isthmus.mesh.identities import ClusterId
from isthmus.mesh.services import Protocol, Resolution, Service, ServiceKey
from isthmus.mesh.settings import MeshSettings
from isthmus.mesh.traffic import HashKey
from isthmus.views import (
    addressing,
    facts,
    horizon_slices,
    names,
    outbound,
    routing,
    rules,
    tls_names,
    view,
    visibility,
)

Slices = collections.Collection[view.SliceKey, view.Slice]
Seen = tuple[view.OutboundScope, ServiceKey]
Sliced = Iterator[tuple[view.SliceKey, view.Slice]]
RouteKey = tuple[view.OutboundScope, str]
Hosts = tuple[view.VirtualHost, ...]

ALONE: Final = ("*",)
"""The names of a host that is the only one of its routes: whoever comes there means it."""


def declare(
    graph_: graph.Graph,
    known: facts.Facts,
    scopes: collections.Collection[view.Scope, int],
) -> tuple[Slices, ...]:
    """Declare the slices of sidecars but for endpoints, and for the clusters of services."""

    def standing(read: reader.Reader, scope: view.Scope, _: int) -> Sliced:
        if isinstance(scope, view.OutboundScope):
            settings = read.value(known.model.settings)
            yield view.keyed(scope, outbound.catch_all(settings))
            for cluster in outbound.special_clusters(settings):
                yield view.keyed(scope, cluster)
            yield from starting(scope, settings)

    places = graph_.derive("views/outbound scopes", scopes, outbound_only)
    visible = _visible(graph_, known, places)
    return (
        graph_.derive("views/standing outbound", scopes, standing),
        graph_.derive("views/own listeners", visible, _own_listeners(known)),
        *_routed(graph_, known, places=places, visible=visible),
    )


def starting(scope: view.OutboundScope | view.GatewayScope, settings: MeshSettings) -> Sliced:
    """Yield what proxies need to begin tunnels, if they do."""
    if scope.begins_tunnels:
        for slice_ in outbound.starting(settings):
            yield view.keyed(scope, slice_)


def rule_for(
    read: reader.Reader,
    known: facts.Facts,
    service: Service,
    *,
    client: str | None,
    labels: rules.Labels = (),
) -> policies.DestinationRule | None:
    """Return the rule that holds for clients in a namespace that have `labels`.

    None stands for any namespace that has no rules of its own.
    """
    root = read.value(known.model.settings).root_namespace
    found = known.rules_of(read, service.key)
    return rules.chosen(found, service, client=client, root=root, labels=labels)


def service_named(read: reader.Reader, known: facts.Facts, host: str) -> Service | None:
    """Return the service of a host name."""
    found = read.lookup(known.services_by_host, host)
    return found[min(found)] if found else None


def resolver(
    read: reader.Reader,
    known: facts.Facts,
    *,
    client: str,
    port: int,
    labels: rules.Labels = (),
) -> routing.Resolve:
    """Return what finds the clusters of destinations, for clients in a namespace."""

    def resolve(destination: policies.Destination) -> str:
        service = service_named(read, known, destination.host)
        if service is None or not visibility.is_visible(service, client=client):
            return names.BLACK_HOLE
        rule = rule_for(read, known, service, client=client, labels=labels)
        subsets = [subset.name for subset in rules.subsets_of(rule)]
        return routing.cluster_for(destination, service, subsets=subsets, port=port)

    return resolve


def keys_for(
    read: reader.Reader,
    known: facts.Facts,
    *,
    client: str,
    port: int,
    labels: rules.Labels = (),
) -> routing.Keys:
    """Return what says by which key the requests to a destination are bound to an endpoint."""

    def key_of(destination: policies.Destination) -> HashKey | None:
        service = service_named(read, known, destination.host)
        if service is None:
            return None
        numbers = [declared.number for declared in service.ports]
        policy = rules.policy_of(
            rule_for(read, known, service, client=client, labels=labels),
            port=destination.port or (numbers[0] if len(numbers) == 1 else port),
            subset=destination.subset,
            usual=read.value(known.model.settings).traffic,
        )
        return None if policy.balancing is None else policy.balancing.key

    return key_of


def outbound_only(
    _: reader.Reader, scope: view.Scope, __: int
) -> Iterator[tuple[view.OutboundScope, None]]:
    """Yield a scope of sidecars' calls."""
    if isinstance(scope, view.OutboundScope):
        yield scope, None


def _visible(
    graph_: graph.Graph,
    known: facts.Facts,
    places: collections.Collection[view.OutboundScope, None],
) -> collections.Collection[Seen, Service]:
    """Declare which services are seen that may have listeners of their own."""

    def sees(scope: view.OutboundScope, service: Service) -> bool:
        is_plain_http = all(port.protocol.is_http for port in outbound.ports_of(service))
        return not is_plain_http and visibility.is_visible(service, client=scope.namespace)

    return graph_.product("views/visible services", known.model.services, places, sees)


def _own_listeners(known: facts.Facts) -> Callable[[reader.Reader, Seen, Service], Sliced]:
    def sliced(read: reader.Reader, key: Seen, service: Service) -> Sliced:
        scope, name = key
        if service.resolution is Resolution.ALIAS:
            return
        endpoints = []
        if service.resolution is Resolution.HEADLESS:
            endpoints = outbound.reachable(
                known.candidates_of(read, name),
                service=service,
                horizon=horizon_slices.horizon_of(scope),
            )
        for listener in outbound.own_listeners(
            service,
            addresses=addressing.addresses_of(
                read, known, service, cluster=scope.cluster, naming=scope.naming
            ),
            endpoints=endpoints,
            rule=rule_for(read, known, service, client=scope.namespace, labels=scope.labels),
            settings=read.value(known.model.settings),
            split=_split_at(read, known, service, scope=scope),
        ):
            yield view.keyed(scope, listener)

    return sliced


def _split_at(
    read: reader.Reader, known: facts.Facts, service: Service, *, scope: view.OutboundScope
) -> outbound.SplitAt:
    """Return what is said of connections by their address; alike for all, unless ranges are named."""
    usual = _split(read, known, service, scope=scope)
    if not any(routing.names_ranges(one) for one in known.virtuals_of(read, service.key)):
        return lambda _: usual
    return lambda address: _split(read, known, service, scope=scope, address=address)


def _split(
    read: reader.Reader,
    known: facts.Facts,
    service: Service,
    *,
    scope: view.OutboundScope,
    address: str = "",
) -> Mapping[int, outbound.Split]:
    """Return what VirtualServices say of connections to a service, by its ports.

    They go to `address`, or to one that is not known beforehand.
    """
    client = scope.namespace
    exported = [
        virtual
        for virtual in known.virtuals_of(read, service.key)
        if visibility.is_exported(virtual.export_to, owner=virtual.namespace, client=client)
    ]
    if not any(virtual.tcp or virtual.tls for virtual in exported):
        return {}
    found = {}
    for port in outbound.ports_of(service):
        place = _place(scope, port=port.number, address=address)
        resolve = resolver(read, known, client=client, port=port.number, labels=scope.labels)
        found[port.number] = outbound.Split(
            routing.split_of(exported, place=place, resolve=resolve),
            tuple(routing.named_of(exported, place=place, resolve=resolve)),
        )
    return found


@dataclass(frozen=True, slots=True)
class _Asked:
    """A service, as far as requests to it are concerned.

    Attributes:
        keys: By port, what binds requests to an endpoint; None where that, or anything else of its
            hosts, depends on more than the service itself.
        own: By cluster, its plain hosts for its own namespace, as far as somebody has asked.
        foreign: The same for all others.
        memory: Its other hosts, for all places that see them alike.
    """

    service: Service
    keys: tuple[tuple[int, HashKey | None], ...] | None
    own: dict[ClusterId, Hosts] = field(default_factory=dict, repr=False, compare=False)
    foreign: dict[ClusterId, Hosts] = field(default_factory=dict, repr=False, compare=False)
    memory: same.Memory = field(default_factory=same.Memory, repr=False, compare=False)

    def addresses(self, scope: view.OutboundScope) -> tuple[str, ...] | None:
        """Return its addresses for a scope, if they are its own there."""
        own = dict(self.service.vips).get(scope.cluster, ())
        is_own = own or not addressing.is_foreign(self.service, cluster=scope.cluster)
        return own if self.keys is not None and is_own else None


def _asked(
    known: facts.Facts,
) -> Callable[[reader.Reader, ServiceKey, Service], Iterator[tuple[ServiceKey, _Asked]]]:
    def asked(
        read: reader.Reader, key: ServiceKey, service: Service
    ) -> Iterator[tuple[ServiceKey, _Asked]]:
        if all(facts.is_tcp_like(port.protocol) for port in outbound.ports_of(service)):
            return
        named = service_named(read, known, service.hostname)
        ruled = known.rules_of(read, key) or known.virtuals_of(read, key)
        is_odd = service.entry or service.alias_of or service.derived is not None
        if ruled or is_odd or named is None or named.key != key:
            yield key, _Asked(service, None)
            return
        keys = tuple(
            (port.number, keys_for(read, known, client="", port=port.number)(own))
            for port in outbound.ports_of(service)
            for own in (policies.Destination(service.hostname, port.number),)
        )
        yield key, _Asked(service, keys)

    return asked


def _plain_hosts(
    scope: view.OutboundScope, asked: Mapping[ServiceKey, _Asked]
) -> Iterator[tuple[ServiceKey, Hosts]]:
    """Yield the hosts of services of which nothing is said, and whose addresses are their own.

    This goes through all services whenever one of them changes: what each view has of the others
    is looked up.
    """
    cluster, client = scope.cluster, scope.namespace
    for key, one in asked.items():
        by_cluster = one.own if key.namespace == client else one.foreign
        found = by_cluster.get(cluster)
        if found is None:
            found = by_cluster[cluster] = _plain_hosts_of(one, scope)
        if found and (not one.service.export_to or _is_visible(one, scope)):
            yield key, found


def _plain_hosts_of(asked: _Asked, scope: view.OutboundScope) -> Hosts:
    service, client, addresses = asked.service, scope.namespace, asked.addresses(scope)
    if addresses is None:
        return ()

    domains = visibility.domains_of(service, client=client, addresses=addresses)
    found = tuple(
        routing.plain_host(
            names.sniffed_route(service.hostname, port=port.number),
            domains=ALONE if port.protocol is Protocol.AUTO else domains,
            host=service.hostname,
            port=port.number,
            cluster_name=names.outbound(service.hostname, port=port.number),
            key=dict(asked.keys or ()).get(port.number),
        )
        for port in outbound.ports_of(service)
        if not facts.is_tcp_like(port.protocol)
    )
    return _same_hosts(found)


def _is_visible(asked: _Asked, scope: view.OutboundScope) -> bool:
    return visibility.is_visible(asked.service, client=scope.namespace)


def _has_other_hosts(scope: view.OutboundScope, asked: _Asked) -> bool:
    return _is_visible(asked, scope) and asked.addresses(scope) is None


def _hosts(
    known: facts.Facts,
) -> Callable[[reader.Reader, Seen, _Asked], Iterator[tuple[Seen, Hosts]]]:
    def hosted(read: reader.Reader, key: Seen, asked: _Asked) -> Iterator[tuple[Seen, Hosts]]:
        (scope, name), service = key, asked.service
        routed = [one for one in known.virtuals_of(read, name) if one.http]
        if service.derived is not None:
            # Routes for a Service hold under each of its names.
            of_origin = known.virtuals_of(read, service.derived.origin)
            routed += [one for one in of_origin if one.is_kubernetes]
        addresses = addressing.addresses_of(
            read, known, service, cluster=scope.cluster, naming=scope.naming
        )
        making = _Making(read, known, scope, service, addresses)
        if routed or service.alias_of:
            found = _same_hosts(tuple(making.hosts(routed)))
        else:
            found = making.plain(asked.memory)
        if found:
            yield key, found

    return hosted


@dataclass(frozen=True, slots=True)
class _Making:
    """Makes the hosts of a service, which has these addresses, for clients of a scope."""

    read: reader.Reader
    known: facts.Facts
    scope: view.OutboundScope
    service: Service
    addresses: tuple[str, ...]

    def plain(self, memory: same.Memory) -> Hosts:
        """Return them where no VirtualService says anything.

        A place that comes finds what those before it have found, if that is made of the same.
        """
        read, known, scope, service = self.read, self.known, self.scope, self.service
        named, client = service_named(read, known, service.hostname), scope.namespace
        rule = named and rule_for(read, known, named, client=client, labels=scope.labels)
        return memory.answer(
            (service, named, rule, read.value(known.model.settings)),
            (self.addresses, client == service.key.namespace),
            lambda: _same_hosts(tuple(self.hosts([]))),
        )

    def hosts(self, routed: list[policies.VirtualService]) -> Iterator[view.VirtualHost]:
        """Yield them, of which VirtualServices may say something."""
        read, known, scope, service = self.read, self.known, self.scope, self.service
        client, labels = scope.namespace, scope.labels
        domains = visibility.domains_of(service, client=client, addresses=self.addresses)
        for port in outbound.ports_of(service):
            if facts.is_tcp_like(port.protocol) or _is_strange(service, port.protocol):
                continue
            host = names.sniffed_route(service.hostname, port=port.number)
            asked = ALONE if port.protocol is Protocol.AUTO else domains
            place = _place(scope, port=port.number)
            virtual = routing.chosen(routed, place=place, owner=service.key.namespace)
            key_of = keys_for(read, known, client=client, port=port.number, labels=labels)
            if virtual is None:
                yield routing.plain_host(
                    host,
                    domains=asked,
                    host=service.hostname,
                    port=port.number,
                    cluster_name=_own_cluster(read, known, service, port=port.number),
                    key=key_of(policies.Destination(service.hostname, port.number)),
                )
            else:
                resolve = resolver(read, known, client=client, port=port.number, labels=labels)
                routes = routing.routes_of(virtual, place=place, resolve=resolve, key_of=key_of)
                yield view.VirtualHost(host, asked, routes)


@functools.lru_cache(maxsize=routing.MOST_SHARED)
def _same_hosts(found: Hosts) -> Hosts:
    """Return hosts as the object that they are for others too."""
    return found


def _route_of(host: view.VirtualHost) -> str:
    """Return the routes that a host is part of: its own, or those of its port."""
    return host.name if host.domains == ALONE else host.name.rpartition(":")[2]


def _place(scope: view.OutboundScope, *, port: int, address: str = "") -> routing.Place:
    """Return where the calls of a scope's sidecars to a port are routed."""
    return routing.Place(
        routing.MESH, scope.namespace, scope.cluster, scope.network, port, scope.labels, address
    )


def _is_strange(service: Service, protocol: Protocol) -> bool:
    """Say whether there is no address at which a protocol could be found out."""
    return service.resolution is Resolution.ALIAS and protocol is Protocol.AUTO


def _own_cluster(read: reader.Reader, known: facts.Facts, service: Service, *, port: int) -> str:
    """Return the cluster of a service, or of the mesh's service for which it is another name."""
    target = service_named(read, known, service.alias_of) if service.alias_of else None
    if target is not None and any(one.number == port for one in outbound.ports_of(target)):
        return names.outbound(target.hostname, port=port)
    return names.outbound(service.hostname, port=port)


def _routed(
    graph_: graph.Graph,
    known: facts.Facts,
    *,
    places: collections.Collection[view.OutboundScope, None],
    visible: collections.Collection[Seen, Service],
) -> tuple[Slices, ...]:
    """Declare routes, and the listeners that share them."""
    asked = graph_.derive("views/services that are asked", known.model.services, _asked(known))
    other = graph_.product("views/services with other hosts", asked, places, _has_other_hosts)
    hosts = graph_.derive("views/virtual hosts", other, _hosts(known))
    by_scope = graph_.index_by_key("views/hosts by scope", hosts, lambda key: key[:1])

    def split_of(
        read: reader.Reader, service: Service, scope: view.OutboundScope
    ) -> Mapping[int, outbound.Split]:
        return _split(read, known, service, scope=scope)

    named = tls_names.declare(graph_, known, visible=visible, split_of=split_of)

    def gathered(
        read: reader.Reader, scope: view.OutboundScope, _: None
    ) -> Iterator[tuple[RouteKey, Hosts]]:
        # To write down which views have which plain hosts takes more than to look for them again.
        plain = dict(_plain_hosts(scope, read.items(asked)))
        own = {key: found for (_, key), found in read.lookup(by_scope, scope).items()}
        for name, found in sorted(_by_route(plain | own).items()):
            yield (scope, name), found

    together = graph_.derive("views/hosts by route", places, gathered)

    def sliced(read: reader.Reader, key: RouteKey, found: Hosts) -> Sliced:
        scope, name = key
        settings = read.value(known.model.settings)
        fallback = names.PASSTHROUGH if settings.allows_any_outbound else ""
        yield view.keyed(scope, routing.assembled(name, found, fallback_cluster=fallback))
        if name.isdecimal() and int(name) not in outbound.RESERVED:
            chains = named.chains(read, key)
            yield view.keyed(
                scope,
                outbound.shared_listener(int(name), settings=settings, by_name=chains),
            )

    return (
        graph_.derive("views/routes", together, sliced),
        tls_names.listeners(graph_, known, named, places=places, routed=together),
    )


def _by_route(seen: Mapping[ServiceKey, Hosts]) -> Mapping[str, Hosts]:
    """Return the hosts of each set of routes; of equal names the first service's counts."""
    found = dict[str, dict[str, tuple[ServiceKey, view.VirtualHost]]]()
    for service, hosts in seen.items():
        for host in hosts:
            known = found.setdefault(_route_of(host), {})
            other = known.get(host.name)
            if other is None or service < other[0]:
                known[host.name] = service, host
    return {
        route: tuple([known[name][1] for name in sorted(known)]) for route, known in found.items()
    }
