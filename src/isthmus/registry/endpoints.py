"""EndpointSlices, with the pods behind them, become the endpoints of services.

Each slice is computed apart and then joined with the others of its service, so that a change
touches one slice and one service. An endpoint that names a pod waits for the pod: without it
nobody could say whether a proxy stands before it.

Source: spec sections 2.4, 2.5 and 3.4.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import msgspec

from isthmus.base import errors
from isthmus.engine import collections, graph, reader
from isthmus.fleet import sources
from isthmus.kube import objects
from isthmus.mesh import packs
from isthmus.mesh.addresses import Brief, brief
from isthmus.mesh.identities import ClusterId
from isthmus.mesh.localities import Locality
from isthmus.mesh.packs import Pack, Packs
from isthmus.mesh.services import Service, ServiceKey, key_of
from isthmus.mesh.workloads import Health, Kind, Likeness, Workload, WorkloadKey, spot
from isthmus.registry import addresses, checked, topology

SERVICE_LABEL: Final = "kubernetes.io/service-name"
ADDRESS_REFUSED: Final = "ISM-REG-011"
MOST_PORT: Final = 65535
SHOWN: Final = 3

Workloads = collections.Collection[WorkloadKey, Workload]


class Shard(msgspec.Struct, frozen=True, gc=False):
    """What one slice contributes to one service, whether ready or not, and what is wrong with it."""

    service: ServiceKey
    endpoints: Pack
    findings: tuple[errors.Finding, ...] = ()


Shards = collections.Index[ServiceKey, sources.ObjectKey, Shard]


@dataclass(frozen=True, slots=True)
class Pods:
    """Those that slices may name.

    Attributes:
        named: Which slices name an address.
    """

    workloads: Workloads
    named: collections.Groups[Brief, sources.ObjectKey, None]

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

        return graph.heard(self.workloads, concerns, part_of=lambda key: key.cluster)


@dataclass(frozen=True, slots=True)
class Nodes:
    """What this module declares."""

    endpoints: collections.Collection[ServiceKey, Packs]
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
    ) -> Iterable[tuple[ServiceKey, Packs]]:
        keeps, last = service.publishes_not_ready, read.last
        before = last if isinstance(last, Packs) else packs.NOBODY
        found = shards_of(read, shards, service)
        yield key, joined_endpoints(found, keeps_unready=keeps, before=before)

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


def joined_endpoints(
    shards: Iterable[Shard], *, keeps_unready: bool, before: Packs = packs.NOBODY
) -> Packs:
    """Return the endpoints of all slices of one service, sorted, each once.

    Those of a cluster are the same object as in its only slice, or as they were `before`.
    """
    by_cluster = dict[ClusterId, dict[int, Pack]]()
    for shard in shards:
        for like in shard.endpoints.kinds():
            by_cluster.setdefault(like.cluster, {})[id(shard.endpoints)] = shard.endpoints
    was = {pack.like().cluster: pack for pack in before.parts}
    found = [
        _of_cluster(cluster, tuple(by_cluster[cluster].values()), keeps=keeps_unready)
        for cluster in sorted(by_cluster)
    ]
    return Packs(tuple([_same(was.get(one.like().cluster), one) for one in found if one]))


def _same(was: Pack | None, one: Pack) -> Pack:
    # What others have made of them, down to the bytes that say them, holds then.
    return was if was is not None and was == one else one


def _of_cluster(cluster: ClusterId, found: tuple[Pack, ...], *, keeps: bool) -> Pack:
    """Return the endpoints of one cluster that are called."""
    kinds = [like for one in found for like in one.kinds()]
    if len(found) == 1 and all(
        like.health is Health.HEALTHY and like.cluster == cluster for like in kinds
    ):
        return found[0]
    rows = [
        row
        for one in found
        for row in one.rows()
        if row[1].cluster == cluster and (keeps or row[1].health is Health.HEALTHY)
    ]
    # Whoever wants unready endpoints called must find them well: a proxy calls no others.
    well = {id(like): _called_well(like) for like in kinds}
    return packs.packed([(at, well[id(like)], place) for at, like, place in in_order(rows)])


def in_order(rows: Iterable[packs.Row]) -> list[packs.Row]:
    """Return endpoints sorted, each once.

    While endpoints move between slices they may be in two of them; then the ready one counts.
    """
    found = dict[tuple[str, str, str, int], packs.Row]()
    for row in rows:
        address, like, _ = row
        place = (like.cluster, like.port_name, address, like.port)
        known = found.setdefault(place, row)
        if known is not row and _preference(row) < _preference(known):
            found[place] = row
    return [found[place] for place in sorted(found)]


def _called_well(like: Likeness) -> Likeness:
    if like.health is Health.HEALTHY:
        return like
    return msgspec.structs.replace(like, health=Health.HEALTHY)


def _preference(row: packs.Row) -> tuple[bool, bool, str]:
    like = row[1]
    return like.health is not Health.HEALTHY, not like.service_account, repr(row)


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
        found: list[packs.Row] = []
        before = self._before()
        likes = Likes(before.kinds())
        for member in slice_.endpoints or ():
            if _is_leaving(member) or not member.addresses:
                continue
            address = member.addresses[0]
            if fault := addresses.fault_of(address):
                refused.append(f"`{address[:64]}` ({fault})")
                continue
            found.extend(self._endpoints(member, slice_.ports or (), address, likes))
        made = packs.packed(in_order(found))
        same = _same(before, made)
        return Shard(key_of(self.key.namespace, service), same, self._findings(refused))

    def _before(self) -> Pack:
        """Return what the slice contributed when it was read last."""
        last = self.read.last
        return last.endpoints if isinstance(last, Shard) else packs.NOTHING

    def _endpoints(
        self,
        member: objects.SliceEndpoint,
        ports: tuple[objects.EndpointPort, ...],
        address: str,
        likes: "Likes",
    ) -> Iterable[packs.Row]:
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
                        yield own, like, workload.spot
                    break
            return
        yield from self._of_address(member, ports, address, likes)

    def _of_address(
        self,
        member: objects.SliceEndpoint,
        ports: tuple[objects.EndpointPort, ...],
        address: str,
        likes: "Likes",
    ) -> Iterable[packs.Row]:
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
            yield address, likes.same(like), spot(member.node_name, locality)

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

    def __init__(self, before: Iterable[Likeness]) -> None:
        self._known = {like: like for like in before}
        self._made = dict[tuple[object, ...], tuple[Kind, Likeness]]()

    def same(self, like: Likeness) -> Likeness:
        """Return the one that is equal."""
        return self._known.setdefault(like, like)

    def of_workload(
        self, workload: Workload, member: objects.SliceEndpoint, port_name: str, port: int
    ) -> Likeness:
        """Return what is told of a pod's endpoint but for the pod's own address and place."""
        kind, key = workload.kind, workload.key
        health = Health.UNHEALTHY if kind.awaits_proxy else _health(member)
        # The same kind is almost always one object. It is kept with what was made of it: once it is
        # gone, another one could be where it was.
        made = (id(kind), key.cluster, key.namespace, health, member.hostname, port_name, port)
        found = self._made.get(made)
        if found is None:
            like = self.same(
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
            found = self._made[made] = (kind, like)
        return found[1]


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
