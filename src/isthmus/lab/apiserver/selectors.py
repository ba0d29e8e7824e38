"""Label and field selectors: parsed once, then asked of many objects.

It knows the grammar. Which fields a kind lets one select by is told by whoever asks; without
that any path of plain fields works, and an unknown one matches only the empty value.
"""

import re
from collections.abc import Callable, Collection, Mapping
from typing import TypeAlias

from isthmus.lab.apiserver import errors
from isthmus.lab.apiserver.values import Json, Obj

Match: TypeAlias = Callable[[Obj], bool]
"""Says whether an object is meant."""

_TERM = re.compile(
    r"\s*(?:(?P<absent>!)\s*(?P<gone>[\w./-]+)"
    r"|(?P<key>[\w./-]+)\s*(?:(?P<set>in|notin)\s*\((?P<values>[^()]*)\)"
    r"|(?P<op>==|=|!=|>|<)\s*(?P<value>[\w./:-]*))?)\s*(?:,|$)"
)
_FIELD = re.compile(
    r"\s*(?P<key>[\w.\[\]/-]+)\s*(?P<op>==|=|!=)\s*(?P<value>(?:\\.|[^,\\])*)(?:,|$)"
)
_NAME = "metadata.name"


def everything(_: Obj) -> bool:
    """Match every object."""
    return True


def parse(*, labels: str = "", fields: str = "", known: Collection[str] | None = None) -> Match:
    """Return what tells whether an object matches both selectors.

    Args:
        labels: A label selector as in a query.
        fields: A field selector as in a query.
        known: The fields that may be named; any, if not given.

    Raises:
        ApiError: 400, bad grammar or an unknown field.
    """
    if not labels and not fields:
        return everything
    terms = _label_terms(labels)
    wanted = _field_terms(fields)
    for path, _, _ in wanted:
        if known is not None and path not in known:
            raise errors.bad_request(f"field label not supported: {path}")

    def matches(obj: Obj) -> bool:
        have = obj.get("metadata", {}).get("labels") or {}
        return all(term(have) for term in terms) and all(
            (_field(obj, path) == value) is equal for path, value, equal in wanted
        )

    return matches


def name_in(fields: str) -> str:
    """Return the one name that a field selector asks for; empty when it may be any."""
    named = [value for path, value, equal in _field_terms(fields) if path == _NAME and equal]
    return named[0] if len(named) == 1 else ""


def of_labels(text: str) -> Callable[[Mapping[str, str]], bool]:
    """Return what tells whether a set of labels matches."""
    terms = _label_terms(text)
    return lambda have: all(term(have) for term in terms)


def _label_terms(text: str) -> list[Callable[[Mapping[str, str]], bool]]:
    terms = []
    at = 0
    while at < len(text):
        found = _TERM.match(text, at)
        if found is None or found.end() == at:
            raise errors.bad_request(f"unable to parse requirement: found '{text[at:]}'")
        terms.append(_label_term(found))
        at = found.end()
    return terms


def _label_term(found: re.Match[str]) -> Callable[[Mapping[str, str]], bool]:
    if found["absent"]:
        gone = found["gone"]
        return lambda have: gone not in have
    key, op, value = found["key"], found["op"], found["value"]
    if found["set"]:
        values = {one.strip() for one in found["values"].split(",")}
        wanted = found["set"] == "in"
        return lambda have: (have.get(key) in values) is wanted
    if op is None:
        return lambda have: key in have
    if op in (">", "<"):
        return lambda have: _compared(have.get(key), op, value)
    equal = op != "!="
    return lambda have: (have.get(key) == value) is equal


def _compared(have: str | None, op: str, value: str) -> bool:
    try:
        left, right = int(have or ""), int(value)
    except ValueError:
        return False
    return left > right if op == ">" else left < right


def _field_terms(text: str) -> list[tuple[str, str, bool]]:
    terms = []
    at = 0
    while at < len(text):
        found = _FIELD.match(text, at)
        if found is None:
            raise errors.bad_request(f"invalid field selector: '{text[at:]}'")
        value = re.sub(r"\\(.)", r"\1", found["value"])
        terms.append((found["key"], value, found["op"] != "!="))
        at = found.end()
    return terms


def _field(obj: Obj, path: str) -> str:
    value: Json = obj
    for part in path.split("."):
        if not isinstance(value, dict):
            return ""
        value = value.get(part)
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None or isinstance(value, (dict, list)) else str(value)


def go_bool(text: str | None) -> bool:
    """Read a boolean parameter as Kubernetes' own language does; raises 400 otherwise."""
    if text is None or text in ("", "0", "f", "F", "false", "FALSE", "False"):
        return False
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    raise errors.bad_request(f'strconv.ParseBool: parsing "{text}": invalid syntax')
