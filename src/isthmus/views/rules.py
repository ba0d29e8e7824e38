"""Which DestinationRule holds for a client, and what it says.

A rule is looked for in the client's namespace, then the service's, then the mesh's root. Within a
namespace the rules for the most specific host that has any are merged: the first one's policy,
and all their subsets by name.

Source: spec sections 3.4 and 8.2.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Final

from isthmus.mesh import policies
from isthmus.mesh.services import Service
from isthmus.views import visibility

NO_POLICY: Final = policies.TrafficPolicy()


def chosen(
    candidates: Sequence[policies.DestinationRule],
    service: Service,
    *,
    client: str | None,
    root: str,
) -> policies.DestinationRule | None:
    """Return the rule that holds for clients in a namespace.

    `candidates` are the rules whose host covers the service, the most specific first. None as
    `client` stands for any namespace that has no rules of its own.
    """
    for namespace in dict.fromkeys((client, service.key.namespace, root)):
        rules = [
            rule
            for rule in candidates
            if rule.namespace == namespace and _is_known(rule, client=client)
        ]
        if rules:
            return _merged([rule for rule in rules if rule.host == rules[0].host])
    return None


def policy_of(rule: policies.DestinationRule | None, *, subset: str = "") -> policies.TrafficPolicy:
    """Return how clients talk to a service, or to a subset of it."""
    if rule is None:
        return NO_POLICY
    for candidate in rule.subsets:
        if candidate.name == subset and candidate.policy is not None:
            return candidate.policy
    return rule.policy


def subsets_of(rule: policies.DestinationRule | None) -> Iterable[policies.Subset]:
    """Return the whole service as a nameless subset, then the subsets that a rule names."""
    return (policies.Subset("", ()), *(rule.subsets if rule is not None else ()))


def _is_known(rule: policies.DestinationRule, *, client: str | None) -> bool:
    if client is None:
        return visibility.EVERYWHERE in (rule.export_to or (visibility.EVERYWHERE,))
    return visibility.is_exported(rule.export_to, owner=rule.namespace, client=client)


def _merged(rules: Sequence[policies.DestinationRule]) -> policies.DestinationRule:
    subsets = dict[str, policies.Subset]()
    for rule in rules:
        for subset in rule.subsets:
            subsets.setdefault(subset.name, subset)
    policy = next((rule.policy for rule in rules if rule.policy != NO_POLICY), NO_POLICY)
    return dataclasses.replace(rules[0], policy=policy, subsets=tuple(subsets.values()))
