"""Which AuthorizationPolicies hold for a workload, and whom they mean.

Policies of the root namespace hold in all of the mesh, others in their own namespace. Whatever
trust domain a policy writes for the mesh's own, it means this one and its other names.

Source: spec sections 1.2 and 4.13.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from isthmus.mesh import gateway_classes
from isthmus.mesh.authorization import (
    AuthorizationPolicy,
    Clause,
    Clauses,
    Form,
    Pattern,
    Property,
    Rule,
    Target,
    TargetKind,
)
from isthmus.mesh.identities import TrustDomain
from isthmus.mesh.services import ServiceKey
from isthmus.mesh.settings import MeshSettings

SCHEME: Final = "spiffe://"
WAYPOINT_CLASS: Final = "istio-waypoint"
USUAL_DOMAIN: Final = "cluster.local"
"""How policies write of the mesh's own trust domain, whatever that is."""


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
    domains = domains_of(settings)
    ordered = sorted(set(policies), key=lambda policy: (policy.namespace, policy.name))
    return tuple(_written_out(policy, domains) for policy in ordered)


def domains_of(settings: MeshSettings) -> tuple[TrustDomain, ...]:
    """Return the trust domains whose identities may call, the mesh's own first."""
    return tuple(dict.fromkeys((*own_domains_of(settings), *settings.peer_domains)))


def own_domains_of(settings: MeshSettings) -> tuple[TrustDomain, ...]:
    """Return the names of the mesh's own trust domain, the one in use first."""
    return tuple(dict.fromkeys((settings.trust_domain, *settings.trust_domain_aliases)))


def principals_of(pattern: Pattern, domains: Sequence[TrustDomain]) -> Iterator[Pattern]:
    """Yield a principal in each trust domain that it means."""
    if pattern.form in {Form.PRESENT, Form.SUFFIX}:
        yield pattern
        return
    domain, _, rest = pattern.text.partition("/")
    meant = domains if domain in {USUAL_DOMAIN, *domains} else (domain,)
    yield from (Pattern(pattern.form, f"{one}/{rest}") for one in meant)


def _written_out(
    policy: AuthorizationPolicy, domains: Sequence[TrustDomain]
) -> AuthorizationPolicy:
    rules = tuple(
        Rule(
            sources=tuple(_identified(clauses, domains) for clauses in rule.sources),
            operations=rule.operations,
            conditions=_identified(rule.conditions, domains),
        )
        for rule in policy.rules
    )
    return dataclasses.replace(policy, rules=rules)


def _identified(clauses: Clauses, domains: Sequence[TrustDomain]) -> Clauses:
    return tuple(
        _with_identities(clause, domains) if clause.property.is_identity else clause
        for clause in clauses
    )


def _with_identities(clause: Clause, domains: Sequence[TrustDomain]) -> Clause:
    patterns = [
        identity
        for pattern in clause.patterns
        for identity in _identities(clause.property, pattern, domains)
    ]
    return dataclasses.replace(
        clause, property=Property.IDENTITY, patterns=tuple(dict.fromkeys(patterns))
    )


def _identities(
    property_: Property, pattern: Pattern, domains: Sequence[TrustDomain]
) -> Iterator[Pattern]:
    if pattern.form in {Form.PRESENT, Form.SUFFIX}:
        yield pattern
    elif property_ is Property.PRINCIPAL:
        for principal in principals_of(pattern, domains):
            yield Pattern(principal.form, f"{SCHEME}{principal.text}")
    elif property_ is Property.NAMESPACE:
        end = "/" if pattern.form is Form.EXACT else ""
        for one in domains:
            yield Pattern(Form.PREFIX, f"{SCHEME}{one}/ns/{pattern.text}{end}")
    elif property_ is Property.ACCOUNT:
        namespace, _, account = pattern.text.partition("/")
        for one in domains:
            yield Pattern(Form.EXACT, f"{SCHEME}{one}/ns/{namespace}/sa/{account}")
    else:
        yield pattern
