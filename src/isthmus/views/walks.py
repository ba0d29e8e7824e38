"""Where a call of a sidecar goes: from the name it asks for, through what the proxy was told.

Only reads the slices from which the proxy's configuration is built, and follows them as the proxy
does; it knows no other way to find out.

Source: spec sections 4.7 and 4.8.
"""

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from isthmus.base import errors
from isthmus.engine import reader
from isthmus.mesh.services import Service
from isthmus.views import addressing, facts, names, outbound, view, visibility

Told = Mapping[view.SliceKey, view.Slice]


class CallNotUnderstood(errors.IsthmusError):
    """A call was asked about that no proxy could make."""

    code = "ISM-VIEW-020"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a call asks for; port 0 where nobody said."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Leg:
    """One route that the call may take.

    Attributes:
        route: Absent for connections, of which no request is read.
        cluster: Absent where there is none of that name.
        share: The part of the requests that match, 0 to 1.
    """

    cluster_name: str
    cluster: view.ClusterSlice | None
    share: float
    route: view.Route | None = None

    @property
    def is_answered_here(self) -> bool:
        """Whether the proxy itself answers or redirects."""
        return self.route is not None and not self.route.targets


@dataclass(frozen=True, slots=True)
class Walk:
    """The way of a call until an endpoint is chosen.

    Attributes:
        service: Absent where the mesh knows none of that name that the client may see.
        addresses: The service's, as the client sees them.
    """

    asked: Asked
    service: Service | None
    addresses: tuple[str, ...]
    listener: view.ListenerSlice | None
    route_name: str
    virtual_host: str
    legs: tuple[Leg, ...]


def understood(text: str) -> Asked:
    """Read `HOST[:PORT]`, or the same as a URL.

    Raises:
        CallNotUnderstood: It is neither (ISM-VIEW-020).
    """
    rest = text.partition("://")[2] or text
    rest = rest.partition("/")[0].strip().lower().removesuffix(".")
    host, has_port, port = rest.rpartition(":")
    if not has_port or rest.endswith("]"):
        host, port = rest, "0"
    if not host or not port.isdecimal() or int(port) > 65535:
        raise CallNotUnderstood(
            f"`{text[:200]}` is no host, or no port", hint="such as helloworld.sample:5000"
        )
    return Asked(host.strip("[]"), int(port))


def walk(
    read: reader.Reader,
    known: facts.Facts,
    scope: view.OutboundScope,
    *,
    asked: Asked,
    told: Told,
) -> Walk:
    """Follow a call.

    Raises:
        CallNotUnderstood: The service has several ports, or not this one (ISM-VIEW-020).
    """
    slices = {(key.kind, key.name): slice_ for key, slice_ in told.items()}
    service = service_asked(read, known, scope, host=asked.host)
    addresses: tuple[str, ...] = ()
    if service is not None:
        asked = Asked(asked.host, _port(service, asked))
        addresses = _addresses(read, known, service, scope)
    listener = _listener(slices, asked, addresses=addresses)
    if isinstance(listener, view.OutboundHttp):
        found = slices.get((view.Kind.ROUTE, listener.route_name))
        if isinstance(found, view.RouteSlice):
            host = _host(found, asked, service)
            legs = tuple(_legs(host, found, slices))
            name = host.name if host is not None else ""
            return Walk(asked, service, addresses, listener, found.name, name, legs)
    cluster = names.PASSTHROUGH
    if isinstance(listener, view.OutboundTcp):
        cluster = listener.cluster_name
    elif isinstance(listener, view.CatchAllOutbound):
        cluster = listener.fallback_cluster
    return Walk(asked, service, addresses, listener, "", "", (_leg(cluster, slices, 1.0),))


def service_asked(
    read: reader.Reader, known: facts.Facts, scope: view.OutboundScope, *, host: str
) -> Service | None:
    """Return the service that a client means by a name or an address; None where it sees none."""
    visible = (
        service
        for _, service in sorted(read.items(known.model.services).items())
        if visibility.is_visible(service, client=scope.namespace)
    )
    is_address = _is_address(host)
    for service in visible:
        addresses = _addresses(read, known, service, scope)
        if is_address:
            if host in addresses:
                return service
        elif host in visibility.domains_of(service, client=scope.namespace, addresses=addresses):
            return service
    return None


def _addresses(
    read: reader.Reader, known: facts.Facts, service: Service, scope: view.OutboundScope
) -> tuple[str, ...]:
    return addressing.addresses_of(read, known, service, cluster=scope.cluster, naming=scope.naming)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _port(service: Service, asked: Asked) -> int:
    numbers = [port.number for port in outbound.ports_of(service)]
    if not asked.port and len(numbers) == 1:
        return numbers[0]
    if asked.port in numbers:
        return asked.port
    listed = ", ".join(map(str, numbers)) or "none"
    what = f"no port {asked.port}" if asked.port else f"{len(numbers)} ports"
    raise CallNotUnderstood(
        f"service `{service.hostname}` has {what}",
        detail=f"its ports: {listed}",
        hint=f"name one of them: {asked.host}:PORT",
    )


def _listener(
    slices: Mapping[tuple[view.Kind, str], view.Slice], asked: Asked, *, addresses: tuple[str, ...]
) -> view.ListenerSlice | None:
    """Return the listener that a connection is handed to: of its address, of its port, or the rest."""
    own = [asked.host] if _is_address(asked.host) else []
    places = [*(f"{one}_{asked.port}" for one in (*addresses, *own))]
    places += [f"{names.ANY_ADDRESS}_{asked.port}", "virtualOutbound"]
    for place in places:
        found = slices.get((view.Kind.LISTENER, place))
        if isinstance(found, view.OutboundHttp | view.OutboundTcp | view.CatchAllOutbound):
            return found
    return None


def _host(
    routes: view.RouteSlice, asked: Asked, service: Service | None
) -> view.VirtualHost | None:
    wanted = [asked.host, *([str(service.hostname)] if service is not None else [])]
    for name in (*wanted, "*"):
        for host in routes.hosts:
            if name in host.domains:
                return host
    return None


def _legs(
    host: view.VirtualHost | None,
    routes: view.RouteSlice,
    slices: Mapping[tuple[view.Kind, str], view.Slice],
) -> Iterator[Leg]:
    if host is None:
        if routes.fallback_cluster:
            yield _leg(routes.fallback_cluster, slices, 1.0)
        return
    for route in host.routes:
        if not route.targets:
            yield Leg("", None, 1.0, route)
        whole = sum(target.weight for target in route.targets)
        for target in route.targets:
            share = target.weight / whole if whole else 0.0
            yield _leg(target.cluster_name, slices, share, route)


def _leg(
    name: str,
    slices: Mapping[tuple[view.Kind, str], view.Slice],
    share: float,
    route: view.Route | None = None,
) -> Leg:
    found = slices.get((view.Kind.CLUSTER, name))
    return Leg(name, found if isinstance(found, view.ClusterSlice) else None, share, route)
