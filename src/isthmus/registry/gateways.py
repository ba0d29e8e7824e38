"""The gateways through which networks are reached from outside.

They are found by the network label on Services of any cluster, and named by the settings and by
links to other clusters. One that has no pod that is ready is down: what has another destination is
then sent there at once, instead of being refused first or, behind many load balancers, waiting for
an answer in vain.

Source: spec sections 3.2 and 3.3.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from isthmus.base import errors
from isthmus.engine import collections, graph, reader
from isthmus.fleet import sources
from isthmus.kube import objects
from isthmus.mesh import peering
from isthmus.mesh.identities import ClusterId, NetworkId
from isthmus.mesh.networks import HBONE_PORT, MTLS_PORT, NetworkGateway
from isthmus.mesh.services import key_of
from isthmus.mesh.settings import ConfiguredGateway, NetworkMember
from isthmus.mesh.workloads import WorkloadKey
from isthmus.registry import addresses, checked, endpoints, links, naming, settings, topology

PORT_LABEL: Final = "networking.istio.io/gatewayPort"
GATEWAY_UNUSABLE: Final = "ISM-REG-012"
MOST_PORT: Final = 65535

Gateways = tuple[NetworkGateway, ...]


@dataclass(frozen=True, slots=True)
class Nodes:
    """What this module declares."""

    gateways: collections.Single[Gateways]
    findings: checked.Findings


@dataclass(frozen=True, slots=True)
class Known:
    """What gateways are found by, besides the Services themselves."""

    seat: settings.Seat
    settings: settings.Nodes
    workloads: endpoints.Workloads
    shards: endpoints.Shards
    links: links.Links


def declare(graph_: graph.Graph, sources_: sources.Sources, known: Known) -> Nodes:
    """Declare the gateways of all networks in `graph_`."""

    def check(
        read: reader.Reader, key: sources.ObjectKey, service: objects.Service
    ) -> Iterable[tuple[sources.ObjectKey, checked.Checked[Gateways]]]:
        if service.metadata.label(topology.NETWORK_LABEL):
            account = account_of(
                read, key, _slices(read, key, sources_, known.shards), workloads=known.workloads
            )
            yield key, gateways_of(key, service, is_down=is_down(read, key), account=account)

    def is_down(read: reader.Reader, key: sources.ObjectKey) -> bool:
        return nobody_is_ready(_slices(read, key, sources_, known.shards))

    both = graph_.derive("network_gateways.checked", sources_.services, check)
    labelled = checked.values_of(graph_, "network_gateways.labelled", both)

    def all_gateways(read: reader.Reader) -> Gateways:
        found = {gateway for some in read.items(labelled).values() for gateway in some}
        for gateway in read.value(known.settings.gateways):
            if gateway.address:
                place = (gateway.network, ClusterId(""), gateway.address, gateway.port)
                found.add(NetworkGateway(*place, is_up=gateway.is_known))
            else:
                found.update(named_gateways(read, gateway))
        found.update(linked(read.items(known.links).values()))
        return tuple(sorted(found))

    def named_gateways(read: reader.Reader, gateway: ConfiguredGateway) -> Iterable[NetworkGateway]:
        named = naming.split_host(gateway.registry_service_name, domain=known.seat.domain)
        members = read.value(known.settings.members) if named else ()
        for cluster in _clusters_of(gateway.network, members):
            name, namespace = named or ("", "")
            key = sources.ObjectKey(cluster, namespace, name)
            service = read.get(sources_.services, key)
            is_up = not is_down(read, key)
            for address in reachable(service) if service else ():
                yield NetworkGateway(gateway.network, cluster, address, gateway.port, is_up=is_up)

    return Nodes(
        gateways=graph_.single("network_gateways", all_gateways),
        findings=checked.findings_of(graph_, "network_gateways", both),
    )


def _slices(
    read: reader.Reader,
    key: sources.ObjectKey,
    sources_: sources.Sources,
    shards: endpoints.Shards,
) -> Iterable[objects.EndpointSlice]:
    """Yield the slices of a Service."""
    for one in read.lookup(shards, key_of(key.namespace, key.name)):
        found = read.get(sources_.endpoint_slices, one) if one.cluster == key.cluster else None
        if found is not None:
            yield found


def linked(found: Iterable[peering.Link]) -> Iterable[NetworkGateway]:
    """Yield the gateways of linked clusters, through which tunnels lead and nothing else."""
    for link in found:
        for address in link.addresses if link.tunnel_port else ():
            yield NetworkGateway(
                link.behind,
                link.peer,
                address,
                port=0,
                hbone_port=link.tunnel_port,
                namespace=link.namespace,
                service_account=link.service_account,
                trust_domain=link.trust_domain,
            )


def account_of(
    read: reader.Reader,
    key: sources.ObjectKey,
    slices: Iterable[objects.EndpointSlice],
    *,
    workloads: endpoints.Workloads,
) -> str:
    """Return the account of the pods behind a Service: of several the first by name."""
    names = {
        member.target_ref.name
        for slice_ in slices
        for member in slice_.endpoints or ()
        if member.target_ref is not None and member.target_ref.kind == "Pod"
    }
    pods = (WorkloadKey(key.cluster, key.namespace, name) for name in sorted(names))
    found = (read.get(workloads, pod) for pod in pods)
    return min((one.service_account for one in found if one is not None), default="")


def nobody_is_ready(slices: Iterable[objects.EndpointSlice]) -> bool:
    """Say whether a Service is known to have no endpoint that takes new connections.

    A Service without slices may be answered by something that its API server knows nothing of.
    """
    conditions = [[m.conditions for m in slice_.endpoints or ()] for slice_ in slices]
    return bool(conditions) and all(
        one.ready is False or one.terminating is True for some in conditions for one in some
    )


def gateways_of(
    key: sources.ObjectKey, service: objects.Service, *, is_down: bool = False, account: str = ""
) -> checked.Checked[Gateways]:
    """Return the gateways that a labelled Service stands for, and what is wrong with it."""
    network = NetworkId(service.metadata.label(topology.NETWORK_LABEL))
    problems: list[str] = []
    exposed = {port.port for port in service.spec.ports}
    wanted = _mtls_port(service, problems)
    mtls = wanted if wanted in exposed else 0
    hbone = HBONE_PORT if HBONE_PORT in exposed else 0
    if not mtls and not hbone:
        problems.append(f"exposes neither port {wanted} nor port {HBONE_PORT}")
    refused = [text for text in external(service) if addresses.fault_of_reachable(text)]
    if refused:
        problems.append(f"has an external address that cannot be sent to: `{refused[0][:64]}`")
    usable = reachable(service)
    if not usable and not refused:
        problems.append("has no external address yet")
    if is_down:
        problems.append("has no pod that is ready")
    found = tuple(
        NetworkGateway(
            network,
            key.cluster,
            address,
            mtls,
            hbone,
            is_up=not is_down,
            namespace=key.namespace,
            service_account=account,
        )
        for address in usable
        if mtls or hbone
    )
    return checked.Checked(found, tuple(_finding(key, network, text) for text in problems))


def external(service: objects.Service) -> tuple[str, ...]:
    """Return the external addresses of a Service as they are claimed, each once."""
    ingress = service.status.load_balancer.ingress if service.spec.type == "LoadBalancer" else ()
    claimed = (text for entry in ingress for text in (entry.ip, entry.hostname))
    return tuple(dict.fromkeys(text for text in (*claimed, *service.spec.external_ips) if text))


def reachable(service: objects.Service) -> tuple[str, ...]:
    """Return the external addresses of a Service that traffic may be sent to."""
    return tuple(text for text in external(service) if not addresses.fault_of_reachable(text))


def _clusters_of(network: NetworkId, members: tuple[NetworkMember, ...]) -> Iterable[ClusterId]:
    """Yield the clusters that belong to a network as a whole."""
    for member in members:
        if member.network == network and member.from_registry:
            yield ClusterId(member.from_registry)


def _mtls_port(service: objects.Service, problems: list[str]) -> int:
    text = service.metadata.label(PORT_LABEL)
    if not text:
        return MTLS_PORT
    if text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) <= MOST_PORT:
        return int(text)
    problems.append(f"has a label `{PORT_LABEL}` that is no port: `{text[:40]}`")
    return MTLS_PORT


def _finding(key: sources.ObjectKey, network: NetworkId, happened: str) -> errors.Finding:
    return errors.Finding(
        code=GATEWAY_UNUSABLE,
        subject=f"Service {key.namespace}/{key.name} in cluster `{key.cluster}`",
        happened=happened,
        still_working=(
            f"other gateways of network `{network}`; without any, its endpoints are told with "
            "their own addresses, which other networks may not reach"
        ),
        hint=f"it is labelled `{topology.NETWORK_LABEL}: {network}`, which makes it a gateway",
    )
