"""AuthorizationPolicies that say from which clusters callers come.

    metadata:
      annotations:
        isthmus.dev/source-clusters: cluster1,cluster2

narrows each rule to callers of these clusters. What proves a cluster is its trust domain, so a
cluster that shares its own with another one cannot be told from it. Where that is so, or a cluster
is not known, the policy denies every call that it could be asked about, and says why.

Source: decisions 0007 and 0030.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Final

from isthmus.base import errors
from isthmus.engine import collections, graph, reader
from isthmus.fleet import sources
from isthmus.mesh import authorization, peering
from isthmus.mesh.authorization import (
    Action,
    AuthorizationPolicy,
    Clause,
    Form,
    Pattern,
    Property,
)
from isthmus.mesh.identities import ClusterId, TrustDomain
from isthmus.mesh.settings import DEFAULT_TRUST_DOMAIN, MeshSettings
from isthmus.registry import authorization_policies, checked, config, settings

UNTOLD: Final = "ISM-REG-042"
NAMES_NOBODY: Final = "ISM-REG-043"
FROM_ANYWHERE: Final = "it denies every call to what it selects; other workloads are not touched"

Policies = collections.Collection[sources.ObjectKey, AuthorizationPolicy]
Links = collections.Collection[ClusterId, peering.Link]


def declare(
    graph_: graph.Graph,
    policies: config.Nodes[AuthorizationPolicy],
    *,
    settings_: settings.Nodes,
    links: Links,
) -> config.Nodes[AuthorizationPolicy]:
    """Declare in `graph_` policies whose clauses say all that their annotations do."""
    domains = graph_.single("authorization.domains", _domains(settings_, links))
    both = graph_.derive("authorization.by_cluster", policies.values, _checked(domains, settings_))
    return config.Nodes(
        checked.values_of(graph_, "authorization.told", both),
        graph_.join(
            "authorization.findings",
            policies.findings,
            checked.findings_of(graph_, "authorization.by_cluster", both),
        ),
    )


def _domains(
    settings_: settings.Nodes, links: Links
) -> Callable[[reader.Reader], Mapping[ClusterId, TrustDomain]]:
    def domains(read: reader.Reader) -> Mapping[ClusterId, TrustDomain]:
        said = read.value(settings_.settings)
        linked = {peer: link.trust_domain for peer, link in read.items(links).items()}
        own = settings_.domain_of(read, said.cluster)
        return {**linked, **read.items(settings_.trust.clusters), said.cluster: own}

    return domains


def _checked(
    domains: collections.Single[Mapping[ClusterId, TrustDomain]], settings_: settings.Nodes
) -> Callable[
    [reader.Reader, sources.ObjectKey, AuthorizationPolicy],
    Iterable[tuple[sources.ObjectKey, checked.Checked[AuthorizationPolicy]]],
]:
    def check(
        read: reader.Reader, key: sources.ObjectKey, policy: AuthorizationPolicy
    ) -> Iterable[tuple[sources.ObjectKey, checked.Checked[AuthorizationPolicy]]]:
        findings: list[errors.Finding] = []
        if _names_usual_domain(policy) and not is_borne(read.value(settings_.settings)):
            findings.append(_of_nobody(policy))
        if policy.source_clusters is None:
            yield key, checked.Checked(policy, tuple(findings))
            return
        said = read.value(settings_.settings)
        known = read.value(domains)
        ours = {said.trust_domain, *said.trust_domain_aliases}
        fault = fault_of(policy.source_clusters, known, ours=ours)
        if fault:
            findings.append(_finding(policy, fault))
            denied = dataclasses.replace(policy, action=Action.DENY, rules=authorization.ALL_CALLS)
            yield key, checked.Checked(denied, tuple(findings))
            return
        told = narrowed(policy, {known[ClusterId(one)] for one in policy.source_clusters})
        yield key, checked.Checked(told, tuple(findings))

    return check


def fault_of(
    named: Iterable[str],
    known: Mapping[ClusterId, TrustDomain],
    *,
    ours: Set[TrustDomain] = frozenset(),
) -> str:
    """Say why callers of clusters cannot be told from others, or nothing.

    `ours` are all names of our own trust domain.
    """
    meant = [ClusterId(one) for one in named]
    if not meant:
        return "names no cluster"
    for cluster in meant:
        if cluster not in known:
            return f"names cluster `{cluster[:80]}`, which is not known"
    taken = {known[cluster] for cluster in meant}
    if taken & ours:
        taken |= ours
    for cluster, domain in sorted(known.items()):
        if cluster not in meant and domain in taken:
            return (
                f"names no cluster `{cluster}`, which cannot be told apart: it is `{domain}`, too"
            )
    return ""


def narrowed(policy: AuthorizationPolicy, domains: Iterable[TrustDomain]) -> AuthorizationPolicy:
    """Return a policy whose rules mean callers of some trust domains only."""
    patterns = tuple(Pattern(Form.EXACT, domain) for domain in sorted(domains))
    clause = Clause(Property.TRUST_DOMAIN, patterns)
    rules = tuple(
        dataclasses.replace(rule, conditions=(*rule.conditions, clause)) for rule in policy.rules
    )
    return dataclasses.replace(policy, rules=rules)


def is_borne(said: MeshSettings) -> bool:
    """Say whether anybody has trust domain `cluster.local`."""
    accepted = (said.trust_domain, *said.trust_domain_aliases, *said.peer_domains)
    return DEFAULT_TRUST_DOMAIN in accepted


def _names_usual_domain(policy: AuthorizationPolicy) -> bool:
    return any(
        pattern.text.partition("/")[0] == DEFAULT_TRUST_DOMAIN
        for rule in policy.rules
        for clause in rule.clauses()
        if clause.property in {Property.PRINCIPAL, Property.TRUST_DOMAIN}
        for pattern in clause.patterns
        if pattern.form in {Form.EXACT, Form.PREFIX}
    )


def _finding(policy: AuthorizationPolicy, happened: str) -> errors.Finding:
    return errors.Finding(
        UNTOLD,
        subject=f"AuthorizationPolicy {policy.namespace}/{policy.name}",
        happened=f"annotation `{authorization_policies.SOURCE_CLUSTERS}` {happened}",
        still_working=FROM_ANYWHERE,
        hint="give each cluster a trust domain of its own: docs/howto/trust-domains.md",
    )


def _of_nobody(policy: AuthorizationPolicy) -> errors.Finding:
    return errors.Finding(
        NAMES_NOBODY,
        subject=f"AuthorizationPolicy {policy.namespace}/{policy.name}",
        happened=f"names trust domain `{DEFAULT_TRUST_DOMAIN}`, which nobody here has",
        still_working="what it denies holds for our own trust domain as well; what it allows, for "
        "nobody of that name",
        hint=f"write the trust domain that is meant, or add `{DEFAULT_TRUST_DOMAIN}` to "
        "`meshConfig.trustDomainAliases`",
    )
