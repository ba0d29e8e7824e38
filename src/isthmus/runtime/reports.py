"""What the control plane knows, as plain documents for people and commands.

Shapes and names are those of Istio's debug pages, so that its users recognize them. No document
holds a key or a token.

Source: spec section 9.1.
"""

import dataclasses
import enum
from collections.abc import Callable, Mapping
from typing import Any

from isthmus.base import errors
from isthmus.fleet import supervisor
from isthmus.mesh.services import ServiceKey
from isthmus.mesh.workloads import Endpoint
from isthmus.resources import snapshot
from isthmus.resources.envoy import shown
from isthmus.runtime import assembly, connections, registration
from isthmus.wire import ads, streams

Document = Any  # plain values that JSON can say


class Reports:
    """Answers debug requests from the state of this moment."""

    def __init__(
        self,
        mesh: assembly.Mesh,
        *,
        fleet: supervisor.Supervisor,
        proxies: connections.Connections,
        discovery: ads.Service,
        own_findings: Callable[[], list[errors.Finding]] = list,
    ) -> None:
        self._mesh = mesh
        self._fleet = fleet
        self._proxies = proxies
        self._discovery = discovery
        self._own_findings = own_findings

    def clusterz(self) -> Document:
        """Return the clusters, our own first, with the age of those that do not answer."""
        return [
            {
                "id": status.cluster,
                "secretName": status.secret,
                "syncStatus": status.status,
                "ageSeconds": round(status.age_s, 1),
                "error": status.error,
                "generation": status.generation,
            }
            for status in self._fleet.clusters()
        ]

    def syncz(self) -> Document:
        """Return what each proxy was sent and has accepted."""
        return streams.syncz(self._discovery.statuses())

    def connections(self) -> Document:
        """Return the connected proxies."""
        return streams.connections(self._discovery.statuses())

    def registryz(self) -> Document:
        """Return all services, merged across clusters."""
        services = self._mesh.graph.items(self._mesh.model.services)
        return [_plain(service) for _, service in sorted(services.items())]

    def registration(self) -> Document:
        """Return all services with their instances, port by port."""
        graph, model = self._mesh.graph, self._mesh.model
        return registration.listing(graph.items(model.services), graph.items(model.endpoints))

    def endpointz(self) -> Document:
        """Return the endpoints of each service, by cluster."""
        endpoints = self._mesh.graph.items(self._mesh.model.endpoints)
        services = self._mesh.graph.items(self._mesh.model.services)
        return {
            services[key].hostname: {key.namespace: self._shards(key, found)}
            for key, found in sorted(endpoints.items())
            if key in services
        }

    def _shards(self, key: ServiceKey, endpoints: tuple[Endpoint, ...]) -> Document:
        shards: dict[str, list[Document]] = {}
        for endpoint in endpoints:
            shards.setdefault(f"Kubernetes/{endpoint.cluster}", []).append(_endpoint(endpoint))
        accounts = self._mesh.graph.get(self._mesh.model.accounts, key) or ()
        return {"Shards": shards, "ServiceAccounts": list(accounts)}

    def networkz(self) -> Document:
        """Return the gateways through which networks are reached."""
        return [
            {
                "Network": gateway.network,
                "Cluster": gateway.cluster,
                "Addr": gateway.address,
                "Port": gateway.port,
                "HBONEPort": gateway.hbone_port,
                "Up": gateway.is_up,
            }
            for gateway in self._mesh.graph.value(self._mesh.model.network_gateways)
        ]

    def configz(self) -> Document:
        """Return the mesh's settings and the policies in force."""
        model, graph = self._mesh.model, self._mesh.graph
        return {
            "mesh": _plain(graph.value(model.settings)),
            "gateways": [_plain(one) for one in graph.items(model.gateways).values()],
            "virtualServices": [
                _plain(one) for one in graph.items(model.virtual_services).values()
            ],
            "destinationRules": [
                _plain(one) for one in graph.items(model.destination_rules).values()
            ],
            "authorizationPolicies": [
                _plain(one) for one in graph.items(model.authorization_policies).values()
            ],
            "peerAuthentications": [
                _plain(one) for one in graph.items(model.peer_authentications).values()
            ],
        }

    def findings(self) -> Document:
        """Return what is wrong with single objects, in all clusters."""
        return [_plain(finding) for finding in self._findings()]

    def _findings(self) -> list[errors.Finding]:
        return [
            *self._own_findings(),
            *self._fleet.findings(),
            *self._mesh.graph.findings(),
            *self._mesh.graph.items(self._mesh.model.findings).values(),
            *self._mesh.graph.items(self._mesh.views.findings).values(),
        ]

    def config_dump(self, proxy: str) -> Document | None:
        """Return what a proxy, `<pod>.<namespace>`, should have; None when it is not here."""
        found = self._proxies.snapshot_of(proxy)
        if found is None:
            return None
        return {
            type_url.rpartition(".")[2]: [
                shown.as_document(resource) for resource in found.of(type_url).values()
            ]
            for type_url in snapshot.PUSH_ORDER
        }

    def edsz(self, proxy: str) -> Document | None:
        """Return the endpoints that a proxy should have; None when it is not here."""
        found = self._proxies.snapshot_of(proxy)
        if found is None:
            return None
        endpoints = found.of(snapshot.ENDPOINTS)
        return [shown.as_document(endpoints[name]) for name in sorted(endpoints)]


def _endpoint(endpoint: Endpoint) -> Mapping[str, Document]:
    return {
        "Addresses": [endpoint.address],
        "ServicePortName": endpoint.port_name,
        "EndpointPort": endpoint.port,
        "Labels": dict(endpoint.labels),
        "Network": endpoint.network,
        "Locality": {"Label": str(endpoint.locality), "ClusterID": endpoint.cluster},
        "LbWeight": endpoint.weight,
        "TLSMode": "istio" if endpoint.accepts_mtls else "disabled",
        "ServiceAccount": endpoint.service_account,
        "WorkloadName": endpoint.workload,
        "Namespace": endpoint.namespace,
        "HealthStatus": endpoint.health.value,
    }


def _plain(value: object) -> Document:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, tuple | list | frozenset):
        return [_plain(part) for part in value]
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    return str(value)
