"""Which DestinationRule holds for a client, and what it says.

A rule is looked for in the client's namespace, then the service's, then the mesh's root. Within a
namespace the rules for the most specific host that has any are merged, the oldest first: the first
one's policy that says anything, and all their subsets by name. Rules that are exported elsewhere
than the oldest, or select other clients, stay apart, and do not count.

Source: spec sections 3.4 and 8.2.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Final

from isthmus.mesh import policies
from isthmus.mesh.services import Service
from isthmus.mesh.traffic import UNSAID, TrafficPolicy
from isthmus.views import visibility

Labels = tuple[tuple[str, str], ...]

WHOLE: Final = (policies.Subset("", ()),)
"""The whole service, as a subset without a name."""


def chosen(
    candidates: Sequence[policies.DestinationRule],
    service: Service,
    *,
    client: str | None,
    root: str,
    labels: Labels = (),
) -> policies.DestinationRule | None:
    """Return the rule that holds for clients in a namespace that have `labels`.

    `candidates` are the rules whose host covers the service, the most specific first. None as
    `client` stands for any namespace that has no rules of its own. Rules that select clients
    count before those that do not.
    """
    for namespace in dict.fromkeys((client, service.key.namespace, root)):
        rules = [
            rule
            for rule in candidates
            if rule.namespace == namespace
            and _is_known(rule, client=client)
            and _selects(rule, client=client, labels=labels)
        ]
        if rules:
            same = [rule for rule in rules if rule.host == rules[0].host]
            same.sort(key=lambda rule: (rule.selector is None, rule.created, rule.name))
            return _merged([rule for rule in same if rule.selector == same[0].selector])
    return None


def labels_selected(rule: policies.DestinationRule) -> frozenset[tuple[str, str]]:
    """Return the labels of clients, in the rule's namespace, by which it matters who calls."""
    return frozenset(rule.selector or ())


def policy_of(
    rule: policies.DestinationRule | None, *, port: int, usual: TrafficPolicy, subset: str = ""
) -> TrafficPolicy:
    """Return how clients talk to a port of a service, or of a subset of it.

    What a subset says counts before the rule, and that before what is `usual` in the mesh. What
    is said of a port stands alone.
    """
    found = UNSAID if rule is None else rule.policy.on(port)
    for candidate in rule.subsets if rule is not None else ():
        if candidate.name == subset and candidate.policy is not None:
            own = candidate.policy.on(port)
            found = own if port in dict(candidate.policy.ports) else own.over(found)
    return found.over(usual.on(port))


def subsets_of(rule: policies.DestinationRule | None) -> Iterable[policies.Subset]:
    """Return the whole service as a nameless subset, then the subsets that a rule names."""
    return WHOLE if rule is None else (*WHOLE, *rule.subsets)


def is_for_all(rule: policies.DestinationRule) -> bool:
    """Say whether clients of all namespaces know a rule."""
    return visibility.EVERYWHERE in (rule.export_to or (visibility.EVERYWHERE,))


def _selects(rule: policies.DestinationRule, *, client: str | None, labels: Labels) -> bool:
    if rule.selector is None:
        return True
    return rule.namespace == client and set(rule.selector).issubset(labels)


def _is_known(rule: policies.DestinationRule, *, client: str | None) -> bool:
    if client is None:
        return is_for_all(rule)
    return visibility.is_exported(rule.export_to, owner=rule.namespace, client=client)


def _merged(rules: Sequence[policies.DestinationRule]) -> policies.DestinationRule:
    subsets = dict[str, policies.Subset]()
    alike = [rule for rule in rules if rule.export_to == rules[0].export_to]
    for rule in alike:
        for subset in rule.subsets:
            subsets.setdefault(subset.name.lower(), subset)
    policy = next((rule.policy for rule in alike if rule.policy != UNSAID), UNSAID)
    return dataclasses.replace(rules[0], policy=policy, subsets=tuple(subsets.values()))
