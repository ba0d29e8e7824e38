"""The pods and services that a mesh under construction consists of, and the objects they make.

IsthmusError
└── ImpossibleMesh
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from isthmus.base import errors
from isthmus.kube import objects
from isthmus.mesh.proxies import ProxyKind

DOMAIN: Final = "cluster.local"
DEFAULT: Final = "default"


class ImpossibleMesh(errors.IsthmusError):
    """A test describes what no cluster could hold."""

    code = "ISM-TEST-001"


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of a mesh: where it is, and who it is.

    Attributes:
        proxy: None for a pod without one.
        identity: What its certificate says; empty without a proxy.
        external: Addresses at which other networks reach it.
        dns: As in `Shape`, and so is `speaks_tunnels`.
    """

    cluster: str
    namespace: str
    name: str
    address: str
    network: str
    proxy: ProxyKind | None
    account: str
    labels: tuple[tuple[str, str], ...] = ()
    external: tuple[str, ...] = ()
    dns: str = ""
    speaks_tunnels: bool = False
    domain: str = DOMAIN

    @property
    def identity(self) -> str:
        """The SPIFFE identity of its proxy."""
        return f"spiffe://{self.domain}/ns/{self.namespace}/sa/{self.account}"

    @property
    def connection(self) -> str:
        """The name under which its proxy connects."""
        return f"{self.cluster}/{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Shape:
    """What is unusual about a pod, or about a service and its pods.

    Attributes:
        proxy: None for pods without one.
        target_port: Of all ports; 0 for the ports' own numbers.
        export_to: The annotation of that meaning.
        alias_of: The external name of a service that is only another name.
        dns: `captured` for a pod whose agent answers for names, `allocated` where it also gives
            addresses to services that have none in its cluster.
        is_captured: Whether its node's proxy takes the pod's traffic.
        is_global: Whether a service is shared with other clusters.
        scope: Of a service, as its label says it.
        distribution: Of a service's traffic, as its annotation says it.
        speaks_tunnels: Whether the pod's own proxy begins and ends tunnels.
    """

    proxy: ProxyKind | None = ProxyKind.SIDECAR
    account: str = DEFAULT
    node: str = ""
    labels: Mapping[str, str] | None = None
    is_headless: bool = False
    target_port: int = 0
    export_to: str = ""
    alias_of: str = ""
    dns: str = ""
    is_captured: bool = False
    is_global: bool = False
    scope: str = ""
    distribution: str = ""
    speaks_tunnels: bool = False


USUAL: Final = Shape()
PLAIN: Final = Shape(proxy=None)
CAPTURED: Final = Shape(proxy=None, is_captured=True)


def metadata(
    name: str,
    namespace: str,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> objects.Metadata:
    """Return what an object says of itself."""
    return objects.Metadata(name, namespace=namespace, labels=labels, annotations=annotations)


def said_of(shape: Shape) -> tuple[dict[str, str], dict[str, str]]:
    """Return labels and annotations of a Service of a shape."""
    labels = {
        "istio.io/global": "true" if shape.is_global else "",
        "solo.io/service-scope": shape.scope,
    }
    annotations = {
        "networking.istio.io/exportTo": shape.export_to,
        "networking.istio.io/traffic-distribution": shape.distribution,
    }
    return (
        {key: value for key, value in labels.items() if value},
        {key: value for key, value in annotations.items() if value},
    )


def service_of(
    meta: objects.Metadata, *, ports: Mapping[str, int], vip: str, shape: Shape
) -> objects.Service:
    """Return a Service of a name and shape."""
    declared = tuple(
        objects.ServicePort(port=number, name=port_name) for port_name, number in ports.items()
    )
    if shape.alias_of:
        spec = objects.ServiceSpec(
            type="ExternalName", external_name=shape.alias_of, ports=declared
        )
    else:
        spec = objects.ServiceSpec(
            cluster_ip=vip or "None", selector={"app": meta.name}, ports=declared
        )
    return objects.Service(meta, spec=spec)


def balancer_of(
    meta: objects.Metadata, *, ports: Mapping[str, int], vip: str, external: str
) -> objects.Service:
    """Return a Service that is reached from outside."""
    return objects.Service(
        meta,
        spec=objects.ServiceSpec(
            type="LoadBalancer",
            cluster_ip=vip,
            selector=meta.labels,
            ports=tuple(
                objects.ServicePort(port=port, name=port_name) for port_name, port in ports.items()
            ),
        ),
        status=objects.ServiceStatus(
            load_balancer=objects.LoadBalancerStatus(
                ingress=(objects.LoadBalancerIngress(ip=external),)
            )
        ),
    )


def slice_of(
    meta: objects.Metadata,
    *,
    members: Iterable[objects.SliceEndpoint],
    ports: Mapping[str, int],
) -> objects.EndpointSlice:
    """Return an EndpointSlice."""
    return objects.EndpointSlice(
        meta,
        endpoints=tuple(members),
        ports=tuple(
            objects.EndpointPort(port=number, name=port_name) for port_name, number in ports.items()
        ),
    )
