"""What AuthorizationPolicies would say to one caller, as far as the caller alone decides.

The same values that proxies are told are read, by the meaning that `mesh.authorization` gives
them; what depends on a request is not guessed.

Source: spec section 4.13; reliability section 5.8.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from isthmus.base import hashing
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


class Fit(hashing.Word):
    """Whether something matches a call."""

    YES = "matches"
    NO = "does not match"
    DEPENDS = "depends on the request"


class Outcome(hashing.Word):
    """What becomes of a call."""

    ALLOWED = "allowed"
    DENIED = "denied"
    DEPENDS = "depends on the request"


@dataclass(frozen=True, slots=True)
class Call:
    """What is known of a call before it is made.

    Attributes:
        identity: SPIFFE identity that the server sees; empty without mutual TLS.
        port: The workload's own port.
    """

    identity: str
    port: int


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the policies of a workload make of a call, and what each of them says."""

    outcome: Outcome
    policies: tuple[tuple[AuthorizationPolicy, Fit], ...]


def judged(policies: Sequence[AuthorizationPolicy], call: Call) -> Judgement:
    """Return what becomes of a call to a workload for which these policies hold."""
    found = tuple((policy, _policy(policy, call)) for policy in policies)
    denying = {fit for policy, fit in found if policy.action is Action.DENY}
    allowing = {fit for policy, fit in found if policy.action is Action.ALLOW}
    if Fit.YES in denying or allowing == {Fit.NO}:
        outcome = Outcome.DENIED
    elif Fit.DEPENDS in denying or (allowing and Fit.YES not in allowing):
        outcome = Outcome.DEPENDS
    else:
        outcome = Outcome.ALLOWED
    return Judgement(outcome, found)


def _policy(policy: AuthorizationPolicy, call: Call) -> Fit:
    return _any(_rule(rule, call) for rule in policy.rules)


def _rule(rule: Rule, call: Call) -> Fit:
    parts = [
        _any(_clauses(clauses, call) for clauses in lists)
        for lists in (rule.sources, rule.operations)
        if lists
    ]
    return _all((_clauses(rule.conditions, call), *parts))


def _clauses(clauses: Clauses, call: Call) -> Fit:
    return _all(_clause(clause, call) for clause in clauses)


def _clause(clause: Clause, call: Call) -> Fit:
    if clause.property is Property.IDENTITY:
        # Without an identity nothing is said of it, neither that it is nor that it is not.
        text = call.identity
    elif clause.property is Property.PORT:
        text = str(call.port)
    else:
        return Fit.DEPENDS
    if not text:
        return Fit.NO
    fits = any(_fits(pattern, text) for pattern in clause.patterns)
    return Fit.NO if fits is clause.is_negated else Fit.YES


def _fits(pattern: Pattern, text: str) -> bool:
    match pattern.form:
        case Form.EXACT:
            return text == pattern.text
        case Form.PREFIX:
            return text.startswith(pattern.text)
        case Form.SUFFIX:
            return text.endswith(pattern.text)
        case Form.PRESENT:
            return bool(text)


def _any(parts: Iterable[Fit]) -> Fit:
    found = set(parts)
    if Fit.YES in found:
        return Fit.YES
    return Fit.DEPENDS if Fit.DEPENDS in found else Fit.NO


def _all(parts: Iterable[Fit]) -> Fit:
    found = set(parts)
    if Fit.NO in found:
        return Fit.NO
    return Fit.DEPENDS if Fit.DEPENDS in found else Fit.YES
