"""Which AuthorizationPolicies hold for a workload, and whom they mean.

Policies of the root namespace hold in all of the mesh, others in their own namespace. Whom their
clauses about callers mean is said in `principals`.

Source: spec sections 1.2 and 4.13.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Final

from isthmus.mesh import gateway_classes
from isthmus.mesh.authorization import (
    AuthorizationPolicy,
    Clauses,
    Rule,
    Target,
    TargetKind,
)
from isthmus.mesh.identities import TrustDomain
from isthmus.mesh.services import ServiceKey
from isthmus.mesh.settings import MeshSettings
from isthmus.views import principals

WAYPOINT_CLASS: Final = "istio-waypoint"


def policies_of(
    policies: Iterable[AuthorizationPolicy],
    *,
    namespace: str,
    labels: Mapping[str, str],
    settings: MeshSettings,
) -> tuple[AuthorizationPolicy, ...]:
    """Return the policies that hold for a workload, in order, with all identities written out.

    What names a Gateway holds at its pods.
    """
    gateway = labels.get(gateway_classes.NAME_LABEL, "")
    named = Target(TargetKind.GATEWAY, gateway)
    return _in_order(
        (
            policy
            for policy in policies
            if policy.namespace in {namespace, settings.root_namespace}
            and all(labels.get(key) == value for key, value in policy.selector)
            and (
                not policy.targets
                or (gateway and policy.namespace == namespace and named in policy.targets)
            )
        ),
        settings,
    )


def at_waypoint(
    policies: Iterable[AuthorizationPolicy],
    *,
    gateway: tuple[str, str],
    service: ServiceKey | None,
    settings: MeshSettings,
) -> tuple[AuthorizationPolicy, ...]:
    """Return the policies that hold for a service at a waypoint: those that name either of them.

    `gateway` is the waypoint's `(namespace, name)`; there is no `service` where a pod is called.
    """
    meant = {
        (gateway[0], Target(TargetKind.GATEWAY, gateway[1])),
        (settings.root_namespace, Target(TargetKind.CLASS, WAYPOINT_CLASS)),
    }
    if service is not None:
        meant.add((service.namespace, Target(TargetKind.SERVICE, service.name)))
    return _in_order(
        (
            policy
            for policy in policies
            if any((policy.namespace, one) in meant for one in policy.targets)
        ),
        settings,
    )


def _in_order(
    policies: Iterable[AuthorizationPolicy], settings: MeshSettings
) -> tuple[AuthorizationPolicy, ...]:
    domains = principals.domains_of(settings)
    ordered = sorted(set(policies), key=lambda policy: (policy.namespace, policy.name))
    return tuple(_written_out(policy, domains) for policy in ordered)


def domains_of(settings: MeshSettings) -> tuple[TrustDomain, ...]:
    """Return the trust domains whose identities may call, the mesh's own first."""
    return principals.domains_of(settings).accepted


def _written_out(policy: AuthorizationPolicy, domains: principals.Domains) -> AuthorizationPolicy:
    def identified(clauses: Clauses) -> Clauses:
        return tuple(
            principals.with_identities(clause, domains, policy.action)
            if clause.property.is_identity
            else clause
            for clause in clauses
        )

    rules = tuple(
        Rule(
            sources=tuple(map(identified, rule.sources)),
            operations=rule.operations,
            conditions=identified(rule.conditions),
        )
        for rule in policy.rules
    )
    return dataclasses.replace(policy, rules=rules)
