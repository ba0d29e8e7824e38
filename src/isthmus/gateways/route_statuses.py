"""What is said of an HTTPRoute at each of its parents, in the Gateway API's words.

Of parents that are called within the mesh the controller of class `istio` speaks, as with Istio.

Source: the Gateway API's conditions of routes.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Final

from isthmus.gateways import attaching, rules, statuses
from isthmus.kube import gateway_api
from isthmus.mesh import gateway_classes
from isthmus.mesh.gateway_classes import Behaviour

Within = Mapping[attaching.Called, tuple[tuple[str, int], ...]]
"""What is called within the mesh and exists: names and numbers of its ports."""

Parents = Mapping[tuple[str, str], tuple[gateway_api.Gateway, Behaviour]]
"""The Gateways that are ours, by namespace and name."""

SPEAKER: Final = gateway_classes.INGRESS.controller
NO_PARENT: Final = "NoMatchingParent"
Status = dict[str, Any]
FIELDS: Final = (
    ("group", "group"),
    ("kind", "kind"),
    ("namespace", "namespace"),
    ("name", "name"),
    ("sectionName", "section_name"),
    ("port", "port"),
)


def of_route(  # each is an independent part of what is so
    route: gateway_api.HttpRoute,
    parents: Parents,
    *,
    within: Within,
    labels: Mapping[str, str],
    checks: rules.Checks,
    now: str,
) -> Status:
    """Return the status of a route: our parents', and what others say of theirs.

    `labels` are those of the route's namespace.
    """
    crossing = dataclasses.replace(checks, crosses=True)
    at_gateways, at_calls = _read(route, checks), _read(route, crossing)
    ours = []
    for reference in route.spec.parent_refs or ():
        called = attaching.called_by(route, reference)
        if called is not None:
            fault = _missing(called, reference, within)
            ours.append(_said_at(route, reference, SPEAKER, fault, read=at_calls, now=now))
            continue
        named = attaching.parent_of(route, reference)
        if named is not None and named in parents:
            gateway, behaviour = parents[named]
            at = attaching.attached(route, reference, gateway, behaviour, labels=labels)
            fault = (at.reason, at.message)
            controller = behaviour.controller
            ours.append(_said_at(route, reference, controller, fault, read=at_gateways, now=now))
    others = [
        _said(one)
        for one in route.status.parents or ()
        if one.controller_name not in statuses.CONTROLLERS
    ]
    return {"parents": [*others, *ours]}


def _read(route: gateway_api.HttpRoute, checks: rules.Checks) -> rules.Read:
    return rules.read(route.spec.rules or (), namespace=route.metadata.namespace, checks=checks)


def _missing(
    called: attaching.Called, reference: gateway_api.ParentRef, within: Within
) -> tuple[str, str]:
    """Return why a route is for nothing that is called; empty if it is for something."""
    ports = within.get(called)
    if ports is None:
        return NO_PARENT, f"there is no {called.kind} `{called.namespace}/{called.name}`"
    port = attaching.port_of(ports, reference)
    if port and port not in {number for _, number in ports}:
        return NO_PARENT, f"{called.kind} `{called.namespace}/{called.name}` has no such port"
    return "", ""


def is_said(route: gateway_api.HttpRoute, status: Status) -> bool:
    """Say whether a route's status says all that already."""
    return {"parents": [_said(one) for one in route.status.parents or ()]} == status


def attached_to(
    gateway: gateway_api.Gateway,
    behaviour: Behaviour,
    routes: Mapping[tuple[str, str], gateway_api.HttpRoute],
    labels_of: Callable[[str], Mapping[str, str]],
) -> Mapping[str, int]:
    """Return how many routes are attached to each listener."""
    counts = dict[str, int]()
    me = (gateway.metadata.namespace, gateway.metadata.name)
    for (namespace, _), route in routes.items():
        names = {
            name
            for reference in route.spec.parent_refs or ()
            if attaching.parent_of(route, reference) == me
            for name, _ in attaching.attached(
                route, reference, gateway, behaviour, labels=labels_of(namespace)
            ).listeners
        }
        for name in names:
            counts[name] = counts.get(name, 0) + 1
    return counts


def _said_at(  # each is an independent part of what is so
    route: gateway_api.HttpRoute,
    reference: gateway_api.ParentRef,
    controller: str,
    fault: tuple[str, str],
    *,
    read: rules.Read,
    now: str,
) -> Status:
    old = next(
        (
            one
            for one in route.status.parents or ()
            if (one.parent_ref, one.controller_name) == (reference, controller)
        ),
        None,
    )
    book = statuses.Book(
        route.metadata.generation, now, (old.conditions if old is not None else None) or ()
    )
    wrong = "; ".join(read.unsupported)
    accepted = book.condition("Accepted", statuses.TRUE, "Accepted")
    if fault[0]:
        accepted = book.condition("Accepted", statuses.FALSE, *fault)
    elif wrong and not read.entries:
        accepted = book.condition("Accepted", statuses.FALSE, "UnsupportedValue", wrong)
    resolved = book.condition("ResolvedRefs", statuses.TRUE, "ResolvedRefs")
    if read.backend_reason:
        told = (read.backend_reason, read.backend_message)
        resolved = book.condition("ResolvedRefs", statuses.FALSE, *told)
    conditions = [accepted, resolved]
    if wrong and read.entries:
        told = ("UnsupportedValue", f"dropped: {wrong}")
        conditions.append(book.condition("PartiallyInvalid", statuses.TRUE, *told))
    return {
        "parentRef": _reference(reference),
        "controllerName": controller,
        "conditions": conditions,
    }


def _reference(reference: gateway_api.ParentRef) -> Status:
    said = ((name, getattr(reference, attribute)) for name, attribute in FIELDS)
    return {name: value for name, value in said if value is not None}


def _said(parent: gateway_api.ParentStatus) -> Status:
    return {
        "parentRef": _reference(parent.parent_ref),
        "controllerName": parent.controller_name,
        "conditions": [statuses.said(one) for one in parent.conditions or ()],
    }
