"""RequestAuthentication objects: whose tokens are believed.

A rule of which any part is not understood believes no token of its issuer; all such tokens are
refused. An object that cannot be told what it is for holds where its selector says.

Source: Istio's API for RequestAuthentication; docs/reference/authorization.md.
"""

import json
from typing import Final

from isthmus.engine import graph
from isthmus.fleet import sources
from isthmus.kube import objects
from isthmus.mesh.authentication import JwtRule, RequestAuthentication
from isthmus.registry import authorization_policies, config, fields, settings, texts

RULE: Final = frozenset(
    {
        "issuer",
        "audiences",
        "jwks",
        "fromHeaders",
        "fromParams",
        "forwardOriginalToken",
        "outputPayloadToHeader",
        "outputClaimToHeaders",
    }
)
MOST_KEYS: Final = 64 * 1024
KINDS_OF_KEYS: Final = frozenset({"RSA", "EC", "OKP", "oct"})


def declare(
    graph_: graph.Graph, sources_: sources.Sources, *, seat: settings.Seat
) -> config.Nodes[RequestAuthentication]:
    """Declare the objects in `graph_`."""
    return config.declare(
        graph_,
        "RequestAuthentication",
        sources_.request_authentications,
        seat=seat,
        read=read,
        used="tokens of other rules are judged; of a rule that is not understood none is believed",
    )


def read(
    origin: config.Origin, object_: objects.FreeForm, problems: fields.Problems
) -> RequestAuthentication:
    """Say what a RequestAuthentication means."""
    spec = fields.Fields(object_.spec, path="spec", problems=problems)
    spec.refuse_others({"selector", "targetRef", "targetRefs", "jwtRules"})
    rules = tuple(
        _rule(part, f"{origin.namespace}/{origin.name}/{number}")
        for number, part in enumerate(spec.parts("jwtRules"))
    )
    return RequestAuthentication(
        origin.namespace,
        origin.name,
        rules,
        authorization_policies.selector_of(spec),
        authorization_policies.targets_of(spec) or (),
    )


def _rule(part: fields.Fields, name: str) -> JwtRule:
    before = part.noted
    part.refuse_others(RULE, "is not supported: no token of this rule is believed")
    issuer = part.text("issuer")
    if not issuer:
        part.problem("issuer", "must say something")
    keys = _keys(part)
    headers = tuple(
        (_header(one, "name"), one.text("prefix", "")) for one in part.parts("fromHeaders")
    )
    claims = tuple(
        (_header(one, "header"), one.text("claim")) for one in part.parts("outputClaimToHeaders")
    )
    payload = _header(part, "outputPayloadToHeader") if "outputPayloadToHeader" in part else ""
    rule = JwtRule(
        name,
        issuer,
        keys,
        part.texts("audiences"),
        headers,
        part.texts("fromParams"),
        part.flag("forwardOriginalToken", default=False),
        payload,
        claims,
    )
    return rule if part.noted == before else JwtRule(name, issuer, "")


def _header(part: fields.Fields, key: str) -> str:
    name = part.text(key)
    if not texts.is_header(name):
        part.problem(key, f"is no name of a header: `{name[:80]}`")
    return name.lower()


def _keys(part: fields.Fields) -> str:
    text = part.text("jwks", most=MOST_KEYS)
    try:
        found = json.loads(text) if text else None
    except (ValueError, RecursionError):
        found = None
    keys = found.get("keys") if isinstance(found, dict) else None
    is_set = isinstance(keys, list) and bool(keys)
    if not is_set or not all(
        isinstance(one, dict) and one.get("kty") in KINDS_OF_KEYS for one in keys or ()
    ):
        part.problem("jwks", "must be a set of keys: no token of this rule is believed")
        return ""
    return text
