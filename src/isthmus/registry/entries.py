"""ServiceEntries become services of the mesh, with the endpoints that they name or select.

A host has one owner in the mesh: the Service of that name, or else the oldest entry that names it.
Others of that name are reported and left out, so that nobody takes a host from whom it works for.

Source: spec sections 2.4 and 8.5.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from isthmus.base import errors
from isthmus.engine import collections, graph, reader
from isthmus.fleet import sources
from isthmus.kube import objects
from isthmus.mesh import addresses, packs
from isthmus.mesh.entries import EntryEndpoint, ServiceEntry
from isthmus.mesh.identities import Hostname
from isthmus.mesh.services import (
    Entry,
    Resolution,
    Service,
    ServiceKey,
    ServicePort,
    derived_key,
)
from isthmus.mesh.workloads import Endpoint, Health, Likeness, Workload, WorkloadKey
from isthmus.registry import checked, declared, endpoints, naming, settings, topology

HOST_TAKEN: Final = "ISM-REG-014"
READY: Final = "Ready"

HostKey = tuple[sources.ObjectKey, str]
Entries = collections.Collection[sources.ObjectKey, ServiceEntry]
PodsByNamespace = collections.Index[str, sources.ObjectKey, objects.AnyPod]


@dataclass(frozen=True, slots=True)
class Owned:
    """One host of an entry, which that owns."""

    service: Service
    entry: ServiceEntry


@dataclass(frozen=True, slots=True)
class Nodes:
    """What this module declares.

    Attributes:
        owned: Every host that an entry owns, as a service.
    """

    owned: collections.Collection[ServiceKey, Owned]
    services: collections.Collection[ServiceKey, Service]
    findings: checked.Findings


def declare(
    graph_: graph.Graph,
    entries: Entries,
    *,
    services: collections.Collection[ServiceKey, Service],
    seat: settings.Seat,
) -> Nodes:
    """Declare the services that ServiceEntries make in `graph_`."""
    by_host = graph_.index("entries.by_host", entries, lambda _, entry: entry.hosts)

    def check(
        read: reader.Reader, key: sources.ObjectKey, entry: ServiceEntry
    ) -> Iterable[tuple[HostKey, checked.Checked[Owned]]]:
        for host in entry.hosts:
            owner = _owner(read, host, services=services, domain=seat.domain)
            if not owner:
                rivals = read.lookup(by_host, host)
                first = min(rivals, key=lambda one: (rivals[one].created, one))
                owner = "" if first == key else f"ServiceEntry {first.namespace}/{first.name}"
            if owner:
                yield (key, host), checked.Checked(None, (_taken(entry, host, owner=owner),))
            else:
                yield (key, host), checked.Checked(Owned(service_of(entry, host), entry))

    def owned(_: reader.Reader, __: HostKey, found: Owned) -> Iterable[tuple[ServiceKey, Owned]]:
        yield found.service.key, found

    def service(
        _: reader.Reader, key: ServiceKey, found: Owned
    ) -> Iterable[tuple[ServiceKey, Service]]:
        yield key, found.service

    both = graph_.derive("entries.checked", entries, check)
    values = checked.values_of(graph_, "entries.of_hosts", both)
    by_service = graph_.derive("entries.owned", values, owned)
    return Nodes(
        owned=by_service,
        services=graph_.derive("entries.services", by_service, service),
        findings=checked.findings_of(graph_, "entries.of_hosts", both),
    )


def declare_shards(
    graph_: graph.Graph,
    owned: collections.Collection[ServiceKey, Owned],
    sources_: sources.Sources,
    *,
    workloads: endpoints.Workloads,
    places: topology.Nodes,
    seat: settings.Seat,
) -> tuple[
    collections.Collection[sources.ObjectKey, endpoints.Shard],
    collections.Collection[sources.ObjectKey, declared.Declared],
]:
    """Declare what entries contribute to their services, and the ports of pods that they select."""
    selecting = graph_.derive(
        "entries.selecting",
        owned,
        lambda _, key, found: () if found.entry.selector is None else ((key, True),),
    )
    pods = graph_.index(
        "pods.by_namespace", sources_.pods, lambda key, _: (key.namespace,), while_any=selecting
    )

    def shard(
        read: reader.Reader, key: ServiceKey, found: Owned
    ) -> Iterable[tuple[sources.ObjectKey, endpoints.Shard]]:
        named = _named(read, found, places=places, seat=seat)
        selected = (
            endpoint
            for pod, workload in _selected(read, found.entry, pods, workloads)
            for endpoint in _of_workload(found.entry, workload, is_ready=_is_ready(pod))
        )
        rows = endpoints.in_order(map(packs.row, (*named, *selected)))
        yield _key(key, found, seat), endpoints.Shard(key, packs.packed(rows))

    def ports(
        read: reader.Reader, key: ServiceKey, found: Owned
    ) -> Iterable[tuple[sources.ObjectKey, declared.Declared]]:
        if found.entry.selector is None:
            return
        chosen = [one for _, one in _selected(read, found.entry, pods, workloads)]
        for cluster in sorted({one.key.cluster for one in chosen}):
            own = (one for one in chosen if one.key.cluster == cluster)
            served = declared.Declared(
                key,
                cluster,
                addresses.packed(address for one in own for address in one.addresses),
                tuple(
                    sorted((port.name, target_of(found.entry, port)) for port in found.entry.ports)
                ),
            )
            where = _key(key, found, seat)
            yield sources.ObjectKey(cluster, where.namespace, where.name), served

    return (
        graph_.derive("entries.shards", owned, shard),
        graph_.derive("entries.declared_ports", owned, ports),
    )


def service_of(entry: ServiceEntry, host: str) -> Service:
    """Return one host of an entry as a service."""
    return Service(
        key=ServiceKey(entry.namespace, host),
        hostname=Hostname(host),
        ports=entry.ports,
        resolution=entry.resolution,
        labels=entry.labels,
        export_to=entry.export_to,
        created=entry.created,
        entry=Entry(
            name=entry.name,
            is_external=entry.is_external,
            addresses=entry.addresses,
            identities=entry.identities,
            wants_address=entry.wants_address and "*" not in host,
        ),
    )


def target_of(entry: ServiceEntry, port: ServicePort) -> int:
    """Return the number on which endpoints listen for a port."""
    return dict(entry.targets).get(port.name, port.number)


def _key(key: ServiceKey, found: Owned, seat: settings.Seat) -> sources.ObjectKey:
    """Name a contribution; no EndpointSlice has such a name."""
    return sources.ObjectKey(seat.cluster, key.namespace, f"{found.entry.name}/{key.name}")


def _owner(
    read: reader.Reader,
    host: str,
    *,
    services: collections.Collection[ServiceKey, Service],
    domain: str,
) -> str:
    """Return the Service that has a host, or nothing."""
    shared = naming.split_derived(host)
    if shared is not None:
        is_there = read.get(services, derived_key(shared)) is not None
        return f"the shared Service {shared.namespace}/{shared.name}" if is_there else ""
    named = naming.split_host(host, domain=domain)
    if named is None or read.get(services, ServiceKey(named[1], named[0])) is None:
        return ""
    return f"Service {named[1]}/{named[0]}"


def _taken(entry: ServiceEntry, host: str, *, owner: str) -> errors.Finding:
    return errors.Finding(
        code=HOST_TAKEN,
        subject=f"ServiceEntry {entry.namespace}/{entry.name}",
        happened=f"names `{host}`, which {owner} has",
        still_working=f"{owner} decides for this host; other hosts of the entry are used",
        hint="let one object name each host; the older one counts, and a Service before any",
    )


def _named(
    read: reader.Reader, found: Owned, *, places: topology.Nodes, seat: settings.Seat
) -> Iterable[Endpoint]:
    """Yield the endpoints that an entry names; for names to look up without any, the host."""
    entry = found.entry
    listed = entry.endpoints
    if not listed and entry.resolution in {Resolution.DNS, Resolution.ONE_BY_DNS}:
        listed = (EntryEndpoint(found.service.hostname),)
    for one in listed:
        network = one.network or places.network_of(
            read, cluster=seat.cluster, labels=dict(one.labels), address=one.address
        )
        for port in entry.ports:
            like = Likeness(
                port=dict(one.ports).get(port.name) or target_of(entry, port),
                port_name=port.name,
                cluster=seat.cluster,
                network=network,
                weight=one.weight,
                accepts_mtls=one.accepts_mtls and not entry.is_external,
                namespace=entry.namespace,
                service_account=one.service_account,
                own=one.labels,
            )
            yield Endpoint(one.address, like, locality=one.locality)


def _selected(
    read: reader.Reader, entry: ServiceEntry, pods: PodsByNamespace, workloads: endpoints.Workloads
) -> Iterable[tuple[objects.AnyPod, Workload]]:
    """Yield the pods of all clusters that an entry selects, with what the mesh knows of them."""
    if entry.selector is None:
        return
    wanted = set(entry.selector)
    for key, pod in sorted(read.lookup(pods, entry.namespace).items()):
        if wanted <= set((pod.metadata.labels or {}).items()):
            workload = read.get(workloads, WorkloadKey(key.cluster, key.namespace, key.name))
            if workload is not None and workload.addresses:
                yield pod, workload


def _is_ready(pod: objects.AnyPod) -> bool:
    return all(one.status == "True" for one in pod.status.conditions if one.type == READY)


def _of_workload(entry: ServiceEntry, workload: Workload, *, is_ready: bool) -> Iterable[Endpoint]:
    if workload.is_terminating:
        return
    for port in entry.ports:
        like = Likeness(
            port=target_of(entry, port),
            port_name=port.name,
            cluster=workload.key.cluster,
            network=workload.network,
            health=Health.HEALTHY if is_ready else Health.UNHEALTHY,
            accepts_mtls=workload.has_proxy and not entry.is_external,
            namespace=workload.key.namespace,
            service_account=workload.service_account,
            workload=workload.name,
            own=workload.own,
            accepts_tunnels=workload.accepts_tunnels,
        )
        yield Endpoint(workload.addresses[0], like, workload.node, workload.locality)
