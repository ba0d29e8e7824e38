"""RequestAuthentication objects: whose tokens are believed.

A rule of which any part is not understood believes no token of its issuer; all such tokens are
refused. An object that cannot be told what it is for holds where its selector says.

Source: Istio's API for RequestAuthentication; docs/reference/authorization.md.
"""

from typing import Final

from isthmus.engine import graph
from isthmus.fleet import sources
from isthmus.kube import objects
from isthmus.mesh.authentication import JwtRule, KeySource, RequestAuthentication
from isthmus.registry import authorization_policies, config, fields, key_sets, settings, texts

RULE: Final = frozenset(
    {
        "issuer",
        "audiences",
        "jwks",
        "jwksUri",
        "timeout",
        "fromHeaders",
        "fromParams",
        "forwardOriginalToken",
        "outputPayloadToHeader",
        "outputClaimToHeaders",
    }
)
SECURE: Final = "https://"
LONGEST_S: Final = 10.0
"""Nobody's keys are waited for any longer."""


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
    source = None if keys or part.noted != before else _source(part, issuer)
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
        source,
    )
    return rule if part.noted == before else JwtRule(name, issuer, "")


def _header(part: fields.Fields, key: str) -> str:
    name = part.text(key)
    if not texts.is_header(name):
        part.problem(key, f"is no name of a header: `{name[:80]}`")
    return name.lower()


def _keys(part: fields.Fields) -> str:
    text = part.text("jwks", most=key_sets.MOST_SET)
    found = key_sets.whole(text)
    if text and not found:
        part.problem("jwks", "must be a set of keys: no token of this rule is believed")
    return found


def _source(part: fields.Fields, issuer: str) -> KeySource | None:
    """Return where keys are to be had; nobody is believed by what came over plain text."""
    uri = part.text("jwksUri")
    name, place = ("jwksUri", uri) if uri else ("issuer", issuer)
    if not place.startswith(SECURE) or not texts.is_printable(place):
        part.problem(name, f"must begin with `{SECURE}`, since keys are to be fetched from there")
        return None
    return KeySource(issuer, uri, min(part.seconds("timeout", default=5.0), LONGEST_S))
