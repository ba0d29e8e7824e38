"""Services of one name in all clusters become one service of the mesh.

The configuration cluster's object decides ports, labels and kind, then that of the first cluster
by name; from the others come addresses. Where they differ in what should be the same, a finding
says so.

Source: spec sections 2.4, 7.5, 8.3 and 8.6.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from isthmus.base import errors
from isthmus.engine import collections, graph, reader
from isthmus.fleet import sources
from isthmus.kube import objects
from isthmus.mesh.identities import ClusterId
from isthmus.mesh.services import Resolution, Service, ServiceKey, ServicePort, key_of
from isthmus.registry import (
    addresses,
    checked,
    distributions,
    naming,
    protocols,
    scopes,
    settings,
)

EXPORT_ANNOTATION: Final = "networking.istio.io/exportTo"
HEADLESS: Final = "None"
MOST_PORT: Final = 65535
SERVICES_DIFFER: Final = "ISM-REG-010"

Objects = Mapping[sources.ObjectKey, objects.Service]


@dataclass(frozen=True, slots=True)
class Nodes:
    """What this module declares."""

    services: collections.Collection[ServiceKey, Service]
    findings: checked.Findings


def declare(
    graph_: graph.Graph,
    sources_: sources.Sources,
    *,
    seat: settings.Seat,
    locality_rules: collections.Single[tuple[tuple[str, ...], tuple[str, ...]]],
    scopes_: scopes.Nodes,
) -> Nodes:
    """Declare the merged services in `graph_`."""
    by_name = graph_.index(
        "services.by_name",
        sources_.services,
        lambda key, _: (key_of(key.namespace, key.name),),
    )

    def merge(
        read: reader.Reader, key: sources.ObjectKey, _: objects.Service
    ) -> Iterable[tuple[ServiceKey, checked.Checked[Service]]]:
        name = key_of(key.namespace, key.name)
        same = read.lookup(by_name, name)
        in_order = sorted(same, key=lambda other: _rank(other.cluster, seat))
        if in_order[0] != key:
            return  # Another cluster's object speaks for the service.
        local, mesh_wide = read.value(locality_rules)
        host = naming.service_host(name.name, name.namespace, seat.domain)
        is_local = settings.is_cluster_local(host, local=local, mesh_wide=mesh_wide)
        merged = merged_service(same, in_order, domain=seat.domain, is_cluster_local=is_local)
        near, unknown = distributed(read, key)
        findings = () if is_local else differences(same, in_order)
        yield (
            name,
            checked.Checked(dataclasses.replace(merged, nearness=near), (*findings, *unknown)),
        )

    def distributed(
        read: reader.Reader, key: sources.ObjectKey
    ) -> tuple[tuple[str, ...], tuple[errors.Finding, ...]]:
        object_ = read.get(sources_.services, key)
        if object_ is None:
            return distributions.ANY, ()
        namespace = read.get(sources_.namespaces, sources.ObjectKey(key.cluster, "", key.namespace))
        said = distributions.said_of(object_, namespace)
        scope = read.get(scopes_.of_services, key) or scopes.LOCAL
        is_wide = scope.derives and scope.takes_over
        usual = distributions.SAME_NETWORK if is_wide else distributions.ANY
        return (
            distributions.nearness_of(said, usual=usual),
            distributions.findings_of(object_, said, key),
        )

    # Objects of one name read those of that name, and the first of them a little more.
    ways: graph.Ways[sources.ObjectKey, objects.Service] = graph.Ways(
        alike=lambda key, _: key_of(key.namespace, key.name)
    )
    both = graph_.derive("services.checked", sources_.services, merge, ways=ways)
    return Nodes(
        services=checked.values_of(graph_, "services.merged", both),
        findings=checked.findings_of(graph_, "services.merged", both),
    )


def merged_service(
    same: Objects, in_order: list[sources.ObjectKey], *, domain: str, is_cluster_local: bool
) -> Service:
    """Return the service that objects of one name in several clusters make."""
    first = same[in_order[0]]
    key = key_of(in_order[0].namespace, in_order[0].name)
    vips = ((other.cluster, vips_of(same[other])) for other in in_order)
    resolution = resolution_of(first)
    return Service(
        key=key,
        hostname=naming.service_host(key.name, key.namespace, domain),
        ports=tuple(port_of(port) for port in first.spec.ports if 0 < port.port <= MOST_PORT),
        resolution=resolution,
        vips=tuple(sorted((cluster, found) for cluster, found in vips if found)),
        alias_of=first.spec.external_name if resolution is Resolution.ALIAS else "",
        labels=tuple(sorted((first.metadata.labels or {}).items())),
        export_to=export_to(first),
        is_cluster_local=is_cluster_local,
        keeps_to_node=first.spec.internal_traffic_policy == "Local",
        publishes_not_ready=first.spec.publish_not_ready_addresses,
        created=min(same[other].metadata.creation_timestamp for other in in_order),
    )


def resolution_of(service: objects.Service) -> Resolution:
    """Return how clients find the endpoints of a Service."""
    if service.spec.type == "ExternalName":
        return Resolution.ALIAS
    return Resolution.HEADLESS if service.spec.cluster_ip == HEADLESS else Resolution.VIP


def vips_of(service: objects.Service) -> tuple[str, ...]:
    """Return the cluster IPs of a Service, as its API server orders them."""
    listed = service.spec.cluster_ips or (service.spec.cluster_ip,)
    usable = tuple(vip for vip in listed if not addresses.fault_of(vip))
    return listed if usable == listed else usable  # Which exists already.


def port_of(port: objects.ServicePort) -> ServicePort:
    """Return a port of a Service with what is spoken there."""
    return ServicePort(
        port.name,
        port.port,
        protocols.protocol_of(
            transport=port.protocol,
            app_protocol=port.app_protocol,
            port_name=port.name,
            port=port.port,
        ),
    )


def export_to(service: objects.Service) -> tuple[str, ...]:
    """Return to which namespaces a Service is shown; empty for the mesh's default."""
    listed = service.metadata.annotation(EXPORT_ANNOTATION).split(",")
    return tuple(dict.fromkeys(entry.strip() for entry in listed if entry.strip()))


def differences(same: Objects, in_order: list[sources.ObjectKey]) -> tuple[errors.Finding, ...]:
    """Say where the objects of one service differ in what should be the same."""
    first = in_order[0]
    reasons = []
    for other in in_order[1:]:
        differs = _difference(same[first], same[other])
        if differs:
            reasons.append(f"`{other.cluster}` differs from `{first.cluster}` in {differs}")
    if not reasons:
        return ()
    return (
        errors.Finding(
            code=SERVICES_DIFFER,
            subject=f"Service {first.namespace}/{first.name}",
            happened="is not the same in all clusters: " + "; ".join(reasons),
            still_working=f"the object of cluster `{first.cluster}` is used for all",
            hint="apply the same Service in every cluster; endpoints are matched by port name",
        ),
    )


def _difference(one: objects.Service, other: objects.Service) -> str:
    if resolution_of(one) is not resolution_of(other):
        return "kind (headless, cluster IP or external name)"
    return "" if _ports(one) == _ports(other) else "ports"


def _ports(service: objects.Service) -> frozenset[tuple[str, int, str]]:
    return frozenset((port.name, port.port, port.protocol) for port in service.spec.ports)


def _rank(cluster: ClusterId, seat: settings.Seat) -> tuple[bool, ClusterId]:
    return cluster != seat.cluster, cluster
