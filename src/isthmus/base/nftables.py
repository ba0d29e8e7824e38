"""Packet rules, given to the kernel's nf_tables without any other program.

Builds tables, chains and rules as values, and applies a batch in one step: either all of it holds
or none. Decides nothing about which rules there should be. Rules act in the network namespace of
the calling thread, so a caller enters it first.

An `Expression` is a tuple of encoded parts; a rule is a list of them: matches first, then what
happens to a packet that matched all.

    table = nftables.table("mesh")
    chain = nftables.chain("mesh", "out", hook=nftables.OUTPUT, priority=-100)
    rule = nftables.rule("mesh", "out", nftables.tcp(), nftables.redirect(15001))
    nftables.apply([table, chain, rule])
"""

import socket
import struct
from collections.abc import Sequence

from isthmus.base import netlink

Expression = tuple[bytes, ...]

INET, IPV4 = 1, 2
PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING = range(5)
"""Where a chain hooks into a packet's way."""

DESTINATION_NAT, SOURCE_NAT, FILTER, RAW, MANGLE = -100, 100, 0, -300, -150
"""Usual priorities of chains."""

_SUBSYSTEM = 10 << 8
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NEW_TABLE, _DELETE_TABLE, _NEW_CHAIN, _NEW_RULE = 0, 2, 3, 6
_EQUAL, _UNEQUAL = 0, 1
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
_TCP, _UDP = 6, 17
_FLAGS_AT, _FIN, _SYN, _RST, _ACK = 13, 1, 2, 4, 16
_NUMBER_AT = 4
_IPV4_PROTOCOL = 2

_META = {
    "mark": 3,
    "iif": 4,
    "oif": 5,
    "iifname": 6,
    "oifname": 7,
    "skuid": 10,
    "skgid": 11,
    "nfproto": 15,
    "l4proto": 16,
}
_BYTE_WIDE = ("nfproto", "l4proto")


def _be32(value: int) -> bytes:
    return struct.pack(">I", value & 0xFFFFFFFF)


def _number(kind: int, value: int) -> bytes:
    return netlink.attribute(kind, _be32(value))


def _message(
    command: int, family: int, attributes: Sequence[bytes], flags: int = 0
) -> netlink.Message:
    head = struct.pack(">BBH", family, 0, 0)
    return netlink.Message(_SUBSYSTEM | command, flags, head + b"".join(attributes))


def apply(messages: Sequence[netlink.Message]) -> None:
    """Apply a batch: all of it or, if anything is refused, nothing.

    Raises:
        netlink.RefusedError: The kernel refused; nothing has changed.
    """
    head = struct.pack(">BBH", 0, 0, _SUBSYSTEM >> 8)
    begin, end = netlink.Message(_BATCH_BEGIN, 0, head), netlink.Message(_BATCH_END, 0, head)
    netlink.send([begin, *messages, end], family=netlink.NETFILTER)


def table(name: str, *, family: int = INET) -> netlink.Message:
    """Make a table if it is not there."""
    return _message(_NEW_TABLE, family, (netlink.text(1, name),), netlink.CREATE)


def delete_table(name: str, *, family: int = INET) -> netlink.Message:
    """Remove a table with all that is in it."""
    return _message(_DELETE_TABLE, family, (netlink.text(1, name),))


def replaced(name: str, *, family: int = INET) -> tuple[netlink.Message, ...]:
    """Begin a batch that replaces a whole table, whether it is there or not."""
    made = table(name, family=family)
    return made, delete_table(name, family=family), made


def chain(
    table_name: str,
    name: str,
    *,
    hook: int | None = None,
    priority: int = 0,
    kind: str = "nat",
    family: int = INET,
) -> netlink.Message:
    """Make a chain; without a hook it is only jumped to.

    A chain with a hook also has a kind: `nat`, `filter` or `route`.
    """
    parts = [netlink.text(1, table_name), netlink.text(3, name)]
    if hook is not None:
        parts.append(netlink.nest(4, (_number(1, hook), _number(2, priority))))
        parts.append(netlink.text(7, kind))
    return _message(_NEW_CHAIN, family, parts, netlink.CREATE)


def rule(
    table_name: str, chain_name: str, *expressions: Expression, family: int = INET
) -> netlink.Message:
    """Append a rule to a chain."""
    parts = [netlink.nest(1, (part,)) for expression in expressions for part in expression]
    attributes = (netlink.text(1, table_name), netlink.text(2, chain_name), netlink.nest(4, parts))
    return _message(_NEW_RULE, family, attributes, netlink.CREATE | netlink.APPEND)


def _part(name: str, *attributes: bytes) -> bytes:
    return netlink.text(1, name) + netlink.nest(2, attributes)


def _compare(value: bytes, *, negate: bool) -> bytes:
    operation = _UNEQUAL if negate else _EQUAL
    constant = netlink.nest(3, (netlink.attribute(1, value),))
    return _part("cmp", _number(1, 1), _number(2, operation), constant)


def _load_meta(key: str) -> bytes:
    return _part("meta", _number(1, 1), _number(2, _META[key]))


def _load_header(base: int, offset: int, size: int) -> bytes:
    return _part("payload", _number(1, 1), _number(2, base), _number(3, offset), _number(4, size))


def meta(key: str, value: int | str, *, negate: bool = False) -> Expression:
    """Match a fact about a packet, such as `mark`, `skuid`, `skgid`, `iifname` or `oifname`."""
    if isinstance(value, str):
        encoded = value.encode().ljust(16, b"\0")
    elif key in _BYTE_WIDE:
        encoded = bytes([value])
    else:
        encoded = struct.pack("I", value)
    return _load_meta(key), _compare(encoded, negate=negate)


def tcp() -> Expression:
    """Match TCP."""
    return meta("l4proto", _TCP)


def udp() -> Expression:
    """Match UDP."""
    return meta("l4proto", _UDP)


def opening(*, negate: bool = False) -> Expression:
    """Match the packet that opens a connection; follows `tcp`."""
    loaded = _load_header(_TRANSPORT_HEADER, _FLAGS_AT, 1)
    masked = _masked(bytes([_FIN | _SYN | _RST | _ACK]))
    return loaded, masked, _compare(bytes([_SYN]), negate=negate)


def refusing() -> Expression:
    """Match the packet that refuses a connection as it is opened; follows `tcp`.

    One that ends a connection has the number at which that has arrived; RFC 9293 section 3.10.7.1.
    """
    flags = _load_header(_TRANSPORT_HEADER, _FLAGS_AT, 1)
    masked = _masked(bytes([_FIN | _SYN | _RST | _ACK]))
    numbered = _load_header(_TRANSPORT_HEADER, _NUMBER_AT, 4)
    told = _compare(bytes([_RST | _ACK]), negate=False)
    return flags, masked, told, numbered, _compare(_be32(0), negate=False)


def destination_port(port: int, *, negate: bool = False) -> Expression:
    """Match the destination port; follows `tcp` or `udp`."""
    loaded = _load_header(_TRANSPORT_HEADER, 2, 2)
    return loaded, _compare(struct.pack(">H", port), negate=negate)


def source_port(port: int) -> Expression:
    """Match the port that a packet comes from; follows `tcp` or `udp`."""
    loaded = _load_header(_TRANSPORT_HEADER, 0, 2)
    return loaded, _compare(struct.pack(">H", port), negate=False)


def destination(cidr: str, *, negate: bool = False) -> Expression:
    """Match an IPv4 destination address or range."""
    return _ipv4(16, cidr, negate=negate)


def source(cidr: str, *, negate: bool = False) -> Expression:
    """Match an IPv4 source address or range."""
    return _ipv4(12, cidr, negate=negate)


def _ipv4(offset: int, cidr: str, *, negate: bool) -> Expression:
    ip, _, prefix = cidr.partition("/")
    length = int(prefix or 32)
    mask = _be32(0xFFFFFFFF << (32 - length))
    wanted = bytes(a & b for a, b in zip(socket.inet_aton(ip), mask, strict=True))
    parts = [*meta("nfproto", _IPV4_PROTOCOL), _load_header(_NETWORK_HEADER, offset, 4)]
    if length < 32:  # the width of an address
        parts.append(_masked(mask))
    return *parts, _compare(wanted, negate=negate)


def _masked(mask: bytes) -> bytes:
    return _part(
        "bitwise",
        _number(1, 1),
        _number(2, 1),
        _number(3, len(mask)),
        netlink.nest(4, (netlink.attribute(1, mask),)),
        netlink.nest(5, (netlink.attribute(1, b"\0" * len(mask)),)),
    )


def one_in(count: int) -> Expression:
    """Match one packet in `count`, at random."""
    drawn = _part("numgen", _number(1, 1), _number(2, count), _number(3, 1), _number(4, 0))
    return drawn, _compare(struct.pack("I", 0), negate=False)


def counter() -> Expression:
    """Count the packets that come this far."""
    return (_part("counter"),)


def _verdict(code: int, *more: bytes) -> Expression:
    inner = netlink.nest(2, (_number(1, code), *more))
    return (_part("immediate", _number(1, 0), netlink.nest(2, (inner,))),)


RETURN = _verdict(-5)
ACCEPT = _verdict(1)
DROP = _verdict(0)


def jump(chain_name: str) -> Expression:
    """Go on in another chain and, if that decides nothing, come back."""
    return _verdict(-3, netlink.text(2, chain_name))


def _constant(register: int, value: bytes) -> bytes:
    return _part("immediate", _number(1, register), netlink.nest(2, (netlink.attribute(1, value),)))


def redirect(port: int) -> Expression:
    """Send the connection to a port of this network's own."""
    return _constant(1, struct.pack(">H", port)), _part("redir", _number(1, 1), _number(2, 1))


def destination_nat(ip: str, *, port: int | None = None) -> Expression:
    """Send the connection to another IPv4 address and, if given, port."""
    parts = [_constant(1, socket.inet_aton(ip))]
    attributes = [_number(1, 1), _number(2, IPV4), _number(3, 1), _number(4, 1)]
    if port is not None:
        parts.append(_constant(2, struct.pack(">H", port)))
        attributes += [_number(5, 2), _number(6, 2)]
    return *parts, _part("nat", *attributes)


def source_nat(ip: str) -> Expression:
    """Let the connection come from another IPv4 address."""
    attributes = (_number(1, 0), _number(2, IPV4), _number(3, 1), _number(4, 1))
    return _constant(1, socket.inet_aton(ip)), _part("nat", *attributes)


def own_socket() -> Expression:
    """Match what a socket of this network sends, and nothing that is passed on for others."""
    # Only such a packet has a user; without one the rule ends here.
    return (_load_meta("skuid"),)


def masquerade() -> Expression:
    """Let the connection come from this network's own address."""
    return (_part("masq"),)


def set_mark(mark: int) -> Expression:
    """Mark the packet."""
    return _constant(1, struct.pack("I", mark)), _part("meta", _number(2, 3), _number(3, 1))


def connection_mark(mark: int) -> Expression:
    """Match packets of connections that bear a mark."""
    loaded = _part("ct", _number(1, 1), _number(2, 3))
    return loaded, _compare(struct.pack("I", mark), negate=False)


def mark_connection(mark: int) -> Expression:
    """Mark the packet's connection."""
    return _constant(1, struct.pack("I", mark)), _part("ct", _number(2, 3), _number(4, 1))


def set_zone(zone: int) -> Expression:
    """Follow the packet's connection apart from those of other zones; in a raw chain."""
    return _constant(1, struct.pack("H", zone)), _part("ct", _number(2, 17), _number(4, 1))


def reject() -> Expression:
    """Refuse the packet: a TCP connection is reset, any other is answered `port unreachable`."""
    return (_part("reject", _number(1, 2), netlink.attribute(2, b"\x01")),)


def reset() -> Expression:
    """Refuse a TCP packet with a reset; follows `tcp`."""
    return (_part("reject", _number(1, 1)),)
