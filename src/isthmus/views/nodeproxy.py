"""From what node proxies are told to what the one Envoy of a node must have: what depends on what.

Goes in: workloads, services and policies as the control plane tells them, and the pods of the node
that take part. A pod that the control plane does not know yet has no listeners: without its
policies nobody could be judged. A changed workload computes its services' endpoints again; the way
to it only changes with its address and identity.

What stands behind a gateway of another network is called through two tunnels, see `nodegateways`.
What has a waypoint is called through it, and nobody gets around one: where it has no pod that
answers, calls go nowhere.

Source: spec sections 7.2, 7.4 and 7.5.
"""

import dataclasses
import ipaddress
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from isthmus.engine import collections, graph, reader
from isthmus.mesh.authorization import Action
from isthmus.mesh.identities import NetworkId, SpiffeId
from isthmus.mesh.settings import DEFAULT_TRUST_DOMAIN
from isthmus.views import nearness, nodegateways, nodeslices, wds

Workloads = collections.Collection[str, wds.WorkloadSlice]
Services = collections.Collection[str, wds.ServiceSlice]
Nodes = collections.Collection[str, nodeslices.Node]
Pods = collections.Collection[str, nodeslices.EnrolledPod]
Slices = collections.Collection[nodeslices.TunnelKey, nodeslices.TunnelSlice]
Sliced = Iterator[tuple[nodeslices.TunnelKey, nodeslices.TunnelSlice]]
Reached = tuple[wds.Reach, str]
Place = tuple[str, int]

IPV4 = 4
WAYPOINTS = "waypoint"


@dataclass(frozen=True, slots=True)
class Sources:
    """What is put in from outside.

    Attributes:
        nodes: The one node, by its name.
        workloads: By the name of the resource, and so are services and policies.
        pods: Of this node, by uid.
    """

    nodes: collections.Source[str, nodeslices.Node]
    workloads: collections.Source[str, wds.WorkloadSlice]
    services: collections.Source[str, wds.ServiceSlice]
    policies: collections.Source[str, wds.AuthorizationSlice]
    pods: collections.Source[str, nodeslices.PlacedPod]


@dataclass(frozen=True, slots=True)
class NodeProxy:
    """What goes in, who takes part by uid, and all that the node's Envoy must have."""

    sources: Sources
    pods: Pods
    slices: Slices


@dataclass(frozen=True, slots=True)
class _Known:
    """What derivations read."""

    sources: Sources
    by_service: collections.Index[str, str, wds.WorkloadSlice]
    by_reach: collections.Index[Reached, str, wds.AuthorizationSlice]


def build(graph_: graph.Graph) -> NodeProxy:
    """Declare what a node's Envoy must have in `graph_`."""
    sources = Sources(
        nodes=graph_.source("node"),
        workloads=graph_.source("workloads"),
        services=graph_.source("services"),
        policies=graph_.source("policies"),
        pods=graph_.source("pods"),
    )
    known = _Known(
        sources,
        graph_.index("workloads by service", sources.workloads, _names_of_services),
        graph_.index("policies by reach", sources.policies, _reached),
    )
    plain = graph_.derive("services without tunnels", sources.services, _plain(known))
    to_services = graph_.derive(
        "ways to services", sources.services, _ways_to_services(known, plain)
    )
    to_workloads = graph_.derive("ways to workloads", sources.workloads, _ways_to_workloads(known))
    pods = graph_.derive("pods that take part", sources.pods, _enrolled(known))
    slices = graph_.join(
        "slices",
        graph_.derive("endpoints of services", sources.services, _endpoints(known)),
        graph_.derive("ways", sources.nodes, _ways(to_services, to_workloads)),
        graph_.derive("what every node has", sources.nodes, _common),
        graph_.derive("listeners of pods", pods, _listeners(known)),
    )
    return NodeProxy(sources, pods, slices)


def _names_of_services(_: str, workload: wds.WorkloadSlice) -> Iterable[str]:
    return (name for name, _ports in workload.services)


def _reached(_: str, policy: wds.AuthorizationSlice) -> Iterable[Reached]:
    match policy.reach:
        case wds.Reach.MESH:
            return ((wds.Reach.MESH, ""),)
        case wds.Reach.NAMESPACE:
            return ((wds.Reach.NAMESPACE, policy.namespace),)
        case wds.Reach.NAMED:
            return ()


# --- what every node has


def _common(_: reader.Reader, __: str, node: nodeslices.Node) -> Sliced:
    for passage in nodeslices.Passage:
        yield nodeslices.keyed(nodeslices.PassageListener(passage, node.access_log))
    for upstream in nodeslices.Upstream:
        yield nodeslices.keyed(nodeslices.UpstreamCluster(upstream, node.trust_domains))


# --- services


def cluster_name(service: wds.ServiceSlice, port: int) -> str:
    """Return the name by which the cluster of a port of a service is written of."""
    return f"{nodeslices.WAYS}|{port}||{service.resource_name}"


def called_name(address: str, port: int, *, is_plain: bool = False) -> str:
    """Return the name of the cluster of what was called; whoever is called by it finds it so."""
    leading = nodeslices.Leading.PLAIN if is_plain else nodeslices.Leading.TUNNELLED
    return f"{leading.value}|{address}:{port}"


def waypoint_name(resource: str) -> str:
    """Return the name of the cluster of a waypoint, whose service's resource has this name."""
    return f"{WAYPOINTS}|{nodeslices.TUNNEL_PORT}||{resource}"


def _endpoints(
    known: _Known,
) -> Callable[[reader.Reader, str, wds.ServiceSlice], Sliced]:
    def sliced(read: reader.Reader, key: str, service: wds.ServiceSlice) -> Sliced:
        node = _node(read, known)
        workloads = read.lookup(known.by_service, key)
        if node is None:
            return
        doors = {
            uid: door
            for uid, one in workloads.items()
            if (door := nodegateways.door_of(read, known.sources.workloads, one)) is not None
            and service.sans
        }
        able = [
            one
            for uid, one in sorted(workloads.items())
            if (one.addresses or uid in doors)
            and (one.is_healthy or service.takes_unready)
            and service.waypoint is None
        ]
        chosen = nearest(able, service=service, node=node)
        behind = sorted(doors[one.uid] for one in chosen if one.uid in doors)
        # The way there is kept ready: when the last near one goes, only endpoints change.
        beyond = nearest([one for one in able if one.uid in doors], service=service, node=node)
        ways_out = sorted(doors[one.uid] for one in beyond)
        # Of all, whether they are ready or not: only endpoints change with that.
        who = _identities(workloads.values())
        is_plain = _is_plain(service, workloads.values())
        for port in service.ports:
            found = tuple(sorted(_endpoints_of(chosen, key, port.number), key=_in_order))
            far = nodegateways.inner_name(service, port.number) if behind else ""
            weight = sum(door.weight for door in behind)
            shown, authority = cluster_name(service, port.number), f"{service.host}:{port.number}"
            for address in _addresses(service, node):
                name = called_name(address, port.number, is_plain=is_plain)
                yield nodeslices.keyed(
                    nodeslices.ServiceCluster(name, shown, authority, who, is_plain)
                )
                yield nodeslices.keyed(
                    nodeslices.ServiceEndpoints(name, found, far, weight, is_plain)
                )
            if ways_out:
                for one in nodegateways.inner(service, port.number, ways_out, node=node):
                    yield nodeslices.keyed(one)
            if port.number == nodeslices.TUNNEL_PORT:
                # Whoever ends tunnels may be a waypoint; whether it is, those say who want it.
                asked = tuple(
                    dataclasses.replace(one, is_asked=True) for one in found if one.identity
                )
                name = waypoint_name(key)
                yield nodeslices.keyed(nodeslices.ServiceCluster(name, identities=who))
                yield nodeslices.keyed(nodeslices.ServiceEndpoints(name, asked))

    return sliced


def _identities(workloads: Iterable[wds.WorkloadSlice]) -> tuple[SpiffeId, ...]:
    found = {identity_of(one) for one in workloads}
    return tuple(sorted(one for one in found if one is not None))


def _in_order(endpoint: nodeslices.Endpoint) -> tuple[str, int, str, int]:
    # One address may be told of twice, with and without tunnels.
    identity = str(endpoint.identity or "")
    return endpoint.address, endpoint.port, identity, endpoint.weight


def nearest(
    workloads: Sequence[wds.WorkloadSlice], *, service: wds.ServiceSlice, node: nodeslices.Node
) -> list[wds.WorkloadSlice]:
    """Return those workloads that share the most with the node of what the service prefers."""
    if not service.nearness:
        return list(workloads)
    network_first = service.nearness[0] is wds.Nearness.NETWORK
    ranks = [
        nearness.rank_of(_shared(one, service.nearness, node), network_first=network_first)
        for one in workloads
    ]
    most = nearness.most(len(service.nearness), network_first=network_first)
    best = most if service.is_strict else max(ranks, default=0)
    return [one for one, rank in zip(workloads, ranks, strict=True) if rank == best]


def _shared(
    workload: wds.WorkloadSlice, wanted: Sequence[wds.Nearness], node: nodeslices.Node
) -> list[bool]:
    """Return of each thing that counts whether a workload shares it with the node."""
    theirs, ours = workload.locality, node.locality
    shares = {
        wds.Nearness.NETWORK: _is_near(workload.network, node),
        wds.Nearness.CLUSTER: workload.cluster == node.cluster,
        wds.Nearness.REGION: theirs.region == ours.region,
        wds.Nearness.ZONE: theirs.zone == ours.zone,
        wds.Nearness.SUBZONE: theirs.subzone == ours.subzone,
        wds.Nearness.NODE: (workload.cluster, workload.node) == (node.cluster, node.name),
    }
    return [shares[one] for one in wanted]


def _endpoints_of(
    workloads: Iterable[wds.WorkloadSlice], service: str, port: int
) -> Iterator[nodeslices.Endpoint]:
    for workload in workloads:
        targets = {one.number: one.target for one in dict(workload.services).get(service, ())}
        target = targets.get(port)
        if not target:
            continue
        for address in _usable(workload.addresses):
            yield nodeslices.Endpoint(
                address, target, identity_of(workload), max(1, workload.capacity)
            )


def identity_of(workload: wds.WorkloadSlice) -> SpiffeId | None:
    """Return who must answer at the end of a tunnel to a workload; None if it takes none."""
    return _identity(workload) if workload.takes_tunnels else None


def _identity(workload: wds.WorkloadSlice) -> SpiffeId:
    return SpiffeId(
        workload.trust_domain or DEFAULT_TRUST_DOMAIN,
        workload.namespace,
        workload.service_account or "default",
    )


# --- ways


def _plain(
    known: _Known,
) -> Callable[[reader.Reader, str, wds.ServiceSlice], Iterator[tuple[str, bool]]]:
    """Yield services to none of whose workloads a tunnel leads, and that have some."""

    def plain(
        read: reader.Reader, key: str, service: wds.ServiceSlice
    ) -> Iterator[tuple[str, bool]]:
        if _is_plain(service, read.lookup(known.by_service, key).values()):
            yield key, True

    return plain


def _is_plain(service: wds.ServiceSlice, workloads: Iterable[wds.WorkloadSlice]) -> bool:
    found = list(workloads)
    if service.waypoint is not None or not found:
        return False
    return all(identity_of(one) is None and one.addresses for one in found)


def _ways_to_services(
    known: _Known, plain: collections.Collection[str, bool]
) -> Callable[
    [reader.Reader, str, wds.ServiceSlice], Iterator[tuple[Place, nodeslices.ServiceWay]]
]:
    def ways(
        read: reader.Reader, key: str, service: wds.ServiceSlice
    ) -> Iterator[tuple[Place, nodeslices.ServiceWay]]:
        node = _node(read, known)
        if node is None or service.is_passed_through:
            return
        chain = _passed(service.waypoint) or nodeslices.Leading.TUNNELLED.value
        if read.get(plain, key) is not None:
            chain = nodeslices.Leading.PLAIN.value
        for address in _addresses(service, node):
            for port in service.ports:
                way = nodeslices.ServiceWay(address, port.number, chain)
                yield (address, port.number), way

    return ways


def _addresses(service: wds.ServiceSlice, node: nodeslices.Node) -> Iterator[str]:
    """Yield the addresses by which pods of a node call a service."""
    return _usable(one.address for one in service.addresses if _is_near(one.network, node))


def _ways_to_workloads(
    known: _Known,
) -> Callable[
    [reader.Reader, str, wds.WorkloadSlice], Iterator[tuple[str, nodeslices.WorkloadWay]]
]:
    def ways(
        read: reader.Reader, _: str, workload: wds.WorkloadSlice
    ) -> Iterator[tuple[str, nodeslices.WorkloadWay]]:
        node, identity = _node(read, known), identity_of(workload)
        if node is None or identity is None or not _is_near(workload.network, node):
            return
        if not workload.uses_host_network:
            passed = _passed(workload.waypoint)
            for address in _usable(workload.addresses):
                yield address, nodeslices.WorkloadWay(address, identity, passed)

    return ways


def _passed(waypoint: wds.GatewayAddress | None) -> str:
    """Return the cluster of a waypoint; one that is not told by its host is one that is not there."""
    if waypoint is None:
        return ""
    return waypoint_name("/".join(waypoint.host or ()))


def _ways(
    to_services: collections.Collection[Place, nodeslices.ServiceWay],
    to_workloads: collections.Collection[str, nodeslices.WorkloadWay],
) -> Callable[[reader.Reader, str, nodeslices.Node], Sliced]:
    def sliced(read: reader.Reader, _: str, node: nodeslices.Node) -> Sliced:
        services = read.items(to_services).values()
        taken = {one.address for one in services}
        workloads = (one for one in read.items(to_workloads).values() if one.address not in taken)
        yield nodeslices.keyed(nodeslices.Ways(tuple(sorted(services)), node.access_log))
        yield nodeslices.keyed(nodeslices.OtherWays(tuple(sorted(workloads)), node.access_log))

    return sliced


# --- pods of the node


def _enrolled(
    known: _Known,
) -> Callable[
    [reader.Reader, str, nodeslices.PlacedPod], Iterator[tuple[str, nodeslices.EnrolledPod]]
]:
    def enrolled(
        read: reader.Reader, uid: str, placed: nodeslices.PlacedPod
    ) -> Iterator[tuple[str, nodeslices.EnrolledPod]]:
        workload = read.get(known.sources.workloads, placed.workload)
        if workload is None:
            # One that ends is told to be gone before it has gone: keep what it has until then.
            raise reader.KeepLast
        for address in itertools.islice(_usable(workload.addresses), 1):
            identity = _identity(workload)
            path = placed.namespace_path
            yield uid, nodeslices.EnrolledPod(uid, placed.workload, address, identity, path)

    return enrolled


def _listeners(
    known: _Known,
) -> Callable[[reader.Reader, str, nodeslices.EnrolledPod], Sliced]:
    def sliced(read: reader.Reader, _: str, pod: nodeslices.EnrolledPod) -> Sliced:
        node = _node(read, known)
        workload = read.get(known.sources.workloads, pod.workload)
        if node is None:
            return
        if workload is None:
            raise reader.KeepLast
        policies = _policies(read, known, workload)
        yield nodeslices.keyed(nodeslices.OutboundListener(pod))
        yield nodeslices.keyed(nodeslices.PlaintextListener(pod, policies, node.access_log))
        yield nodeslices.keyed(nodeslices.TunnelListener(pod, node.trust_domains, node.access_log))
        names = tuple(nodegateways.names_of(workload))
        yield nodeslices.keyed(nodeslices.TunnelRoutes(pod.uid, pod.address, names))
        for action in Action:
            held = tuple(one for one in policies if one.action is action)
            judged = nodeslices.TunnelPolicies(pod.uid, action, held, pod.address, names)
            yield nodeslices.keyed(judged)

    return sliced


def _policies(
    read: reader.Reader, known: _Known, workload: wds.WorkloadSlice
) -> tuple[wds.AuthorizationSlice, ...]:
    found = dict(read.lookup(known.by_reach, (wds.Reach.MESH, "")))
    found |= read.lookup(known.by_reach, (wds.Reach.NAMESPACE, workload.namespace))
    for name in workload.policies:
        policy = read.get(known.sources.policies, name)
        if policy is None:
            # It will come in a moment. What it says must not be guessed: keep what there is.
            raise reader.KeepLast
        found[name] = policy
    return tuple(policy for _, policy in sorted(found.items()))


# --- small questions


def _node(read: reader.Reader, known: _Known) -> nodeslices.Node | None:
    return next(iter(read.items(known.sources.nodes).values()), None)


def _is_near(network: NetworkId, node: nodeslices.Node) -> bool:
    """Say whether addresses of a network can be dialled; one without a name is any."""
    return network == node.network or not network or not node.network


def _usable(addresses: Iterable[str]) -> Iterator[str]:
    """Yield the addresses that pods can be called at: those of IPv4."""
    return (one for one in addresses if ipaddress.ip_address(one).version == IPV4)
