"""Services that clusters share under a name of their own: `<name>.<namespace>.mesh.internal`.

One is there as soon as any cluster's own Service says so. It has the endpoints of those clusters
whose own Service says so too, and of no others; the Services themselves stay as they are. The
first of these clusters, this control plane's own before all, decides ports and kind. Linked clusters
count as any other, though of theirs no object is known but only what they tell.

Source: spec section 7.7; decision 0029.
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from isthmus.base import errors
from isthmus.engine import collections, graph, reader
from isthmus.fleet import sources
from isthmus.kube import objects
from isthmus.mesh import peering
from isthmus.mesh.ambient import Scope
from isthmus.mesh.identities import ClusterId, Hostname
from isthmus.mesh.services import (
    Derived,
    Resolution,
    Service,
    ServiceKey,
    derived_host,
    derived_key,
)
from isthmus.registry import checked, distributions, naming, scopes, services, settings, topology

WAY_IN: Final = topology.NETWORK_LABEL
"""Whoever bears it leads into a network: shared, it would lead to itself."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What one cluster shares.

    Attributes:
        service: As its own object has it; under its own name.
    """

    cluster: ClusterId
    service: Service


Offers = collections.Collection[sources.ObjectKey, Offer]
Imports = collections.Collection[peering.ImportKey, peering.Import]
NOBODY: Final = Derived(ServiceKey("", ""), Hostname(""), frozenset())
AGELESS: Final = "~"
"""Stands for when a service was made that only linked clusters have: after all that are here."""


def declare(
    graph_: graph.Graph,
    sources_: sources.Sources,
    *,
    scopes_: scopes.Nodes,
    imports: Imports,
    seat: settings.Seat,
) -> collections.Collection[ServiceKey, Service]:
    """Declare the derived services in `graph_`."""

    def offer(
        read: reader.Reader, key: sources.ObjectKey, scope: Scope
    ) -> Iterable[tuple[sources.ObjectKey, Offer]]:
        object_ = read.get(sources_.services, key) if scope.derives else None
        if object_ is None or object_.metadata.label(WAY_IN):
            return
        namespace = read.get(sources_.namespaces, sources.ObjectKey(key.cluster, "", key.namespace))
        service = offered(key, object_, namespace, domain=seat.domain)
        if service.resolution is not Resolution.ALIAS and service.ports:
            yield key, Offer(key.cluster, service)

    def imported(
        _: reader.Reader, key: peering.ImportKey, one: peering.Import
    ) -> Iterable[tuple[sources.ObjectKey, Offer]]:
        if one.export.scope.derives:
            told = service_of(one, domain=seat.domain)
            yield sources.ObjectKey(key.peer, key.namespace, key.name), Offer(key.peer, told)

    offers = graph_.join(
        "services.offered",
        graph_.derive("services.offered.own", scopes_.of_services, offer),
        graph_.derive("services.offered.imported", imports, imported),
    )
    by_origin = graph_.index("services.offered.by_name", offers, lambda _, one: (one.service.key,))

    def derived(
        read: reader.Reader, key: sources.ObjectKey, one: Offer
    ) -> Iterable[tuple[ServiceKey, Service]]:
        same = read.lookup(by_origin, one.service.key)
        first = min(same, key=lambda other: (other.cluster != seat.cluster, other))
        if first == key:
            found = derived_of(same[first], list(same.values()))
            yield found.key, found

    return graph_.derive("services.derived", offers, derived)


def declare_differences(
    graph_: graph.Graph,
    *,
    imports: Imports,
    derived: collections.Collection[ServiceKey, Service],
) -> checked.Findings:
    """Declare where linked clusters share other ports than the service has."""

    def check(
        read: reader.Reader, key: peering.ImportKey, one: peering.Import
    ) -> Iterable[tuple[peering.ImportKey, checked.Checked[None]]]:
        service = read.get(derived, derived_key(key.service))
        numbers = {port.number for port in one.export.ports}
        if service is None or key.peer not in (service.derived or NOBODY).exporters:
            return
        others = {port.number for port in service.ports}
        if numbers != others:
            yield key, checked.Checked(None, (_differing(key, numbers, others),))

    both = graph_.derive("services.derived.differences", imports, check)
    return checked.findings_of(graph_, "services.derived", both)


def _differing(key: peering.ImportKey, theirs: set[int], ours: set[int]) -> errors.Finding:
    missing = ", ".join(map(str, sorted(ours - theirs)))
    more = ", ".join(map(str, sorted(theirs - ours)))
    said = [f"lacks {missing}"] if missing else []
    said += [f"has {more} besides"] if more else []
    return errors.Finding(
        code=services.SERVICES_DIFFER,
        subject=f"Service {key.namespace}/{key.name} in cluster `{key.peer}`",
        happened=f"is shared with other ports than elsewhere: it {' and '.join(said)}",
        still_working="the ports that all have; on others that cluster is not called",
        hint="apply the same Service in every cluster",
    )


def declare_imported(
    graph_: graph.Graph,
    *,
    imports: Imports,
    by_service: collections.Index[ServiceKey, peering.ImportKey, peering.Import],
    own: collections.Collection[ServiceKey, Service],
    seat: settings.Seat,
) -> collections.Collection[ServiceKey, Service]:
    """Declare the Services that only linked clusters have, and share under their own name."""

    def service(
        read: reader.Reader, key: peering.ImportKey, one: peering.Import
    ) -> Iterable[tuple[ServiceKey, Service]]:
        if not one.export.scope.takes_over or read.get(own, key.service) is not None:
            return
        same = read.lookup(by_service, key.service)
        if key == min(other for other in same if same[other].export.scope.takes_over):
            yield key.service, service_of(one, domain=seat.domain)

    return graph_.derive("services.imported", imports, service)


def service_of(one: peering.Import, *, domain: str) -> Service:
    """Return the Service of a linked cluster, by what it tells of it."""
    told, scope = one.export, one.export.scope
    usual = distributions.SAME_NETWORK if scope.derives else distributions.ANY
    return Service(
        key=told.service,
        hostname=naming.service_host(told.service.name, told.service.namespace, domain),
        ports=told.ports,
        nearness=distributions.nearness_of(told.distribution, usual=usual),
        created=AGELESS,
    )


def offered(
    key: sources.ObjectKey,
    object_: objects.Service,
    namespace: objects.Namespace | None,
    *,
    domain: str,
) -> Service:
    """Return the Service of one cluster as others may know it."""
    alone = services.merged_service({key: object_}, [key], domain=domain, is_cluster_local=False)
    said = distributions.said_of(object_, namespace)
    near = distributions.nearness_of(said, usual=distributions.SAME_NETWORK)
    return dataclasses.replace(alone, nearness=near)


def derived_of(first: Offer, offers: Iterable[Offer]) -> Service:
    """Return the service that offers of one name make; `first` decides what it is like."""
    every = list(offers)
    origin = first.service.key
    return dataclasses.replace(
        first.service,
        key=derived_key(origin),
        hostname=derived_host(origin),
        resolution=Resolution.VIP,
        vips=(),
        keeps_to_node=False,
        created=min(one.service.created for one in every),
        derived=Derived(origin, first.service.hostname, frozenset(one.cluster for one in every)),
    )
