"""Policies as far as they can be held to without reading requests: what node proxies enforce.

Where a rule looks at requests, an ALLOW rule is left out and a DENY rule loses those clauses:
either way nobody gets in who should not. What a workload accepts in plain text is a policy, too:
one that denies connections without an identity.

Source: spec sections 4.9 and 7.1.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from isthmus.mesh.authorization import (
    Action,
    AuthorizationPolicy,
    Clause,
    Clauses,
    Form,
    Pattern,
    Property,
    Rule,
)
from isthmus.mesh.policies import MtlsMode, PeerAuthentication
from isthmus.mesh.settings import MeshSettings
from isthmus.views import modes, principals
from isthmus.views.wds import Alternatives, AuthorizationSlice, ConnectionMatch, Reach

STATIC_STRICT: Final = "istio_converted_static_strict"
CONVERTED: Final = "converted_peer_authentication_"
"""How policies are called that PeerAuthentications become; Istio's node proxies know the names."""

WITHOUT_IDENTITY: Final = ConnectionMatch(not_principals=(Pattern(Form.PRESENT),))

Group = tuple[Alternatives, ...]


# --- AuthorizationPolicy


def slice_of(policy: AuthorizationPolicy, *, settings: MeshSettings) -> AuthorizationSlice:
    """Return what an AuthorizationPolicy means for connections."""
    domains = principals.domains_of(settings)
    groups = (_group(rule, policy.action, domains) for rule in policy.rules)
    return AuthorizationSlice(
        policy.namespace,
        policy.name,
        _reach(policy, root=settings.root_namespace),
        policy.action,
        tuple(group for group in groups if group is not None),
    )


def _reach(policy: AuthorizationPolicy, *, root: str) -> Reach:
    if policy.selector:
        return Reach.NAMED
    return Reach.MESH if policy.namespace == root else Reach.NAMESPACE


def _group(rule: Rule, action: Action, domains: principals.Domains) -> Group | None:
    """Return the connections that a rule means; None if it can mean none."""
    if action is Action.ALLOW and any(one.property.needs_request for one in rule.clauses()):
        return None
    parts = [rule.operations, rule.sources, *(((clause,),) for clause in rule.conditions)]
    matched = tuple(
        tuple(found for clauses in part if (found := _match(clauses, domains, action)) is not None)
        for part in parts
        if part
    )
    return matched if all(matched) else None


def _match(clauses: Clauses, domains: principals.Domains, action: Action) -> ConnectionMatch | None:
    """Return the connections that clauses mean together; None if it can mean none."""
    said = [one for one in clauses if not one.property.needs_request]
    callers = _callers(said, domains, action)
    if callers is None:
        return None

    def texts(property_: Property, *, is_negated: bool) -> tuple[Pattern, ...]:
        return tuple(_patterns(said, property_, is_negated=is_negated))

    def accounts(*, is_negated: bool) -> tuple[tuple[str, str], ...]:
        return tuple(_account(one.text) for one in texts(Property.ACCOUNT, is_negated=is_negated))

    def ranges(*, is_negated: bool) -> tuple[str, ...]:
        return tuple(one.text for one in texts(Property.ADDRESS, is_negated=is_negated))

    def ports(*, is_negated: bool) -> tuple[int, ...]:
        return tuple(int(one.text) for one in texts(Property.PORT, is_negated=is_negated))

    return ConnectionMatch(
        principals=callers,
        not_principals=_kept_out(said, domains, action),
        namespaces=texts(Property.NAMESPACE, is_negated=False),
        not_namespaces=texts(Property.NAMESPACE, is_negated=True),
        accounts=accounts(is_negated=False),
        not_accounts=accounts(is_negated=True),
        sources=ranges(is_negated=False),
        not_sources=ranges(is_negated=True),
        ports=ports(is_negated=False),
        not_ports=ports(is_negated=True),
    )


def _callers(
    clauses: Sequence[Clause], domains: principals.Domains, action: Action
) -> tuple[Pattern, ...] | None:
    """Return the principals that may be meant, any if there are none; None if nobody can be.

    A match has one list of principals: whoever must be one of these and of some trust domain is
    one of what both have in common.
    """
    narrow = action is Action.ALLOW
    said, where = (
        list(_patterns(clauses, property_, is_negated=False))
        for property_ in (Property.PRINCIPAL, Property.TRUST_DOMAIN)
    )
    meant = [
        found for one in said for found in principals.principals_of(one, domains, is_narrow=narrow)
    ]
    if not where:
        return tuple(dict.fromkeys(meant))
    within = [found for one in where for found in domains.fitting(one, is_narrow=narrow)]
    both = [
        found
        for one in (meant if said else [Pattern(Form.PRESENT)])
        for domain in within
        if (found := principals.within(one, domain, is_narrow=narrow)) is not None
    ]
    return tuple(dict.fromkeys(both)) or None


def _kept_out(
    clauses: Sequence[Clause], domains: principals.Domains, action: Action
) -> tuple[Pattern, ...]:
    narrow = action is not Action.ALLOW
    found = [
        one
        for each in _patterns(clauses, Property.PRINCIPAL, is_negated=True)
        for one in principals.principals_of(each, domains, is_narrow=narrow)
    ]
    found += [
        one
        for each in _patterns(clauses, Property.TRUST_DOMAIN, is_negated=True)
        for one in domains.fitting(each, is_narrow=narrow)
    ]
    return tuple(dict.fromkeys(found))


def _patterns(
    clauses: Iterable[Clause], property_: Property, *, is_negated: bool
) -> Iterator[Pattern]:
    for clause in clauses:
        if clause.property is property_ and clause.is_negated == is_negated:
            yield from clause.patterns


def _account(text: str) -> tuple[str, str]:
    namespace, _, account = text.partition("/")
    return namespace, account


def is_changed(policy: AuthorizationPolicy) -> bool:
    """Say whether a policy means something else for connections than it says."""
    return any(clause.property.needs_request for rule in policy.rules for clause in rule.clauses())


# --- PeerAuthentication


def static_strict(root: str) -> AuthorizationSlice:
    """Return the policy of workloads that accept no plain text on any port."""
    groups = (((WITHOUT_IDENTITY,),),)
    return AuthorizationSlice(root, STATIC_STRICT, Reach.NAMED, Action.DENY, groups)


def converted(
    policy: PeerAuthentication, others: Iterable[PeerAuthentication], *, root: str
) -> AuthorizationSlice | None:
    """Return what a policy with modes of its own for ports means; None if it needs none.

    `others` are those of its namespace and the root namespace, from which it may inherit.
    """
    if not policy.selector or policy.namespace == root or not policy.port_modes:
        return None
    above = [one for one in others if not one.selector]
    found = modes.modes_of(
        [*above, policy],
        namespace=policy.namespace,
        labels=dict(policy.selector),
        root=root,
    )
    group = _plain_text(found)
    if group is None:
        return None
    name = f"{CONVERTED}{policy.name}"
    return AuthorizationSlice(policy.namespace, name, Reach.NAMED, Action.DENY, (group,))


def _plain_text(found: modes.Modes) -> Group | None:
    """Return the connections in plain text that are not accepted, if ports differ in that."""
    is_strict = found.general is MtlsMode.STRICT
    others = tuple(
        sorted(
            port for port, mode in found.by_port.items() if (mode is MtlsMode.STRICT) != is_strict
        )
    )
    if not others:
        return None
    if is_strict:
        return ((WITHOUT_IDENTITY,), (ConnectionMatch(not_ports=others),))
    return ((ConnectionMatch(not_principals=WITHOUT_IDENTITY.not_principals, ports=others),),)


# --- which of them workloads name


def names_for(
    *,
    namespace: str,
    labels: Mapping[str, str],
    authorizations: Iterable[AuthorizationPolicy],
    authentications: Sequence[PeerAuthentication],
    root: str,
) -> tuple[str, ...]:
    """Return `<namespace>/<name>` of the policies that hold for a workload by its labels, sorted."""
    found = {
        f"{policy.namespace}/{policy.name}"
        for policy in authorizations
        if policy.selector and all(labels.get(key) == value for key, value in policy.selector)
    }
    found.update(_of_plain_text(authentications, namespace=namespace, labels=labels, root=root))
    return tuple(sorted(found))


def _of_plain_text(
    policies: Sequence[PeerAuthentication],
    *,
    namespace: str,
    labels: Mapping[str, str],
    root: str,
) -> Iterator[str]:
    mode = modes.modes_of(policies, namespace=namespace, labels=labels, root=root)
    own = modes.of_workload(policies, namespace=namespace, labels=labels, root=root)
    special = converted(own, policies, root=root) if own is not None else None
    if special is not None:
        yield special.resource_name
    elif mode.general is MtlsMode.STRICT:
        yield f"{root}/{STATIC_STRICT}"
