"""Addresses and ports for Services, chosen from what the stored Services leave free."""

import ipaddress
from collections.abc import Iterable

from isthmus.lab.apiserver import errors
from isthmus.lab.apiserver.values import Obj

_PORTS = range(30_000, 32_768)


def assign(service: Obj, *, others: Iterable[Obj], cidr: ipaddress.IPv4Network) -> None:
    """Give a Service its cluster address and node ports, in place; raises 422 when it cannot.

    Args:
        service: The Service to be stored, defaulted.
        others: All other Services.
        cidr: Where cluster addresses come from.
    """
    spec = service["spec"]
    found = [one.get("spec") or {} for one in others]
    if spec["type"] == "ExternalName":
        for field in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
            spec.pop(field, None)
        return
    _assign_ip(service, {ip for one in found for ip in one.get("clusterIPs") or ()}, cidr)
    if spec["type"] == "NodePort" or (
        spec["type"] == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts", True)
    ):
        _assign_ports(service, {p.get("nodePort") for one in found for p in one.get("ports") or ()})
    elif spec["type"] == "ClusterIP":
        for port in spec.get("ports") or ():
            port.pop("nodePort", None)


def _assign_ip(service: Obj, used: set[str], cidr: ipaddress.IPv4Network) -> None:
    spec = service["spec"]
    wanted = spec.get("clusterIP") or next(iter(spec.get("clusterIPs") or ()), "")
    if not wanted:
        wanted = _free(used, cidr)
    elif wanted != "None":
        _check(service, wanted, used, cidr)
    spec["clusterIP"] = wanted
    spec["clusterIPs"] = [wanted]
    spec.setdefault("ipFamilies", ["IPv4"])
    spec.setdefault("ipFamilyPolicy", "SingleStack")


def _free(used: set[str], cidr: ipaddress.IPv4Network) -> str:
    # The first addresses are left for those that are asked for by number, such as the DNS's.
    first = min(16, cidr.num_addresses // 4)
    for offset in range(first, cidr.num_addresses - 1):
        address = str(cidr[offset])
        if address not in used:
            return address
    raise errors.internal(f"failed to allocate a service IP: {cidr} is full")


def _check(service: Obj, wanted: str, used: set[str], cidr: ipaddress.IPv4Network) -> None:
    why = ""
    try:
        if ipaddress.ip_address(wanted) not in cidr:
            why = (
                f"failed to allocate IP {wanted}: the provided IP is not in the valid range {cidr}"
            )
    except ValueError:
        why = "must be a valid IP address"
    if wanted in used:
        why = f"failed to allocate IP {wanted}: provided IP is already allocated"
    if why:
        cause = errors.Cause("spec.clusterIPs", f'Invalid value: ["{wanted}"]: {why}')
        raise errors.invalid("Service", name=service["metadata"].get("name", ""), causes=[cause])


def _assign_ports(service: Obj, used: set[int | None]) -> None:
    for port in service["spec"].get("ports") or ():
        if not port.get("nodePort"):
            port["nodePort"] = next(one for one in _PORTS if one not in used)
        used.add(port["nodePort"])
