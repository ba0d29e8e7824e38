"""The slices of Kubernetes' and Istio's objects that we read, and nothing more.

Unknown fields are skipped when decoding; an absent field has Kubernetes' default. Values are
frozen and compare by what they hold, so that a change in a field that nobody reads is no change.
`metadata.resourceVersion` and `managedFields` are left out for that reason.

Source: spec sections 2.3, 3.3, 3.5, 4.9.
"""

from collections.abc import Mapping

import msgspec
from typing_extensions import override


class Part(msgspec.Struct, frozen=True, rename="camel", gc=False, omit_defaults=True):
    """Any part of an object."""


class OwnerReference(Part, frozen=True):
    """Who owns an object."""

    kind: str = ""
    name: str = ""
    uid: str = ""
    api_version: str = ""
    controller: bool = False


class Metadata(Part, frozen=True):
    """What every object says of itself."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    creation_timestamp: str = ""
    deletion_timestamp: str | None = None
    labels: Mapping[str, str] | None = None
    annotations: Mapping[str, str] | None = None
    owner_references: tuple[OwnerReference, ...] = ()

    def label(self, key: str) -> str:
        """Return the value of a label, or nothing."""
        return (self.labels or {}).get(key, "")

    def annotation(self, key: str) -> str:
        """Return the value of an annotation, or nothing."""
        return (self.annotations or {}).get(key, "")


class Object(Part, frozen=True):
    """Any object that we read."""

    metadata: Metadata

    def whole(self) -> "Object":
        """Return it with all of its parts at hand; see `packed`."""
        return self


class ServicePort(Part, frozen=True):
    """One port of a Service."""

    port: int
    name: str = ""
    protocol: str = "TCP"
    app_protocol: str | None = None
    target_port: int | str | None = None
    node_port: int = 0


class ServiceSpec(Part, frozen=True):
    """What a Service wants."""

    type: str = "ClusterIP"
    cluster_ip: str = msgspec.field(default="", name="clusterIP")
    cluster_ips: tuple[str, ...] = msgspec.field(default=(), name="clusterIPs")
    external_name: str = ""
    external_ips: tuple[str, ...] = msgspec.field(default=(), name="externalIPs")
    selector: Mapping[str, str] | None = None
    ports: tuple[ServicePort, ...] = ()
    publish_not_ready_addresses: bool = False
    traffic_distribution: str = ""
    internal_traffic_policy: str = ""


class LoadBalancerIngress(Part, frozen=True):
    """One external address of a Service."""

    ip: str = ""
    hostname: str = ""


class LoadBalancerStatus(Part, frozen=True):
    """The external addresses of a Service."""

    ingress: tuple[LoadBalancerIngress, ...] = ()


class ServiceStatus(Part, frozen=True):
    """What became of a Service."""

    load_balancer: LoadBalancerStatus = LoadBalancerStatus()


class Service(Object, frozen=True):
    """`v1` Service."""

    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()


class ObjectReference(Part, frozen=True):
    """Names another object."""

    kind: str = ""
    name: str = ""
    namespace: str = ""
    uid: str = ""


class EndpointConditions(Part, frozen=True):
    """Whether an endpoint may get traffic; None counts as ready."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class SliceEndpoint(Part, frozen=True):
    """One endpoint of an EndpointSlice."""

    addresses: tuple[str, ...] = ()
    conditions: EndpointConditions = EndpointConditions()
    target_ref: ObjectReference | None = None
    node_name: str = ""
    zone: str = ""
    hostname: str = ""


class EndpointPort(Part, frozen=True):
    """One port of an EndpointSlice."""

    port: int | None = None
    name: str = ""
    protocol: str = "TCP"


class EndpointSlice(Object, frozen=True):
    """`discovery.k8s.io/v1` EndpointSlice."""

    address_type: str = "IPv4"
    endpoints: tuple[SliceEndpoint, ...] | None = ()
    ports: tuple[EndpointPort, ...] | None = ()

    @override
    def whole(self) -> "EndpointSlice":
        return self


class ContainerPort(Part, frozen=True):
    """A port that a container declares."""

    container_port: int = 0
    name: str = ""
    protocol: str = "TCP"


class Container(Part, frozen=True):
    """A container of a pod."""

    name: str = ""
    ports: tuple[ContainerPort, ...] = ()


class PodSpec(Part, frozen=True):
    """What a Pod wants."""

    node_name: str = ""
    service_account_name: str = "default"
    host_network: bool = False
    containers: tuple[Container, ...] = ()


class PodIp(Part, frozen=True):
    """One address of a pod."""

    ip: str = ""


class PodCondition(Part, frozen=True):
    """One thing that is so of a Pod, or not."""

    type: str = ""
    status: str = ""


class PodStatus(Part, frozen=True):
    """What became of a Pod."""

    phase: str = ""
    pod_ip: str = msgspec.field(default="", name="podIP")
    pod_ips: tuple[PodIp, ...] = msgspec.field(default=(), name="podIPs")
    host_ip: str = msgspec.field(default="", name="hostIP")
    conditions: tuple[PodCondition, ...] = ()


class AnyPod(Object, frozen=True):
    """`v1` Pod, however it is kept."""

    @property
    def spec(self) -> PodSpec:
        """What it wants."""
        raise NotImplementedError

    @property
    def status(self) -> PodStatus:
        """What became of it."""
        raise NotImplementedError

    @property
    def node_name(self) -> str:
        """The node that it was put on; empty before."""
        return self.spec.node_name

    @override
    def whole(self) -> "Pod":
        raise NotImplementedError


class Pod(AnyPod, frozen=True):
    """`v1` Pod."""

    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @override
    def whole(self) -> "Pod":
        return self


class Node(Object, frozen=True):
    """`v1` Node: only its labels matter here."""


class Namespace(Object, frozen=True):
    """`v1` Namespace: only its labels and annotations matter here."""


class Secret(Object, frozen=True):
    """`v1` Secret; the values of `data` are base64."""

    type: str = "Opaque"
    data: Mapping[str, str] | None = None


class ConfigMap(Object, frozen=True):
    """`v1` ConfigMap."""

    data: Mapping[str, str] | None = None


class GatewayPort(Part, frozen=True):
    """The port of a server of a Gateway."""

    number: int = 0
    name: str = ""
    protocol: str = ""
    target_port: object = None


class GatewayTls(Part, frozen=True):
    """What a server of a Gateway does with TLS; fields of any type are judged where they are read."""

    mode: str = ""
    credential_name: object = None
    https_redirect: object = None
    credential_names: object = None
    server_certificate: object = None
    private_key: object = None
    ca_certificates: object = None
    ca_crl: object = None
    subject_alt_names: object = None
    min_protocol_version: object = None
    max_protocol_version: object = None
    cipher_suites: object = None
    verify_certificate_hash: object = None
    verify_certificate_spki: object = None
    tls_certificates: object = None


class GatewayServer(Part, frozen=True):
    """One server of a Gateway."""

    port: GatewayPort = GatewayPort()
    hosts: tuple[str, ...] = ()
    tls: GatewayTls | None = None
    bind: object = None
    default_endpoint: object = None


class GatewaySpec(Part, frozen=True):
    """What a Gateway wants."""

    selector: Mapping[str, str] | None = None
    servers: tuple[GatewayServer, ...] = ()


class Gateway(Object, frozen=True):
    """`networking.istio.io` Gateway."""

    spec: GatewaySpec = GatewaySpec()


class LabelSelector(Part, frozen=True):
    """Selects by labels."""

    match_labels: Mapping[str, str] | None = None


class PortMtls(Part, frozen=True):
    """The mode of one port."""

    mode: str = "UNSET"


class PeerAuthenticationSpec(Part, frozen=True):
    """What a PeerAuthentication wants; port keys are decimal numbers."""

    selector: LabelSelector | None = None
    mtls: PortMtls | None = None
    port_level_mtls: Mapping[str, PortMtls] | None = None


class PeerAuthentication(Object, frozen=True):
    """`security.istio.io` PeerAuthentication."""

    spec: PeerAuthenticationSpec = PeerAuthenticationSpec()


class FreeForm(Object, frozen=True):
    """An object whose `spec` is translated field by field where it is used.

    VirtualService, DestinationRule and AuthorizationPolicy are of this kind: their
    shape is a union of many optional parts, and each is checked where it is understood, so that one bad part names itself.
    """

    spec: Mapping[str, object] | None = None


class ServiceEntry(FreeForm, frozen=True):
    """`networking.istio.io` ServiceEntry; its status says which addresses its hosts were given."""

    status: Mapping[str, object] | None = None
