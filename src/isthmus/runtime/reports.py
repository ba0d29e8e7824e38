"""What the control plane knows, as plain documents for people and commands.

Shapes and names are those of Istio's debug pages, so that its users recognize them. No document
holds a key or a token. Who may see which page is not decided here.

Source: spec section 9.1.
"""

import dataclasses
import enum
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from isthmus.base import errors
from isthmus.ca import authority as authorities
from isthmus.fleet import statuses, supervisor
from isthmus.inject import settings as inject_settings
from isthmus.mesh.services import ServiceKey
from isthmus.mesh.workloads import Endpoint
from isthmus.runtime import assembly, connections, dumps, explaining, registration
from isthmus.wire import debugging, streams

Document = Any  # plain values that JSON can say


@dataclasses.dataclass(frozen=True, slots=True)
class Own:
    """What the control plane has besides the mesh: its own findings, settings and authority.

    Attributes:
        linked: Clusters that it hears of from their control planes.
        told: Control planes of other clusters that are told, and how far they have come.
    """

    findings: Callable[[], list[errors.Finding]] = list
    injection: Callable[[], inject_settings.InjectionSettings | None] = lambda: None
    authority: Callable[[], authorities.Authority | None] = lambda: None
    linked: Callable[[], list[Document]] = list
    ways: Callable[[], Document] = dict
    told: Callable[[], Document] = list


class Reports:
    """Answers debug requests from the state of this moment."""

    def __init__(
        self,
        mesh: assembly.Mesh,
        *,
        fleet: supervisor.Supervisor,
        proxies: connections.Connections,
        statuses: Callable[[], tuple[streams.StreamStatus, ...]],
        own: Own | None = None,
    ) -> None:
        self._mesh = mesh
        self._fleet = fleet
        self._proxies = proxies
        self._statuses = statuses
        self._own = own or Own()
        self._explainer = explaining.Explainer(mesh, authority=self._own.authority)

    def clusterz(self) -> Document:
        """Return the clusters, our own first, with the age of those that do not answer."""
        return [
            {
                "id": status.cluster,
                "secretName": status.secret,
                "syncStatus": status.status,
                "ageSeconds": round(status.age_s, 1) if status.known else None,
                "error": status.error,
                "generation": status.generation,
                "known": status.known,
                "fromSnapshot": status.recalled,
                "kubeconfigDigest": status.digest[: statuses.SHOWN_DIGITS],
                "tokenExpires": status.token_expires and status.token_expires.isoformat(),
            }
            for status in self._fleet.clusters()
        ] + self._own.linked()

    def syncz(self) -> Document:
        """Return what each proxy was sent and has accepted."""
        return streams.syncz(self._statuses())

    def connections(self) -> Document:
        """Return the connected proxies."""
        return streams.connections(self._statuses())

    def adsz(self) -> Document:
        """Return the connected proxies with all that they say of themselves and ask for."""
        return streams.adsz(self._statuses())

    def resourcesz(self) -> Document:
        """Return the names that any proxy is subscribed to."""
        return streams.resources(self._statuses())

    def registryz(self) -> Document:
        """Return all services, merged across clusters."""
        services = self._mesh.graph.items(self._mesh.model.services)
        return [_plain(service) for _, service in sorted(services.items())]

    def registration(self) -> Document:
        """Return all services with their instances, port by port."""
        graph, model = self._mesh.graph, self._mesh.model
        endpoints = graph.items(model.endpoints)
        return registration.listing(graph.items(model.services), endpoints)

    def endpointz(self) -> Document:
        """Return the endpoints of each service, by cluster."""
        endpoints = self._mesh.graph.items(self._mesh.model.endpoints)
        services = self._mesh.graph.items(self._mesh.model.services)
        return {
            services[key].hostname: {key.namespace: self._shards(key, found)}
            for key, found in sorted(endpoints.items())
            if key in services
        }

    def _shards(self, key: ServiceKey, endpoints: Iterable[Endpoint]) -> Document:
        shards: dict[str, list[Document]] = {}
        for endpoint in endpoints:
            shards.setdefault(f"Kubernetes/{endpoint.cluster}", []).append(_endpoint(endpoint))
        accounts = self._mesh.graph.get(self._mesh.model.accounts, key) or ()
        return {"Shards": shards, "ServiceAccounts": list(accounts)}

    def peerz(self) -> Document:
        """Return the control planes of linked clusters that are told, and what they apply."""
        return self._own.told()

    def probez(self) -> Document:
        """Return how far one gets from here to other clusters, found out a moment ago or soon."""
        return self._own.ways()

    def networkz(self) -> Document:
        """Return the gateways through which networks are reached."""
        return [
            {
                "Network": gateway.network,
                "Cluster": gateway.cluster,
                "Addr": gateway.address,
                "Port": gateway.port,
                "HBONEPort": gateway.hbone_port,
                "ServiceAccount": {"Namespace": "", "Name": ""},
                "Up": gateway.is_up,
            }
            for gateway in self._mesh.graph.value(self._mesh.model.network_gateways)
        ]

    def mesh(self) -> Document:
        """Return the mesh's settings by their names in MeshConfig."""
        settings = self._mesh.graph.value(self._mesh.model.settings)
        return {
            "accessLogFile": settings.access_log_path,
            "connectTimeout": f"{settings.connect_timeout_s:g}s",
            "enableAutoMtls": settings.auto_mtls,
            "outboundTrafficPolicy": {
                "mode": "ALLOW_ANY" if settings.allows_any_outbound else "REGISTRY_ONLY"
            },
            "rootNamespace": settings.root_namespace,
            "trustDomain": settings.trust_domain,
            "trustDomainAliases": list(settings.trust_domain_aliases),
            "acceptedTrustDomains": [
                bundle.domain
                for bundle in self._mesh.graph.value(self._mesh.model.trust.trusted).bundles
            ],
        }

    def inject(self) -> Document:
        """Return what the injector works with; empty while it has nothing."""
        found = self._own.injection()
        return {} if found is None else _plain(found)

    def authorizationz(self) -> Document:
        """Return the policies about callers, by namespace."""
        by_namespace: dict[str, list[Document]] = {}
        for policy in self._mesh.graph.items(self._mesh.model.authorization_policies).values():
            by_namespace.setdefault(policy.namespace, []).append(_plain(policy))
        root = self._mesh.graph.value(self._mesh.model.settings).root_namespace
        return {
            "authorization_policies": {
                "namespace_to_policies": dict(sorted(by_namespace.items())),
                "root_namespace": root,
            }
        }

    def instancesz(self) -> Document:
        """Return what each connected proxy serves, by the services' names."""
        graph, views = self._mesh.graph, self._mesh.views
        found: dict[str, list[Document]] = {}
        for proxy in self._proxies.proxies().values():
            served = views.facts.served_at(graph, proxy.cluster, proxy.address)
            found[f"{proxy.id}.{proxy.cluster}"] = [
                {
                    "service": f"{key.service.name}.{key.service.namespace}",
                    "port": one.service_port,
                    "targetPort": one.port,
                    "protocol": one.protocol.value,
                }
                for key, one in sorted(served.items())
            ]
        return dict(sorted(found.items()))

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
            "serviceEntries": [_plain(one) for one in graph.items(model.service_entries).values()],
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
            *self._own.findings(),
            *self._fleet.findings(),
            *self._mesh.graph.findings(),
            *self._mesh.graph.items(self._mesh.model.findings).values(),
            *self._mesh.graph.items(self._mesh.views.findings).values(),
        ]

    def page(self, name: str) -> Document:
        """Return one of the pages that are not about a single proxy."""
        empty: dict[str, Document] = {
            "ambientz": {"addresses": [], "policies": []},
            "cachez": [],
            "krtz": [],
            "mcsz": [],
            "push_status": {},
            "telemetryz": {},
        }
        if name in empty:
            return empty[name]
        return getattr(self, "endpointz" if name == "endpointShardz" else name)()

    def page_of(
        self, name: str, proxy: str, query: Mapping[str, str], viewer: debugging.Viewer
    ) -> Document | None:
        """Return a page about one proxy; None when it is not here, or not for this viewer.

        Raises:
            ProxyAmbiguous: Several clusters have a proxy of this name (ISM-WIRE-004).
            CallNotUnderstood: A call to be explained leads nowhere (ISM-VIEW-020).
        """
        key = self._one(proxy, viewer)
        if key is None:
            return None
        found = self._proxies.snapshot_of(key)
        match name:
            case "config_dump":
                return dumps.config_dump(found, types=query.get("types", ""))
            case "edsz":
                return dumps.assignments(found)
            case "ndsz":
                return dumps.name_table(found)
            case "explain":
                scopes = self._proxies.scopes_of(key)
                proxy_ = self._proxies.proxies()[key]
                return self._explainer.explained(proxy_, scopes, call=query.get("host", ""))
            case _:
                return []

    def _one(self, name: str, viewer: debugging.Viewer) -> str | None:
        proxies = self._proxies.proxies()
        found = {
            cluster: key
            for cluster, key in self._proxies.named(name).items()
            if viewer.may_see(cluster=cluster, namespace=proxies[key].namespace)
        }
        if len(found) > 1:
            full = [f"{proxies[key].id}.{cluster}" for cluster, key in sorted(found.items())]
            raise debugging.ProxyAmbiguous(
                f"{len(found)} clusters have a proxy `{name}`",
                detail="\n".join(full),
                hint="name the cluster, too: <pod>.<namespace>.<cluster>",
            )
        return next(iter(found.values()), None)


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
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, tuple | list | frozenset):
        return [_plain(part) for part in value]
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    return str(value)
