"""A route's conditions as Envoy's RouteMatch.

Source: spec section 4.11; Istio's API for VirtualService.
"""

from typing import Final

from isthmus.resources.envoy import messages
from isthmus.views import view

PRESENT: Final = "present"
KINDS: Final = frozenset({"exact", "prefix", "regex", PRESENT})


def match_of(route: view.Route) -> messages.Fields:
    """Return what a request must look like to take a route."""
    headers = [_header(name, matcher) for name, matcher in route.headers]
    for name, matcher in (
        (":method", route.method),
        (":scheme", route.scheme),
        (":authority", route.authority),
    ):
        if matcher:
            headers.append(_header(name, matcher))
    headers += [_without(name, matcher) for name, matcher in route.without_headers]
    match: messages.Fields = _path(route) | {"headers": headers}
    if route.query:
        match["query_parameters"] = [_parameter(*pair) for pair in route.query]
    if route.ignores_case:
        match["case_sensitive"] = {"value": False}
    return match


def string_match(matcher: str) -> messages.Fields:
    """Return how a text is compared: `exact:x`, `prefix:x`, `regex:x`, or the text itself."""
    kind, text = _split(matcher)
    return {"safe_regex": {"regex": text}} if kind == "regex" else {kind: text}


def _path(route: view.Route) -> messages.Fields:
    kind, _, text = route.path.partition(":")
    match kind:
        case "exact":
            return {"path": text}
        case "regex":
            return {"safe_regex": {"regex": text}}
        case _:
            return {"prefix": text or "/"}


def _header(name: str, matcher: str) -> messages.Fields:
    if _split(matcher)[0] == PRESENT:
        return {"name": name, "present_match": True}
    return {"name": name, "string_match": string_match(matcher)}


def _without(name: str, matcher: str) -> messages.Fields:
    """Return the condition that a header is not like this; one that is not there never is."""
    inverted = _header(name, matcher) | {"invert_match": True}
    if "string_match" in inverted:
        inverted["treat_missing_header_as_empty"] = True
    return inverted


def _parameter(name: str, matcher: str) -> messages.Fields:
    if _split(matcher)[0] == PRESENT:
        return {"name": name, "present_match": True}
    return {"name": name, "string_match": string_match(matcher)}


def _split(matcher: str) -> tuple[str, str]:
    kind, separator, text = matcher.partition(":")
    if not separator or kind not in KINDS:
        return "exact", matcher
    return kind, text
