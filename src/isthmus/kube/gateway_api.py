"""The slices of the Gateway API's objects that we read.

As in `objects`: unknown fields are skipped, an absent field has its default, and values compare by
what they hold.
"""

from collections.abc import Mapping

import msgspec

from isthmus.kube import objects


class Condition(objects.Part, frozen=True):
    """One thing that is so of an object, or not."""

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    observed_generation: int = 0
    last_transition_time: str = ""


class GatewayClassSpec(objects.Part, frozen=True):
    """Who serves Gateways of a class."""

    controller_name: str = ""


class GatewayClassStatus(objects.Part, frozen=True):
    """What became of a class."""

    conditions: tuple[Condition, ...] | None = None


class GatewayClass(objects.Object, frozen=True):
    """`gateway.networking.k8s.io/v1` GatewayClass."""

    spec: GatewayClassSpec = GatewayClassSpec()
    status: GatewayClassStatus = GatewayClassStatus()


class Address(objects.Part, frozen=True):
    """An address that a Gateway should have, or has; without a type it is an IP address."""

    value: str = ""
    type: str | None = None


class CertificateRef(objects.Part, frozen=True):
    """Names a certificate."""

    name: str = ""
    namespace: str | None = None
    kind: str | None = None
    group: str | None = None


class ListenerTls(objects.Part, frozen=True):
    """What a listener does with TLS."""

    mode: str | None = None
    certificate_refs: tuple[CertificateRef, ...] | None = None
    options: Mapping[str, str] | None = None
    frontend_validation: object = None


class Expression(objects.Part, frozen=True):
    """One condition of a selector."""

    key: str = ""
    operator: str = ""
    values: tuple[str, ...] | None = None


class Selector(objects.Part, frozen=True):
    """Selects by labels."""

    match_labels: Mapping[str, str] | None = None
    match_expressions: tuple[Expression, ...] | None = None


class RouteNamespaces(objects.Part, frozen=True):
    """From which namespaces routes may come."""

    from_: str | None = msgspec.field(default=None, name="from")
    selector: Selector | None = None


class RouteKind(objects.Part, frozen=True):
    """A kind of routes."""

    kind: str = ""
    group: str | None = None


class AllowedRoutes(objects.Part, frozen=True):
    """Which routes may attach to a listener."""

    namespaces: RouteNamespaces | None = None
    kinds: tuple[RouteKind, ...] | None = None


class Listener(objects.Part, frozen=True):
    """One port of a Gateway, and who is let in there."""

    name: str
    port: int
    protocol: str
    hostname: str | None = None
    tls: ListenerTls | None = None
    allowed_routes: AllowedRoutes | None = None


class ParametersRef(objects.Part, frozen=True):
    """Names an object with more wishes."""

    kind: str = ""
    name: str = ""


class Infrastructure(objects.Part, frozen=True):
    """What all that runs for a Gateway should bear."""

    labels: Mapping[str, str] | None = None
    annotations: Mapping[str, str] | None = None
    parameters_ref: ParametersRef | None = None


class GatewaySpec(objects.Part, frozen=True):
    """What a Gateway wants."""

    gateway_class_name: str = ""
    listeners: tuple[Listener, ...] = ()
    addresses: tuple[Address, ...] | None = None
    infrastructure: Infrastructure | None = None


class ListenerStatus(objects.Part, frozen=True):
    """What became of a listener."""

    name: str = ""
    attached_routes: int = 0
    conditions: tuple[Condition, ...] | None = None


class GatewayStatus(objects.Part, frozen=True):
    """What became of a Gateway."""

    addresses: tuple[Address, ...] | None = None
    conditions: tuple[Condition, ...] | None = None
    listeners: tuple[ListenerStatus, ...] | None = None


class Gateway(objects.Object, frozen=True):
    """`gateway.networking.k8s.io/v1` Gateway."""

    spec: GatewaySpec = GatewaySpec()
    status: GatewayStatus = GatewayStatus()


class DeploymentStatus(objects.Part, frozen=True):
    """What became of a Deployment."""

    ready_replicas: int = 0


class Deployment(objects.Object, frozen=True):
    """`apps/v1` Deployment, as far as it says whether anything runs."""

    status: DeploymentStatus = DeploymentStatus()


class ParentRef(objects.Part, frozen=True):
    """Names what a route attaches to: a Gateway, or some of its listeners."""

    name: str = ""
    namespace: str | None = None
    kind: str | None = None
    group: str | None = None
    section_name: str | None = None
    port: int | None = None


class HttpRouteSpec(objects.Part, frozen=True):
    """What an HTTPRoute wants; its rules are judged where they are read."""

    parent_refs: tuple[ParentRef, ...] | None = None
    hostnames: tuple[str, ...] | None = None
    rules: tuple[Mapping[str, object], ...] | None = None


class ParentStatus(objects.Part, frozen=True):
    """What a controller says of a route at one of its parents."""

    parent_ref: ParentRef = ParentRef()
    controller_name: str = ""
    conditions: tuple[Condition, ...] | None = None


class RouteStatus(objects.Part, frozen=True):
    """What became of a route."""

    parents: tuple[ParentStatus, ...] | None = None


class HttpRoute(objects.Object, frozen=True):
    """`gateway.networking.k8s.io/v1` HTTPRoute."""

    spec: HttpRouteSpec = HttpRouteSpec()
    status: RouteStatus = RouteStatus()
