"""AuthorizationPolicy objects: who may call what.

A policy of which any part is not understood denies every call to the workloads that it selects:
to leave the part out could let in what its author meant to keep out.

Source: spec section 4.13; docs/reference/authorization.md.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from isthmus.kube import objects
from isthmus.mesh import authorization, paths
from isthmus.mesh.authorization import (
    Action,
    AuthorizationPolicy,
    Clause,
    Form,
    Pattern,
    Property,
    Target,
    TargetKind,
)
from isthmus.registry import config, fields

ACTIONS: Final = {"ALLOW": Action.ALLOW, "DENY": Action.DENY, "CUSTOM": Action.DENY}
SOURCE_CLUSTERS: Final = "isthmus.dev/source-clusters"
DRY_RUN: Final = "istio.io/dry-run"
MOST_PORT: Final = 65535
TOKEN: Final = frozenset("!#$%&'*+-.^`|~0123456789abcdefghijklmnopqrstuvwxyz")
METHOD: Final = TOKEN | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
NAME: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-.")
IDENTITY_PARTS: Final = 5
CLAIM: Final = re.compile(r"request\.auth\.claims(?:\[[^\[\]]{1,200}\]){1,8}")
OF_TOKENS: Final = {"request.auth.audiences": "[aud]", "request.auth.presenter": "[azp]"}
HOST: Final = NAME | frozenset("_")

KINDS: Final = {
    ("gateway.networking.k8s.io", "Gateway"): TargetKind.GATEWAY,
    ("gateway.networking.k8s.io", "GatewayClass"): TargetKind.CLASS,
    ("", "Service"): TargetKind.SERVICE,
    ("core", "Service"): TargetKind.SERVICE,
    ("networking.istio.io", "ServiceEntry"): TargetKind.ENTRY,
}
"""Group and kind of what a policy may name."""

Reads = Callable[[str, str], Pattern | None]
"""Reads one value, given the policy's own namespace; None if it means nothing."""


def read(
    origin: config.Origin, object_: objects.FreeForm, problems: fields.Problems
) -> AuthorizationPolicy | None:
    """Say what an AuthorizationPolicy means; None for one that only wants to be told of calls."""
    spec = fields.Fields(object_.spec, path="spec", problems=problems)
    action = spec.text("action") or Action.ALLOW.value
    if action == "AUDIT":
        spec.problem("action", "AUDIT writes nothing yet, so that this policy has no effect")
        return None
    selector = selector_of(spec)
    targets = targets_of(spec)
    rules = tuple(_rule(part, origin) for part in _several(spec, "rules", may_be_empty=True))
    spec.refuse_others({"selector", "targetRef", "targetRefs", "action", "rules"})
    if action not in ACTIONS:
        spec.problem("action", f"is unknown: `{action[:40]}`")
    if DRY_RUN in (object_.metadata.annotations or {}):
        problems.add("metadata.annotations", f"`{DRY_RUN}` is not supported")
    if problems.texts():
        problems.add("spec", "is not understood as a whole: every call is denied where it selects")
        return AuthorizationPolicy(
            origin.namespace,
            origin.name,
            Action.DENY,
            authorization.ALL_CALLS,
            selector,
            targets or (),
        )
    if action == "CUSTOM":
        spec.problem("action", "CUSTOM asks nobody yet: the calls that its rules match are denied")
    return AuthorizationPolicy(
        origin.namespace,
        origin.name,
        ACTIONS[action],
        rules,
        selector,
        targets or (),
        _source_clusters(object_.metadata.annotations or {}),
    )


def _source_clusters(annotations: Mapping[str, str]) -> tuple[str, ...] | None:
    text = annotations.get(SOURCE_CLUSTERS)
    if text is None:
        return None
    return tuple(dict.fromkeys(one.strip() for one in text.split(",") if one.strip()))


def selector_of(spec: fields.Fields) -> tuple[tuple[str, str], ...]:
    """Return the labels that a workload must have."""
    part = spec.part("selector")
    part.refuse_others({"matchLabels"})
    _refuse_nulls(part)
    return part.pairs("matchLabels")


def targets_of(spec: fields.Fields) -> tuple[Target, ...] | None:
    """Return the objects that a policy names; None if that is not understood.

    It then holds for all that its selector means, which may be more than was meant, never less.
    """
    parts = list(_several(spec, "targetRefs"))
    if "targetRef" in spec:
        parts.append(spec.part("targetRef"))
    found = [_target(part) for part in parts]
    if found and "selector" in spec:
        spec.problem("selector", "cannot stand beside `targetRefs`")
        return None
    named = tuple(one for one in found if one is not None)
    return named if len(named) == len(found) else None


def _target(part: fields.Fields) -> Target | None:
    part.refuse_others({"group", "kind", "name", "namespace"})
    kind = KINDS.get((part.text("group"), part.text("kind")))
    name = part.text("name")
    if kind is None:
        part.problem("kind", f"is not supported: `{part.text('group')}/{part.text('kind')}`"[:120])
    if part.text("namespace"):
        part.problem("namespace", "must not be said: a policy names objects of its own namespace")
    elif not name:
        part.problem("name", "must say something")
    elif kind is not None:
        return Target(kind, name)
    return None


# --- rules


def _rule(part: fields.Fields, origin: config.Origin) -> authorization.Rule:
    part.refuse_others({"from", "to", "when"})
    _refuse_nulls(part)
    return authorization.Rule(
        sources=tuple(_clauses(one, "source", SOURCE, origin) for one in _several(part, "from")),
        operations=tuple(
            _clauses(one, "operation", OPERATION, origin) for one in _several(part, "to")
        ),
        conditions=tuple(
            clause for one in _several(part, "when") for clause in _condition(one, origin)
        ),
    )


def _clauses(
    outer: fields.Fields,
    name: str,
    known: dict[str, tuple[Property, Reads]],
    origin: config.Origin,
) -> authorization.Clauses:
    outer.refuse_others({name})
    part = outer.part(name)
    if not part:
        outer.problem(name, "must say something")
    _refuse_nulls(part)
    found = []
    for field in part.names():
        is_negated = field.startswith("not") and field not in known
        positive = field[3:4].lower() + field[4:] if is_negated else field
        if positive not in known:
            part.problem(field, "is not supported")
            continue
        property_, reads = known[positive]
        patterns = tuple(_patterns(part, field, reads, origin))
        found.append(Clause(property_, patterns, is_negated))
    return tuple(found)


def _condition(part: fields.Fields, origin: config.Origin) -> Iterator[Clause]:
    """Yield the clauses of one condition: on its values, and on those that it must not have."""
    part.refuse_others({"key", "values", "notValues"})
    _refuse_nulls(part)
    key = part.text("key")
    header = ""
    if key in CONDITIONS:
        property_, reads = CONDITIONS[key]
    elif CLAIM.fullmatch(key):
        property_, reads, header = Property.CLAIM, _plain, key.removeprefix("request.auth.claims")
    elif key in OF_TOKENS:
        property_, reads, header = Property.CLAIM, _plain, OF_TOKENS[key]
    elif key.startswith("request.headers[") and key.endswith("]"):
        property_, reads = Property.HEADER, _plain
        header = key.removeprefix("request.headers[").removesuffix("]").lower()
        if not header or not TOKEN.issuperset(header) or header == "host":
            part.problem("key", f"names no header that can be looked at: `{key[:60]}`")
    else:
        part.problem("key", f"is not supported: `{key[:60]}`")
        return
    if "values" not in part and "notValues" not in part:
        part.problem("values", "must say something")
    for field in ("values", "notValues"):
        if field in part:
            patterns = tuple(_patterns(part, field, reads, origin))
            yield Clause(property_, patterns, field == "notValues", header)


def _patterns(
    part: fields.Fields, field: str, reads: Reads, origin: config.Origin
) -> Iterator[Pattern]:
    values = part.texts(field)
    if not values:
        part.problem(field, "must say something")
    for value in values:
        pattern = reads(value, origin.namespace)
        if pattern is None:
            part.problem(field, f"has a value that is not understood: `{value[:80]}`")
        else:
            yield pattern


def _several(
    part: fields.Fields, key: str, *, may_be_empty: bool = False
) -> tuple[fields.Fields, ...]:
    """Return a list of mappings; what is there must not be empty."""
    found = part.parts(key)
    if key in part and not found and not may_be_empty:
        part.problem(key, "must not be empty")
    return found


def _refuse_nulls(part: fields.Fields) -> None:
    for name in part.names():
        if name not in part:
            part.problem(name, "must not be null")


# --- values


def _plain(value: str, _: str) -> Pattern | None:
    """Read `x`, `x*`, `*x` or `*`."""
    if value == "*":
        return Pattern(Form.PRESENT)
    if value.endswith("*"):
        form, text = Form.PREFIX, value[:-1]
    elif value.startswith("*"):
        form, text = Form.SUFFIX, value[1:]
    else:
        form, text = Form.EXACT, value
    return Pattern(form, text) if _is_literal(text) else None


def _is_literal(text: str) -> bool:
    return bool(text) and "*" not in text and text.isascii() and text.isprintable()


def _principal(value: str, _: str) -> Pattern | None:
    """Read `<trust domain>/ns/<namespace>/sa/<account>`; a star stands for whole segments."""
    found = _plain(value, "")
    if found is None or found.form is Form.PRESENT:
        return found
    parts = found.text.split("/")
    if found.form is Form.EXACT:
        return found if _is_identity(parts) else None
    if found.form is Form.PREFIX:
        is_whole = parts[-1] == "" and len(parts) <= IDENTITY_PARTS
        return found if is_whole and _begins_identity(parts[:-1]) else None
    is_whole = parts[0] == "" and len(parts) <= IDENTITY_PARTS
    return found if is_whole and _ends_identity(parts[1:]) else None


def _is_identity(parts: list[str]) -> bool:
    return len(parts) == IDENTITY_PARTS and _begins_identity(parts)


def _begins_identity(parts: list[str]) -> bool:
    """Say whether an identity may begin with these segments."""
    fixed = {1: "ns", 3: "sa"}
    return all(part and part == fixed.get(n, part) for n, part in enumerate(parts))


def _ends_identity(parts: list[str]) -> bool:
    """Say whether an identity may end with these segments."""
    missing = IDENTITY_PARTS - len(parts)
    fixed = {1: "ns", 3: "sa"}
    return all(part and part == fixed.get(n, part) for n, part in enumerate(parts, missing))


def _namespace(value: str, _: str) -> Pattern | None:
    found = _plain(value, "")
    if found is None or found.form is Form.PRESENT:
        return found
    # How a namespace ends cannot be told from an identity without a regular expression.
    return found if found.form is not Form.SUFFIX and NAME.issuperset(found.text) else None


def _trust_domain(value: str, _: str) -> Pattern | None:
    """Read the name of a trust domain, or how it begins or ends."""
    found = _plain(value, "")
    if found is None or found.form is Form.PRESENT:
        return found
    return found if HOST.issuperset(found.text) else None


def _account(value: str, own: str) -> Pattern | None:
    """Read `[<namespace>/]<account>`, without stars."""
    namespace, separator, account = value.rpartition("/")
    namespace = namespace if separator else own
    is_good = NAME.issuperset(namespace) and NAME.issuperset(account)
    return (
        Pattern(Form.EXACT, f"{namespace}/{account}") if is_good and namespace and account else None
    )


def _block(value: str, _: str) -> Pattern | None:
    try:
        return Pattern(Form.EXACT, str(ipaddress.ip_network(value, strict=False)))
    except ValueError:
        return None


def _port(value: str, _: str) -> Pattern | None:
    is_port = value.isascii() and value.isdigit() and len(value) <= 5
    return Pattern(Form.EXACT, str(int(value))) if is_port and 0 < int(value) <= MOST_PORT else None


def _method(value: str, _: str) -> Pattern | None:
    found = _plain(value, "")
    return found if found is not None and METHOD.issuperset(found.text) else None


def _host(value: str, _: str) -> Pattern | None:
    """Read a host, without a port: calls are looked at without theirs."""
    found = _plain(value.lower(), "")
    if found is None or found.form is Form.PRESENT:
        return found
    is_host = HOST.issuperset(found.text) and found.text != "."
    return found if is_host and (found.form is Form.PREFIX or found.text[-1] != ".") else None


def _path(value: str, _: str) -> Pattern | None:
    """Read a path as requests are seen to have it, or nothing could ever match."""
    found = _plain(value, "")
    if found is None or found.form is Form.PRESENT:
        return found
    begins = found.form is Form.SUFFIX or found.text.startswith("/")
    return found if begins and paths.is_plain(found.text) else None


SOURCE: Final[dict[str, tuple[Property, Reads]]] = {
    "trustDomains": (Property.TRUST_DOMAIN, _trust_domain),
    "principals": (Property.PRINCIPAL, _principal),
    "namespaces": (Property.NAMESPACE, _namespace),
    "serviceAccounts": (Property.ACCOUNT, _account),
    "ipBlocks": (Property.ADDRESS, _block),
    "requestPrincipals": (Property.REQUEST_PRINCIPAL, _plain),
}
OPERATION: Final[dict[str, tuple[Property, Reads]]] = {
    "hosts": (Property.HOST, _host),
    "ports": (Property.PORT, _port),
    "methods": (Property.METHOD, _method),
    "paths": (Property.PATH, _path),
}
CONDITIONS: Final[dict[str, tuple[Property, Reads]]] = {
    "source.principal": (Property.PRINCIPAL, _principal),
    "source.namespace": (Property.NAMESPACE, _namespace),
    "source.trustDomain": (Property.TRUST_DOMAIN, _trust_domain),
    "source.ip": (Property.ADDRESS, _block),
    "destination.port": (Property.PORT, _port),
    "request.auth.principal": (Property.REQUEST_PRINCIPAL, _plain),
}
