"""Workloads and services as `istio.workload.Address`.

What says the usual is left out, as node proxies expect it.

Source: spec sections 7.1 and 7.5.
"""

import ipaddress
from collections.abc import Iterable
from typing import Final

from google.protobuf import message

from isthmus.mesh.ambient import OwnerKind
from isthmus.mesh.localities import NOWHERE
from isthmus.mesh.services import Protocol
from isthmus.mesh.settings import DEFAULT_TRUST_DOMAIN
from isthmus.views import view
from isthmus_proto.istio.workload import workload_pb2 as wire

OWNERS: Final = {
    OwnerKind.DEPLOYMENT: wire.DEPLOYMENT,
    OwnerKind.CRONJOB: wire.CRONJOB,
    OwnerKind.POD: wire.POD,
    OwnerKind.JOB: wire.JOB,
}
PROTOCOLS: Final = {
    Protocol.HTTP: wire.HTTP11,
    Protocol.HTTP2: wire.HTTP2,
    Protocol.GRPC: wire.GRPC,
    Protocol.TCP: wire.TCP,
    Protocol.TLS: wire.TLS,
}
SCOPES: Final = {
    view.wds.Nearness.REGION: wire.LoadBalancing.REGION,
    view.wds.Nearness.ZONE: wire.LoadBalancing.ZONE,
    view.wds.Nearness.SUBZONE: wire.LoadBalancing.SUBZONE,
    view.wds.Nearness.NODE: wire.LoadBalancing.NODE,
    view.wds.Nearness.CLUSTER: wire.LoadBalancing.CLUSTER,
    view.wds.Nearness.NETWORK: wire.LoadBalancing.NETWORK,
}
IPV4_BYTES: Final = 4


def of_workload(slice_: view.wds.WorkloadSlice) -> message.Message:
    """Return the message that describes a workload."""
    domain = slice_.trust_domain
    said = wire.Workload(
        uid=slice_.uid,
        name=slice_.name,
        namespace=slice_.namespace,
        addresses=[packed(address) for address in slice_.addresses],
        hostname=slice_.hostname,
        network=slice_.network,
        tunnel_protocol=wire.HBONE if slice_.takes_tunnels else wire.NONE,
        trust_domain="" if domain == DEFAULT_TRUST_DOMAIN else domain,
        service_account=slice_.service_account,
        waypoint=_gateway(slice_.waypoint),
        network_gateway=_gateway(slice_.gateway),
        node=slice_.node,
        canonical_name=slice_.canonical_name,
        canonical_revision=slice_.canonical_revision,
        workload_type=OWNERS[slice_.owner],
        workload_name=slice_.workload,
        native_tunnel=slice_.is_tunnel_end,
        services={name: {"ports": _ports(ports)} for name, ports in slice_.services},
        authorization_policies=slice_.policies,
        status=wire.HEALTHY if slice_.is_healthy else wire.UNHEALTHY,
        cluster_id=slice_.cluster,
        network_mode=wire.HOST_NETWORK if slice_.uses_host_network else wire.STANDARD,
        locality=_locality(slice_),
        capacity=None if slice_.capacity == 1 else {"value": slice_.capacity},
    )
    result: message.Message = wire.Address(workload=said)
    return result


def of_service(slice_: view.wds.ServiceSlice) -> message.Message:
    """Return the message that describes a service."""
    said = wire.Service(
        name=slice_.name,
        namespace=slice_.namespace,
        hostname=slice_.host,
        addresses=[_network_address(one) for one in slice_.addresses],
        ports=_ports(slice_.ports),
        subject_alt_names=slice_.sans,
        waypoint=_gateway(slice_.waypoint),
        load_balancing=_balancing(slice_),
        ip_families=_families(slice_),
        canonical=slice_.is_canonical,
        visibility=wire.Service.NAMESPACE if slice_.is_private else wire.Service.PUBLIC,
    )
    result: message.Message = wire.Address(service=said)
    return result


def packed(address: str) -> bytes:
    """Return the bytes of an IP address."""
    return ipaddress.ip_address(address).packed


def _ports(ports: Iterable[view.wds.AddressPort]) -> list[dict[str, object]]:
    return [
        {
            "service_port": port.number,
            "target_port": port.target,
            "app_protocol": PROTOCOLS.get(port.protocol, wire.UNKNOWN),
        }
        for port in ports
    ]


def _network_address(one: view.wds.NetworkAddress) -> dict[str, object]:
    return {"network": one.network, "address": packed(one.address)}


def _gateway(gateway: view.wds.GatewayAddress | None) -> dict[str, object] | None:
    if gateway is None:
        return None
    if gateway.address is not None:
        where = {"address": _network_address(gateway.address)}
    else:
        namespace, host = gateway.host or ("", "")
        where = {"hostname": {"namespace": namespace, "hostname": host}}
    return {**where, "hbone_mtls_port": gateway.port}


def _locality(slice_: view.wds.WorkloadSlice) -> dict[str, str] | None:
    place = slice_.locality
    if place == NOWHERE:
        return None
    return {"region": place.region, "zone": place.zone, "subzone": place.subzone}


def _balancing(slice_: view.wds.ServiceSlice) -> dict[str, object] | None:
    modes = wire.LoadBalancing
    if slice_.is_passed_through:
        return {"mode": modes.PASSTHROUGH}
    if not slice_.nearness and not slice_.takes_unready:
        return None
    mode = modes.STRICT if slice_.is_strict else modes.FAILOVER
    return {
        "routing_preference": [SCOPES[one] for one in slice_.nearness],
        "mode": mode if slice_.nearness else modes.UNSPECIFIED_MODE,
        "health_policy": modes.ALLOW_ALL if slice_.takes_unready else modes.ONLY_HEALTHY,
    }


def _families(slice_: view.wds.ServiceSlice) -> int:
    sizes = {len(packed(one.address)) for one in slice_.addresses}
    if len(sizes) != 1:
        return int(wire.DUAL if sizes else wire.AUTOMATIC)
    return int(wire.IPV4_ONLY if sizes == {IPV4_BYTES} else wire.IPV6_ONLY)
