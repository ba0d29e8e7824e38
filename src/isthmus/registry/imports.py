"""What linked clusters tell of their services, as far as they may.

Each record is judged by itself against the link that leads to its cluster: a cluster speaks for its
own network and its own trust domain, and of no more namespaces than its link grants. A record that
oversteps is a finding and counts for nothing; the others of its cluster are not touched. A cluster
whose API server is followed is known better from there: nothing that it tells counts twice.

Source: spec section 7.7; security rules RS-8, TN-1 and TD.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from isthmus.base import errors
from isthmus.engine import collections, graph, reader
from isthmus.fleet import sources
from isthmus.mesh import identities, peering
from isthmus.mesh.services import ServiceKey, derived_host
from isthmus.registry import addresses, checked, links, naming, settings

IMPORT_REFUSED: Final = "ISM-REG-031"
MOST_PORT: Final = 65535
MOST_PORTS: Final = 100
MOST_PLACES: Final = 256
MOST_IDENTITIES: Final = 256
MOST_PODS: Final = 1_000_000
MOST_TEXT: Final = 253

Imports = collections.Collection[peering.ImportKey, peering.Import]


@dataclass(frozen=True, slots=True)
class Nodes:
    """What this module declares.

    Attributes:
        told: What linked clusters tell, as it came; filled from outside.
        imports: What of it counts.
        by_service: The same, by the service that it is about.
    """

    told: collections.Source[peering.ImportKey, peering.Export]
    imports: Imports
    by_service: collections.Index[ServiceKey, peering.ImportKey, peering.Import]
    findings: checked.Findings


def declare(
    graph_: graph.Graph,
    sources_: sources.Sources,
    *,
    seat: settings.Seat,
    links_: links.Links,
) -> Nodes:
    """Declare in `graph_` what linked clusters tell."""
    told: collections.Source[peering.ImportKey, peering.Export] = graph_.source("imports.told")

    def check(
        read: reader.Reader, key: peering.ImportKey, export: peering.Export
    ) -> Iterable[tuple[peering.ImportKey, checked.Checked[peering.Import]]]:
        link = read.get(links_, key.peer)
        system = sources.ObjectKey(key.peer, "", seat.system_namespace)
        if link is None or read.get(sources_.namespaces, system) is not None:
            return
        fault = fault_of(export, link, domain=seat.domain)
        found = peering.Import(key.peer, link.behind, link.trust_domain, _seen(export, link))
        findings = (finding_of(key.peer, key.service, fault),) if fault else ()
        yield key, checked.Checked(None if fault else found, findings)

    both = graph_.derive("imports.checked", told, check)
    imports = checked.values_of(graph_, "imports", both)
    return Nodes(
        told,
        imports,
        graph_.index_by_key("imports.by_service", imports, lambda key: (key.service,)),
        checked.findings_of(graph_, "imports", both),
    )


def _seen(export: peering.Export, link: peering.Link) -> peering.Export:
    """Return what is told with its pods where they count here: behind that cluster's gateway."""
    if not link.is_apart:
        return export
    there = tuple(dataclasses.replace(one, network=link.behind) for one in export.capacity)
    return dataclasses.replace(export, capacity=there)


def fault_of(export: peering.Export, link: peering.Link, *, domain: str) -> str:
    """Say why a cluster may not tell this of a service; empty when it may.

    Args:
        export: What it tells.
        link: What leads to it.
        domain: DNS suffix of services here.
    """
    return next(_faults(export, link, domain=domain), "")


def _faults(export: peering.Export, link: peering.Link, *, domain: str) -> Iterator[str]:
    service = export.service
    if not (addresses.is_label(service.namespace) and addresses.is_label(service.name)):
        yield "names no service"
    if link.namespaces and service.namespace not in link.namespaces:
        yield f"the link grants it no word on namespace `{service.namespace}`"
    yield from _host_faults(export, domain=domain)
    numbers = [port.number for port in export.ports]
    if len(numbers) > MOST_PORTS or len(set(numbers)) < len(numbers):
        yield "has too many ports, or one twice"
    if any(not 0 < number <= MOST_PORT for number in numbers):
        yield "has a port that is none"
    if any(len(port.name) > MOST_TEXT for port in export.ports):
        yield "has a port with too long a name"
    yield from _place_faults(export, link)
    yield from _identity_faults(export, link)


def _host_faults(export: peering.Export, *, domain: str) -> Iterator[str]:
    service = export.service
    own = naming.service_host(service.name, service.namespace, domain)
    wrong = sorted(set(export.hosts) - {own, derived_host(service)})
    if wrong:
        yield f"claims host `{wrong[0][:MOST_TEXT]}`, which is not the service's"
    if not export.hosts:
        yield "stands for no host"


def _place_faults(export: peering.Export, link: peering.Link) -> Iterator[str]:
    foreign = sorted({one.network for one in export.capacity} - {link.network})
    if foreign:
        yield f"has pods in network `{foreign[0][:MOST_TEXT]}`, which is not its own"
    if len(export.capacity) > MOST_PLACES:
        yield "is in too many places"
    if any(not 0 < one.pods <= MOST_PODS for one in export.capacity):
        yield "has a number of pods that cannot be"
    parts = [part for one in export.capacity for part in (one.locality.region, one.locality.zone)]
    if any(len(part) > MOST_TEXT for part in parts):
        yield "has a place with too long a name"


def _identity_faults(export: peering.Export, link: peering.Link) -> Iterator[str]:
    if len(export.identities) > MOST_IDENTITIES:
        yield "has too many identities"
    for text in export.identities:
        try:
            found = identities.parse_spiffe_id(text)
        except identities.IdentityMalformed:
            yield f"has an identity that is none: `{text[:MOST_TEXT]}`"
            return
        if found.trust_domain != link.trust_domain:
            yield f"has an identity of trust domain `{found.trust_domain[:MOST_TEXT]}`"
        if found.namespace != export.service.namespace:
            yield f"has an identity of namespace `{found.namespace[:MOST_TEXT]}`"


def finding_of(peer: str, service: ServiceKey, happened: str) -> errors.Finding:
    """Say that something that a cluster tells of a service does not count."""
    return errors.Finding(
        code=IMPORT_REFUSED,
        subject=f"Service {service.namespace[:63]}/{service.name[:63]} of cluster `{peer}`",
        happened=happened,
        still_working="what that cluster tells of other services; the service in other clusters",
        hint=f"look at the Service in cluster `{peer}`, and at the link to it",
    )
