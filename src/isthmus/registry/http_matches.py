"""The conditions of HTTP routes.

A match of which anything is not understood is left out: to ignore that would widen the route.

Source: spec section 8.2; Istio's API for VirtualService.
"""

from dataclasses import dataclass
from typing import Final

from isthmus.mesh.policies import HttpMatch
from isthmus.registry import config, fields, patterns, texts

MOST_PORT: Final = 65535
LONGEST_NAME: Final = 1024
"""Bytes of a parameter's name that a proxy takes."""
MESH: Final = "mesh"
LEFT: Final = "this match is left out"
DROPPED: Final = f"is not supported, so that {LEFT}"
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
Named = tuple[tuple[str, str], ...]


def read(part: fields.Fields, origin: config.Origin) -> HttpMatch | None:
    """Return a match, or None when a part of it is not understood."""
    before = part.noted
    part.refuse_others(NAMES | CONDITIONS, DROPPED)
    where = place(part, origin)
    path, method = patterns.read(part, "uri"), patterns.read(part, "method")
    scheme, authority = patterns.read(part, "scheme"), patterns.read(part, "authority")
    headers = _named(part, "headers", of_headers=True)
    without = _named(part, "withoutHeaders", of_headers=True)
    query = _named(part, "queryParams", of_headers=False)
    found = HttpMatch(
        path=path,
        method=method.removeprefix("exact:"),
        headers=headers,
        port=where.port,
        scheme=scheme,
        authority=authority,
        without_headers=without,
        query=query,
        ignores_case=part.flag("ignoreUriCase", default=False),
        gateways=where.gateways,
        source_namespace=where.namespace,
        source=where.labels,
    )
    return found if part.noted == before else None


@dataclass(frozen=True, slots=True)
class Place:
    """For whom a match holds, as far as it is not about what they send."""

    port: int
    gateways: tuple[str, ...]
    namespace: str
    labels: Named


def place(part: fields.Fields, origin: config.Origin) -> Place:
    """Return for whom a match holds, and note what of it is not understood."""
    return Place(
        part.number("port", default=0, least=1, most=MOST_PORT),
        gateways(part, origin),
        part.text("sourceNamespace"),
        part.pairs("sourceLabels"),
    )


def gateways(part: fields.Fields, origin: config.Origin) -> tuple[str, ...]:
    """Return `mesh` or `<namespace>/<name>` of each gateway that is named."""
    return tuple(
        dict.fromkeys(
            name if name == MESH or "/" in name else f"{origin.namespace}/{name}"
            for name in part.texts("gateways")
        )
    )


def _named(part: fields.Fields, key: str, *, of_headers: bool) -> Named:
    """Return names and patterns; a name without a pattern must only be there."""
    listed = part.part(key)
    found = []
    for name in listed.names():
        if of_headers and (not texts.is_header(name) or name.lower() in texts.HOST):
            listed.problem(name, "is no header to look at, so that this match is left out")
            continue
        if not 0 < len(name.encode(errors="replace")) <= LONGEST_NAME:
            listed.problem(name, "is no name of a parameter, so that this match is left out")
            continue
        pattern = patterns.read(listed, name, may_be_empty=True)
        found.append((name.lower() if of_headers else name, pattern or patterns.PRESENT))
    return tuple(sorted(found))
