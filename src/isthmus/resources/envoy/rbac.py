"""Policies about who may call, as Envoy's RBAC filters: first what is denied, then what is allowed.

Whatever can be read in two ways counts against the caller. A clause is therefore compiled either
*narrow*, so that it holds only where there is no doubt, or *wide*, so that it also holds where
there is: in what allows clauses are narrow, in what denies wide, and a negation turns it round.
So a caller without an identity fits no clause about identities that allows, and each that denies.

Source: spec section 4.13; docs/reference/authorization.md.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from envoy.config.rbac.v3 import rbac_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as http_rbac_pb2
from envoy.extensions.filters.network.rbac.v3 import rbac_pb2 as network_rbac_pb2

from isthmus.mesh import paths
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
from isthmus.resources.envoy import callers, messages, tokens

HTTP_FILTER: Final = "envoy.filters.http.rbac"
NETWORK_FILTER: Final = "envoy.filters.network.rbac"
ENVOYS_ACTION: Final = {Action.ALLOW: rbac_pb2.RBAC.ALLOW, Action.DENY: rbac_pb2.RBAC.DENY}
IN_SOURCE: Final = frozenset(
    {Property.IDENTITY, Property.ADDRESS, Property.REQUEST_PRINCIPAL, Property.CLAIM}
)
AUTHORITY: Final = ":authority"
SURE_HOST: Final = r"(?:[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
ANY: Final[messages.Fields] = {"any": True}
NEVER: Final[messages.Fields] = {"not_rule": ANY}

KNOWN_CALLER: Final[messages.Fields] = {
    "authenticated": {"principal_name": {"prefix": "spiffe://"}}
}

Compile = Callable[[Clause, bool], messages.Fields]
"""Compiles a clause; wide or not."""


@dataclass(frozen=True, slots=True)
class Sight:
    """How a proxy finds out about a call.

    Attributes:
        named: Returns the principal whose identity is like a matcher.
        port: What policies mean by the port that is called; 0 where connections tell it.
    """

    named: Callable[[messages.Fields], messages.Fields] = callers.by_certificate
    port: int = 0

    @property
    def known(self) -> messages.Fields:
        """The principal of all whose identity is known."""
        if self.named is callers.by_certificate:
            return KNOWN_CALLER
        return self.named(_regex(callers.IDENTITY))

    def placed(self, block: messages.Fields) -> messages.Fields:
        """Return the principal who calls from an address in a range."""
        if self.named is callers.by_certificate:
            return {"direct_remote_ip": block}
        return callers.from_noted(block)


AT_WORKLOADS: Final = Sight()


def http_filters(
    policies: Sequence[AuthorizationPolicy], *, sight: Sight = AT_WORKLOADS
) -> list[messages.Fields]:
    """Return the filters that judge requests."""
    return [
        messages.extension(HTTP_FILTER, http_rbac_pb2.RBAC(rules=rules))
        for rules in _rules(policies, are_requests=True, sight=sight)
    ]


def network_filters(
    policies: Sequence[AuthorizationPolicy], *, sight: Sight = AT_WORKLOADS
) -> list[messages.Fields]:
    """Return the filters that judge connections as such."""
    return [
        messages.extension(NETWORK_FILTER, network_rbac_pb2.RBAC(rules=rules, stat_prefix="tcp."))
        for rules in _rules(policies, are_requests=False, sight=sight)
    ]


def looks_at_headers(policies: Iterable[AuthorizationPolicy]) -> bool:
    """Say whether a policy decides by a header that users name."""
    return any(
        clause.property is Property.HEADER
        for policy in policies
        for rule in policy.rules
        for clause in rule.clauses()
    )


def _rules(
    policies: Sequence[AuthorizationPolicy], *, are_requests: bool, sight: Sight
) -> Iterator[rbac_pb2.RBAC]:
    """Yield what is denied, if anything, and what is allowed, if not everything."""
    for action in (Action.DENY, Action.ALLOW):
        held = [policy for policy in policies if policy.action is action]
        named = dict[str, messages.Fields]()
        for policy in held:
            for number, rule in enumerate(policy.rules):
                kept = rule if are_requests else without_requests(rule, action)
                if kept is not None:
                    name = f"ns[{policy.namespace}]-policy[{policy.name}]-rule[{number}]"
                    named[name] = _policy(kept, sight, is_wide=action is Action.DENY)
        if held and action is Action.ALLOW and not named:
            named = {"nothing-is-allowed": {"permissions": [NEVER], "principals": [ANY]}}
        if named:
            yield rbac_pb2.RBAC(action=ENVOYS_ACTION[action], policies=named)


def without_requests(rule: Rule, action: Action) -> Rule | None:
    """Return what is left of a rule where no requests are read; None for nothing.

    A rule that allows is left out when a clause of it cannot be judged; one that denies does
    without the clause, and so denies more.
    """
    if not any(clause.property.needs_request for clause in rule.clauses()):
        return rule
    if action is Action.ALLOW:
        return None
    return Rule(
        sources=rule.sources,
        operations=tuple(_without(clauses) for clauses in rule.operations),
        conditions=_without(rule.conditions),
    )


def _without(clauses: Clauses) -> Clauses:
    return tuple(clause for clause in clauses if not clause.property.needs_request)


def _policy(rule: Rule, sight: Sight, *, is_wide: bool) -> messages.Fields:
    permission = functools.partial(_permission, sight)
    principal = functools.partial(_principal, sight)
    by_source = tuple(one for one in rule.conditions if one.property in IN_SOURCE)
    by_target = tuple(one for one in rule.conditions if one.property not in IN_SOURCE)
    return {
        "permissions": [
            _all("and_rules", "rules", (*clauses, *by_target), permission, is_wide=is_wide)
            for clauses in rule.operations or ((),)
        ],
        "principals": [
            _all("and_ids", "ids", (*clauses, *by_source), principal, is_wide=is_wide)
            for clauses in rule.sources or ((),)
        ],
    }


def _all(
    operator: str, field: str, clauses: Clauses, compiled: Compile, *, is_wide: bool
) -> messages.Fields:
    if not clauses:
        return ANY
    return {operator: {field: [compiled(clause, is_wide) for clause in clauses]}}


# --- who calls


def _principal(sight: Sight, clause: Clause, is_wide: bool) -> messages.Fields:
    if clause.property is Property.ADDRESS:
        blocks = [_block(one.text) for one in clause.patterns]
        found: messages.Fields = {"or_ids": {"ids": [sight.placed(one) for one in blocks]}}
        return {"not_id": found} if clause.is_negated else found
    if clause.property in {Property.REQUEST_PRINCIPAL, Property.CLAIM}:
        return _of_token(clause, is_wide)
    names = [sight.named(_matcher(_identity(one))) for one in clause.patterns]
    found = {"or_ids": {"ids": names}}
    said: messages.Fields = {"not_id": found} if clause.is_negated else found
    if is_wide:
        return {"or_ids": {"ids": [{"not_id": sight.known}, said]}}
    return {"and_ids": {"ids": [sight.known, said]}}


def _of_token(clause: Clause, is_wide: bool) -> messages.Fields:
    """Compare with what a request's token says; one without a token says nothing.

    Nobody is allowed for what his token does not say who shows none; what denies him must ask for
    one, as in Istio.
    """
    if clause.property is Property.CLAIM:
        found = [tokens.claim(clause.header, one) for one in clause.patterns]
    else:
        found = [tokens.principal(one) for one in clause.patterns]
    said: messages.Fields = {"or_ids": {"ids": found}}
    if not clause.is_negated:
        return said
    unlike: messages.Fields = {"not_id": said}
    return unlike if is_wide else {"and_ids": {"ids": [tokens.known(), unlike]}}


def _identity(pattern: Pattern) -> Pattern:
    return Pattern(Form.PREFIX, "spiffe://") if pattern.form is Form.PRESENT else pattern


def _block(text: str) -> messages.Fields:
    address, _, length = text.partition("/")
    return {"address_prefix": address, "prefix_len": {"value": int(length)}}


# --- what is called


def _permission(sight: Sight, clause: Clause, is_wide: bool) -> messages.Fields:
    is_generous = is_wide is not clause.is_negated
    found: list[messages.Fields]
    match clause.property:
        case Property.PORT:
            found = [_port(int(one.text), sight) for one in clause.patterns]
        case Property.METHOD:
            found = [_method(one, is_generous) for one in clause.patterns]
        case Property.HOST:
            found = [_host(one, is_generous) for one in clause.patterns]
        case Property.HEADER:
            found = [_header(clause.header, one, is_generous) for one in clause.patterns]
        case _:
            return _negated(clause, _paths(clause.patterns, is_generous))
    return _negated(clause, {"or_rules": {"rules": found}})


def _port(port: int, sight: Sight) -> messages.Fields:
    if not sight.port:
        return {"destination_port": port}
    return ANY if port == sight.port else NEVER


def _negated(clause: Clause, found: messages.Fields) -> messages.Fields:
    return {"not_rule": found} if clause.is_negated else found


def _method(pattern: Pattern, is_generous: bool) -> messages.Fields:
    if pattern.form is Form.PRESENT:
        return ANY
    # Servers that take `post` for POST exist.
    return _of_header(":method", _matcher(pattern) | {"ignore_case": is_generous})


def _host(pattern: Pattern, is_generous: bool) -> messages.Fields:
    """Compare with the host, whatever its case, its port and one dot at its end."""
    if pattern.form is Form.PRESENT:
        return ANY
    if pattern.form is Form.PREFIX:
        plain = [_authority("prefix", pattern.text)]
        return _doubtful_or(plain) if is_generous else _sure_and(plain)
    form = pattern.form.value
    plain = [_authority(form, pattern.text), _authority(form, f"{pattern.text}.")]
    # What comes before a port is the end of the host.
    before_port = "contains" if pattern.form is Form.SUFFIX else "prefix"
    with_port = [_authority(before_port, f"{pattern.text}{dot}:") for dot in ("", ".")]
    found = [*plain, *with_port]
    return _doubtful_or(found) if is_generous else _sure_and(found)


def _authority(form: str, text: str) -> messages.Fields:
    return _of_header(AUTHORITY, {form: text, "ignore_case": True})


def _doubtful_or(found: Sequence[messages.Fields]) -> messages.Fields:
    doubtful: messages.Fields = {"not_rule": _of_header(AUTHORITY, _regex(SURE_HOST))}
    return {"or_rules": {"rules": [doubtful, *found]}}


def _sure_and(found: Sequence[messages.Fields]) -> messages.Fields:
    sure = _of_header(AUTHORITY, _regex(SURE_HOST))
    return {"and_rules": {"rules": [sure, {"or_rules": {"rules": list(found)}}]}}


def _header(name: str, pattern: Pattern, is_generous: bool) -> messages.Fields:
    """Compare with a header, of which there may be several, or several values in one.

    All must fit what allows, and for what denies it suffices that one may fit. Envoys look at
    several headers of a name one by one, and older ones at all of them joined by commas.
    """
    if pattern.form is Form.PRESENT:
        return {"header": {"name": name, "present_match": True}}
    whole = _of_header(name, _matcher(pattern))
    several = _of_header(name, {"contains": ","})
    if is_generous:
        among = _both(several, _of_header(name, {"contains": pattern.text}))
        return {"or_rules": {"rules": [whole, among]}}
    other = {"header": {"name": name, "string_match": _matcher(pattern), "invert_match": True}}
    alone = _both({"not_rule": other}, {"not_rule": several})
    return _both(whole, alone)


def _both(one: messages.Fields, other: messages.Fields) -> messages.Fields:
    return {"and_rules": {"rules": [one, other]}}


def _paths(patterns: Sequence[Pattern], is_generous: bool) -> messages.Fields:
    """Compare with the path; one that can be read in two ways fits only generous patterns."""
    if any(_is_any_path(one) for one in patterns):
        return ANY
    found = [{"url_path": {"path": _matcher(one)}} for one in patterns]
    wanted = "".join(one.text for one in patterns)
    is_plain: list[messages.Fields] = [
        {"url_path": {"path": _regex(one)}} for one in paths.expressions(wanted)
    ]
    if is_generous:
        doubts = [{"not_rule": one} for one in is_plain]
        return {"or_rules": {"rules": [*doubts, *found]}}
    return {"and_rules": {"rules": [*is_plain, {"or_rules": {"rules": found}}]}}


def _is_any_path(pattern: Pattern) -> bool:
    return pattern.form is Form.PRESENT or pattern == Pattern(Form.PREFIX, "/")


# --- matchers


def _of_header(name: str, matcher: messages.Fields) -> messages.Fields:
    return {"header": {"name": name, "string_match": matcher}}


def _matcher(pattern: Pattern) -> messages.Fields:
    return {pattern.form.value: pattern.text}


def _regex(expression: str) -> messages.Fields:
    return {"safe_regex": {"regex": expression}}
