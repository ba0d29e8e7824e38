"""Judges a described call by built RBAC filters, as Envoy does.

Source: Envoy's documentation of the RBAC filters.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from isthmus.testing import envoys

HTTP_FILTER: Final = "envoy.filters.http.rbac"
NETWORK_FILTER: Final = "envoy.filters.network.rbac"
MANAGER: Final = "envoy.filters.network.http_connection_manager"
REFUSED: Final = "RBAC: access denied"
DENY: Final = 1


@dataclass(frozen=True, slots=True)
class Asked:
    """What a proxy knows of a call.

    Attributes:
        caller: The SPIFFE identity; empty in plain text.
        path: As it arrives, with its query.
        headers: By name in small letters; of several of a name the values joined by commas.
        is_request: Whether the proxy reads requests.
    """

    caller: str
    address: str
    port: int
    path: str = "/"
    method: str = "GET"
    host: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    is_request: bool = True

    @property
    def all_headers(self) -> dict[str, str]:
        """All that header matchers can see."""
        if not self.is_request:
            return {}
        return {**self.headers, ":method": self.method, ":authority": self.host}


def lets_in(filters: Sequence[envoys.Message], asked: Asked) -> bool:
    """Say whether all judges among a chain's filters let a call in."""
    return all(_holds(rules, asked) for rules in _rules(filters))


def _rules(filters: Iterable[envoys.Message]) -> Iterable[envoys.Message]:
    for one in filters:
        if one.name in {HTTP_FILTER, NETWORK_FILTER}:
            yield envoys.unpacked(one.typed_config).rules
        elif one.name == MANAGER:
            yield from _rules(envoys.unpacked(one.typed_config).http_filters)


def _holds(rules: envoys.Message, asked: Asked) -> bool:
    is_matched = any(
        any(_fits(one, asked) for one in policy.permissions)
        and any(_fits(one, asked) for one in policy.principals)
        for policy in rules.policies.values()
    )
    return is_matched is not (rules.action == DENY)


def _fits(rule: envoys.Message, asked: Asked) -> bool:
    """Say whether a permission or a principal fits; both have the same shapes."""
    kind = rule.WhichOneof("rule" if "rule" in _oneofs(rule) else "identifier")
    inner = getattr(rule, kind)
    if kind in {"and_rules", "and_ids"}:
        return all(_fits(one, asked) for one in _inner(inner))
    if kind in {"or_rules", "or_ids"}:
        return any(_fits(one, asked) for one in _inner(inner))
    if kind in {"not_rule", "not_id"}:
        return not _fits(inner, asked)
    return _leaf_fits(kind, inner, asked)


def _leaf_fits(kind: str, inner: envoys.Message, asked: Asked) -> bool:
    if kind == "authenticated":
        return bool(asked.caller) and _text_fits(inner.principal_name, asked.caller)
    if kind == "direct_remote_ip":
        block = f"{inner.address_prefix}/{inner.prefix_len.value}"
        return ipaddress.ip_address(asked.address) in ipaddress.ip_network(block)
    if kind == "url_path":
        return asked.is_request and _text_fits(inner.path, asked.path.partition("?")[0])
    if kind == "header":
        return _header_fits(inner, asked.all_headers)
    return bool({"any": inner, "destination_port": inner == asked.port}[kind])


def _oneofs(rule: envoys.Message) -> Iterable[str]:
    return [one.name for one in rule.DESCRIPTOR.oneofs]


def _inner(several: envoys.Message) -> Sequence[envoys.Message]:
    found: Sequence[envoys.Message] = several.rules if hasattr(several, "rules") else several.ids
    return found


def _header_fits(matcher: envoys.Message, sent: Mapping[str, str]) -> bool:
    value = sent.get(matcher.name)
    if value is None:
        return False
    is_found = matcher.present_match or _text_fits(matcher.string_match, value)
    return is_found is not matcher.invert_match


def _text_fits(matcher: envoys.Message, text: str) -> bool:
    kind = matcher.WhichOneof("match_pattern")
    if kind == "safe_regex":
        return re.fullmatch(matcher.safe_regex.regex, text) is not None
    wanted = getattr(matcher, kind)
    if matcher.ignore_case:
        text, wanted = text.lower(), wanted.lower()
    fits = {
        "prefix": text.startswith(wanted),
        "suffix": text.endswith(wanted),
        "contains": wanted in text,
        "exact": text == wanted,
    }
    return bool(fits[kind])
