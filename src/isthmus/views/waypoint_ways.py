"""Ways from a waypoint to pods of its services in other networks: through these networks' gateways.

Nobody here knows such a pod. The gateway ends an outer tunnel and passes the inner one on to one of
its choice, or to the waypoint there, which must prove an identity of the service; both tunnels ask
for the service by name. They are ways for calls that no pod of the own network can answer.

Source: spec section 7.4.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from isthmus.engine import reader
from isthmus.mesh.identities import NetworkId, SpiffeId
from isthmus.mesh.localities import NOWHERE
from isthmus.mesh.networks import NetworkGateway
from isthmus.mesh.services import Service
from isthmus.views import (
    addresses,
    ambient_networks,
    facts,
    names,
    outbound,
    view,
    waypoint_uses,
)

Sliced = Iterator[tuple[view.SliceKey, view.Slice]]
VERSION: Final = "latest"


def baggage_of(scope: view.WaypointScope) -> str:
    """Return what is told at the end of tunnels of whose they are, for telemetry."""
    said = {
        "k8s.cluster.name": scope.cluster,
        "k8s.namespace.name": scope.namespace,
        "k8s.deployment.name": scope.gateway,
        "service.name": scope.gateway,
        "service.version": VERSION,
    }
    return ",".join(f"{key}={value}" for key, value in said.items() if value)


def gateways_of(
    read: reader.Reader, known: facts.Facts, scope: view.WaypointScope
) -> Mapping[NetworkId, NetworkGateway]:
    """Return the gateways of other networks that end tunnels and can prove who they are."""
    found = read.value(known.model.network_gateways)
    doors = addresses.doors(
        one for one in found if addresses.is_address(one.address) and one.service_account
    )
    return {network: one for network, one in doors.items() if network != scope.network}


def beyond(
    read: reader.Reader, known: facts.Facts, scope: view.WaypointScope, service: Service
) -> tuple[view.waypoints.Beyond, ...]:
    """Return the gateways through which pods of a service are reached, weighed by these."""
    sharing = read.get(known.model.for_nodes.sharing, service.key)
    if service.entry is not None or sharing is None or not sharing.givers or not scope.network:
        return ()
    doors = gateways_of(read, known, scope)
    if not doors:
        return ()
    seen = ambient_networks.seen_of(read, known, service)
    found = []
    for network, there in ambient_networks.behind(seen, sharing, scope).items():
        count = sum(count for one in there for _, count in one.pods.values())
        door = doors.get(network)
        if door is not None and count:
            identity = str(_identity(read, known, door))
            found.append(
                view.waypoints.Beyond(door.address, door.hbone_port, identity, max(1, count))
            )
    return tuple(sorted(found))


def onward(
    read: reader.Reader,
    known: facts.Facts,
    scope: view.WaypointScope,
    service: Service,
) -> Sliced:
    """Yield what makes the tunnels for each port of a service, if any lead to other networks."""
    through = beyond(read, known, scope, service)
    sharing = read.get(known.model.for_nodes.sharing, service.key)
    if not through or sharing is None:
        return
    others = sharing.owners - {scope.cluster}
    proofs = {
        *known.accounts_of(read, service.key),
        *waypoint_uses.identities_of(read, known, service, others),
    }
    settings = read.value(known.model.settings)
    for port in outbound.ports_of(service):
        name = names.onward(service.hostname, port=port.number)
        authority = f"{service.hostname}:{port.number}"
        yield view.keyed(
            scope,
            view.waypoints.Onward(
                name, authority, scope.network, baggage_of(scope), settings.access_log_path
            ),
        )
        yield view.keyed(
            scope,
            view.waypoints.OnwardCluster(
                name, authority, tuple(sorted(proofs)), through, settings.lists_domains
            ),
        )


def with_others(
    slice_: view.EndpointsSlice, service: Service, *, weight: int
) -> view.EndpointsSlice:
    """Return endpoints with the way to other networks after them, where it leads to the same."""
    for port in outbound.ports_of(service):
        if slice_.cluster_name == names.outbound(service.hostname, port=port.number):
            name = names.onward(service.hostname, port=port.number)
            way = view.LbEndpoint(name, port.number, weight, tunnel_end=view.waypoints.INSIDE)
            last = max((group.priority for group in slice_.groups), default=-1) + 1
            far = view.LocalityGroup(NOWHERE, weight, (way,), last)
            return view.EndpointsSlice(slice_.cluster_name, (*slice_.groups, far))
    return slice_


def _identity(read: reader.Reader, known: facts.Facts, gateway: NetworkGateway) -> SpiffeId:
    own = gateway.trust_domain or read.get(known.model.trust.domains, gateway.cluster)
    domain = own or read.value(known.model.settings).trust_domain
    return SpiffeId(domain, gateway.namespace, gateway.service_account)
