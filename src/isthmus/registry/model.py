"""The hand-over to `views`: one mesh, made of all clusters' objects.

It decides what exists and where, and knows nothing of proxies.

Source: docs/explanation/design.md; spec sections 2.4, 2.5, 3.1 to 3.3, 4.8, 4.9, 8.2 and 8.3.
"""

import dataclasses
from dataclasses import dataclass

from isthmus.engine import collections, graph
from isthmus.fleet import sources
from isthmus.fleet.sources import ObjectKey, Sources
from isthmus.mesh import policies
from isthmus.mesh.allocations import Ranges
from isthmus.mesh.authentication import RequestAuthentication
from isthmus.mesh.authorization import AuthorizationPolicy
from isthmus.mesh.entries import ServiceEntry
from isthmus.mesh.identities import ClusterId
from isthmus.mesh.networks import NetworkGateway
from isthmus.mesh.packs import Packs
from isthmus.mesh.services import Service, ServiceKey
from isthmus.mesh.settings import MeshSettings
from isthmus.mesh.workloads import Workload, WorkloadKey
from isthmus.registry import (
    accounts,
    ambient,
    authorization_policies,
    checked,
    config,
    declared,
    delegates,
    derived_services,
    destination_rules,
    endpoints,
    entries,
    exports,
    gateway_names,
    gateway_objects,
    gateways,
    imports,
    key_sets,
    kubernetes_gateways,
    links,
    peer_authentications,
    peers,
    recorded,
    request_authentications,
    scopes,
    service_entries,
    services,
    settings,
    source_clusters,
    topology,
    trust,
    virtual_services,
    workloads,
)
from isthmus.registry.ambient import Pods as Pods
from isthmus.registry.declared import Declared as Declared
from isthmus.registry.endpoints import Shards


@dataclass(frozen=True, slots=True)
class Model:
    """One mesh.

    Attributes:
        settings: From the configuration cluster; the last good ones while they are broken.
        trust: Who signs for whom, and which cluster has which trust domain.
        endpoints: Of each service in all clusters, sorted; for a service without any, empty.
        shards: What each EndpointSlice contributes, also what is not ready.
        declared: Ports of pods, in whatever state they are; one entry for each EndpointSlice.
        accounts: SPIFFE identities that answer for each service in all clusters, sorted.
        for_nodes: What only node proxies must know.
        network_gateways: Sorted, each once.
        gateway_names: Those that somebody should look up.
        looked_up: What those names lead to; filled from outside.
        key_sets: Keys of tokens that somebody should fetch, and those that were.
        peer_authentications: Of the configuration cluster, as all that follow.
        peers: What is between this cluster and those linked to it.
        recorded: Addresses of our making that services were given before.
        ranges: From where such addresses are given.
        findings: What is wrong with single objects.
    """

    settings: collections.Single[MeshSettings]
    trust: trust.Nodes
    services: collections.Collection[ServiceKey, Service]
    endpoints: collections.Collection[ServiceKey, Packs]
    declared: declared.Nodes
    shards: Shards
    accounts: collections.Collection[ServiceKey, tuple[str, ...]]
    workloads: collections.Collection[WorkloadKey, Workload]
    for_nodes: ambient.Nodes
    network_gateways: collections.Single[tuple[NetworkGateway, ...]]
    gateway_names: collections.Single[tuple[str, ...]]
    looked_up: collections.Source[str, tuple[str, ...]]
    key_sets: key_sets.Nodes
    peer_authentications: collections.Collection[ObjectKey, policies.PeerAuthentication]
    authorization_policies: collections.Collection[ObjectKey, AuthorizationPolicy]
    request_authentications: collections.Collection[ObjectKey, RequestAuthentication]
    gateways: collections.Collection[ObjectKey, policies.Gateway]
    virtual_services: collections.Collection[ObjectKey, policies.VirtualService]
    destination_rules: collections.Collection[ObjectKey, policies.DestinationRule]
    service_entries: collections.Collection[ObjectKey, ServiceEntry]
    peers: peers.Nodes
    recorded: recorded.Records
    ranges: Ranges
    findings: checked.Findings


def build(
    graph_: graph.Graph,
    sources_: Sources,
    *,
    config_cluster: ClusterId,
    revision: str = "",
    system_namespace: str = "istio-system",
    domain: str = "cluster.local",
) -> Model:
    """Declare the mesh in `graph_`.

    The configuration of `config_cluster` alone counts, and its Services come first.
    """
    return seated(
        graph_, sources_, seat=settings.Seat(config_cluster, system_namespace, revision, domain)
    )


def seated(graph_: graph.Graph, sources_: Sources, *, seat: settings.Seat) -> Model:
    """Declare the mesh that is configured at `seat`."""
    settings_ = settings.declare(graph_, sources_, seat=seat)
    places = topology.declare(graph_, sources_, seat=seat, members=settings_.members)
    workloads_ = workloads.declare(graph_, sources_, places=places)
    scopes_ = scopes.declare(graph_, sources_, seat=seat, settings_=settings_)
    links_ = links.declare(graph_, sources_, seat=seat, places=places, settings_=settings_)
    policies_ = _policies(graph_, sources_, seat, settings_, links_.links)
    imports_ = imports.declare(graph_, sources_, seat=seat, links_=links_.links)
    named = _Services(settings_, scopes_, imports_, policies_.service_entries.values)
    own, entries_, services_ = named.declare(graph_, sources_, seat)
    shards, more_ports = entries.declare_shards(
        graph_, entries_.owned, sources_, workloads=workloads_, places=places, seat=seat
    )
    told_of, ports = imports_.by_service, declared.declare(graph_, sources_, more=more_ports)
    of_pods = endpoints.Pods(workloads_, ports.by_address)
    endpoints_ = endpoints.declare(
        graph_, sources_, services=services_, pods=of_pods, places=places, others=shards
    )
    shared = ambient.Known(services_, workloads_, scopes_.by_name, told_of, places, settings_)
    nodes_ = ambient.declare(graph_, sources_, shared)
    told, all_ = accounts.Told(seat.cluster, nodes_.sharing, told_of), endpoints_.shards
    ids = accounts.declare(graph_, services=services_, shards=all_, told=told, settings_=settings_)
    placed = gateways.Known(seat, settings_, workloads_, all_, links_.links)
    gateways_ = gateways.declare(graph_, sources_, placed)
    names_ = gateway_names.declare(graph_, gateways=gateways_.gateways)
    own_ = exports.Known(services_, scopes_, endpoints_.shards, places, settings_, nodes_)
    peers_ = peers.declare(
        graph_, sources_, seat=seat, links_=links_, imports_=imports_, known=own_
    )
    found = [one.findings for one in (scopes_, own, entries_, endpoints_, gateways_, peers_)]
    return Model(
        settings=settings_.settings,
        trust=settings_.trust,
        services=services_,
        endpoints=endpoints_.endpoints,
        shards=endpoints_.shards,
        declared=ports,
        accounts=ids,
        workloads=workloads_,
        for_nodes=nodes_,
        network_gateways=names_.gateways,
        gateway_names=names_.names,
        looked_up=names_.looked_up,
        key_sets=policies_.keys,
        peer_authentications=policies_.peer_authentications.values,
        authorization_policies=policies_.authorization_policies.values,
        request_authentications=policies_.keys.values,
        gateways=policies_.all_gateways,
        virtual_services=policies_.all_virtual_services,
        destination_rules=policies_.destination_rules.values,
        service_entries=policies_.service_entries.values,
        peers=peers_,
        recorded=recorded.declare(graph_, sources_, seat=seat),
        ranges=seat.ranges,
        findings=graph_.join("findings", *settings_.findings, *found, *policies_.findings()),
    )


@dataclass(frozen=True, slots=True)
class _Services:
    settings_: settings.Nodes
    scopes_: scopes.Nodes
    imports_: imports.Nodes
    said: collections.Collection[ObjectKey, ServiceEntry]

    def declare(
        self, graph_: graph.Graph, sources_: Sources, seat: settings.Seat
    ) -> tuple[services.Nodes, entries.Nodes, collections.Collection[ServiceKey, Service]]:
        """Declare services of all kinds: of Kubernetes, shared, and of entries."""
        rules = self.settings_.locality_rules
        own = services.declare(
            graph_, sources_, seat=seat, locality_rules=rules, scopes_=self.scopes_
        )
        told = self.imports_
        derived = derived_services.declare(
            graph_, sources_, scopes_=self.scopes_, imports=told.imports, seat=seat
        )
        imported = derived_services.declare_imported(
            graph_,
            imports=told.imports,
            by_service=told.by_service,
            own=own.services,
            seat=seat,
        )
        of_kubernetes = graph_.join("services.of_kubernetes", own.services, imported, derived)
        entries_ = entries.declare(graph_, self.said, services=of_kubernetes, seat=seat)
        every = graph_.join("services.all", of_kubernetes, entries_.services)
        differing = derived_services.declare_differences(
            graph_, imports=told.imports, derived=derived
        )
        findings = graph_.join("services.all.findings", own.findings, differing)
        return dataclasses.replace(own, findings=findings), entries_, every


@dataclass(frozen=True, slots=True)
class _Policies:
    peer_authentications: config.Nodes[policies.PeerAuthentication]
    authorization_policies: config.Nodes[AuthorizationPolicy]
    request_authentications: config.Nodes[RequestAuthentication]
    keys: key_sets.Nodes
    gateways: config.Nodes[policies.Gateway]
    virtual_services: config.Nodes[policies.VirtualService]
    all_gateways: collections.Collection[ObjectKey, policies.Gateway]
    all_virtual_services: collections.Collection[ObjectKey, policies.VirtualService]
    of_routes: checked.Findings
    destination_rules: config.Nodes[policies.DestinationRule]
    service_entries: config.Nodes[ServiceEntry]

    def findings(self) -> tuple[checked.Findings, ...]:
        """Return what is wrong with objects of each kind."""
        return (
            self.peer_authentications.findings,
            self.authorization_policies.findings,
            self.request_authentications.findings,
            self.gateways.findings,
            self.virtual_services.findings,
            self.destination_rules.findings,
            self.service_entries.findings,
            self.of_routes,
        )


def _authorizations(
    graph_: graph.Graph, sources_: sources.Sources, seat: settings.Seat
) -> config.Nodes[AuthorizationPolicy]:
    return config.declare(
        graph_,
        "AuthorizationPolicy",
        sources_.authorization_policies,
        seat=seat,
        read=authorization_policies.read,
        used="nobody gets in who should not; other workloads are not touched",
    )


def _policies(
    graph_: graph.Graph,
    sources_: sources.Sources,
    seat: settings.Seat,
    settings_: settings.Nodes,
    links_: source_clusters.Links,
) -> _Policies:
    kubernetes = kubernetes_gateways.declare(
        graph_, sources_, seat=seat, trust_domain=settings_.trust_domain
    )
    gateways_ = config.declare(
        graph_, "Gateway", sources_.gateways, seat=seat, read=gateway_objects.read
    )
    virtuals = config.declare(
        graph_,
        "VirtualService",
        sources_.virtual_services,
        seat=seat,
        read=virtual_services.read,
    )
    whole = delegates.declare(graph_, virtuals.values)
    tokens = request_authentications.declare(graph_, sources_, seat=seat)
    return _Policies(
        peer_authentications=config.declare(
            graph_,
            "PeerAuthentication",
            sources_.peer_authentications,
            seat=seat,
            read=peer_authentications.read,
        ),
        authorization_policies=source_clusters.declare(
            graph_, _authorizations(graph_, sources_, seat), settings_=settings_, links=links_
        ),
        request_authentications=tokens,
        keys=key_sets.declare(graph_, tokens.values),
        gateways=gateways_,
        virtual_services=config.Nodes(
            whole.values,
            graph_.join("virtual_services.findings", virtuals.findings, whole.findings),
        ),
        all_gateways=graph_.join("gateways.all", gateways_.values, kubernetes.gateways),
        all_virtual_services=graph_.join(
            "virtual_services.all", whole.values, kubernetes.virtual_services
        ),
        of_routes=kubernetes.findings,
        destination_rules=config.declare(
            graph_,
            "DestinationRule",
            sources_.destination_rules,
            seat=seat,
            read=destination_rules.read,
        ),
        service_entries=config.declare(
            graph_,
            "ServiceEntry",
            sources_.service_entries,
            seat=seat,
            read=service_entries.read,
        ),
    )
