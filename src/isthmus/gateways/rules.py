"""A rule of an HTTPRoute, said in the words of a VirtualService, which the mesh knows already.

What a rule asks for and is not supported costs that rule, and is named: to serve a rule without one
of its conditions or filters would let through what its author did not mean.

Source: the Gateway API's reference for HTTPRoute.

    IsthmusError
    └── RuleUnsupported
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from isthmus.base import errors

Tree = dict[str, Any]
RULE: Final = frozenset({"name", "matches", "filters", "backendRefs", "timeouts", "retry"})
MATCH: Final = frozenset({"path", "headers", "queryParams", "method"})
BACKEND: Final = frozenset({"group", "kind", "name", "namespace", "port", "weight"})
FILTERS: Final = {
    "RequestHeaderModifier": "requestHeaderModifier",
    "ResponseHeaderModifier": "responseHeaderModifier",
    "RequestRedirect": "requestRedirect",
    "URLRewrite": "urlRewrite",
    "RequestMirror": "requestMirror",
}
REPEATED: Final = "RequestMirror"
"""The only filter of which a rule may have several."""

RETRIED: Final = ("connect-failure", "refused-stream", "unavailable", "cancelled")
USUAL_ATTEMPTS: Final = 2
ENTRIES: Final = "networking.istio.io"
PREFIX: Final = "%PREFIX()%"
FAILED: Final = 500
WHOLE: Final = 100.0
MOST_WEIGHT: Final = 1_000_000

HasPort = Callable[[str, str, int], bool]
"""Whether a namespace has a Service of a name with a port."""


@dataclass(frozen=True, slots=True)
class Checks:
    """How parts of rules are judged.

    Attributes:
        is_regex: Whether proxies take a text as a pattern.
        is_header: Whether a text can be the name of a header.
        domain: The DNS suffix of Services.
        crosses: Whether backends may be in other namespaces, as with routes for the mesh's own
            clients, who might call those themselves.
    """

    has_port: HasPort
    is_regex: Callable[[str], bool]
    is_header: Callable[[str], bool]
    domain: str = "cluster.local"
    crosses: bool = False


class RuleUnsupported(errors.IsthmusError):
    """A rule asks for what is not done."""

    code = "ISM-GW-001"


@dataclass(frozen=True, slots=True)
class Entry:
    """One route of a VirtualService; those with smaller ranks come first."""

    rank: tuple[int, ...]
    route: Tree


@dataclass(frozen=True, slots=True)
class Read:
    """What the rules of a route mean.

    Attributes:
        unsupported: What costs a rule each.
        backend_reason: Why not all backends can be used, in the Gateway API's words.
        backend_message: The same, for people.
    """

    entries: tuple[Entry, ...] = ()
    unsupported: tuple[str, ...] = ()
    backend_reason: str = ""
    backend_message: str = ""


@dataclass(slots=True)
class _Backends:
    checks: Checks
    namespace: str
    reason: str = ""
    message: str = ""
    routes: list[Tree] = field(default_factory=list)
    lost: int = 0
    total: int = 0


def read(rules: Sequence[Mapping[str, object]], *, namespace: str, checks: Checks) -> Read:
    """Say what the rules of a route in `namespace` mean."""
    entries, unsupported = list[Entry](), list[str]()
    reason = message = ""
    for number, rule in enumerate(rules):
        backends = _Backends(checks, namespace)
        try:
            found = list(_entries(dict(rule), backends))
        except RuleUnsupported as error:
            unsupported.append(f"rules[{number}]: {error.happened}")
            continue
        entries += found
        reason, message = reason or backends.reason, message or backends.message
    return Read(tuple(entries), tuple(unsupported), reason, message)


def _entries(rule: Tree, backends: _Backends) -> Iterator[Entry]:
    _only(rule, RULE, "")
    filters = _filters(rule)
    base = _acts(rule, filters, backends)
    for match in _parts(rule, "matches") or [{}]:
        _only(match, MATCH, "matches")
        conditions = _conditions(match, backends.checks)
        for rank, uri, change in _paths(match, filters, backends.checks):
            order = (
                *rank,
                0 if "method" in conditions else 1,
                -len(conditions.get("headers", {})),
                -len(conditions.get("queryParams", {})),
            )
            yield Entry(order, {**base, **change, "match": [{"uri": uri, **conditions}]})


def _acts(rule: Tree, filters: Tree, backends: _Backends) -> Tree:
    """Return all that a rule does, but for paths."""
    found: Tree = {}
    headers = {
        side: changed
        for side, name in (("request", FILTERS["RequestHeaderModifier"]),
                           ("response", FILTERS["ResponseHeaderModifier"]))
        if (changed := _header_changes(filters.get(name), backends.checks))
    }  # fmt: skip
    if headers:
        found["headers"] = headers
    found |= _limits(rule)
    found |= _copies(filters.get(FILTERS[REPEATED]) or (), backends)
    if FILTERS["RequestRedirect"] in filters:
        if _parts(rule, "backendRefs") or FILTERS["URLRewrite"] in filters:
            raise RuleUnsupported("a redirect cannot stand beside backends or a rewrite")
        return found
    return found | _destinations(rule, backends)


def _destinations(rule: Tree, backends: _Backends) -> Tree:
    for one in _parts(rule, "backendRefs"):
        _only(one, BACKEND, "backendRefs")
        _weigh(one, backends)
    if not backends.routes:
        return {"directResponse": {"status": FAILED}}
    found: Tree = {"route": backends.routes}
    if backends.lost:
        share = WHOLE * backends.lost / backends.total
        found["fault"] = {"abort": {"httpStatus": FAILED, "percentage": {"value": share}}}
    return found


def _limits(rule: Tree) -> Tree:
    """Return how long is waited for answers, and when it is tried again."""
    timeouts, retry = _part(rule, "timeouts"), _part(rule, "retry")
    _only(timeouts, {"request", "backendRequest"}, "timeouts")
    _only(retry, {"codes", "attempts", "backoff"}, "retry")
    found: Tree = {}
    whole, each = timeouts.get("request"), timeouts.get("backendRequest")
    if rule.get("retry") is not None:
        attempts = retry.get("attempts", USUAL_ATTEMPTS)
        codes = _words(retry, "codes")
        found["retries"] = {"attempts": attempts, "retryOn": ",".join((*RETRIED, *codes))}
        if retry.get("backoff"):
            found["retries"]["backoff"] = str(retry["backoff"])
        if each:
            found["retries"]["perTryTimeout"] = str(each)
            each = None
    if each or whole:
        found["timeout"] = str(each or whole)
    return found


def _copies(mirrors: Sequence[Tree], backends: _Backends) -> Tree:
    """Return where copies of requests go; one that leads nowhere costs itself."""
    found = []
    for one in mirrors:
        _only(one, {"backendRef", "percent", "fraction"}, "requestMirror")
        share = one.get("percent")
        if share is None:
            share = _fraction(_part(one, "fraction"))
        target = _target(_part(one, "backendRef"), backends)
        if target is not None:
            found.append({"destination": target, "percentage": {"value": share}})
    return {"mirrors": found} if found else {}


def _fraction(said: Tree) -> float:
    """Return how many of a hundred a fraction means; all, where none is said."""
    above, below = said.get("numerator", 0), said.get("denominator", 100)
    if not said:
        return WHOLE
    if (
        not isinstance(above, int)
        or not isinstance(below, int)
        or not 0 <= above <= below
        or not below
    ):
        raise RuleUnsupported("a mirror's fraction is of 0 to 1")
    return WHOLE * above / below


def _weigh(one: Tree, backends: _Backends) -> None:
    """Count a backend in, or its share out: requests for what cannot be used are answered by 500."""
    weight = one.get("weight", 1)
    if not isinstance(weight, int) or not 0 <= weight <= MOST_WEIGHT:
        raise RuleUnsupported(f"a weight is from 0 to {MOST_WEIGHT}")
    backends.total += weight
    target = _target(one, backends)
    if target is None:
        backends.lost += weight
    elif weight:
        backends.routes.append({"destination": target, "weight": weight})


def _target(one: Tree, backends: _Backends) -> Tree | None:
    """Return what a reference leads to; None, and the reason noted, where that cannot be used."""
    name, port, checks = str(one.get("name", "")), one.get("port"), backends.checks
    namespace = str(one.get("namespace") or backends.namespace)
    kind = (one.get("group") or "", one.get("kind") or "Service")
    if kind == (ENTRIES, "Hostname") and isinstance(port, int) and "." in name:
        # Who has such a host is seen where it is resolved; nobody's is answered by 503.
        return {"host": name, "port": {"number": port}}
    fault = ("", "")
    if kind != ("", "Service"):
        fault = ("InvalidKind", f"backend `{name}` is no Service")
    elif namespace != backends.namespace and not checks.crosses:
        fault = ("RefNotPermitted", f"backend `{name}` is in another namespace")
    elif not isinstance(port, int) or not checks.has_port(namespace, name, port):
        fault = ("BackendNotFound", f"there is no Service `{name}` with port {port}")
    if not fault[0]:
        return {"host": f"{name}.{namespace}.svc.{checks.domain}", "port": {"number": port}}
    if not backends.reason:
        backends.reason, backends.message = fault
    return None


def _filters(rule: Tree) -> Tree:
    found: Tree = {}
    for one in _parts(rule, "filters"):
        name = FILTERS.get(str(one.get("type")))
        if name is None or (name in found and one["type"] != REPEATED):
            raise RuleUnsupported(f"filter `{str(one.get('type'))[:40]}` is not supported")
        _only(one, {"type", name}, "filters")
        said = _part(one, name)
        found[name] = [*found.get(name, ()), said] if one["type"] == REPEATED else said
    return found


def _header_changes(said: Tree | None, checks: Checks) -> Tree:
    if not said:
        return {}
    _only(said, {"set", "add", "remove"}, "filters")
    changes: Tree = {
        key: {str(one.get("name", "")): str(one.get("value", "")) for one in _parts(said, key)}
        for key in ("set", "add")
        if said.get(key)
    }
    names = [name for key in ("set", "add") for name in changes.get(key, ())]
    removed = _words(said, "remove")
    for name in [*names, *removed]:
        if not checks.is_header(name):
            raise RuleUnsupported(f"`{name[:80]}` is no name of a header")
    if removed:
        changes["remove"] = removed
    return changes


def _conditions(match: Tree, checks: Checks) -> Tree:
    found: Tree = {}
    for key in ("headers", "queryParams"):
        named: Tree = {}
        for one in _parts(match, key):
            _only(one, {"type", "name", "value"}, key)
            kind = {"Exact": "exact", "RegularExpression": "regex"}.get(
                str(one.get("type") or "Exact")
            )
            if kind is None:
                raise RuleUnsupported(f"`{key}` of that type are not supported")
            # Of several conditions on one name the first counts.
            name, value = str(one.get("name", "")), str(one.get("value", ""))
            if key == "headers" and not checks.is_header(name):
                raise RuleUnsupported(f"`{name[:80]}` is no name of a header")
            if kind == "regex" and not checks.is_regex(value):
                raise RuleUnsupported(f"`{value[:80]}` is no pattern of RE2")
            named.setdefault(name.lower() if key == "headers" else name, {kind: value})
        if named:
            found[key] = named
    if match.get("method"):
        found["method"] = {"exact": str(match["method"])}
    return found


EXACT, BY_PREFIX, BY_PATTERN = 0, 1, 2


def _paths(
    match: Tree, filters: Tree, checks: Checks
) -> Iterator[tuple[tuple[int, int], Tree, Tree]]:
    """Yield how far before others a path comes, its condition, and what becomes of it.

    A prefix means whole parts of a path: itself, and what follows it after a slash.
    """
    path = _part(match, "path")
    _only(path, {"type", "value"}, "path")
    kind, value = path.get("type") or "PathPrefix", str(path.get("value") or "/")
    match kind:
        case "Exact":
            yield (EXACT, -len(value)), {"exact": value}, _moved(filters, None, is_whole=True)
        case "RegularExpression" if not checks.is_regex(value):
            raise RuleUnsupported(f"`{value[:80]}` is no pattern of RE2")
        case "RegularExpression":
            yield (BY_PATTERN, -len(value)), {"regex": value}, _moved(filters, None, is_whole=False)
        case "PathPrefix":
            bare = value.rstrip("/")
            rank = (BY_PREFIX, -len(bare))
            if bare:
                yield rank, {"exact": bare}, _moved(filters, "", is_whole=True)
            yield rank, {"prefix": f"{bare}/"}, _moved(filters, "/", is_whole=False)
        case _:
            raise RuleUnsupported(f"paths of type `{str(kind)[:40]}` are not supported")


def _moved(filters: Tree, ending: str | None, *, is_whole: bool) -> Tree:
    """Return the redirect or rewrite of a path; `ending` is what follows the prefix in it.

    Args:
        filters: Of the rule.
        ending: None where no prefix was matched.
        is_whole: Whether the condition matches whole paths.
    """
    redirect, rewrite = filters.get(FILTERS["RequestRedirect"]), filters.get(FILTERS["URLRewrite"])
    if redirect is not None:
        return {"redirect": _redirect(redirect, ending)}
    if not rewrite:
        return {}
    _only(rewrite, {"hostname", "path"}, "urlRewrite")
    found: Tree = {"authority": str(rewrite["hostname"])} if rewrite.get("hostname") else {}
    kind, value = _replacement(rewrite, ending)
    if kind == "prefix" or (kind == "full" and is_whole):
        found["uri"] = value
    elif kind == "full":
        found["uriRegexRewrite"] = {"match": "/.*", "rewrite": value.replace("\\", "\\\\")}
    return {"rewrite": found}


def _redirect(said: Tree, ending: str | None) -> Tree:
    _only(said, {"scheme", "hostname", "path", "port", "statusCode"}, "requestRedirect")
    found: Tree = {"redirectCode": said.get("statusCode") or 302}
    for key, name in (("scheme", "scheme"), ("hostname", "authority"), ("port", "port")):
        if said.get(key):
            found[name] = said[key]
    kind, value = _replacement(said, ending)
    if kind == "full" or (kind == "prefix" and not ending):
        found["uri"] = value
    elif kind == "prefix":
        found["uri"] = f"{PREFIX}{value}"
    return found


def _replacement(said: Tree, ending: str | None) -> tuple[str, str]:
    path = _part(said, "path")
    _only(path, {"type", "replaceFullPath", "replacePrefixMatch"}, "path")
    match path.get("type"):
        case None:
            return "", ""
        case "ReplaceFullPath":
            return "full", str(path.get("replaceFullPath") or "/")
        case "ReplacePrefixMatch" if ending is not None:
            value = str(path.get("replacePrefixMatch") or "").rstrip("/") + ending
            return "prefix", value or "/"
        case _:
            raise RuleUnsupported("a path can only be replaced so where a prefix is matched")


def _only(part: Mapping[str, object], names: frozenset[str] | set[str], where: str) -> None:
    """Refuse what is not known, unless it is empty."""
    for key, value in part.items():
        if key not in names and value not in (None, "", [], {}):
            raise RuleUnsupported(f"`{where}.{key}` is not supported".replace("`.", "`"))


def _part(tree: Mapping[str, object], key: str) -> Tree:
    value = tree.get(key)
    return dict(value) if isinstance(value, Mapping) else {}


def _parts(tree: Mapping[str, object], key: str) -> list[Tree]:
    value = tree.get(key)
    listed = value if isinstance(value, Sequence) and not isinstance(value, str) else ()
    return [dict(one) for one in listed if isinstance(one, Mapping)]


def _words(tree: Mapping[str, object], key: str) -> list[str]:
    value = tree.get(key)
    listed = value if isinstance(value, Sequence) and not isinstance(value, str) else ()
    return [str(one) for one in listed]
