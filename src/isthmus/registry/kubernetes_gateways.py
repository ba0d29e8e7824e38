"""Gateways of the Gateway API, as what the rest of the house knows already.

Each becomes a gateway that its own pods alone serve, those of its namespace that bear its name, and
what leads through it becomes routes that no other gateway can bind, nor anybody else bind to it.

Source: spec sections 7.6 and 7.7.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from isthmus.engine import collections, graph, reader
from isthmus.fleet import sources
from isthmus.gateways import listeners, workloads
from isthmus.kube import gateway_api
from isthmus.mesh import gateway_classes, policies
from isthmus.registry import settings

MARK: Final = "~gateway-api"
"""Ends the names of what is made here, as no name of an object can."""

CONTROL_PLANE_PORT: Final = 15012
Key = sources.ObjectKey


@dataclass(frozen=True, slots=True)
class Nodes:
    """What this module declares."""

    gateways: collections.Collection[Key, policies.Gateway]
    virtual_services: collections.Collection[Key, policies.VirtualService]


def declare(graph_: graph.Graph, sources_: sources.Sources, *, seat: settings.Seat) -> Nodes:
    """Declare the gateways and their routes in `graph_`."""

    def behaviour_of(
        read: reader.Reader, key: Key, found: gateway_api.Gateway
    ) -> gateway_classes.Behaviour | None:
        revision = found.metadata.label(workloads.REVISION_LABEL) or "default"
        if key.cluster != seat.cluster or revision != (seat.revision or "default"):
            return None
        named = Key(key.cluster, "", found.spec.gateway_class_name)
        class_ = read.get(sources_.gateway_classes, named)
        if class_ is None:
            return None
        return gateway_classes.BY_CONTROLLER.get(class_.spec.controller_name)

    def meant(
        read: reader.Reader, key: Key, found: gateway_api.Gateway
    ) -> Iterable[tuple[Key, policies.Gateway]]:
        behaviour = behaviour_of(read, key, found)
        gateway = gateway_of(found, behaviour) if behaviour is not None else None
        if gateway is not None:
            yield marked(key), gateway

    def leading(
        read: reader.Reader, key: Key, found: gateway_api.Gateway
    ) -> Iterable[tuple[Key, policies.VirtualService]]:
        behaviour = behaviour_of(read, key, found)
        if behaviour is gateway_classes.EAST_WEST:
            for virtual in exposed(found, seat=seat):
                yield marked(key), virtual

    gateways_ = sources_.kubernetes_gateways
    return Nodes(
        gateways=graph_.derive("kubernetes_gateways", gateways_, meant),
        virtual_services=graph_.derive("kubernetes_gateways.exposed", gateways_, leading),
    )


def marked(key: Key) -> Key:
    """Return the key of what is made of an object."""
    return Key(key.cluster, key.namespace, f"{key.name}{MARK}")


def gateway_of(
    found: gateway_api.Gateway, behaviour: gateway_classes.Behaviour
) -> policies.Gateway | None:
    """Return what a Gateway asks of its pods; None if nothing can be served."""
    if workloads.fault_of(found, behaviour)[1]:
        return None
    servers = tuple(
        _server(one.listener) for one in listeners.judged(found, behaviour) if one.is_served
    )
    return policies.Gateway(
        namespace=found.metadata.namespace,
        name=f"{found.metadata.name}{MARK}",
        selector=((gateway_classes.NAME_LABEL, found.metadata.name),),
        servers=servers,
        is_kubernetes=True,
    )


def _server(listener: gateway_api.Listener) -> policies.GatewayServer:
    tls = policies.ServerTls.NONE
    if listener.protocol == "TLS":
        tls = policies.ServerTls.PASSTHROUGH
    elif listener.protocol == "HBONE":
        # Whatever the listener says of TLS is said of the inner tunnel; the outer one ends here.
        tls = policies.ServerTls.ISTIO_MUTUAL
    return policies.GatewayServer(
        port=listener.port,
        port_name=listener.name,
        protocol=listener.protocol,
        hosts=((listener.hostname or "*").lower(),),
        tls=tls,
    )


def exposed(
    found: gateway_api.Gateway, *, seat: settings.Seat
) -> Iterator[policies.VirtualService]:
    """Yield what leads to the control plane, if a Gateway shall."""
    port = listeners.exposed_port(found)
    if not port:
        return
    revision = "" if seat.revision in {"", "default"} else f"-{seat.revision}"
    host = f"istiod{revision}.{seat.system_namespace}.svc.{seat.domain}"
    name = f"{found.metadata.name}{MARK}"
    destination = policies.Destination(host, port=CONTROL_PLANE_PORT)
    yield policies.VirtualService(
        namespace=found.metadata.namespace,
        name=name,
        hosts=("*",),
        gateways=(f"{found.metadata.namespace}/{name}",),
        tls=(policies.SniRoute(port, ("*",), (destination,)),),
        is_kubernetes=True,
    )
