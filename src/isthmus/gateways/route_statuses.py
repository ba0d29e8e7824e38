"""What is said of an HTTPRoute at each of its parents, in the Gateway API's words.

Source: the Gateway API's conditions of routes.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from isthmus.gateways import attaching, rules, statuses
from isthmus.kube import gateway_api
from isthmus.mesh.gateway_classes import Behaviour

Parents = Mapping[tuple[str, str], tuple[gateway_api.Gateway, Behaviour]]
"""The Gateways that are ours, by namespace and name."""

Status = dict[str, Any]
FIELDS: Final = (
    ("group", "group"),
    ("kind", "kind"),
    ("namespace", "namespace"),
    ("name", "name"),
    ("sectionName", "section_name"),
    ("port", "port"),
)


def of_route(
    route: gateway_api.HttpRoute,
    parents: Parents,
    *,
    labels: Mapping[str, str],
    checks: rules.Checks,
    now: str,
) -> Status:
    """Return the status of a route: our parents', and what others say of theirs.

    `labels` are those of the route's namespace.
    """
    read = rules.read(route.spec.rules or (), namespace=route.metadata.namespace, checks=checks)
    ours = [
        _parent(route, reference, *parents[parent], read=read, labels=labels, now=now)
        for reference in route.spec.parent_refs or ()
        if (parent := attaching.parent_of(route, reference)) in parents and parent is not None
    ]
    mine = {behaviour.controller for _, behaviour in parents.values()}
    others = [
        _said(one)
        for one in route.status.parents or ()
        if one.controller_name not in mine | set(statuses.CONTROLLERS)
    ]
    return {"parents": [*others, *ours]}


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


def _parent(  # noqa: PLR0913  # each is an independent part of what is so
    route: gateway_api.HttpRoute,
    reference: gateway_api.ParentRef,
    gateway: gateway_api.Gateway,
    behaviour: Behaviour,
    *,
    read: rules.Read,
    labels: Mapping[str, str],
    now: str,
) -> Status:
    at = attaching.attached(route, reference, gateway, behaviour, labels=labels)
    old = next(
        (
            one
            for one in route.status.parents or ()
            if (one.parent_ref, one.controller_name) == (reference, behaviour.controller)
        ),
        None,
    )
    book = statuses.Book(
        route.metadata.generation, now, (old.conditions if old is not None else None) or ()
    )
    wrong = "; ".join(read.unsupported)
    accepted = book.condition("Accepted", statuses.TRUE, "Accepted")
    if at.reason:
        accepted = book.condition("Accepted", statuses.FALSE, at.reason, at.message)
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
        "controllerName": behaviour.controller,
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
