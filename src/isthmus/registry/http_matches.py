"""The conditions of HTTP routes.

A condition that is not understood drops its match, since ignoring it would widen the route.

Source: spec section 8.2; Istio's API for VirtualService.
"""

from typing import Final

from isthmus.mesh.policies import HttpMatch
from isthmus.registry import config, fields, patterns, texts, topology

MOST_PORT: Final = 65535
MESH: Final = "mesh"
DROPPED: Final = "is not supported, so that this match is left out"
NAMES: Final = frozenset({"name", "statPrefix"})
"""Fields that only name things."""
CONDITIONS: Final = frozenset(
    {
        "uri",
        "scheme",
        "method",
        "authority",
        "headers",
        "withoutHeaders",
        "queryParams",
        "ignoreUriCase",
        "port",
        "gateways",
        "sourceNamespace",
        "sourceLabels",
    }
)
OF_PLACES: Final = (topology.CLUSTER_LABEL, topology.NETWORK_LABEL)
"""Labels of clients by which routes may differ; by others, proxies could share no routes."""
Named = tuple[tuple[str, str], ...]


def read(part: fields.Fields, origin: config.Origin) -> HttpMatch | None:
    """Return a match, or None when a part of it is not understood."""
    if part.refuse_others(NAMES | CONDITIONS, DROPPED):
        return None
    clients = part.part("sourceLabels")
    if clients.refuse_others(OF_PLACES, DROPPED) or ("sourceLabels" in part and not clients):
        return None
    port = part.number("port", default=0, least=1, most=MOST_PORT)
    if "port" in part and not port:
        return None
    path, method = patterns.read(part, "uri"), patterns.read(part, "method")
    scheme, authority = patterns.read(part, "scheme"), patterns.read(part, "authority")
    headers = _named(part, "headers", of_headers=True)
    without = _named(part, "withoutHeaders", of_headers=True)
    query = _named(part, "queryParams", of_headers=False)
    if (
        path is None
        or method is None
        or scheme is None
        or authority is None
        or headers is None
        or without is None
        or query is None
    ):
        return None
    return HttpMatch(
        path=path,
        method=method.removeprefix("exact:"),
        headers=headers,
        port=port,
        scheme=scheme,
        authority=authority,
        without_headers=without,
        query=query,
        ignores_case=part.flag("ignoreUriCase", default=False),
        gateways=gateways(part, origin),
        source_namespace=part.text("sourceNamespace"),
        source=part.pairs("sourceLabels"),
    )


def gateways(part: fields.Fields, origin: config.Origin) -> tuple[str, ...]:
    """Return `mesh` or `<namespace>/<name>` of each gateway that is named."""
    return tuple(
        dict.fromkeys(
            name if name == MESH or "/" in name else f"{origin.namespace}/{name}"
            for name in part.texts("gateways")
        )
    )


def _named(part: fields.Fields, key: str, *, of_headers: bool) -> Named | None:
    """Return names and patterns; a name without a pattern must only be there."""
    listed = part.part(key)
    found = []
    for name in listed.names():
        if of_headers and (not texts.is_header(name) or name.lower() in texts.HOST):
            listed.problem(name, "is no header to look at, so that this match is left out")
            return None
        pattern = patterns.read(listed, name, may_be_empty=True)
        if pattern is None:
            return None
        found.append((name.lower() if of_headers else name, pattern or patterns.PRESENT))
    return tuple(sorted(found))
