"""Builds meshes for tests, from the objects that real clusters would have.

A mesh is described in a few lines and goes through the real registry, views and resources. What
could not exist on real clusters is refused, so that no test passes on an impossible input.

    mesh = builders.Mesh()
    east = mesh.cluster("east", network="n1")
    east.service("reviews", ready=["10.0.0.1"])
    call = mesh.proxy("east/productpage").calls("http://reviews/")
"""

import contextlib
import ipaddress
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from isthmus.engine import collections, graph, transactions
from isthmus.fleet import sources
from isthmus.fleet.sources import ObjectKey
from isthmus.kube import objects, packed
from isthmus.mesh import trust
from isthmus.mesh.identities import ClusterId, NetworkId
from isthmus.mesh.proxies import Proxy, ProxyKind
from isthmus.registry import model
from isthmus.resources import building, snapshot
from isthmus.runtime import catalog
from isthmus.testing import shapes, simulate
from isthmus.testing.shapes import DEFAULT, ImpossibleMesh, Pod, Shape
from isthmus.views import compiler, view

SYSTEM: Final = "istio-system"
K = TypeVar("K")
V = TypeVar("V")

EAST_WEST: Final = {"istio": "eastwestgateway", "app": "istio-eastwestgateway"}
INGRESS: Final = {"istio": "ingressgateway", "app": "istio-ingressgateway"}
PASSED_PORTS: Final = {"tls": 15443, "tls-istiod": 15012, "tls-webhook": 15017}
HTTP_PORT: Final = 80
MOST_PORT: Final = 65535


@dataclass(frozen=True, slots=True)
class Client:
    """A pod that makes calls."""

    mesh: "Mesh"
    pod: Pod

    def calls(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        as_tls: str = "",
    ) -> simulate.Call:
        """Walk a call through what the proxies on its way were told.

        `http://`, `tcp://` and `tls://` say what the application speaks.
        """
        request = simulate.request(url, method=method, headers=headers or {}, server_name=as_tls)
        return simulate.Walk(self.mesh).call(self.pod, request)


class Cluster:
    """One cluster of a mesh under construction."""

    def __init__(self, mesh: "Mesh", name: str, *, network: str, domain: str) -> None:
        self.mesh = mesh
        self.domain = domain
        self.name = name
        self.id = ClusterId(name)
        self.network = network
        self._vips = 0

    def node(self, name: str, *, region: str, zone: str) -> None:
        """Add a node in a place."""
        labels = {"topology.kubernetes.io/region": region, "topology.kubernetes.io/zone": zone}
        node = objects.Node(shapes.metadata(name, "", labels))
        self.mesh.put(self.mesh.sources.nodes, self._key("", name), node)

    def pod(
        self,
        name: str,
        *,
        address: str = "",
        namespace: str = DEFAULT,
        labels: Mapping[str, str] | None = None,
        shape: Shape = shapes.USUAL,
        external: Sequence[str] = (),
    ) -> Pod:
        """Add a running pod."""
        address = address or self.mesh.free_address()
        mode = {"security.istio.io/tlsMode": "istio"} if shape.proxy is ProxyKind.SIDECAR else {}
        all_labels = {"app": name, **mode, **(shape.labels or {}), **(labels or {})}
        network = all_labels.get("topology.istio.io/network", self.network)
        pod = Pod(
            self.name,
            namespace,
            name,
            address,
            network,
            shape.proxy,
            shape.account,
            tuple(sorted(all_labels.items())),
            tuple(external),
            shape.dns,
            shape.speaks_tunnels,
            self.domain,
        )
        self.mesh.add_pod(pod)
        captured = {"ambient.istio.io/redirection": "enabled"} if shape.is_captured else None
        object_ = objects.Pod(
            shapes.metadata(name, namespace, all_labels, captured),
            spec=objects.PodSpec(node_name=shape.node, service_account_name=shape.account),
            status=objects.PodStatus(phase="Running", pod_ip=address),
        )
        self.mesh.put(self.mesh.sources.pods, self._key(namespace, name), packed.pod(object_))
        return pod

    def service(
        self,
        name: str,
        *,
        ready: Sequence[str] = (),
        unready: Sequence[str] = (),
        namespace: str = DEFAULT,
        ports: Mapping[str, int] | None = None,
        shape: Shape = shapes.USUAL,
    ) -> None:
        """Add or replace a service with its pods.

        The pods are named after the service and their addresses; those that exist are kept.
        """
        ports = ports or {"http": HTTP_PORT}
        if any(not 0 < port <= MOST_PORT for port in ports.values()):
            raise ImpossibleMesh(f"`{name}` has a port that is none")
        for address in (*ready, *unready):
            self._member(name, address, namespace=namespace, shape=shape)
        service = shapes.service_of(
            shapes.metadata(name, namespace, *shapes.said_of(shape)),
            ports=ports,
            vip="" if shape.is_headless else self._vip(namespace, name),
            shape=shape,
        )
        self.mesh.put(self.mesh.sources.services, self._key(namespace, name), service)
        targets = {key: shape.target_port or number for key, number in ports.items()}
        self.endpoints(name, namespace=namespace, ready=ready, unready=unready, ports=targets)

    def endpoints(
        self,
        name: str,
        *,
        ready: Sequence[str],
        ports: Mapping[str, int],
        unready: Sequence[str] = (),
        namespace: str = DEFAULT,
    ) -> None:
        """Say which addresses answer for a service."""
        answers = [(address, True) for address in ready] + [(one, False) for one in unready]
        members = [
            objects.SliceEndpoint(
                addresses=(address,),
                conditions=objects.EndpointConditions(ready=is_ready),
                target_ref=self._reference(address),
            )
            for address, is_ready in answers
        ]
        meta = shapes.metadata(f"{name}-1", namespace, {"kubernetes.io/service-name": name})
        slice_ = shapes.slice_of(meta, members=members, ports=ports)
        self.mesh.put(self.mesh.sources.endpoint_slices, self._key(namespace, meta.name), slice_)

    def gateway(
        self,
        name: str = "istio-eastwestgateway",
        *,
        external: str,
        labels: Mapping[str, str] | None = None,
        ports: Mapping[str, int] | None = None,
        target_ports: Mapping[str, int] | None = None,
    ) -> Pod:
        """Add a gateway with its Service; an east-west one unless labels say otherwise."""
        if not self.network and labels is None:
            raise ImpossibleMesh(f"cluster `{self.name}` is in no network that a gateway leads to")
        labels = dict(labels or {**EAST_WEST, "topology.istio.io/network": self.network})
        ports = dict(ports or PASSED_PORTS)
        shape = Shape(proxy=ProxyKind.ROUTER, account=f"{name}-service-account")
        pod = self.pod(
            f"{name}-0", namespace=SYSTEM, labels=labels, shape=shape, external=(external,)
        )
        service = shapes.balancer_of(
            shapes.metadata(name, SYSTEM, labels),
            ports=ports,
            vip=self._vip(SYSTEM, name),
            external=external,
        )
        self.mesh.put(self.mesh.sources.services, self._key(SYSTEM, name), service)
        targets = {**ports, **(target_ports or {})}
        self.endpoints(name, namespace=SYSTEM, ready=[pod.address], ports=targets)
        return pod

    def _member(self, name: str, address: str, *, namespace: str, shape: Shape) -> None:
        if self.mesh.pod_at(address, network=self.network) is None:
            pod = f"{name}-{address.replace('.', '-')}"
            self.pod(pod, address=address, namespace=namespace, labels={"app": name}, shape=shape)

    def _reference(self, address: str) -> objects.ObjectReference | None:
        pod = self.mesh.pod_at(address, network=self.network)
        if pod is None:
            return None
        return objects.ObjectReference(kind="Pod", name=pod.name, namespace=pod.namespace)

    def _vip(self, namespace: str, name: str) -> str:
        known = self.mesh.graph.get(self.mesh.sources.services, self._key(namespace, name))
        if known is not None and known.spec.cluster_ip not in {"", "None"}:
            return str(known.spec.cluster_ip)
        self._vips += 1
        return str(ipaddress.IPv4Address("10.96.0.0") + self._vips)

    def _key(self, namespace: str, name: str) -> ObjectKey:
        return ObjectKey(self.id, namespace, name)


class Mesh:
    """Several clusters under one control plane; the first one holds the configuration.

    Attributes:
        pods: All pods, in the order of their making.
    """

    def __init__(self) -> None:
        self.graph = graph.Graph()
        self.sources = sources.declare(self.graph)
        self.clusters: dict[str, Cluster] = {}
        self.pods: list[Pod] = []
        self.model: model.Model
        self.views: compiler.Views
        self._free = 0
        self._transaction: transactions.Transaction | None = None

    def cluster(self, name: str, *, network: str = "", trust_domain: str = "") -> Cluster:
        """Return a cluster of this name, and make it if there is none."""
        if name in self.clusters:
            return self.clusters[name]
        domain = trust_domain or shapes.DOMAIN
        cluster = self.clusters[name] = Cluster(self, name, network=network, domain=domain)
        if len(self.clusters) == 1:
            self.model = model.build(self.graph, self.sources, config_cluster=cluster.id)
            self.views = compiler.build(self.graph, self.model)
        labels = {"topology.istio.io/network": network, trust.DOMAIN_LABEL: trust_domain}
        self._namespace(cluster, SYSTEM, {key: value for key, value in labels.items() if value})
        self._namespace(cluster, "kube-system", {})
        return cluster

    def _namespace(self, cluster: Cluster, name: str, labels: Mapping[str, str]) -> None:
        found = objects.Namespace(shapes.metadata(name, "", labels))
        self.put(self.sources.namespaces, ObjectKey(cluster.id, "", name), found)

    def lists(self, domain: str, certificates: str) -> None:
        """List who signs for a trust domain, as PEM."""
        name = f"trust-{domain}"
        metadata = shapes.metadata(name, SYSTEM, {trust.DOMAIN_LABEL: domain})
        found = objects.ConfigMap(metadata, data={trust.BUNDLE: certificates})
        self.put(self.sources.trust_bundles, self._home(SYSTEM, name), found)

    def lists_no_more(self, domain: str) -> None:
        """List nobody for a trust domain any more."""
        with self.graph.transaction() as change:
            change.delete(self.sources.trust_bundles, self._home(SYSTEM, f"trust-{domain}"))

    @contextlib.contextmanager
    def one_change(self) -> Iterator[None]:
        """Make all that is put within the block one change."""
        with self.graph.transaction() as self._transaction:
            try:
                yield
            finally:
                self._transaction = None

    # --- objects of the configuration cluster

    def configure(self, **settings: object) -> None:
        """Write the mesh's settings, by their names in the ConfigMap."""
        text = json.dumps(settings)
        self.put(
            self.sources.config_maps,
            self._home(SYSTEM, "istio"),
            objects.ConfigMap(shapes.metadata("istio", SYSTEM), data={"mesh": text}),
        )

    def peer_authentication(
        self,
        namespace: str,
        mode: str,
        *,
        selector: Mapping[str, str] | None = None,
        ports: Mapping[int, str] | None = None,
        name: str = DEFAULT,
    ) -> None:
        """Say what the workloads of a namespace accept, or of the mesh in the root namespace."""
        by_port = {str(port): objects.PortMtls(said) for port, said in (ports or {}).items()}
        spec = objects.PeerAuthenticationSpec(
            selector=objects.LabelSelector(match_labels=selector) if selector else None,
            mtls=objects.PortMtls(mode),
            port_level_mtls=by_port,
        )
        self.put(
            self.sources.peer_authentications,
            self._home(namespace, name),
            objects.PeerAuthentication(shapes.metadata(name, namespace), spec=spec),
        )

    def authorization_policy(
        self,
        name: str,
        spec: Mapping[str, object],
        *,
        namespace: str = DEFAULT,
        annotations: Mapping[str, str] | None = None,
    ) -> None:
        """Add or replace an AuthorizationPolicy."""
        metadata = shapes.metadata(name, namespace, annotations=annotations)
        self.put(
            self.sources.authorization_policies,
            self._home(namespace, name),
            objects.FreeForm(metadata, spec=spec),
        )

    def request_authentication(
        self, name: str, spec: Mapping[str, object], *, namespace: str = DEFAULT
    ) -> None:
        """Add or replace a RequestAuthentication."""
        self.put(
            self.sources.request_authentications,
            self._home(namespace, name),
            objects.FreeForm(shapes.metadata(name, namespace), spec=spec),
        )

    def destination_rule(
        self, name: str, spec: Mapping[str, object], *, namespace: str = DEFAULT
    ) -> None:
        """Add or replace a DestinationRule."""
        self.put(
            self.sources.destination_rules,
            self._home(namespace, name),
            objects.FreeForm(shapes.metadata(name, namespace), spec=spec),
        )

    def service_entry(
        self, name: str, spec: Mapping[str, object], *, namespace: str = DEFAULT
    ) -> None:
        """Add or replace a ServiceEntry."""
        self.put(
            self.sources.service_entries,
            self._home(namespace, name),
            objects.ServiceEntry(shapes.metadata(name, namespace), spec=spec),
        )

    def virtual_service(
        self, name: str, spec: Mapping[str, object], *, namespace: str = DEFAULT
    ) -> None:
        """Add or replace a VirtualService."""
        self.put(
            self.sources.virtual_services,
            self._home(namespace, name),
            objects.FreeForm(shapes.metadata(name, namespace), spec=spec),
        )

    def gateway_object(
        self,
        name: str,
        *servers: objects.GatewayServer,
        selector: Mapping[str, str] | None = None,
        namespace: str = SYSTEM,
    ) -> None:
        """Add or replace a Gateway object; it selects east-west gateways unless told otherwise."""
        spec = objects.GatewaySpec(
            selector=selector or {"istio": EAST_WEST["istio"]}, servers=servers
        )
        self.put(
            self.sources.gateways,
            self._home(namespace, name),
            objects.Gateway(shapes.metadata(name, namespace), spec=spec),
        )

    def expose_services(self, *hosts: str) -> None:
        """Let east-west gateways pass mutual TLS on, as the seeds' object does."""
        self.gateway_object("cross-network-gateway", passing(15443, *(hosts or ("*.local",))))

    # --- proxies

    def proxy(self, path: str) -> Client:
        """Return a client: `<cluster>/<pod>` or `<cluster>/<namespace>/<pod>`, made if new."""
        cluster, *rest = path.split("/")
        if cluster not in self.clusters:
            raise ImpossibleMesh(f"`{path}` is in no known cluster")
        namespace, name = rest if len(rest) > 1 else (DEFAULT, rest[0])
        for pod in self.pods:
            if (pod.cluster, pod.namespace, pod.name) == (cluster, namespace, name):
                return Client(self, pod)
        return Client(self, self.clusters[cluster].pod(name, namespace=namespace))

    def snapshot_of(self, pod: Pod) -> snapshot.Snapshot:
        """Return what the proxy of a pod is told."""
        shelf = catalog.Shelf()
        for resource in map(building.build, self.slices_of(*self.scopes_of(pod)).values()):
            shelf.put(resource.type_url, resource.name, resource)
        leads = {kind: snapshot.Leads(related) for kind, related in shelf.related.items()}
        return snapshot.Snapshot(shelf.by_type, leads)

    def slices_of(self, *scopes: view.Scope) -> Mapping[view.SliceKey, view.Slice]:
        """Return what whoever sees these scopes is told."""
        return compiler.told(self.graph, self.views, scopes)

    def scopes_of(self, pod: Pod) -> tuple[view.Scope, ...]:
        """Connect the proxy of a pod, if it is not, and return what it sees."""
        if pod.proxy is None:
            raise ImpossibleMesh(f"pod `{pod.connection}` has no proxy")
        proxy = Proxy(
            f"{pod.name}.{pod.namespace}",
            pod.proxy,
            ClusterId(pod.cluster),
            NetworkId(pod.network),
            pod.namespace,
            pod.account,
            pod.name,
            pod.address,
            pod.labels,
            captures_dns=bool(pod.dns),
            allocates_addresses=pod.dns == "allocated",
            ends_tunnels=pod.speaks_tunnels and pod.proxy is ProxyKind.SIDECAR,
            begins_tunnels=pod.speaks_tunnels,
        )
        self.put(self.views.proxies, pod.connection, proxy)
        scopes = self.graph.get(self.views.proxy_scopes, pod.connection) or ()
        with self.graph.transaction() as transaction:
            for scope in scopes:
                transaction.put(self.views.scopes, scope, 1)
        return scopes

    # --- what the builders above need

    def put(self, source: collections.Source[K, V], key: K, value: V) -> None:
        """Write one object, at once or within `one_change`."""
        if self._transaction is not None:
            self._transaction.put(source, key, value)
            return
        with self.graph.transaction() as transaction:
            transaction.put(source, key, value)

    def drop(self, cluster: str) -> None:
        """Forget all that a cluster has said, as when its remote secret is deleted."""
        gone = self.clusters.pop(cluster)
        self.pods = [pod for pod in self.pods if pod.cluster != cluster]
        with self.graph.transaction() as transaction:

            def owned(key: ObjectKey) -> bool:
                return key.cluster == gone.id

            transaction.replace(self.sources.namespaces, owned, {})
            transaction.replace(self.sources.nodes, owned, {})
            transaction.replace(self.sources.services, owned, {})
            transaction.replace(self.sources.endpoint_slices, owned, {})
            transaction.replace(self.sources.pods, owned, {})

    def add_pod(self, pod: Pod) -> None:
        """Take a pod in, unless another one has its address."""
        try:
            ipaddress.ip_address(pod.address)
        except ValueError as error:
            raise ImpossibleMesh(f"`{pod.address}` is no address") from error
        if self.pod_at(pod.address, network=pod.network) is not None:
            raise ImpossibleMesh(f"two pods have the address `{pod.address}` in one network")
        self.pods.append(pod)

    def pod_at(self, address: str, *, network: str) -> Pod | None:
        """Return the pod that a client in a network reaches at an address, if there is one."""
        for pod in self.pods:
            if address in pod.external or (pod.address == address and pod.network == network):
                return pod
        return None

    def free_address(self) -> str:
        """Return an address that no pod has been given."""
        self._free += 1
        return str(ipaddress.IPv4Address("10.200.0.0") + self._free)

    def _home(self, namespace: str, name: str) -> ObjectKey:
        return ObjectKey(next(iter(self.clusters.values())).id, namespace, name)


def passing(port: int, *hosts: str, mode: str = "AUTO_PASSTHROUGH") -> objects.GatewayServer:
    """Return a server of a Gateway object that passes TLS on."""
    return objects.GatewayServer(
        port=objects.GatewayPort(number=port, name=f"tls-{port}", protocol="TLS"),
        hosts=hosts,
        tls=objects.GatewayTls(mode=mode),
    )
