"""What leads through gateways of other networks: calls from this node's pods, and calls to them.

Who calls there knows the service and its gateway, no pod: the gateway ends an outer tunnel and passes
the inner one on to a pod of its choice, which must prove one of the service's identities. So both
tunnels ask for the service by name, and a pod answers to the names of its services. What nobody can
prove is not called: a service that tells no identities, a gateway that is not told of.

Source: spec sections 7.3 and 7.4.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from isthmus.engine import collections, reader
from isthmus.mesh.identities import SpiffeId
from isthmus.mesh.settings import DEFAULT_TRUST_DOMAIN
from isthmus.views import nodeslices, wds

Workloads = collections.Collection[str, wds.WorkloadSlice]

INNER: Final = "inner"


def inner_name(service: wds.ServiceSlice, port: int) -> str:
    """Return the name of what makes inner tunnels for a port of a service."""
    return f"{INNER}|{port}||{service.resource_name}"


def door_of(
    read: reader.Reader, workloads: Workloads, hidden: wds.WorkloadSlice
) -> nodeslices.Door | None:
    """Return the gateway before workloads of another network; None where nobody knows one."""
    gateway = hidden.gateway
    if hidden.addresses or gateway is None or gateway.address is None:
        return None
    where = gateway.address
    told = read.get(workloads, f"NetworkGateway/{where.network}/{where.address}/{gateway.port}")
    if told is None or not told.namespace or not told.service_account:
        return None
    identity = SpiffeId(
        told.trust_domain or DEFAULT_TRUST_DOMAIN, told.namespace, told.service_account
    )
    return nodeslices.Door(where.address, gateway.port, identity, max(1, hidden.capacity))


def inner(
    service: wds.ServiceSlice,
    port: int,
    doors: Sequence[nodeslices.Door],
    *,
    node: nodeslices.Node,
) -> Iterator[nodeslices.TunnelSlice]:
    """Yield what makes the tunnels for one port of a service."""
    name, authority = inner_name(service, port), f"{service.host}:{port}"
    yield nodeslices.InnerListener(name, authority, node.network, node.access_log)
    yield nodeslices.InnerCluster(name, tuple(sorted(service.sans)))
    yield nodeslices.Doors(name, authority, tuple(doors))


def names_of(workload: wds.WorkloadSlice) -> Iterator[nodeslices.TunnelName]:
    """Yield the names by which calls from other networks ask for a workload."""
    for service, ports in workload.services:
        host = service.partition("/")[2]
        if "*" not in host:
            for port in ports:
                if port.target:
                    yield nodeslices.TunnelName(f"{host}:{port.number}", port.target)
