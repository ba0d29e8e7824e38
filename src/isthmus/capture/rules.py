"""The packet rules that make a redirect happen, in order; the first rule that matches decides.

Only TCP over IPv4 is ever redirected, and questions for names, which are UDP, too.

An agent asks the same servers as its pod, from the same address. The kernel tells the two apart
by connection zones, or it would take an agent's question for one of the application's, whose
port the agent happened to get a moment later, and send it back to the agent.

Source: spec section 5.4; the mark is ours, for proxies that cannot run as a user of their own.
"""

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from isthmus.capture import redirects

INBOUND_SOURCE = "127.0.0.6/32"
"""The address from which a proxy hands inbound connections to its application."""

LOOPBACK = "127.0.0.1/32"
LOOPBACK_INTERFACE = "lo"
DNS = 53


class Way(enum.Enum):
    """Where in a packet's way a rule stands."""

    ARRIVING = "arriving"
    LEAVING = "leaving"
    ARRIVING_RAW = "arriving raw"
    LEAVING_RAW = "leaving raw"
    ARRIVING_ROUTED = "arriving routed"
    LEAVING_ROUTED = "leaving routed"


class Transport(enum.Enum):
    """What a rule is about."""

    TCP = "tcp"
    UDP = "udp"


@dataclass(frozen=True, slots=True)
class Zone:
    """Connections are told apart from those of other zones; the packet goes on."""

    number: int


@dataclass(frozen=True, slots=True)
class Port:
    """The destination port."""

    number: int
    negated: bool = False


@dataclass(frozen=True, slots=True)
class SourcePort:
    """The port that the packet comes from."""

    number: int


@dataclass(frozen=True, slots=True)
class Source:
    """The source address lies in a range."""

    cidr: str


@dataclass(frozen=True, slots=True)
class Destination:
    """The destination address lies in a range."""

    cidr: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Interface:
    """The interface that the packet comes from or goes to."""

    name: str


@dataclass(frozen=True, slots=True)
class Mark:
    """The mark of the socket."""

    number: int


@dataclass(frozen=True, slots=True)
class ConnectionMark:
    """The mark of the connection that the packet belongs to."""

    number: int


@dataclass(frozen=True, slots=True)
class Remember:
    """The packet's connection is marked; the packet goes on."""

    mark: int


@dataclass(frozen=True, slots=True)
class Reroute:
    """The packet is marked, and its route is looked up again."""

    mark: int


@dataclass(frozen=True, slots=True)
class User:
    """The user that owns the socket."""

    uid: int


@dataclass(frozen=True, slots=True)
class Group:
    """The group that owns the socket."""

    gid: int


@dataclass(frozen=True, slots=True)
class UnderWay:
    """The packet opens no connection: it belongs to one that was there before."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The packet refuses a connection for which nobody listens; it ends none that was made."""


@dataclass(frozen=True, slots=True)
class Silence:
    """The packet is dropped, as if it had been lost on the way."""


Match = (
    Port
    | SourcePort
    | Source
    | Destination
    | Interface
    | Mark
    | ConnectionMark
    | User
    | Group
    | UnderWay
    | Refusal
)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: what matches everything listed is sent to port `to`, or left alone if None.

    In the raw ways, which come before, `to` is the zone in which its connection is followed.
    """

    way: Way
    matches: tuple[Match, ...]
    to: int | Zone | Remember | Reroute | Silence | None = None
    transport: Transport = Transport.TCP


OF_AGENT, OF_POD = Zone(1), Zone(2)
"""Istio's own numbers."""


def rules(wanted: redirects.Redirect) -> tuple[Rule, ...]:
    """Return the rules for one pod."""
    return (*_arriving(wanted), *_names(wanted), *_leaving(wanted), *_zones(wanted))


def _arriving(wanted: redirects.Redirect) -> Iterator[Rule]:
    way, to = Way.ARRIVING, wanted.inbound_port
    for name in wanted.excluded_interfaces:
        yield Rule(way, (Interface(name),))
    yield Rule(way, (Port(wanted.tunnel_port),))
    if wanted.inbound_ports is not None:
        for port in wanted.inbound_ports:
            yield Rule(way, (Port(port),), to)
        return
    for port in wanted.excluded_inbound_ports:
        yield Rule(way, (Port(port),))
    yield Rule(way, (), to)


def _leaving(wanted: redirects.Redirect) -> Iterator[Rule]:
    way = Way.LEAVING
    own = _proxys_own(wanted)
    loopback = Interface(LOOPBACK_INTERFACE)
    for name in wanted.excluded_interfaces:
        yield Rule(way, (Interface(name),))
    yield Rule(way, (loopback, Source(INBOUND_SOURCE)))
    # A proxy that calls a service which its own pod serves: through its inbound side.
    for who in own:
        yield Rule(
            way,
            (
                loopback,
                Destination(LOOPBACK, negated=True),
                Port(wanted.tunnel_port, negated=True),
                who,
            ),
            wanted.inbound_port,
        )
    # An application that calls itself by its own address.
    yield Rule(way, (loopback,))
    for who in own:
        yield Rule(way, (who,))
    for server in _servers(wanted):
        yield Rule(way, (Port(DNS), *server), wanted.dns_port)
    yield Rule(way, (Destination(LOOPBACK),))
    for port in wanted.excluded_outbound_ports:
        yield Rule(way, (Port(port),))
    for cidr in wanted.excluded_outbound_ranges:
        yield Rule(way, (Destination(cidr),))
    yield from _captured(wanted)


def _captured(wanted: redirects.Redirect) -> Iterator[Rule]:
    way, to = Way.LEAVING, wanted.outbound_port
    if wanted.outbound_ports is None or wanted.outbound_ranges is None:
        yield Rule(way, (), to)
        return
    for port in wanted.outbound_ports:
        yield Rule(way, (Port(port),), to)
    for cidr in wanted.outbound_ranges:
        yield Rule(way, (Destination(cidr),), to)


def _names(wanted: redirects.Redirect) -> Iterator[Rule]:
    """Yield the rules for questions in datagrams; those in streams go with other TCP."""
    servers = _servers(wanted)
    if not servers:
        return
    for name in wanted.excluded_interfaces:
        yield Rule(Way.LEAVING, (Interface(name),), transport=Transport.UDP)
    for who in _proxys_own(wanted):
        yield Rule(Way.LEAVING, (Port(DNS), who), transport=Transport.UDP)
    for server in servers:
        yield Rule(Way.LEAVING, (Port(DNS), *server), wanted.dns_port, Transport.UDP)


def _zones(wanted: redirects.Redirect) -> Iterator[Rule]:
    servers = _servers(wanted)
    if not servers:
        return
    for who in _proxys_own(wanted):
        yield Rule(Way.LEAVING_RAW, (Port(DNS), who), OF_AGENT, Transport.UDP)
        yield Rule(Way.LEAVING_RAW, (SourcePort(wanted.dns_port), who), OF_POD, Transport.UDP)
    for server in servers:
        yield Rule(Way.LEAVING_RAW, (Port(DNS), *server), OF_POD, Transport.UDP)
        came = tuple(Source(each.cidr) for each in server)
        yield Rule(Way.ARRIVING_RAW, (SourcePort(DNS), *came), OF_AGENT, Transport.UDP)


def _servers(wanted: redirects.Redirect) -> tuple[tuple[Destination, ...], ...]:
    """Return what questions are captured, each as matches beside the port."""
    if wanted.dns_servers is None:
        return ((),)
    return tuple((Destination(cidr),) for cidr in wanted.dns_servers)


def _proxys_own(wanted: redirects.Redirect) -> tuple[Match, ...]:
    return (Mark(wanted.mark), User(wanted.proxy_uid), Group(wanted.proxy_gid))
