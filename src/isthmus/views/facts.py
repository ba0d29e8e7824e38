"""What all views read: the mesh model, arranged for looking things up.

Nothing here depends on who looks.
"""

import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from isthmus.engine import collections, graph, reader
from isthmus.mesh import addresses, policies
from isthmus.mesh.authentication import RequestAuthentication
from isthmus.mesh.authorization import AuthorizationPolicy
from isthmus.mesh.identities import ClusterId, ObjectKey, TrustDomain
from isthmus.mesh.packs import Packs
from isthmus.mesh.services import Protocol, Service, ServiceKey
from isthmus.mesh.workloads import Health
from isthmus.registry import model
from isthmus.views import allocation, bunches, candidates, routing, rules, splithorizon, visibility

I = TypeVar("I")  # noqa: E741
K = TypeVar("K")
V = TypeVar("V")
Candidates = bunches.Candidates
Named = tuple[str, str]
"""Namespace and name of an object."""

MESH = "mesh"
NO_CANDIDATES = bunches.Candidates()


@dataclass(frozen=True, slots=True)
class Served:
    """One port that a workload serves for a service."""

    port: int
    protocol: Protocol
    service_port: int


class ServedKey(NamedTuple):
    """Who serves which port of which service."""

    service: ServiceKey
    cluster: ClusterId
    address: str
    port_name: str


class Ports(NamedTuple):
    """What one EndpointSlice declares at all its addresses: ports by the names of the service's."""

    service: ServiceKey
    ports: tuple[tuple[str, int], ...]


class Reads(typing.Protocol):
    """Whoever can read: a derivation, or the graph from outside."""

    def get(self, collection: collections.Collection[K, V], key: K) -> V | None:
        """Return the value of `key`, or None."""

    def lookup(self, index: collections.Groups[I, K, V], group: I) -> Mapping[K, V]:
        """Return the entries of one group."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Collections and indexes over the mesh model.

    Attributes:
        rules: DestinationRules that cover a service, the most specific host first.
        virtuals: VirtualServices for the mesh that cover a service, likewise.
        labels_asked_for: Labels of clients by which the routes of any VirtualService differ.
        selecting: Labels of clients that DestinationRules select, by the rules' namespace.
        speaking: Whether all endpoints of a service speak mutual TLS.
        candidates: Endpoints of services, with what policies say of them.
        in_bunches: The same, put together where they look alike.
        allocated: The address of our own making of each service that may need one.
        refused: Addresses of our range that entries name and somebody else has: who.
    """

    model: model.Model
    gateways: collections.Single[splithorizon.Table]
    services_by_host: collections.Index[str, ServiceKey, Service]
    services_by_address: collections.Index[tuple[ClusterId, str], ServiceKey, Service]
    services_by_any_address: collections.Index[str, ServiceKey, Service]
    allocated: allocation.Allocated
    refused: collections.Collection[allocation.ClaimKey, ServiceKey]
    policies_by_namespace: collections.Index[str, Named, policies.PeerAuthentication]
    authorizations_by_namespace: collections.Index[str, Named, AuthorizationPolicy]
    authentications_by_namespace: collections.Index[str, Named, RequestAuthentication]
    gateway_objects: collections.Collection[Named, policies.Gateway]
    virtual_objects: collections.Collection[Named, policies.VirtualService]
    rules: collections.Collection[ServiceKey, tuple[policies.DestinationRule, ...]]
    virtuals: collections.Collection[ServiceKey, tuple[policies.VirtualService, ...]]
    labels_asked_for: collections.Single[frozenset[tuple[str, str]]]
    selecting: collections.Index[str, Named, frozenset[tuple[str, str]]]
    speaking: collections.Collection[ServiceKey, bool]
    candidates: collections.Collection[ServiceKey, Candidates]
    in_bunches: collections.Collection[ServiceKey, bunches.Bunches]
    ports_declared: collections.Collection[ObjectKey, Ports]

    def served_at(self, read: Reads, cluster: ClusterId, address: str) -> dict[ServedKey, Served]:
        """Return the ports that a workload at an address serves for services."""
        found = dict[ServedKey, Served]()
        named = self.model.declared.by_address
        for key in sorted(read.lookup(named, addresses.brief(address)), reverse=True):
            if key.cluster != cluster:  # Clusters may well have pods of one address.
                continue
            declared = read.get(self.ports_declared, key)
            service = read.get(self.model.services, declared.service) if declared else None
            if declared is None or service is None:
                continue
            known = {port.name: port for port in service.ports}
            for name, number in declared.ports:
                port = known.get(name)
                if port is not None and port.protocol is not Protocol.UDP and number:
                    served = Served(number, port.protocol, port.number)
                    found[ServedKey(service.key, cluster, address, name)] = served
        return found

    def bunches_of(self, read: reader.Reader, key: ServiceKey) -> bunches.Bunches:
        """Return the endpoints of a service for those who are told of them."""
        found = read.get(self.in_bunches, key)
        return bunches.NOTHING if found is None else found

    def candidates_of(self, read: reader.Reader, key: ServiceKey) -> Candidates:
        """Return the endpoints of a service."""
        found = read.get(self.candidates, key)
        return NO_CANDIDATES if found is None else found

    def rules_of(
        self, read: reader.Reader, key: ServiceKey
    ) -> tuple[policies.DestinationRule, ...]:
        """Return the rules that cover a service."""
        found = read.get(self.rules, key)
        return found or ()

    def virtuals_of(
        self, read: reader.Reader, key: ServiceKey
    ) -> tuple[policies.VirtualService, ...]:
        """Return the VirtualServices that cover a service."""
        found = read.get(self.virtuals, key)
        return found or ()

    def labels_selected(self, read: reader.Reader, namespace: str) -> frozenset[tuple[str, str]]:
        """Return the labels by which rules of a namespace select clients there."""
        return frozenset().union(*read.lookup(self.selecting, namespace).values())

    def accounts_of(self, read: reader.Reader, key: ServiceKey) -> tuple[str, ...]:
        """Return the identities that answer for a service."""
        found = read.get(self.model.accounts, key)
        return found or ()


def declare(graph_: graph.Graph, mesh: model.Model) -> Facts:
    """Declare the facts in `graph_`."""
    policies_by_namespace = _policies(graph_, mesh)
    judged = _candidates(graph_, mesh, policies_by_namespace)
    gateways = graph_.single("views/gateways", _table(mesh))
    given = allocation.declare(graph_, mesh.services, recorded=mesh.recorded, ranges=mesh.ranges)
    return Facts(
        model=mesh,
        gateways=gateways,
        services_by_host=graph_.index(
            "views/services by host", mesh.services, lambda _, service: (str(service.hostname),)
        ),
        services_by_address=graph_.index(
            "views/services by address", mesh.services, lambda _, service: _addresses(service)
        ),
        services_by_any_address=graph_.index(
            "views/services by any address",
            mesh.services,
            lambda _, service: {address for _, address in _addresses(service)},
        ),
        allocated=given.allocated,
        refused=given.refused,
        policies_by_namespace=policies_by_namespace,
        authorizations_by_namespace=_authorizations(graph_, mesh),
        authentications_by_namespace=_authentications(graph_, mesh),
        gateway_objects=graph_.derive("views/gateway objects", mesh.gateways, _gateway),
        virtual_objects=graph_.derive("views/virtual services", mesh.virtual_services, _virtual),
        rules=_rules(graph_, mesh),
        virtuals=_virtuals(graph_, mesh),
        labels_asked_for=_labels_asked_for(graph_, mesh),
        selecting=_selecting(graph_, mesh),
        speaking=_speaking(graph_, judged),
        candidates=judged,
        in_bunches=_bunches(graph_, judged, gateways),
        ports_declared=graph_.derive("views/declared ports", mesh.declared.ports, _ports),
    )


def _table(mesh: model.Model) -> Callable[[reader.Reader], splithorizon.Table]:
    def arranged(read: reader.Reader) -> splithorizon.Table:
        gateways = read.value(mesh.network_gateways)
        return splithorizon.table_of(gateways)

    return arranged


def is_tcp_like(protocol: Protocol) -> bool:
    """Say whether connections are passed on without reading requests."""
    return protocol in {Protocol.TCP, Protocol.TLS}


def _addresses(service: Service) -> Iterator[tuple[ClusterId, str]]:
    for cluster, vips in service.vips:
        for vip in vips:
            yield cluster, vip


def _gateway(
    _: reader.Reader, __: object, gateway: policies.Gateway
) -> Iterator[tuple[Named, policies.Gateway]]:
    yield (gateway.namespace, gateway.name), gateway


def _virtual(
    _: reader.Reader, __: object, virtual: policies.VirtualService
) -> Iterator[tuple[Named, policies.VirtualService]]:
    yield (virtual.namespace, virtual.name), virtual


def _policies(
    graph_: graph.Graph, mesh: model.Model
) -> collections.Index[str, Named, policies.PeerAuthentication]:
    def named(
        _: reader.Reader, __: object, policy: policies.PeerAuthentication
    ) -> Iterator[tuple[Named, policies.PeerAuthentication]]:
        yield (policy.namespace, policy.name), policy

    objects = graph_.derive("views/peer authentications", mesh.peer_authentications, named)
    return graph_.index(
        "views/peer authentications by namespace", objects, lambda _, policy: (policy.namespace,)
    )


def _authorizations(
    graph_: graph.Graph, mesh: model.Model
) -> collections.Index[str, Named, AuthorizationPolicy]:
    def named(
        _: reader.Reader, __: object, policy: AuthorizationPolicy
    ) -> Iterator[tuple[Named, AuthorizationPolicy]]:
        yield (policy.namespace, policy.name), policy

    objects = graph_.derive("views/authorization policies", mesh.authorization_policies, named)
    return graph_.index(
        "views/authorization policies by namespace", objects, lambda _, policy: (policy.namespace,)
    )


def _authentications(
    graph_: graph.Graph, mesh: model.Model
) -> collections.Index[str, Named, RequestAuthentication]:
    def named(
        _: reader.Reader, __: object, one: RequestAuthentication
    ) -> Iterator[tuple[Named, RequestAuthentication]]:
        yield (one.namespace, one.name), one

    objects = graph_.derive("views/request authentications", mesh.request_authentications, named)
    return graph_.index(
        "views/request authentications by namespace", objects, lambda _, one: (one.namespace,)
    )


def _rules(
    graph_: graph.Graph, mesh: model.Model
) -> collections.Collection[ServiceKey, tuple[policies.DestinationRule, ...]]:
    def named(
        _: reader.Reader, __: object, rule: policies.DestinationRule
    ) -> Iterator[tuple[Named, policies.DestinationRule]]:
        yield (rule.namespace, rule.name), rule

    objects = graph_.derive("views/destination rules", mesh.destination_rules, named)
    by_host = graph_.index("views/destination rules by host", objects, lambda _, rule: (rule.host,))

    def covering(
        read: reader.Reader, key: ServiceKey, service: Service
    ) -> Iterator[tuple[ServiceKey, tuple[policies.DestinationRule, ...]]]:
        found = [
            rule
            for pattern in visibility.patterns_of(service.hostname)
            for _, rule in sorted(read.lookup(by_host, pattern).items(), key=_first)
        ]
        if found:
            yield key, tuple(found)

    return graph_.derive("views/rules of services", mesh.services, covering)


def _virtuals(
    graph_: graph.Graph, mesh: model.Model
) -> collections.Collection[ServiceKey, tuple[policies.VirtualService, ...]]:
    def named(
        _: reader.Reader, __: object, virtual: policies.VirtualService
    ) -> Iterator[tuple[Named, policies.VirtualService]]:
        if MESH in virtual.gateways:
            yield (virtual.namespace, virtual.name), virtual

    objects = graph_.derive("views/virtual services of the mesh", mesh.virtual_services, named)
    by_host = graph_.index(
        "views/virtual services by host", objects, lambda _, virtual: virtual.hosts
    )

    def covering(
        read: reader.Reader, key: ServiceKey, service: Service
    ) -> Iterator[tuple[ServiceKey, tuple[policies.VirtualService, ...]]]:
        found = [
            virtual
            for pattern in visibility.patterns_of(service.hostname)
            for _, virtual in sorted(read.lookup(by_host, pattern).items(), key=_first)
        ]
        if found:
            yield key, tuple(found)

    return graph_.derive("views/virtual services of services", mesh.services, covering)


def _labels_asked_for(
    graph_: graph.Graph, mesh: model.Model
) -> collections.Single[frozenset[tuple[str, str]]]:
    def named(
        _: reader.Reader, key: object, virtual: policies.VirtualService
    ) -> Iterator[tuple[object, frozenset[tuple[str, str]]]]:
        if asked_for := routing.labels_asked_for(virtual):
            yield key, asked_for

    by_object = graph_.derive("views/labels in virtual services", mesh.virtual_services, named)

    def all_(read: reader.Reader) -> frozenset[tuple[str, str]]:
        return frozenset().union(*read.items(by_object).values())

    return graph_.single("views/labels asked for", all_)


def _selecting(
    graph_: graph.Graph, mesh: model.Model
) -> collections.Index[str, Named, frozenset[tuple[str, str]]]:
    def named(
        _: reader.Reader, __: object, rule: policies.DestinationRule
    ) -> Iterator[tuple[Named, frozenset[tuple[str, str]]]]:
        if selected := rules.labels_selected(rule):
            yield (rule.namespace, rule.name), selected

    found = graph_.derive("views/labels in destination rules", mesh.destination_rules, named)
    return graph_.index_by_key("views/labels selected by namespace", found, lambda key: key[:1])


def _speaking(
    graph_: graph.Graph, found: collections.Collection[ServiceKey, Candidates]
) -> collections.Collection[ServiceKey, bool]:
    """Declare whether all endpoints of a service speak mutual TLS.

    Of a service without any it is assumed: should one come, the first call to it may be faster
    than the news of it, and must not go out in plain text.
    """

    def all_speak(
        _: reader.Reader, key: ServiceKey, candidates_: Candidates
    ) -> Iterator[tuple[ServiceKey, bool]]:
        likes, speaking = candidates_.endpoints.each_like(), candidates_.speaking
        each = zip(likes, speaking, strict=True)
        healthy = [speaks for like, speaks in each if like.health is Health.HEALTHY]
        yield key, all(healthy or speaking)

    return graph_.derive("views/services that speak mutual TLS", found, all_speak)


def policies_for(
    read: reader.Reader,
    by_namespace: collections.Index[str, Named, policies.PeerAuthentication],
    *,
    namespace: str,
    root: str,
) -> list[policies.PeerAuthentication]:
    """Return the policies that may hold for workloads of a namespace, in order."""
    found = {**read.lookup(by_namespace, namespace), **read.lookup(by_namespace, root)}
    return [found[key] for key in sorted(found)]


def authorizations_for(
    read: reader.Reader, known: Facts, *, namespace: str, root: str
) -> list[AuthorizationPolicy]:
    """Return the policies about callers that may hold for workloads of a namespace, in order."""
    index = known.authorizations_by_namespace
    found = {**read.lookup(index, namespace), **read.lookup(index, root)}
    return [found[key] for key in sorted(found)]


def _candidates(
    graph_: graph.Graph,
    mesh: model.Model,
    by_namespace: collections.Index[str, Named, policies.PeerAuthentication],
) -> collections.Collection[ServiceKey, Candidates]:
    def judged(
        read: reader.Reader, key: ServiceKey, endpoints: Packs
    ) -> Iterator[tuple[ServiceKey, Candidates]]:
        settings = read.value(mesh.settings)
        found = policies_for(
            read, by_namespace, namespace=key.namespace, root=settings.root_namespace
        )

        def domain_of(cluster: ClusterId) -> TrustDomain:
            return read.get(mesh.trust.domains, cluster) or settings.trust_domain

        yield (
            key,
            candidates.candidates_of(
                endpoints, service=key, found=found, settings=settings, domain_of=domain_of
            ),
        )

    return graph_.derive("views/candidates", mesh.endpoints, judged)


def _bunches(
    graph_: graph.Graph,
    judged: collections.Collection[ServiceKey, Candidates],
    gateways: collections.Single[splithorizon.Table],
) -> collections.Collection[ServiceKey, bunches.Bunches]:
    def together(
        read: reader.Reader, key: ServiceKey, found: Candidates
    ) -> Iterator[tuple[ServiceKey, bunches.Bunches]]:
        table, last = read.value(gateways), read.last
        before = last if isinstance(last, bunches.Bunches) else bunches.NOTHING
        made = bunches.bunched(found, scale=table.scale, doors_of=table.doors_of, before=before)
        yield key, made

    return graph_.derive("views/endpoints in bunches", judged, together)


def _ports(
    _: reader.Reader, key: ObjectKey, one: model.Declared
) -> Iterator[tuple[ObjectKey, Ports]]:
    yield key, Ports(one.service, one.ports)


def _first(item: tuple[Named, object]) -> Named:
    return item[0]
