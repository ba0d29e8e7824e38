"""EndpointSlices, with the pods behind them, become the endpoints of services.

Each slice is computed apart and then joined with the others of its service, so that a change
touches one slice and one service. An endpoint that names a pod waits for the pod: without it
nobody could say whether a proxy stands before it.

Source: spec sections 2.4, 2.5 and 3.4.
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import msgspec

from isthmus.base import errors
from isthmus.engine import collections, graph, reader
from isthmus.fleet import sources
from isthmus.kube import objects
from isthmus.mesh.addresses import Brief, brief
from isthmus.mesh.identities import ClusterId
from isthmus.mesh.localities import Locality
from isthmus.mesh.services import Service, ServiceKey, key_of
from isthmus.mesh.workloads import Endpoint, Health, Likeness, Workload, WorkloadKey
from isthmus.registry import addresses, checked, topology

SERVICE_LABEL: Final = "kubernetes.io/service-name"
ADDRESS_REFUSED: Final = "ISM-REG-011"
MOST_PORT: Final = 65535
SHOWN: Final = 3

Workloads = collections.Collection[WorkloadKey, Workload]


class Shard(msgspec.Struct, frozen=True, gc=False):
    """What one slice contributes to one service, whether ready or not, and what is wrong with it."""

    service: ServiceKey
    endpoints: tuple[Endpoint, ...]
    findings: tuple[errors.Finding, ...] = ()


Shards = collections.Index[ServiceKey, sources.ObjectKey, Shard]


@dataclass(frozen=True, slots=True)
class Pods:
    """Those that slices may name.

    Attributes:
        named: Which slices name an address.
    """

    workloads: Workloads
    named: collections.Index[Brief, sources.ObjectKey, None]

    def heard(self) -> graph.Heard[sources.ObjectKey]:
        """Return how slices hear of them.

        What a slice makes of a pod depends on it only where the pod has an address that it names.
        """

        def concerns(
            read: reader.Reader, key: WorkloadKey, workload: Workload
        ) -> Iterable[sources.ObjectKey]:
            for address in workload.addresses:
                for named in read.lookup(self.named, brief(address)):
                    if named.cluster == key.cluster:  # Clusters may well have pods of one address.
                        yield named

        return graph.heard(self.workloads, concerns)


@dataclass(frozen=True, slots=True)
class Nodes:
    """What this module declares."""

    endpoints: collections.Collection[ServiceKey, tuple[Endpoint, ...]]
    shards: Shards
    findings: checked.Findings


def declare(
    graph_: graph.Graph,
    sources_: sources.Sources,
    *,
    services: collections.Collection[ServiceKey, Service],
    pods: Pods,
    places: topology.Nodes,
    others: collections.Collection[sources.ObjectKey, Shard],
) -> Nodes:
    """Declare the endpoints of all services in `graph_`; `others` come from no EndpointSlice."""

    def check(
        read: reader.Reader, key: sources.ObjectKey, slice_: objects.EndpointSlice
    ) -> Iterable[tuple[sources.ObjectKey, Shard]]:
        service = slice_.metadata.label(SERVICE_LABEL)
        if service and slice_.address_type != "FQDN":
            yield key, Reading(read, key, pods.workloads, places).shard(service, slice_)

    def joined(
        read: reader.Reader, key: ServiceKey, service: Service
    ) -> Iterable[tuple[ServiceKey, tuple[Endpoint, ...]]]:
        keeps = service.publishes_not_ready
        yield key, joined_endpoints(shards_of(read, shards, service), keeps_unready=keeps)

    ways: graph.Ways[sources.ObjectKey, objects.EndpointSlice] = graph.Ways(hears=(pods.heard(),))
    own = graph_.derive("shards", sources_.endpoint_slices, check, ways=ways)
    every = graph_.join("shards.all", own, others)
    shards: Shards = graph_.index("shards.by_service", every, lambda _, shard: (shard.service,))
    return Nodes(
        endpoints=graph_.derive("endpoints", services, joined),
        shards=shards,
        findings=checked.findings_of(graph_, "shards", own),
    )


def shards_of(read: reader.Reader, shards: Shards, service: Service) -> Iterable[Shard]:
    """Return what makes a service; one that is derived has what those give who share it."""
    derived = service.derived
    if derived is None:
        return read.lookup(shards, service.key).values()
    given = read.lookup(shards, derived.origin).items()
    return [shard for key, shard in given if key.cluster in derived.exporters]


def joined_endpoints(shards: Iterable[Shard], *, keeps_unready: bool) -> tuple[Endpoint, ...]:
    """Return the endpoints of all slices of one service, sorted, each once.

    While endpoints move between slices they may be in two of them; then the ready one counts.
    """
    found: dict[tuple[str, str, str, int], Endpoint] = {}
    for shard in shards:
        for endpoint in shard.endpoints:
            like = endpoint.like
            if like.health is not Health.HEALTHY and not keeps_unready:
                continue
            place = (like.cluster, like.port_name, endpoint.address, like.port)
            known = found.get(place)
            if known is None or _preference(endpoint) < _preference(known):
                found[place] = endpoint
    # Whoever wants unready endpoints called must find them well: a proxy calls no others.
    in_order = [found[place] for place in sorted(found)]
    return tuple([_called_well(one) for one in in_order] if keeps_unready else in_order)


def _called_well(endpoint: Endpoint) -> Endpoint:
    if endpoint.health is Health.HEALTHY:
        return endpoint
    like = dataclasses.replace(endpoint.like, health=Health.HEALTHY)
    return msgspec.structs.replace(endpoint, like=like)


def _preference(endpoint: Endpoint) -> tuple[bool, bool, str]:
    return endpoint.health is not Health.HEALTHY, not endpoint.service_account, repr(endpoint)


@dataclass(frozen=True, slots=True)
class Reading:
    """Reads one slice of one cluster."""

    read: reader.Reader
    key: sources.ObjectKey
    workloads: Workloads
    places: topology.Nodes

    def shard(self, service: str, slice_: objects.EndpointSlice) -> Shard:
        """Return what the slice contributes, and which addresses it may not."""
        refused: list[str] = []
        found: list[Endpoint] = []
        likes = Likes(self._before())
        for member in slice_.endpoints or ():
            if _is_leaving(member) or not member.addresses:
                continue
            address = member.addresses[0]
            if fault := addresses.fault_of(address):
                refused.append(f"`{address[:64]}` ({fault})")
                continue
            found.extend(self._endpoints(member, slice_.ports or (), address, likes))
        same = self._as_before(found)
        return Shard(key_of(self.key.namespace, service), same, self._findings(refused))

    def _as_before(self, found: list[Endpoint]) -> tuple[Endpoint, ...]:
        """Return endpoints, those that are as they were as the objects that they were.

        What others have made of these, down to the bytes that say them, holds then.
        """
        known = {(one.address, one.like.port_name): one for one in self._before()}
        return tuple(
            [
                was if was is not None and was == one else one
                for one in found
                for was in (known.get((one.address, one.like.port_name)),)
            ]
        )

    def _before(self) -> tuple[Endpoint, ...]:
        """Return what the slice contributed when it was read last."""
        last = self.read.last
        return last.endpoints if isinstance(last, Shard) else ()

    def _endpoints(
        self,
        member: objects.SliceEndpoint,
        ports: tuple[objects.EndpointPort, ...],
        address: str,
        likes: "Likes",
    ) -> Iterable[Endpoint]:
        reference = member.target_ref
        if reference is not None and reference.kind == "Pod":
            pod = WorkloadKey(self.key.cluster, self.key.namespace, reference.name)
            workload = self.read.heard(self.workloads, pod)
            if workload is None or not workload.addresses:
                return  # The pod is not known yet, or no more.
            # A slice may claim any pod; only the pod's own address proves it. A pod that follows
            # another of its name may be in a slice before its address is known: until then
            # nobody could say that a proxy stands before it, and plain text would go out.
            for own in workload.addresses:
                if own == address:
                    for name, port in tcp_ports(ports):
                        like = likes.of_workload(workload, member, name, port)
                        yield Endpoint(own, like, workload.node, workload.locality)
                    break
            return
        yield from self._of_address(member, ports, address, likes)

    def _of_address(
        self,
        member: objects.SliceEndpoint,
        ports: tuple[objects.EndpointPort, ...],
        address: str,
        likes: "Likes",
    ) -> Iterable[Endpoint]:
        cluster = self.key.cluster
        locality = self._locality(cluster, member)
        network = self.places.network_of(self.read, cluster=cluster, labels={}, address=address)
        for name, port in tcp_ports(ports):
            like = Likeness(
                port=port,
                port_name=name,
                cluster=cluster,
                network=network,
                health=_health(member),
                namespace=self.key.namespace,
                hostname=member.hostname,
            )
            yield Endpoint(address, likes.same(like), member.node_name, locality)

    def _locality(self, cluster: ClusterId, member: objects.SliceEndpoint) -> Locality:
        by_node = self.places.place_of(self.read, cluster=cluster, node=member.node_name)
        return by_node if by_node.zone else Locality(by_node.region, member.zone, by_node.subzone)

    def _findings(self, refused: list[str]) -> tuple[errors.Finding, ...]:
        if not refused:
            return ()
        more = f" and {len(refused) - SHOWN} more" if len(refused) > SHOWN else ""
        key = self.key
        return (
            errors.Finding(
                code=ADDRESS_REFUSED,
                subject=f"EndpointSlice {key.namespace}/{key.name} in cluster `{key.cluster}`",
                happened=f"has addresses that no traffic is sent to: "
                f"{', '.join(refused[:SHOWN])}{more}",
                still_working="its other endpoints are used",
                hint="correct the slice, or find out who wrote it",
            ),
        )


class Likes:
    """What endpoints of one slice have in common: each once, and those of before as they were."""

    def __init__(self, before: Iterable[Endpoint]) -> None:
        self._known = {like: like for like in {id(one.like): one.like for one in before}.values()}
        self._made = dict[tuple[object, ...], Likeness]()

    def same(self, like: Likeness) -> Likeness:
        """Return the one that is equal."""
        return self._known.setdefault(like, like)

    def of_workload(
        self, workload: Workload, member: objects.SliceEndpoint, port_name: str, port: int
    ) -> Likeness:
        """Return what is told of a pod's endpoint but for the pod's own address and place."""
        kind, key = workload.kind, workload.key
        health = Health.UNHEALTHY if kind.awaits_proxy else _health(member)
        # Whoever refers to a kind keeps it alive, and the same one is almost always one object.
        made = (id(kind), key.cluster, key.namespace, health, member.hostname, port_name, port)
        found = self._made.get(made)
        if found is None:
            found = self._made[made] = self.same(
                Likeness(
                    port=port,
                    port_name=port_name,
                    cluster=key.cluster,
                    network=kind.network,
                    health=health,
                    accepts_mtls=kind.has_proxy,
                    namespace=key.namespace,
                    service_account=kind.service_account,
                    workload=kind.name,
                    own=kind.own,
                    hostname=member.hostname,
                    accepts_tunnels=kind.accepts_tunnels,
                )
            )
        return found


def tcp_ports(ports: tuple[objects.EndpointPort, ...]) -> Iterable[tuple[str, int]]:
    """Yield name and number of the ports that traffic can be sent to."""
    for port in ports:
        if port.protocol in {"", "TCP"} and port.port is not None and 0 < port.port <= MOST_PORT:
            yield port.name, port.port


def _is_leaving(member: objects.SliceEndpoint) -> bool:
    """Say whether an endpoint ends; one that is ready all the same is published on purpose."""
    return bool(member.conditions.terminating) and member.conditions.ready is not True


def _health(member: objects.SliceEndpoint) -> Health:
    return Health.UNHEALTHY if member.conditions.ready is False else Health.HEALTHY
