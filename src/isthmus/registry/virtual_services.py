"""VirtualService objects: where requests and connections go.

A condition that is not understood drops its match, since ignoring it would widen the route; a
setting that is not understood is left out and the route kept.

Source: spec sections 6.4 and 8.2.
"""

import dataclasses
import ipaddress
from collections.abc import Iterable, Sequence
from typing import Final

from isthmus.kube import objects
from isthmus.mesh.policies import (
    Destination,
    HttpRoute,
    Mirror,
    SniRoute,
    TcpRoute,
    VirtualService,
)
from isthmus.registry import config, fields, http_matches, naming, treatments

MOST_PORT: Final = 65535
WHOLE: Final = 100
TCP_CONDITIONS: Final = frozenset(
    {"port", "gateways", "sourceNamespace", "sourceLabels", "destinationSubnets"}
)
TLS_CONDITIONS: Final = TCP_CONDITIONS | {"sniHosts"}
ROUTE: Final = frozenset(
    {"name", "match", "route", "timeout", "mirror", "mirrors", "mirrorPercentage", "delegate"}
)


def read(
    origin: config.Origin, object_: objects.FreeForm, problems: fields.Problems
) -> VirtualService | None:
    """Say what a VirtualService means; without hosts it is for others to delegate to."""
    spec = fields.Fields(object_.spec, path="spec", problems=problems)
    hosts = tuple(
        naming.qualified(host, namespace=origin.namespace, domain=origin.domain)
        for host in spec.texts("hosts")
        if host
    )
    if not hosts and "http" not in spec:
        spec.problem("hosts", "must name a host")
        return None
    if not hosts:
        # Another may delegate to it.
        spec.refuse_others({"http", "exportTo"}, "has no meaning without hosts")
    spec.refuse_others({"hosts", "gateways", "http", "tls", "tcp", "exportTo"})
    gateways = http_matches.gateways(spec, origin) or (http_matches.MESH,)
    return VirtualService(
        namespace=origin.namespace,
        name=origin.name,
        hosts=tuple(dict.fromkeys(hosts)),
        gateways=gateways,
        http=tuple(route for part in spec.parts("http") for route in _http(part, origin)),
        tls=tuple(route for part in spec.parts("tls") for route in _tls(part, origin, gateways)),
        tcp=tuple(route for part in spec.parts("tcp") for route in _tcp(part, origin, gateways)),
        export_to=spec.texts("exportTo"),
    )


def _http(part: fields.Fields, origin: config.Origin) -> Iterable[HttpRoute]:
    part.refuse_others(ROUTE | treatments.PARTS, "is not supported and left out")
    treatment = treatments.read(part)
    delegate = _delegate(part, origin)
    if treatment is None or ("delegate" in part and delegate is None):
        return
    is_answered = bool(treatment.redirect or treatment.answer or delegate)
    destinations = () if is_answered else _destinations(part, origin)
    wanted = part.parts("match")
    matches = tuple(
        match for match in (http_matches.read(one, origin) for one in wanted) if match is not None
    )
    if (destinations or is_answered) and (matches or not wanted):
        yield HttpRoute(
            matches=matches,
            destinations=destinations,
            timeout_s=part.seconds("timeout", default=0.0),
            treatment=treatment,
            mirrors=tuple(_mirrors(part, origin)),
            delegate=delegate,
        )


def _delegate(part: fields.Fields, origin: config.Origin) -> tuple[str, str] | None:
    """Return who says what becomes of requests, if a route hands them on."""
    if "delegate" not in part:
        return None
    beside = [key for key in ("route", "redirect", "directResponse") if key in part]
    if beside:
        part.problem("delegate", f"cannot stand beside `{beside[0]}`: this route is left out")
        return None
    named = part.part("delegate")
    named.refuse_others({"name", "namespace"}, "is not supported and left out")
    name = named.text("name")
    if not name:
        named.problem("name", "must name a VirtualService, so that this route is left out")
        return None
    return named.text("namespace") or origin.namespace, name


def _mirrors(part: fields.Fields, origin: config.Origin) -> Iterable[Mirror]:
    """Yield where copies go: by `mirrors`, or else by the older `mirror`."""
    several = part.parts("mirrors")
    for one in several:
        one.refuse_others({"destination", "percentage"}, "is not supported and left out")
        yield from _mirror(
            one.part("destination"), origin, share=one.share("percentage", default=fields.MILLION)
        )
    if "mirror" in part and not several:
        share = part.share("mirrorPercentage", default=fields.MILLION)
        yield from _mirror(part.part("mirror"), origin, share=share)
    elif "mirrorPercentage" in part:
        part.problem("mirrorPercentage", "says something of `mirror`, which is not there")


def _mirror(target: fields.Fields, origin: config.Origin, *, share: int) -> Iterable[Mirror]:
    found = _destination(target, origin, weight=WHOLE)
    if found is not None and share:
        yield Mirror(found, share)


def _tls(part: fields.Fields, origin: config.Origin, gateways: Sequence[str]) -> Iterable[SniRoute]:
    part.refuse_others({"match", "route"}, "is not supported and left out")
    destinations = _destinations(part, origin)
    for match in part.parts("match"):
        before = match.noted
        match.refuse_others(TLS_CONDITIONS, http_matches.DROPPED)
        hosts = tuple(host.lower() for host in match.texts("sniHosts") if host)
        if not hosts:
            match.problem("sniHosts", "must name a host")
        at = http_matches.place(match, origin)
        subnets = _subnets(match, at.gateways or gateways)
        if destinations and match.noted == before:
            yield SniRoute(
                at.port, hosts, destinations, at.gateways, at.namespace, at.labels, subnets
            )


def _tcp(part: fields.Fields, origin: config.Origin, gateways: Sequence[str]) -> Iterable[TcpRoute]:
    part.refuse_others({"match", "route"}, "is not supported and left out")
    destinations = _destinations(part, origin)
    matches = part.parts("match")
    if destinations and not matches:
        yield TcpRoute(0, destinations)
    for match in matches:
        before = match.noted
        match.refuse_others(TCP_CONDITIONS, http_matches.DROPPED)
        at = http_matches.place(match, origin)
        subnets = _subnets(match, at.gateways or gateways)
        if destinations and match.noted == before:
            yield TcpRoute(at.port, destinations, at.gateways, at.namespace, at.labels, subnets)


def _subnets(match: fields.Fields, gateways: Sequence[str]) -> tuple[str, ...]:
    """Return ranges of addresses, and note each that is none; only sidecars look at any."""
    found = []
    if "destinationSubnets" in match and http_matches.MESH not in gateways:
        match.problem("destinationSubnets", f"is not supported on gateways: {http_matches.LEFT}")
    for text in match.texts("destinationSubnets"):
        try:
            found.append(str(ipaddress.ip_network(text, strict=False)))
        except ValueError:
            match.problem(
                "destinationSubnets", f"is no range of addresses: `{ascii(text[:40])[1:-1]}`"
            )
    return tuple(dict.fromkeys(found))


def _destinations(part: fields.Fields, origin: config.Origin) -> tuple[Destination, ...]:
    """Return where a route leads; a single destination gets all, whatever its weight says."""
    found = []
    parts = part.parts("route")
    if not parts:
        part.problem("route", "must name a destination")
    for entry in parts:
        entry.refuse_others({"destination", "weight", "headers"}, "is not supported and left out")
        weight = (
            WHOLE if len(parts) == 1 else entry.number("weight", default=0, least=0, most=2**31 - 1)
        )
        destination = _destination(entry.part("destination"), origin, weight=weight)
        if destination is not None:
            headers = treatments.headers(entry)
            found.append(dataclasses.replace(destination, headers=headers))
    weighted = tuple(destination for destination in found if destination.weight)
    if found and not weighted:
        part.problem("route", "gives no destination a weight")
    return weighted


def _destination(
    target: fields.Fields, origin: config.Origin, *, weight: int
) -> Destination | None:
    target.refuse_others({"host", "subset", "port"})
    host = target.text("host")
    if not host:
        target.problem("host", "must name a service")
        return None
    return Destination(
        host=naming.qualified(host, namespace=origin.namespace, domain=origin.domain),
        port=target.part("port").number("number", default=0, least=1, most=MOST_PORT),
        subset=target.text("subset"),
        weight=weight,
    )
