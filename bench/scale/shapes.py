"""A fleet of a given size, as the objects that its API servers would serve.

Everything follows from the shape and its seed: whoever has these knows the truth. All services
exist in all clusters. These share one network, or each is one of its own, behind a gateway.
"""

import base64
import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from isthmus.resources import snapshot

DEFAULT: Final = "default"
SYSTEM: Final = "istio-system"
PORT: Final = 8080
API_PORT: Final = 6443
NODE_PODS: Final = 100
ZONES: Final = 3
SPREAD: Final = 7919
SERVICES: Final = "/api/v1/services"
PODS: Final = "/api/v1/pods"
SLICES: Final = "/apis/discovery.k8s.io/v1/endpointslices"
POLICIES: Final = "/apis/security.istio.io/v1/authorizationpolicies"
MARKED: Final = 99
"""Addresses of pods that come with an event begin with this, and are never given twice."""

NAMESPACES: Final = ("shop", "pay", "ship")
"""Where the proxies are; services are in the first of them."""

APART: Final = "apart"
"""Where proxies are to which no service is exported."""

DOMAIN: Final = f".{NAMESPACES[0]}.svc.cluster.local"
Obj = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Shape:
    """How large a fleet is.

    Attributes:
        endpoints: Those of all clusters together.
        proxies: How many sidecars there are.
        whole: So many of them take the state of the world, all others deltas.
        nodes: How many proxies of nodes there are besides.
        apart: How many sidecars there are besides that see no service of these.
        is_flat: Whether all clusters share one network.
        listen: Where API servers listen, one port each; empty for an address each.
        token: What all clients show; empty for one each that says who they are.
    """

    clusters: int = 2
    services: int = 200
    endpoints: int = 4000
    proxies: int = 100
    whole: int = 0
    nodes: int = 0
    apart: int = 0
    is_flat: bool = True
    seed: int = 1
    listen: str = ""
    token: str = ""

    @property
    def behind(self) -> int:
        """How many endpoints a service has in each cluster."""
        return max(1, self.endpoints // (self.clusters * self.services))

    @property
    def clients(self) -> int:
        """How many proxies there are in all."""
        return self.proxies + self.nodes + self.apart

    @property
    def machines(self) -> int:
        """How many nodes a cluster has."""
        return max(1, self.services * self.behind // NODE_PODS)

    @property
    def names(self) -> tuple[str, ...]:
        """The clusters; the first one holds the configuration."""
        return tuple(f"c{number:02}" for number in range(self.clusters))

    def network(self, cluster: str) -> str:
        """Return the network that a cluster is in."""
        return "net" if self.is_flat else f"net-{cluster}"

    def write(self) -> str:
        """Return it as text, for another process."""
        return json.dumps(dataclasses.asdict(self))


POINTS: Final[Mapping[str, Shape]] = {
    "tiny": Shape(1, 1, 1, 1),
    "small": Shape(2, 50, 1_000, 20),
    "short": Shape(2, 200, 4_000, 100),
    "base": Shape(10, 1_000, 100_000, 2_000),
}
"""Points of the grid that have a name."""


def read(text: str) -> Shape:
    """Return what was written."""
    return Shape(**json.loads(text))


# --- addresses


def api_server(cluster: int) -> str:
    """Return the address of a cluster's API server: none of loopback, which remote ones may not have."""
    return f"198.18.0.{cluster + 1}"


def place(shape: Shape, cluster: int) -> tuple[str, int]:
    """Return where a cluster's API server listens: its address and port."""
    if shape.listen:
        return shape.listen, API_PORT + cluster
    return api_server(cluster), API_PORT


def gateway(cluster: int) -> str:
    """Return the address at which other networks find a cluster's gateway."""
    return f"198.19.0.{cluster + 1}"


def pod(cluster: int, service: int, number: int) -> str:
    """Return the address of a pod."""
    place = service * 256 + number
    return (
        f"10.{cluster}.{place >> 8 & 255}.{place & 255}" if service < 256 else _far(cluster, place)
    )


def _far(cluster: int, place: int) -> str:
    return f"{20 + (place >> 16)}.{cluster}.{place >> 8 & 255}.{place & 255}"


def marker(number: int) -> str:
    """Return the address of a pod that comes with an event."""
    return f"{MARKED}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def host(service: int) -> str:
    """Return the host name of a service."""
    return f"s{service}{DOMAIN}"


# --- objects


def objects(shape: Shape, cluster: int) -> Iterator[tuple[str, Obj]]:
    """Yield all objects of a cluster with the path of their kind."""
    name = shape.names[cluster]
    labels = {"topology.istio.io/network": shape.network(name)}
    yield "/api/v1/namespaces", _object("", SYSTEM, {"metadata": {"labels": labels}})
    for one in ("kube-system", DEFAULT, APART, *NAMESPACES):
        yield "/api/v1/namespaces", _object("", one, {})
    for number in range(shape.machines):
        yield "/api/v1/nodes", _node(name, number)
    for service in range(shape.services):
        yield SERVICES, service_object(shape, service)
        known = members(shape, cluster, service)
        for member in known:
            yield PODS, pod_object(shape, cluster, service, member)
        yield (
            SLICES,
            endpoint_slice(shape, cluster, service, known),
        )
    if not shape.is_flat:
        yield from _gateway(cluster)
    for number in range(cluster, shape.clients, shape.clusters):
        yield PODS, _client(shape, number)
    if cluster == 0:
        yield from _configuration()


@dataclass(frozen=True, slots=True)
class Member:
    """A pod of a service, as a slice names it."""

    name: str
    address: str
    node: int
    zone: int
    is_ready: bool = True


def members(shape: Shape, cluster: int, service: int) -> list[Member]:
    """Return the pods that a service has in a cluster at first, all of them ready."""
    return [
        Member(
            f"s{service}-{number}",
            pod(cluster, service, number),
            # Pods of a service are on different nodes, and a node's pods of different services.
            (service * shape.behind + number) * SPREAD % shape.machines,
            number % ZONES,
        )
        for number in range(shape.behind)
    ]


def endpoint_slice(shape: Shape, cluster: int, service: int, known: Iterable[Member]) -> Obj:
    """Return the slice of a service in a cluster."""
    name = f"s{service}"
    endpoints = [
        {
            "addresses": [one.address],
            "conditions": {"ready": one.is_ready, "serving": one.is_ready},
            "nodeName": f"{shape.names[cluster]}-node{one.node}",
            "targetRef": {"kind": "Pod", "namespace": NAMESPACES[0], "name": one.name},
            "zone": f"zone-{one.zone}",
        }
        for one in known
    ]
    fields = {
        "metadata": {"labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": PORT, "protocol": "TCP"}],
        "endpoints": endpoints,
    }
    return _object(NAMESPACES[0], f"{name}-x7k2p", fields)


def _object(namespace: str, name: str, fields: Obj) -> Obj:
    metadata = {
        "name": name,
        "uid": hashlib.sha256(f"{namespace}/{name}".encode()).hexdigest()[:32],
        "resourceVersion": "1",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        # What a client of the API must read over: half of a real object is of this kind.
        "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {"f:x": "y" * 600}}}],
        **({"namespace": namespace} if namespace else {}),
    }
    return {**fields, "metadata": {**metadata, **fields.get("metadata", {})}}


def _node(cluster: str, number: int) -> Obj:
    labels = {
        "kubernetes.io/hostname": f"{cluster}-node{number}",
        "topology.kubernetes.io/region": f"region-{cluster}",
        "topology.kubernetes.io/zone": f"zone-{number % ZONES}",
    }
    return _object("", f"{cluster}-node{number}", {"metadata": {"labels": labels}})


def service_object(shape: Shape, number: int) -> Obj:
    """Return a service; where there are proxies apart, it is exported to all others."""
    vip = f"172.16.{number >> 8}.{number & 255}"
    spec = {
        "clusterIP": vip,
        "clusterIPs": [vip],
        "selector": {"app": f"s{number}"},
        "ports": [{"name": "http", "port": 80, "targetPort": PORT, "protocol": "TCP"}],
    }
    shown = {"networking.istio.io/exportTo": ",".join(NAMESPACES)}
    metadata = {"annotations": shown} if shape.apart else {}
    return _object(NAMESPACES[0], f"s{number}", {"metadata": metadata, "spec": spec})


def pod_object(shape: Shape, cluster: int, service: int, one: Member) -> Obj:
    """Return a pod of a service."""
    app = f"s{service}"
    labels = {
        "app": app,
        "version": "v1",
        "pod-template-hash": "7d4b9c6f5d",
        "security.istio.io/tlsMode": "istio",
        "service.istio.io/canonical-name": app,
        "service.istio.io/canonical-revision": "v1",
    }
    return _running(
        one.name,
        NAMESPACES[0],
        labels=labels,
        address=one.address,
        node=f"{shape.names[cluster]}-node{one.node}",
        account=app,
    )


def _running(
    name: str, namespace: str, *, labels: dict[str, str], address: str, node: str, account: str
) -> Obj:
    environment = [{"name": f"VARIABLE_{index}", "value": "x" * 40} for index in range(12)]
    container = {
        "name": "main",
        "image": "registry.example/shop/main:1.2.3",
        "ports": [{"containerPort": PORT, "protocol": "TCP"}],
        "env": environment,
    }
    # Each cluster's owner has an identity of its own, as real ones do.
    owned_in = f"{node.rpartition('-')[0]}/{namespace}/{account}"
    owner = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "name": f"{account}-7d4b9c6f5d",
        "uid": hashlib.sha256(owned_in.encode()).hexdigest()[:32],
    }
    fields = {
        "metadata": {"labels": labels, "ownerReferences": [{**owner, "controller": True}]},
        "spec": {
            "nodeName": node,
            "serviceAccountName": account,
            "containers": [container],
        },
        "status": {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }
    return _object(namespace, name, fields)


# --- proxies


@dataclass(frozen=True, slots=True)
class Proxy:
    """One client of discovery: a sidecar, or the proxy of a node."""

    name: str
    namespace: str
    cluster: str
    address: str
    is_whole: bool = False
    kind: str = "sidecar"
    account: str = "client"

    @property
    def token(self) -> str:
        """What proves it: our API servers believe what it says."""
        return f"{self.namespace}.{self.account}.{self.name}"

    @property
    def wants(self) -> tuple[str, ...]:
        """The types of which it wants everything."""
        if self.kind == "ztunnel":
            return (snapshot.ADDRESSES, snapshot.AUTHORIZATIONS)
        return (snapshot.CLUSTERS, snapshot.LISTENERS)


def proxy(shape: Shape, number: int) -> Proxy:
    """Return one of the fleet's proxies; they are spread over clusters and namespaces."""
    cluster = number % shape.clusters
    turn = number // shape.clusters
    address = f"100.{64 + cluster}.{turn >> 8}.{turn & 255}"
    if number >= shape.proxies + shape.nodes:
        return Proxy(f"client-{number}", APART, shape.names[cluster], address)
    if number >= shape.proxies:
        return Proxy(
            f"ztunnel-{number}",
            SYSTEM,
            shape.names[cluster],
            address,
            kind="ztunnel",
            account="ztunnel",
        )
    return Proxy(
        f"client-{number}",
        NAMESPACES[turn % len(NAMESPACES)],
        shape.names[cluster],
        address,
        is_whole=number < shape.whole,
    )


def _client(shape: Shape, number: int) -> Obj:
    one = proxy(shape, number)
    labels = {"app": one.account}
    if one.kind == "sidecar":
        labels["security.istio.io/tlsMode"] = "istio"
    node = f"{one.cluster}-node0"
    return _running(
        one.name, one.namespace, labels=labels, address=one.address, node=node, account=one.account
    )


# --- gateways and configuration


def _gateway(cluster: int) -> Iterator[tuple[str, Obj]]:
    labels = {"istio": "eastwestgateway", "topology.istio.io/network": f"net-c{cluster:02}"}
    ports = [{"name": "tls", "port": 15443, "targetPort": 15443, "protocol": "TCP"}]
    vip = f"172.17.0.{cluster + 1}"
    yield (
        SERVICES,
        _object(
            SYSTEM,
            "istio-eastwestgateway",
            {
                "metadata": {"labels": labels},
                "spec": {"type": "LoadBalancer", "clusterIP": vip, "ports": ports},
                "status": {"loadBalancer": {"ingress": [{"ip": gateway(cluster)}]}},
            },
        ),
    )
    address = f"100.127.0.{cluster + 1}"
    pod_labels = {**labels, "security.istio.io/tlsMode": "istio"}
    yield (
        PODS,
        _running(
            "istio-eastwestgateway-0",
            SYSTEM,
            labels=pod_labels,
            address=address,
            node=f"c{cluster:02}-node0",
            account="gateway",
        ),
    )
    member = {
        "addresses": [address],
        "conditions": {"ready": True},
        "targetRef": {"kind": "Pod", "namespace": SYSTEM, "name": "istio-eastwestgateway-0"},
    }
    named = {"kubernetes.io/service-name": "istio-eastwestgateway"}
    fields = {
        "metadata": {"labels": named},
        "addressType": "IPv4",
        "ports": [{"name": "tls", "port": 15443, "protocol": "TCP"}],
        "endpoints": [member],
    }
    yield SLICES, _object(SYSTEM, "istio-eastwestgateway-1", fields)


def _configuration() -> Iterator[tuple[str, Obj]]:
    server = {
        "port": {"number": 15443, "name": "tls", "protocol": "TLS"},
        "hosts": ["*.local"],
        "tls": {"mode": "AUTO_PASSTHROUGH"},
    }
    spec = {"selector": {"istio": "eastwestgateway"}, "servers": [server]}
    yield (
        "/apis/networking.istio.io/v1/gateways",
        _object(SYSTEM, "cross-network-gateway", {"spec": spec}),
    )
    mesh = {"data": {"mesh": "trustDomain: cluster.local\n"}}
    yield f"/api/v1/namespaces/{SYSTEM}/configmaps", _object(SYSTEM, "istio", mesh)


def policy(number: int) -> Obj:
    """Return a policy that every sidecar of the mesh must obey; it differs by its number."""
    path = {"operation": {"paths": [f"/closed-{number}"]}}
    spec = {"action": "DENY", "rules": [{"to": [path]}]}
    return _object(SYSTEM, "closed", {"spec": spec})


def remote_secret(shape: Shape, cluster: int, *, authority: str) -> Obj:
    """Return the Secret by which the first cluster knows another one."""
    name = shape.names[cluster]
    address, port = place(shape, cluster)
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [
            {
                "name": name,
                "cluster": {
                    "server": f"https://{address}:{port}",
                    "certificate-authority-data": base64.b64encode(authority.encode()).decode(),
                },
            }
        ],
        "users": [{"name": name, "user": {"token": "bench"}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
    }
    text = base64.b64encode(yaml.safe_dump(kubeconfig).encode()).decode()
    labels = {"metadata": {"labels": {"istio/multiCluster": "true"}}}
    return _object(SYSTEM, f"istio-remote-secret-{name}", {**labels, "data": {name: text}})
