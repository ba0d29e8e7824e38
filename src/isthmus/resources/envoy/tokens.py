"""Tokens in requests, for Envoy: which are believed, and what is known from them.

A request with a token that is not valid is answered by 401; one without any goes on, and nothing
is known of who sent it. What a token says stands in metadata, which no request can write.

Source: Istio's API for RequestAuthentication.
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Final

from envoy.extensions.filters.http.jwt_authn.v3 import config_pb2

from isthmus.mesh.authentication import JwtRule
from isthmus.mesh.authorization import Form, Pattern
from isthmus.resources.envoy import messages

FILTER: Final = "envoy.filters.http.jwt_authn"
PAYLOAD: Final = "payload"
NOBODYS_KEY: Final = {
    "kty": "EC",
    "crv": "P-256",
    "alg": "ES256",
    "kid": "nobody",
    "x": "JXUSVpX98pGFBQFQPmGLgAXAglyaHJYRWtYaQ4EXI9A",
    "y": "Ny2duHlcsv7EfQYoK1Eg8ld18xn5L4dZMsgJ4ZWkLag",
}
"""Envoy refuses a whole listener for a set in which it understands no key, so each has this one.

Its private key is nobody's: `x` is the first on the curve from SHA-256 of `isthmus: nobody` on.
"""

ISSUER, SUBJECT = ("iss",), ("sub",)


def filters(rules: Sequence[JwtRule]) -> list[messages.Fields]:
    """Return the filter that judges tokens; none where nobody's are believed."""
    if not rules:
        return []
    wanted = [{"provider_name": rule.name} for rule in rules]
    any_of = {"requirements": [*wanted, {"allow_missing": {}}]}
    judge = config_pb2.JwtAuthentication(
        providers={rule.name: _provider(rule) for rule in rules},
        rules=[{"match": {"prefix": "/"}, "requires": {"requires_any": any_of}}],
    )
    return [messages.extension(FILTER, judge)]


def _provider(rule: JwtRule) -> config_pb2.JwtProvider:
    return config_pb2.JwtProvider(
        issuer=rule.issuer,
        audiences=list(rule.audiences),
        local_jwks={"inline_string": _keys(rule)},
        from_headers=[{"name": name, "value_prefix": prefix} for name, prefix in rule.headers],
        from_params=list(rule.params),
        forward=rule.forwards,
        forward_payload_header=rule.payload_header,
        claim_to_headers=[
            {"header_name": header, "claim_name": claim} for header, claim in rule.claim_headers
        ],
        payload_in_metadata=PAYLOAD,
    )


def _keys(rule: JwtRule) -> str:
    known = json.loads(rule.keys)["keys"] if rule.keys else []
    return json.dumps({"keys": [*known, NOBODYS_KEY]}, sort_keys=True)


def principal(pattern: Pattern) -> messages.Fields:
    """Return whose token says `<issuer>/<subject>` like this; either may have slashes in it."""
    if pattern.form is Form.PRESENT:
        return _both(_says(ISSUER, _some()), _says(SUBJECT, _some()))
    return {"or_ids": {"ids": list(_ways(pattern))}}


def _ways(pattern: Pattern) -> Iterator[messages.Fields]:
    text = pattern.text
    for at in (found.start() for found in re.finditer("/", text)):
        left, right = text[:at], text[at + 1 :]
        issuer: messages.Fields = {"exact": left}
        subject: messages.Fields = {"exact": right}
        if pattern.form is Form.PREFIX:
            subject = {"prefix": right} if right else _some()
        elif pattern.form is Form.SUFFIX:
            issuer = {"suffix": left} if left else _some()
        yield _both(_says(ISSUER, issuer), _says(SUBJECT, subject))
    if pattern.form is Form.PREFIX:
        yield _both(_says(ISSUER, {"prefix": text}), _says(SUBJECT, _some()))
    elif pattern.form is Form.SUFFIX:
        yield _both(_says(ISSUER, _some()), _says(SUBJECT, {"suffix": text}))
    elif "/" not in text:
        yield {"not_id": {"any": True}}


def claim(path: str, pattern: Pattern) -> messages.Fields:
    """Return whose token says like this in a claim `[a][b]`, alone or in a list."""
    names = tuple(re.findall(r"\[([^\]]+)\]", path))
    matcher: messages.Fields = {pattern.form.value: pattern.text}
    if pattern.form is Form.PRESENT:
        matcher = _some()
    listed: messages.Fields = {"list_match": {"one_of": {"string_match": matcher}}}
    return {"or_ids": {"ids": [_says(names, matcher), _metadata(names, listed)]}}


def known() -> messages.Fields:
    """Return all who have shown a token that is believed."""
    return _says(ISSUER, _some())


def _says(names: Sequence[str], matcher: messages.Fields) -> messages.Fields:
    return _metadata(names, {"string_match": matcher})


def _metadata(names: Sequence[str], value: messages.Fields) -> messages.Fields:
    path = [{"key": name} for name in (PAYLOAD, *names)]
    return {"metadata": {"filter": FILTER, "path": path, "value": value}}


def _both(one: messages.Fields, other: messages.Fields) -> messages.Fields:
    return {"and_ids": {"ids": [one, other]}}


def _some() -> messages.Fields:
    return {"safe_regex": {"regex": ".+"}}
