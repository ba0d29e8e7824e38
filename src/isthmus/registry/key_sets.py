"""Keys by which tokens are believed: which sets are used, and whose have to be fetched.

A set is reduced to what verifies signatures, so that nothing else that a server writes reaches a
proxy. Fetching takes time and is done outside; the answers come in as a collection. Without one, no
token of the rule is believed.

Source: RFC 7517; Istio's API for RequestAuthentication.
"""

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from isthmus.engine import collections, graph, reader
from isthmus.fleet import sources
from isthmus.mesh.authentication import JwtRule, KeySource, RequestAuthentication

KINDS: Final = frozenset({"RSA", "EC", "OKP", "oct"})
PARTS: Final = ("kty", "kid", "alg", "use", "crv", "x", "y", "n", "e", "k")
"""What is kept of a key; above all no private part."""

MOST_SET: Final = 64 * 1024
MOST_SOURCES: Final = 1000
"""So many are fetched at most; of more, those that come last in order are not believed."""


@dataclass(frozen=True, slots=True)
class Nodes:
    """What this module declares.

    Attributes:
        fetched: Sets of keys by where they are had; filled from outside.
        wanted: Those that somebody should fetch, in order.
        values: RequestAuthentications with the keys that are known.
    """

    fetched: collections.Source[KeySource, str]
    wanted: collections.Single[tuple[KeySource, ...]]
    values: collections.Collection[sources.ObjectKey, RequestAuthentication]


def declare(
    graph_: graph.Graph, found: collections.Collection[sources.ObjectKey, RequestAuthentication]
) -> Nodes:
    """Declare in `graph_` what becomes of rules whose keys are elsewhere."""
    fetched: collections.Source[KeySource, str] = graph_.source("key_sets.fetched")

    def wanted(read: reader.Reader) -> tuple[KeySource, ...]:
        named = {
            rule.source
            for one in read.items(found).values()
            for rule in one.rules
            if rule.source is not None
        }
        return tuple(sorted(named)[:MOST_SOURCES])

    def completed(
        read: reader.Reader, key: sources.ObjectKey, one: RequestAuthentication
    ) -> Iterator[tuple[sources.ObjectKey, RequestAuthentication]]:
        rules = tuple(with_keys(read, rule) for rule in one.rules)
        yield key, dataclasses.replace(one, rules=rules)

    def with_keys(read: reader.Reader, rule: JwtRule) -> JwtRule:
        if rule.source is None:
            return rule
        return dataclasses.replace(rule, keys=read.get(fetched, rule.source) or "")

    return Nodes(
        fetched,
        graph_.single("key_sets.wanted", wanted),
        graph_.derive("request_authentications.with_keys", found, completed),
    )


def known(text: str) -> str:
    """Return the keys of a set that can be used, in one form; nothing where there is none."""
    return _written([one for one in _listed(text) if _is_key(one)])


def whole(text: str) -> str:
    """Return the same, and nothing where any of the keys cannot be used."""
    return known(text) if all(_is_key(one) for one in _listed(text)) else ""


def _listed(text: str) -> list[object]:
    try:
        found = json.loads(text) if text else None
    except (ValueError, RecursionError):
        return []
    keys = found.get("keys") if isinstance(found, dict) else None
    return keys if isinstance(keys, list) else []


def _is_key(one: object) -> bool:
    kind = one.get("kty") if isinstance(one, dict) else None
    return isinstance(kind, str) and kind in KINDS


def _written(keys: list[object]) -> str:
    kept = [
        {name: value for name in PARTS if isinstance(value := one.get(name), str)}
        for one in keys
        if isinstance(one, dict)
    ]
    text = json.dumps({"keys": kept}, sort_keys=True, ensure_ascii=False) if kept else ""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return ""
    return text if size <= MOST_SET else ""
