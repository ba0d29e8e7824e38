"""What is said of a Gateway and of a class, in the Gateway API's words.

Times are handed in. A condition keeps the time at which it last changed, so that a status that says
the same is the same, and nothing is written.

Source: the Gateway API's conditions of GatewayClass and Gateway.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from isthmus.gateways import listeners, workloads
from isthmus.kube import gateway_api, objects
from isthmus.mesh import gateway_classes
from isthmus.mesh.gateway_classes import Behaviour

Status = dict[str, Any]
TRUE, FALSE, UNKNOWN = "True", "False", "Unknown"
ROUTES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({"HTTP": ("HTTPRoute",)})
"""Kinds of routes that attach to listeners of a protocol."""

CONTROLLERS: Final = tuple(gateway_classes.BY_CONTROLLER)
NONE: Final[Mapping[str, int]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Seen:
    """What runs for a Gateway at present.

    Attributes:
        ready: How many pods take traffic.
        addresses: Of its Service, that lead to it from outside.
        host: Name of its Service within the cluster, if only that leads to it.
        problem: What kept us from making it so; empty if nothing did.
    """

    ready: int = 0
    addresses: tuple[gateway_api.Address, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Book:
    """Writes conditions, each with the time since which it is so."""

    generation: int
    now: str
    before: Sequence[gateway_api.Condition] = field(default=())

    def condition(self, type_: str, status: str, reason: str, message: str = "") -> Status:
        """Return a condition as it is now."""
        old = next((one for one in self.before if one.type == type_), None)
        since = old.last_transition_time if old is not None and old.status == status else ""
        return {
            "type": type_,
            "status": status,
            "reason": reason,
            "message": message,
            "observedGeneration": self.generation,
            "lastTransitionTime": since or self.now,
        }

    def with_others(self, ours: Sequence[Status]) -> list[Status]:
        """Return our conditions, after those of others that are kept."""
        types = {one["type"] for one in ours}
        return [*(said(one) for one in self.before if one.type not in types), *ours]


def said(condition: gateway_api.Condition) -> Status:
    """Return a condition as it was said."""
    return {
        "type": condition.type,
        "status": condition.status,
        "reason": condition.reason,
        "message": condition.message,
        "observedGeneration": condition.observed_generation,
        "lastTransitionTime": condition.last_transition_time,
    }


def of_class(found: gateway_api.GatewayClass, *, now: str) -> Status:
    """Return the status of a class of ours."""
    book = Book(found.metadata.generation, now, found.status.conditions or ())
    accepted = book.condition("Accepted", TRUE, "Accepted", "handled by Isthmus")
    return {"conditions": book.with_others([accepted])}


def of_gateway(
    gateway: gateway_api.Gateway,
    behaviour: Behaviour,
    seen: Seen,
    *,
    now: str,
    attached: Mapping[str, int] = NONE,
) -> Status:
    """Return the status of a Gateway of a class of ours; `attached` counts routes by listener."""
    book = Book(gateway.metadata.generation, now, gateway.status.conditions or ())
    reason, fault = workloads.fault_of(gateway, behaviour)
    judged = listeners.judged(gateway, behaviour)
    if fault:
        accepted = book.condition("Accepted", FALSE, reason, fault)
        programmed = book.condition("Programmed", FALSE, "Invalid", fault)
    else:
        bad = [one.listener.name for one in judged if not one.is_served]
        why = ("ListenersNotValid", f"not served: {', '.join(bad)}") if bad else ("Accepted", "")
        accepted = book.condition("Accepted", TRUE, *why)
        programmed = _programmed(book, gateway, seen)
    is_up = programmed["status"] == TRUE
    return {
        "addresses": _addresses(gateway, seen, fault),
        "conditions": book.with_others([accepted, programmed]),
        "listeners": [
            _listener(
                gateway, one, is_up=is_up, now=now, attached=attached.get(one.listener.name, 0)
            )
            for one in judged
        ],
    }


def _programmed(book: Book, gateway: gateway_api.Gateway, seen: Seen) -> Status:
    if workloads.is_manual(gateway):
        text = "its pods are run by whoever gave it `spec.addresses`; nothing is known of them"
        return book.condition("Programmed", UNKNOWN, "Pending", text)
    if seen.problem:
        return book.condition("Programmed", FALSE, "Invalid", seen.problem)
    if not seen.addresses:
        text = "its Service has no external address yet"
        return book.condition("Programmed", FALSE, "AddressNotAssigned", text)
    if not seen.ready:
        return book.condition("Programmed", FALSE, "Pending", "none of its pods is ready yet")
    return book.condition("Programmed", TRUE, "Programmed", "")


def _addresses(gateway: gateway_api.Gateway, seen: Seen, fault: str) -> list[Status]:
    if fault:
        return []
    # The manual ones are as their author says.
    found = gateway.spec.addresses or () if workloads.is_manual(gateway) else seen.addresses
    return [{"type": one.type or "IPAddress", "value": one.value} for one in found]


def _listener(
    gateway: gateway_api.Gateway,
    judged: listeners.Judged,
    *,
    is_up: bool,
    now: str,
    attached: int,
) -> Status:
    name = judged.listener.name
    old = next((one for one in gateway.status.listeners or () if one.name == name), None)
    before = (old.conditions if old is not None else None) or ()
    book = Book(gateway.metadata.generation, now, before)
    is_accepted = judged.condition != "Accepted"
    is_conflicted = judged.condition == "Conflicted"
    told = (judged.reason, judged.message)
    programmed = (TRUE, "Programmed") if is_up and judged.is_served else (FALSE, "Pending")
    if not judged.is_served:
        programmed = (FALSE, "Invalid")
    return {
        "name": name,
        "attachedRoutes": attached,
        "supportedKinds": [
            {"group": gateway_classes.GROUP, "kind": kind}
            for kind in ROUTES.get(judged.listener.protocol, ())
        ],
        "conditions": [
            book.condition("Accepted", *((TRUE, "Accepted") if is_accepted else (FALSE, *told))),
            book.condition(
                "Conflicted", *((TRUE, *told) if is_conflicted else (FALSE, "NoConflicts"))
            ),
            book.condition("ResolvedRefs", TRUE, "ResolvedRefs"),
            book.condition("Programmed", *programmed),
        ],
    }


def is_said(gateway: gateway_api.Gateway, status: Status) -> bool:
    """Say whether a Gateway's status says all that already."""
    return _of_gateway_as_said(gateway) == _without_kinds(status)


def is_said_of_class(found: gateway_api.GatewayClass, status: Status) -> bool:
    """Say whether a class's status says all that already."""
    return {"conditions": [said(one) for one in found.status.conditions or ()]} == status


def _of_gateway_as_said(gateway: gateway_api.Gateway) -> Status:
    status = gateway.status
    return {
        "addresses": [{"type": one.type, "value": one.value} for one in status.addresses or ()],
        "conditions": [said(one) for one in status.conditions or ()],
        "listeners": [
            {
                "name": one.name,
                "attachedRoutes": one.attached_routes,
                "conditions": [said(condition) for condition in one.conditions or ()],
            }
            for one in status.listeners or ()
        ],
    }


def _without_kinds(status: Status) -> Status:
    kept = [
        {key: value for key, value in one.items() if key != "supportedKinds"}
        for one in status["listeners"]
    ]
    return {**status, "listeners": kept}


def seen_of(
    service: objects.Service | None,
    deployment: gateway_api.Deployment | None,
    *,
    host: str,
    problem: str = "",
) -> Seen:
    """Return what runs, from the objects that run it; `host` is the Service's name in the mesh."""
    ready = deployment.status.ready_replicas if deployment is not None else 0
    return Seen(ready, tuple(_leading(service, host)) if service is not None else (), problem)


def _leading(service: objects.Service, host: str) -> Iterable[gateway_api.Address]:
    if service.spec.type == "ClusterIP":
        yield gateway_api.Address(host, "Hostname")
        return
    for ip in service.spec.external_ips:
        yield gateway_api.Address(ip, "IPAddress")
    for one in service.status.load_balancer.ingress:
        if one.ip:
            yield gateway_api.Address(one.ip, "IPAddress")
        elif one.hostname:
            yield gateway_api.Address(one.hostname, "Hostname")
