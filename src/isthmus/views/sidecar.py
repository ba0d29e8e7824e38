"""Which scopes a proxy sees. All proxies with equal scopes are told the same bytes.

Source: spec sections 3.1, 4.2 and 4.9.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from isthmus.mesh import gateway_classes
from isthmus.mesh.identities import ANYWHERE, NetworkId
from isthmus.mesh.localities import Locality
from isthmus.mesh.proxies import Proxy, ProxyKind
from isthmus.mesh.services import Protocol
from isthmus.mesh.workloads import Workload
from isthmus.views import facts, view

Labels = tuple[tuple[str, str], ...]

OF_NODES: Final = frozenset(
    {
        "kubernetes.io/hostname",
        "pod-template-hash",
        "topology.istio.io/subzone",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
    }
)
"""Labels that say where a workload happens to run: by them no policy selects it."""


@dataclass(frozen=True, slots=True)
class Distinctions:
    """By what proxies of one namespace, cluster and network may be told different things.

    Attributes:
        near: Labels of clients by which endpoints are near.
        routed: Those by which routes differ.
        selected: Those by which rules of the proxy's namespace differ.
        audiences: Lists of namespaces to which many services are exported.
    """

    near: frozenset[str] = frozenset()
    routed: frozenset[tuple[str, str]] = frozenset()
    selected: frozenset[tuple[str, str]] = frozenset()
    audiences: tuple[tuple[str, ...], ...] = ()


NONE: Final = Distinctions()


@dataclass(frozen=True, slots=True)
class _Standing:
    """Where a proxy stands; `labels` are those by which endpoints are near, None for none.

    `selected` are those by which rules of its namespace select clients.
    """

    wide: view.HorizonScope
    locality: Locality
    labels: Labels | None
    selected: Labels

    def scopes(self, namespace: str) -> Iterator[view.HorizonScope]:
        """Yield from where a proxy looks, the widest view first."""
        yield msgspec.structs.replace(self.wide, cluster=ANYWHERE)
        owners = [self.wide, msgspec.structs.replace(self.wide, namespace=namespace)]
        if self.selected:
            owners.append(msgspec.structs.replace(owners[-1], selected=self.selected))
        for one in owners:
            yield one
            yield msgspec.structs.replace(one, locality=self.locality)
            if self.labels is not None:
                yield msgspec.structs.replace(one, locality=self.locality, labels=self.labels)


def scopes_of(
    proxy: Proxy,
    *,
    workload: Workload | None,
    served: Mapping[facts.ServedKey, facts.Served],
    by: Distinctions = NONE,
) -> tuple[view.Scope, ...]:
    """Return what a proxy sees, from the general to the particular.

    `workload` is the pod as the registry knows it, whose word counts more than the proxy's,
    `served` are the ports that services declare at its address, and `by` says what else makes a
    difference.
    """
    network = workload.network if workload is not None else proxy.network
    said = workload.labels if workload is not None else proxy.labels
    labels = _lasting(said)
    standing = _Standing(
        view.HorizonScope(
            proxy.cluster,
            network,
            proxy.requested_networks,
            begins_tunnels=proxy.begins_tunnels,
            is_apart=proxy.hears_endpoints_apart,
        ),
        workload.locality if workload is not None else proxy.locality,
        tuple(sorted((key, value) for key, value in said if key in by.near)) if by.near else None,
        tuple(sorted(by.selected.intersection(said))),
    )
    match proxy.kind:
        case ProxyKind.SIDECAR:
            own = _outbound(
                proxy,
                network=network,
                labels=(by.routed | by.selected).intersection(said),
                audiences=tuple(one for one in by.audiences if proxy.namespace in one),
            )
            return (
                view.TrustScope(),
                *standing.scopes(proxy.namespace),
                _common(own),
                own,
                *_inbound(proxy, workload, labels=labels, served=served),
                *_of_names(proxy, network=network),
            )
        case ProxyKind.ROUTER:
            passed = _of_gateway(proxy, network=network, labels=labels, served=served)
            held = view.CredentialScope(proxy.cluster, proxy.namespace, proxy.service_account)
            return (view.TrustScope(), *standing.scopes(proxy.namespace), passed, held)
        case ProxyKind.ZTUNNEL:
            return (view.TrustScope(), view.NodesScope(proxy.cluster, network))
        case ProxyKind.WAYPOINT:
            gateway = dict(said).get(gateway_classes.NAME_LABEL, "")
            if not gateway:
                return ()
            return (
                view.TrustScope(),
                view.WaypointScope(proxy.cluster, network, proxy.namespace, gateway),
            )
        case _:
            return ()


def _naming(proxy: Proxy) -> view.Naming:
    if not proxy.captures_dns:
        return view.Naming.CLUSTER
    return view.Naming.ALLOCATED if proxy.allocates_addresses else view.Naming.CAPTURED


def _outbound(
    proxy: Proxy,
    *,
    network: NetworkId,
    labels: frozenset[tuple[str, str]],
    audiences: tuple[tuple[str, ...], ...],
) -> view.OutboundScope:
    return view.OutboundScope(
        proxy.cluster,
        network,
        proxy.namespace,
        proxy.requested_networks,
        naming=_naming(proxy),
        marks_sockets=proxy.marks_sockets,
        labels=tuple(sorted(labels)),
        begins_tunnels=proxy.begins_tunnels,
        audiences=audiences,
    )


def _common(own: view.OutboundScope) -> view.CommonScope:
    return view.CommonScope(
        own.network,
        own.requested_networks,
        own.audiences,
        marks_sockets=own.marks_sockets,
        begins_tunnels=own.begins_tunnels,
    )


def _inbound(
    proxy: Proxy,
    workload: Workload | None,
    *,
    labels: Labels,
    served: Mapping[facts.ServedKey, facts.Served],
) -> Iterator[view.Scope]:
    ports = _inbound_ports(served)
    yield view.InboundScope(proxy.namespace, labels, ports, ends_tunnels=proxy.ends_tunnels)
    if proxy.ends_tunnels:
        addresses = workload.addresses if workload is not None else (proxy.address,)
        yield view.TunnelScope(proxy.cluster, tuple(sorted(addresses)))


def _of_names(proxy: Proxy, *, network: NetworkId) -> tuple[view.Scope, ...]:
    if not proxy.captures_dns:
        return ()
    return (
        view.NamesScope(
            proxy.cluster,
            network,
            proxy.namespace,
            proxy.requested_networks,
            naming=_naming(proxy),
        ),
    )


def _of_gateway(
    proxy: Proxy,
    *,
    network: NetworkId,
    labels: Labels,
    served: Mapping[facts.ServedKey, facts.Served],
) -> view.GatewayScope:
    ports = dict[int, int]()
    for _, one in sorted(served.items(), key=lambda item: item[0]):
        ports.setdefault(one.service_port, one.port)
    return view.GatewayScope(
        proxy.cluster,
        network,
        proxy.namespace,
        labels,
        proxy.requested_networks,
        tuple(sorted(ports.items())),
        marks_sockets=proxy.marks_sockets,
        begins_tunnels=proxy.begins_tunnels,
    )


def _lasting(labels: Iterable[tuple[str, str]]) -> Labels:
    return tuple(sorted((key, value) for key, value in labels if key not in OF_NODES))


def _inbound_ports(
    served: Mapping[facts.ServedKey, facts.Served],
) -> tuple[tuple[int, Protocol], ...]:
    """Return what is spoken on each port; of services that disagree the first one's word."""
    ports = dict[int, Protocol]()
    for _, one in sorted(served.items(), key=lambda item: item[0]):
        ports.setdefault(one.port, one.protocol)
    return tuple(sorted(ports.items(), key=lambda item: item[0]))
