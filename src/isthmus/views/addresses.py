"""What node proxies are told of one pod, of one service, and of what stands behind a gateway.

Source: spec sections 7.1, 7.3 and 7.5.
"""

import dataclasses
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from isthmus.mesh.ambient import LooseEndpoint, Membership, PlacedAddress, Traits
from isthmus.mesh.identities import NetworkId
from isthmus.mesh.localities import Locality
from isthmus.mesh.networks import HBONE_PORT, NetworkGateway
from isthmus.mesh.services import Protocol, Resolution, Service
from isthmus.mesh.workloads import Workload
from isthmus.views.wds import (
    AddressPort,
    GatewayAddress,
    Nearness,
    NetworkAddress,
    ServiceSlice,
    WorkloadSlice,
)

NEARNESS: Final = {
    "topology.istio.io/network": Nearness.NETWORK,
    "topology.kubernetes.io/region": Nearness.REGION,
    "topology.kubernetes.io/zone": Nearness.ZONE,
    "topology.istio.io/subzone": Nearness.SUBZONE,
    "kubernetes.io/hostname": Nearness.NODE,
    "topology.istio.io/cluster": Nearness.CLUSTER,
}

OWN_NAMESPACE, NOWHERE = ".", "~"

Answers = Sequence[tuple[Service, Membership]]
Ports = tuple[AddressPort, ...]


def is_address(text: str) -> bool:
    """Say whether a text is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


# --- workloads


def workload_of(
    workload: Workload,
    traits: Traits,
    *,
    answers: Answers,
    policies: tuple[str, ...],
    waypoint: GatewayAddress | None = None,
) -> WorkloadSlice:
    """Return a pod as node proxies know it; `answers` are the services for which it does."""
    key = workload.key
    services = dict[str, Ports]()
    for service, membership in answers:
        name = name_of(service)
        services[name] = tuple(
            dict.fromkeys((*services.get(name, ()), *_own_ports(service, membership.ports)))
        )
    return WorkloadSlice(
        uid=f"{key.cluster}//Pod/{key.namespace}/{key.name}",
        name=key.name,
        namespace=key.namespace,
        cluster=key.cluster,
        network=workload.network,
        addresses=workload.addresses,
        service_account=workload.service_account,
        trust_domain=traits.trust_domain,
        takes_tunnels=workload.accepts_tunnels,
        is_tunnel_end=traits.is_tunnel_end,
        node=workload.node,
        locality=workload.locality,
        owner=traits.owner,
        workload=traits.workload,
        canonical_name=traits.canonical_name,
        canonical_revision=traits.canonical_revision,
        services=tuple(sorted(services.items())),
        policies=policies,
        is_healthy=all(one.is_ready for _, one in answers)
        and not (workload.is_terminating or workload.awaits_proxy),
        uses_host_network=traits.uses_host_network,
        waypoint=waypoint,
    )


def with_services(slice_: WorkloadSlice, more: Mapping[str, Ports]) -> WorkloadSlice:
    """Return a workload that answers for more services."""
    if not more:
        return slice_
    return dataclasses.replace(
        slice_, services=tuple(sorted({**more, **dict(slice_.services)}.items()))
    )


def loose_workload_of(endpoint: LooseEndpoint, services: Sequence[Service]) -> WorkloadSlice:
    """Return an address that is no pod's, as node proxies know it."""
    return WorkloadSlice(
        uid=endpoint.uid,
        name=endpoint.uid.rpartition("/EndpointSlice/")[2].split("/")[1],
        namespace=endpoint.service.namespace,
        cluster=endpoint.cluster,
        network=endpoint.network,
        addresses=(endpoint.address,),
        node=endpoint.node,
        locality=endpoint.locality,
        services=tuple((name_of(one), tuple(_own_ports(one, endpoint.ports))) for one in services),
        is_healthy=endpoint.is_ready,
    )


def _own_ports(service: Service, ports: Iterable[tuple[str, int]]) -> Iterable[AddressPort]:
    targets = dict(ports)
    for port in service.ports:
        if port.protocol is not Protocol.UDP and port.name in targets:
            yield AddressPort(port.number, targets[port.name], port.protocol)


# --- services


def name_of(service: Service) -> str:
    """Return the name of a service's resource."""
    return f"{service.key.namespace}/{service.hostname}"


def service_of(
    service: Service,
    *,
    addresses: Iterable[PlacedAddress],
    sans: tuple[str, ...] = (),
    waypoint: GatewayAddress | None = None,
) -> ServiceSlice | None:
    """Return a service as node proxies know it; None for other names and what is hidden."""
    is_hidden = service.export_to == (NOWHERE,)
    if service.resolution is Resolution.ALIAS or is_hidden:
        return None
    known = {NetworkAddress(one.network, one.address) for one in addresses}
    return ServiceSlice(
        name=service.key.name,
        namespace=service.key.namespace,
        host=str(service.hostname),
        addresses=tuple(sorted(known)),
        ports=_service_ports(service),
        sans=sans,
        nearness=(Nearness.NODE,)
        if service.keeps_to_node
        else tuple(NEARNESS[label] for label in service.nearness if label in NEARNESS),
        is_strict=service.keeps_to_node,
        takes_unready=service.publishes_not_ready,
        is_canonical=True,
        is_passed_through=service.resolution is Resolution.NONE,
        is_private=service.export_to == (OWN_NAMESPACE,),
        waypoint=waypoint,
    )


def _service_ports(service: Service) -> Ports:
    return tuple(
        AddressPort(port.number, 0, port.protocol)
        for port in service.ports
        if port.protocol is not Protocol.UDP
    )


def waypoint_of(service: Service) -> GatewayAddress:
    """Return where a waypoint is found: by its host, since its address may be another elsewhere."""
    return GatewayAddress(HBONE_PORT, host=(service.key.namespace, str(service.hostname)))


# --- other networks


def gateway_name(gateway: NetworkGateway) -> str:
    """Return the name of the resource that stands for a gateway."""
    return f"NetworkGateway/{gateway.network}/{gateway.address}/{gateway.hbone_port}"


def gateway_workload_of(gateway: NetworkGateway) -> WorkloadSlice:
    """Return a gateway as the workload whose identity ends the outer tunnels."""
    name = gateway_name(gateway)
    return WorkloadSlice(
        uid=name,
        name=name,
        namespace=gateway.namespace,
        cluster=gateway.cluster,
        network=gateway.network,
        addresses=(gateway.address,),
        service_account=gateway.service_account,
        trust_domain=gateway.trust_domain,
        takes_tunnels=True,
    )


def hidden_of(
    service: Service, gateway: NetworkGateway, *, capacity: int, place: Locality
) -> WorkloadSlice:
    """Return what stands for all of a service's workloads behind a gateway."""
    name = f"{gateway.network}/SplitHorizonWorkload/{gateway_name(gateway)}/{name_of(service)}"
    where = NetworkAddress(gateway.network, gateway.address)
    ports = tuple(
        AddressPort(one.number, one.number, one.protocol) for one in _service_ports(service)
    )
    return WorkloadSlice(
        uid=name,
        name=name,
        namespace=service.key.namespace,
        cluster=gateway.cluster,
        network=gateway.network,
        takes_tunnels=True,
        services=((name_of(service), ports),),
        gateway=GatewayAddress(gateway.hbone_port, address=where),
        capacity=capacity,
        locality=place,
    )


def doors(gateways: Iterable[NetworkGateway]) -> Mapping[NetworkId, NetworkGateway]:
    """Return the gateway through which each network is reached by tunnels: the first that is up."""
    found = dict[NetworkId, NetworkGateway]()
    for gateway in sorted(gateways, key=lambda one: (not one.is_up, one)):
        if gateway.hbone_port:
            found.setdefault(gateway.network, gateway)
    return found
