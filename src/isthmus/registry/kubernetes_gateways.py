"""Gateways of the Gateway API, as what the rest of the house knows already.

Each of its listeners becomes a gateway that its own pods alone serve, those of its namespace that
bear its name, called `<gateway>~<listener>`, as no object can be called. What leads through it becomes
routes that no other gateway can bind, nor anybody else bind to it.

Source: spec sections 7.6 and 7.7.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from isthmus.engine import collections, graph, reader
from isthmus.fleet import sources
from isthmus.gateways import listeners, workloads
from isthmus.kube import gateway_api
from isthmus.mesh import gateway_classes, peering, policies
from isthmus.mesh.identities import TrustDomain
from isthmus.registry import checked, http_routes, mesh_routes, settings

CONTROL_PLANE_PORT: Final = 15012
Key = sources.ObjectKey


@dataclass(frozen=True, slots=True)
class Nodes:
    """What this module declares."""

    gateways: collections.Collection[Key, policies.Gateway]
    virtual_services: collections.Collection[Key, policies.VirtualService]
    findings: checked.Findings


def declare(
    graph_: graph.Graph,
    sources_: sources.Sources,
    *,
    seat: settings.Seat,
    trust_domain: collections.Single[TrustDomain],
) -> Nodes:
    """Declare the gateways and their routes in `graph_`."""
    routes = http_routes.declare(graph_, sources_, seat=seat)

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
        for gateway in gateways_of(found, behaviour) if behaviour is not None else ():
            yield Key(key.cluster, key.namespace, gateway.name), gateway

    def leading(
        read: reader.Reader, key: Key, found: gateway_api.Gateway
    ) -> Iterable[tuple[Key, policies.VirtualService]]:
        behaviour = behaviour_of(read, key, found)
        if behaviour is None:
            return
        attached = sorted(read.lookup(routes.by_gateway, key).items())
        hosts = http_routes.hosts_at(read, sources_, found, behaviour, attached)
        for virtual in (
            *exposed(found, behaviour, seat=seat, trust_domain=read.value(trust_domain)),
            *http_routes.virtuals_of(hosts, namespace=key.namespace, gateway_name=key.name),
        ):
            yield Key(key.cluster, key.namespace, virtual.name), virtual

    gateways_ = sources_.kubernetes_gateways
    within = mesh_routes.declare(graph_, sources_, routes.values, seat=seat)
    at_gateways = graph_.derive("kubernetes_gateways.routes", gateways_, leading)
    return Nodes(
        gateways=graph_.derive("kubernetes_gateways", gateways_, meant),
        virtual_services=graph_.join("kubernetes_routes", at_gateways, within),
        findings=routes.findings,
    )


def gateways_of(
    found: gateway_api.Gateway, behaviour: gateway_classes.Behaviour
) -> Iterator[policies.Gateway]:
    """Yield what a Gateway asks of its pods, a gateway for each listener that is served."""
    if behaviour is gateway_classes.WAYPOINT or workloads.fault_of(found, behaviour)[1]:
        # Waypoints are configured by the services that want them, not by their listeners.
        return
    for one in listeners.judged(found, behaviour):
        if one.is_served:
            yield policies.Gateway(
                namespace=found.metadata.namespace,
                name=name_of(found, one.listener),
                selector=((gateway_classes.NAME_LABEL, found.metadata.name),),
                servers=(_server(one.listener),),
                is_kubernetes=True,
            )


def name_of(found: gateway_api.Gateway, listener: gateway_api.Listener) -> str:
    """Return how what is made of a listener is called."""
    return f"{found.metadata.name}~{listener.name}"


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
    found: gateway_api.Gateway,
    behaviour: gateway_classes.Behaviour,
    *,
    seat: settings.Seat,
    trust_domain: TrustDomain,
) -> Iterator[policies.VirtualService]:
    """Yield what leads to the control plane, where a listener shall.

    Control planes of other clusters ask for it by a name of its own, and find another port.
    """
    revision = "" if seat.revision in {"", "default"} else f"-{seat.revision}"
    host = f"istiod{revision}.{seat.system_namespace}.svc.{seat.domain}"
    destination = policies.Destination(host, port=CONTROL_PLANE_PORT)
    own = peering.server_name(seat.cluster, trust_domain=trust_domain)
    told = policies.Destination(host, port=peering.TELLING_PORT)
    for one in listeners.judged(found, behaviour):
        if one.is_served and one.listener.protocol == "TLS":
            name = name_of(found, one.listener)
            yield policies.VirtualService(
                namespace=found.metadata.namespace,
                name=name,
                hosts=("*",),
                gateways=(f"{found.metadata.namespace}/{name}",),
                tls=(
                    *(
                        (policies.SniRoute(one.listener.port, (own,), (told,)),)
                        if seat.is_linked
                        else ()
                    ),
                    policies.SniRoute(one.listener.port, ("*",), (destination,)),
                ),
                is_kubernetes=True,
            )
