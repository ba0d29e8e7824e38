"""AuthorizationPolicies that look at requests on ports where none are read.

Nothing gets in there that should not: but more is refused than their authors may expect.
"""

from collections.abc import Callable, Iterator
from typing import Final

from isthmus.base import errors
from isthmus.engine import reader
from isthmus.mesh.authorization import Action, AuthorizationPolicy
from isthmus.views import authorization, facts, view

UNREAD: Final = "ISM-VIEW-005"

Key = tuple[str, str, str]


def findings(
    known: facts.Facts,
) -> Callable[[reader.Reader, view.Scope, int], Iterator[tuple[Key, errors.Finding]]]:
    """Return what finds such policies among those of a scope."""

    def found(
        read: reader.Reader, scope: view.Scope, _: int
    ) -> Iterator[tuple[Key, errors.Finding]]:
        if not isinstance(scope, view.InboundScope):
            return
        ports = [port for port, protocol in scope.ports if not protocol.is_http]
        if not ports:
            return
        settings = read.value(known.model.settings)
        for policy in authorization.policies_of(
            facts.authorizations_for(
                read, known, namespace=scope.namespace, root=settings.root_namespace
            ),
            namespace=scope.namespace,
            labels=dict(scope.labels),
            settings=settings,
        ):
            if _looks_at_requests(policy):
                yield (UNREAD, policy.namespace, policy.name), _finding(policy, ports)

    return found


def _looks_at_requests(policy: AuthorizationPolicy) -> bool:
    return any(clause.property.needs_request for rule in policy.rules for clause in rule.clauses())


def _finding(policy: AuthorizationPolicy, ports: list[int]) -> errors.Finding:
    outcome = "deny more than they say" if policy.action is Action.DENY else "allow nothing"
    listed = ", ".join(map(str, ports))
    return errors.Finding(
        UNREAD,
        subject=f"AuthorizationPolicy {policy.namespace}/{policy.name}",
        happened=f"looks at requests, which nobody reads on port {listed}: there such rules "
        f"{outcome}",
        still_working="the policy as it is written, on ports of HTTP",
        hint="name the Service's ports `http-...`, or limit the rules with `ports`",
    )
