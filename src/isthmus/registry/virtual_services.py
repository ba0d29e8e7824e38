"""VirtualService objects: where requests and connections go.

A condition that is not understood drops its match, since ignoring it would widen the route; a
setting that is not understood is left out and the route kept.

Source: spec sections 6.4 and 8.2.
"""

from collections.abc import Iterable
from typing import Final

from isthmus.kube import objects
from isthmus.mesh.policies import (
    Destination,
    HttpMatch,
    HttpRoute,
    SniRoute,
    TcpRoute,
    VirtualService,
)
from isthmus.registry import config, fields, naming

MOST_PORT: Final = 65535
WHOLE: Final = 100
REPLACES_ROUTE: Final = ("redirect", "directResponse", "delegate")


def read(
    origin: config.Origin, object_: objects.FreeForm, problems: fields.Problems
) -> VirtualService | None:
    """Say what a VirtualService means; None without a host."""
    spec = fields.Fields(object_.spec, path="spec", problems=problems)
    hosts = tuple(
        naming.qualified(host, namespace=origin.namespace, domain=origin.domain)
        for host in spec.texts("hosts")
        if host
    )
    if not hosts:
        spec.problem("hosts", "must name a host")
        return None
    spec.refuse_others({"hosts", "gateways", "http", "tls", "tcp", "exportTo"})
    return VirtualService(
        namespace=origin.namespace,
        name=origin.name,
        hosts=tuple(dict.fromkeys(hosts)),
        gateways=_gateways(spec, origin),
        http=tuple(route for part in spec.parts("http") for route in _http(part, origin)),
        tls=tuple(route for part in spec.parts("tls") for route in _tls(part, origin)),
        tcp=tuple(route for part in spec.parts("tcp") for route in _tcp(part, origin)),
        export_to=spec.texts("exportTo"),
    )


def _gateways(spec: fields.Fields, origin: config.Origin) -> tuple[str, ...]:
    """Return `mesh` or `<namespace>/<name>` of each gateway."""
    named = spec.texts("gateways") or ("mesh",)
    return tuple(
        dict.fromkeys(
            name if name == "mesh" or "/" in name else f"{origin.namespace}/{name}"
            for name in named
        )
    )


def _http(part: fields.Fields, origin: config.Origin) -> Iterable[HttpRoute]:
    for key in REPLACES_ROUTE:
        if key in part:
            part.problem(key, "is not supported, so that this route is left out")
            return
    part.refuse_others({"name", "match", "route", "timeout"}, "is not supported and left out")
    destinations = _destinations(part, origin)
    wanted = part.parts("match")
    matches = tuple(match for match in map(_match, wanted) if match is not None)
    if destinations and (matches or not wanted):
        yield HttpRoute(matches, destinations, part.seconds("timeout", default=0.0))


def _match(part: fields.Fields) -> HttpMatch | None:
    """Return a match, or None when a part of it is not understood."""
    problem = "is not supported, so that this match is left out"
    if part.refuse_others({"name", "uri", "method", "headers", "port"}, problem):
        return None
    path = _pattern(part, "uri")
    method = _pattern(part, "method")
    listed = part.part("headers")
    headers = [(name.lower(), _pattern(listed, name)) for name in listed.names()]
    port = part.number("port", default=0, least=1, most=MOST_PORT)
    if "port" in part and not port:
        return None
    if path is None or method is None or method.startswith("prefix:"):
        return None
    understood = tuple(sorted((name, text) for name, text in headers if text))
    if len(understood) != len(headers):
        return None
    return HttpMatch(path, method.removeprefix("exact:"), understood, port)


def _pattern(part: fields.Fields, key: str) -> str | None:
    """Return `exact:x` or `prefix:x`, nothing when absent, None when not understood."""
    if key not in part:
        return ""
    pattern = part.part(key)
    for kind in ("exact", "prefix"):
        if pattern.names() == (kind,) and pattern.text(kind):
            return f"{kind}:{pattern.text(kind)}"
    part.problem(key, "must be `exact` or `prefix`, so that this match is left out")
    return None


def _tls(part: fields.Fields, origin: config.Origin) -> Iterable[SniRoute]:
    part.refuse_others({"match", "route"}, "is not supported and left out")
    destinations = _destinations(part, origin)
    for match in part.parts("match"):
        problem = "is not supported, so that this match is left out"
        if match.refuse_others({"port", "sniHosts"}, problem):
            continue
        hosts = tuple(host.lower() for host in match.texts("sniHosts") if host)
        if not hosts:
            match.problem("sniHosts", "must name a host")
            continue
        port = match.number("port", default=0, least=1, most=MOST_PORT)
        if destinations and (port or "port" not in match):
            yield SniRoute(port, hosts, destinations)


def _tcp(part: fields.Fields, origin: config.Origin) -> Iterable[TcpRoute]:
    part.refuse_others({"match", "route"}, "is not supported and left out")
    destinations = _destinations(part, origin)
    matches = part.parts("match")
    if destinations and not matches:
        yield TcpRoute(0, destinations)
    for match in matches:
        if match.refuse_others({"port"}, "is not supported, so that this match is left out"):
            continue
        port = match.number("port", default=0, least=1, most=MOST_PORT)
        if destinations and (port or "port" not in match):
            yield TcpRoute(port, destinations)


def _destinations(part: fields.Fields, origin: config.Origin) -> tuple[Destination, ...]:
    """Return where a route leads; a single destination gets all, whatever its weight says."""
    found = []
    parts = part.parts("route")
    if not parts:
        part.problem("route", "must name a destination")
    for entry in parts:
        entry.refuse_others({"destination", "weight"}, "is not supported and left out")
        target = entry.part("destination")
        host = target.text("host")
        if not host:
            target.problem("host", "must name a service")
            continue
        found.append(
            Destination(
                host=naming.qualified(host, namespace=origin.namespace, domain=origin.domain),
                port=target.part("port").number("number", default=0, least=1, most=MOST_PORT),
                subset=target.text("subset"),
                weight=WHOLE
                if len(parts) == 1
                else entry.number("weight", default=0, least=0, most=2**31 - 1),
            )
        )
    weighted = tuple(destination for destination in found if destination.weight)
    if found and not weighted:
        part.problem("route", "gives no destination a weight")
    return weighted
