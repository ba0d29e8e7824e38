"""Which listeners of a Gateway an HTTPRoute attaches to, and for which hosts.

Both sides must agree: the route names the Gateway, and the listener lets routes of its namespace in.

Source: the Gateway API's rules for parents of routes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from isthmus.gateways import listeners
from isthmus.kube import gateway_api
from isthmus.mesh import gateway_classes
from isthmus.mesh.gateway_classes import Behaviour

KIND: Final = "HTTPRoute"
SERVICE: Final = "Service"
SERVICE_ENTRY: Final = "ServiceEntry"
OF_MESH: Final = {("", SERVICE), ("networking.istio.io", SERVICE_ENTRY)}
"""Groups and kinds of parents whose routes hold for calls within the mesh."""

ANY: Final = "*"
Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Attached:
    """Where a route attaches, by one of its references, or why it does not.

    Attributes:
        listeners: Name of each listener, and the hosts that it serves there.
    """

    listeners: tuple[tuple[str, tuple[str, ...]], ...] = ()
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, order=True)
class Called:
    """What is called by those whose requests a route leads: a Service, or a ServiceEntry."""

    kind: str
    namespace: str
    name: str


def called_by(route: gateway_api.HttpRoute, reference: gateway_api.ParentRef) -> Called | None:
    """Return the Service or ServiceEntry that a reference names; None for anything else."""
    kind = reference.kind or "Gateway"
    group = gateway_classes.GROUP if reference.group is None else reference.group
    if (group, kind) not in OF_MESH:
        return None
    return Called(kind, reference.namespace or route.metadata.namespace, reference.name)


def port_of(service_ports: Iterable[tuple[str, int]], reference: gateway_api.ParentRef) -> int:
    """Return the port that a reference to a Service means: 0 for all, -1 for none."""
    if reference.section_name:
        named = dict(service_ports).get(reference.section_name, -1)
        return named if reference.port in {None, named} else -1
    return reference.port or 0


def namespaces_of(route: gateway_api.HttpRoute) -> frozenset[str]:
    """Return the namespaces in which there is anything that a route names."""
    found = {route.metadata.namespace}
    found |= {one.namespace for one in route.spec.parent_refs or () if one.namespace}
    for rule in route.spec.rules or ():
        refs = rule.get("backendRefs")
        for one in refs if isinstance(refs, list | tuple) else ():
            if isinstance(one, Mapping) and isinstance(one.get("namespace"), str):
                found.add(one["namespace"])
    return frozenset(found)


def parent_of(
    route: gateway_api.HttpRoute, reference: gateway_api.ParentRef
) -> tuple[str, str] | None:
    """Return namespace and name of the Gateway that a reference names; None for anything else."""
    is_gateway = (reference.kind or "Gateway") == "Gateway"
    if not is_gateway or (reference.group or gateway_classes.GROUP) != gateway_classes.GROUP:
        return None
    return reference.namespace or route.metadata.namespace, reference.name


def attached(
    route: gateway_api.HttpRoute,
    reference: gateway_api.ParentRef,
    gateway: gateway_api.Gateway,
    behaviour: Behaviour,
    *,
    labels: Labels,
) -> Attached:
    """Return where a route attaches to a Gateway; `labels` are those of the route's namespace."""
    named = [
        one.listener
        for one in listeners.judged(gateway, behaviour)
        if one.is_served
        and one.listener.protocol == "HTTP"
        and reference.section_name in {None, "", one.listener.name}
        and reference.port in {None, one.listener.port}
    ]
    if not named:
        return Attached((), "NoMatchingParent", "no listener for HTTP that is served is meant")
    letting = [one for one in named if _lets_in(one, route, gateway, labels)]
    if not letting:
        text = "no listener lets routes of this kind and namespace in"
        return Attached((), "NotAllowedByListeners", text)
    every = [one.listener for one in listeners.judged(gateway, behaviour)]
    serving = tuple(
        (one.name, hosts)
        for one in letting
        if (hosts := tuple(h for h in hosts_of(route, one) if not _is_of_another(h, one, every)))
    )
    if not serving:
        text = "no hostname of the route is one of a listener"
        return Attached((), "NoMatchingListenerHostname", text)
    return Attached(serving)


def _lets_in(
    listener: gateway_api.Listener,
    route: gateway_api.HttpRoute,
    gateway: gateway_api.Gateway,
    labels: Labels,
) -> bool:
    allowed = listener.allowed_routes or gateway_api.AllowedRoutes()
    group = gateway_classes.GROUP
    if allowed.kinds and all(
        (one.group or group, one.kind) != (group, KIND) for one in allowed.kinds
    ):
        return False
    namespaces = allowed.namespaces or gateway_api.RouteNamespaces()
    match namespaces.from_ or "Same":
        case "All":
            return True
        case "Same":
            return route.metadata.namespace == gateway.metadata.namespace
        case "Selector":
            return namespaces.selector is not None and _selects(namespaces.selector, labels)
        case _:
            return False


def _selects(selector: gateway_api.Selector, labels: Labels) -> bool:
    wanted = selector.match_labels or {}
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        _holds(one, labels) for one in selector.match_expressions or ()
    )


def _holds(expression: gateway_api.Expression, labels: Labels) -> bool:
    found, values = labels.get(expression.key), expression.values or ()
    match expression.operator:
        case "In":
            return found is not None and found in values
        case "NotIn":
            return found is None or found not in values
        case "Exists":
            return found is not None
        case "DoesNotExist":
            return found is None
        case _:
            return False


def _is_of_another(
    host: str, listener: gateway_api.Listener, every: Iterable[gateway_api.Listener]
) -> bool:
    """Say whether a narrower listener of the same port has a host for itself.

    Whoever may attach to `*.example` must not get the requests for `a.example` of that other one.
    """
    own = (listener.hostname or ANY).lower()
    return any(
        one.port == listener.port and one.hostname and covers(name, host) and covers(own, name)
        for one in every
        if one.name != listener.name
        for name in ((one.hostname or "").lower(),)
    )


def hosts_of(route: gateway_api.HttpRoute, listener: gateway_api.Listener) -> tuple[str, ...]:
    """Return the hosts that a route serves at a listener: the narrower one of each pair."""
    asked = (listener.hostname or ANY).lower()
    said = [one.lower() for one in route.spec.hostnames or ()]
    if not said:
        return (asked,)
    found = (narrower(asked, one) for one in said)
    return tuple(dict.fromkeys(one for one in found if one))


def narrower(one: str, other: str) -> str:
    """Return the host that both mean, the narrower one; nothing if there is none."""
    if covers(one, other):
        return other
    return one if covers(other, one) else ""


def covers(pattern: str, host: str) -> bool:
    """Say whether a host, or all hosts of a pattern, belong to a pattern."""
    if pattern in {ANY, host}:
        return True
    return (
        pattern.startswith("*.")
        and host.removeprefix("*").endswith(pattern[1:])
        and (host.removeprefix("*") != pattern[1:])
    )
