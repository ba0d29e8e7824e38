"""Which RequestAuthentications hold for a workload, or at a waypoint.

Source: Istio's API for RequestAuthentication.
"""

from collections.abc import Iterable, Mapping

from isthmus.engine import reader
from isthmus.mesh.authentication import JwtRule, RequestAuthentication
from isthmus.mesh.authorization import Target, TargetKind
from isthmus.mesh.services import ServiceKey
from isthmus.views import facts


def near(
    read: reader.Reader, known: facts.Facts, namespaces: Iterable[str]
) -> list[RequestAuthentication]:
    """Return what may hold for workloads of some namespaces, in order."""
    found = {
        key: one
        for namespace in namespaces
        for key, one in read.lookup(known.authentications_by_namespace, namespace).items()
    }
    return sorted(found.values(), key=lambda one: (one.namespace, one.name))


def of_workload(
    found: Iterable[RequestAuthentication], *, labels: Mapping[str, str]
) -> tuple[JwtRule, ...]:
    """Return the rules that hold for a workload with these labels."""
    return tuple(
        rule
        for one in found
        if not one.targets and all(labels.get(key) == value for key, value in one.selector)
        for rule in one.rules
    )


def at_waypoint(
    found: Iterable[RequestAuthentication],
    *,
    gateway: tuple[str, str],
    service: ServiceKey | None,
) -> tuple[JwtRule, ...]:
    """Return the rules that hold at a waypoint, for a service or for pods."""
    meant = {(gateway[0], Target(TargetKind.GATEWAY, gateway[1]))}
    if service is not None:
        meant.add((service.namespace, Target(TargetKind.SERVICE, service.name)))
    return tuple(
        rule
        for one in found
        if any((one.namespace, target) in meant for target in one.targets)
        for rule in one.rules
    )
