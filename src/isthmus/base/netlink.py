"""Links, addresses and routes, asked of the kernel over netlink without any other program.

Builds messages as values and sends them; decides nothing about which network there should be.
Messages act in the network namespace of the calling thread, so a caller enters it first.
"""

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

ROUTE = 0
NETFILTER = 12

REQUEST, EXCL, CREATE, APPEND = 1, 0x200, 0x400, 0x800
_ERROR = 2
_NESTED = 0x8000
_UP = 1
_BUFFER_BYTES = 4 << 20

_NEWLINK, _DELLINK, _NEWADDR, _DELADDR, _NEWROUTE, _DELROUTE, _NEWRULE = 16, 17, 20, 21, 24, 25, 32
_MAIN_TABLE, _BOOT_PROTOCOL = 254, 3
_LINK_SCOPE, _HOST_SCOPE = 253, 254
_LOCAL_ROUTE = 2


class RefusedError(OSError):
    """The kernel refused a message; `errno` says why, `position` which one of the batch."""

    def __init__(self, number: int, position: int) -> None:
        super().__init__(number, f"netlink message {position}: {os.strerror(number)}")
        self.position = position


@dataclass(frozen=True, slots=True)
class Message:
    """One request: its kind, flags beyond `REQUEST`, and body."""

    kind: int
    flags: int
    body: bytes


def attribute(kind: int, value: bytes) -> bytes:
    """Encode one attribute, padded to four bytes."""
    return struct.pack("HH", len(value) + 4, kind) + value + b"\0" * (-len(value) % 4)


def text(kind: int, value: str) -> bytes:
    """Encode an attribute that is a name."""
    return attribute(kind, value.encode() + b"\0")


def number(kind: int, value: int) -> bytes:
    """Encode an attribute that is a 32-bit number in the machine's own order."""
    return attribute(kind, struct.pack("I", value))


def nest(kind: int, parts: Iterable[bytes]) -> bytes:
    """Encode an attribute that holds others."""
    return attribute(kind | _NESTED, b"".join(parts))


def send(messages: Sequence[Message], *, family: int = ROUTE) -> None:
    """Send messages in one batch.

    The kernel has acted on all of them when the call that sends them returns, so nothing is
    waited for: what is in the socket afterwards are refusals.

    Raises:
        RefusedError: The first one that the kernel refused.
    """
    if not messages:
        return
    first = 1
    packet = bytearray()
    for sequence, message in enumerate(messages, start=first):
        size = 16 + len(message.body)
        packet += struct.pack("IHHII", size, message.kind, message.flags | REQUEST, sequence, 0)
        packet += message.body + b"\0" * (-len(message.body) % 4)
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family
    ) as conversation:
        _enlarge(conversation)
        conversation.bind((0, 0))
        conversation.send(packet)
        refusal = _first_refusal(conversation)
    if refusal is not None:
        raise RefusedError(refusal[0], refusal[1] - first)


def _enlarge(conversation: socket.socket) -> None:
    # A batch must fit into one buffer; beyond the system's limit only root may go.
    for forced, plain in ((32, socket.SO_SNDBUF), (33, socket.SO_RCVBUF)):
        try:
            conversation.setsockopt(socket.SOL_SOCKET, forced, _BUFFER_BYTES)
        except PermissionError:
            with contextlib.suppress(OSError):
                conversation.setsockopt(socket.SOL_SOCKET, plain, _BUFFER_BYTES)


def _first_refusal(conversation: socket.socket) -> tuple[int, int] | None:
    found: tuple[int, int] | None = None
    while True:
        try:
            answer = conversation.recv(1 << 17, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return found
        offset = 0
        while offset + 20 <= len(answer) and found is None:
            size, kind, _, sequence, _ = struct.unpack_from("IHHII", answer, offset)
            if kind == _ERROR:
                code = -struct.unpack_from("i", answer, offset + 16)[0]
                found = (code, sequence) if code else None
            offset += size + (-size % 4)


def _link(index: int = 0, *, flags: int = 0) -> bytes:
    return struct.pack("BBHiII", 0, 0, 0, index, flags, flags)


def _packed(address: str) -> bytes:
    return socket.inet_pton(_family(address), address)


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def index_of(name: str) -> int:
    """Return the number of the link with this name in the current network."""
    return socket.if_nametoindex(name)


def bridge(name: str) -> Message:
    """Make a bridge that forwards at once: no spanning tree, no multicast snooping."""
    options = (number(1, 0), number(5, 0), attribute(23, b"\0"))
    kind = nest(18, (attribute(1, b"bridge"), nest(2, options)))
    return Message(_NEWLINK, CREATE | EXCL, _link(flags=_UP) + text(3, name) + kind)


def veth(name: str, *, peer: str, peer_network: int, bridge_index: int = 0) -> Message:
    """Make a pair of links: one here, up, and its peer in the network held by a descriptor."""
    other = _link() + text(3, peer) + number(28, peer_network)
    body = _link(flags=_UP) + text(3, name)
    if bridge_index:
        body += number(10, bridge_index)
    body += nest(18, (attribute(1, b"veth"), nest(2, (nest(1, (other,)),))))
    return Message(_NEWLINK, CREATE | EXCL, body)


def up(index: int) -> Message:
    """Switch a link on."""
    return Message(_NEWLINK, 0, _link(index, flags=_UP))


def delete_link(index: int) -> Message:
    """Remove a link, and its peer if it has one."""
    return Message(_DELLINK, 0, _link(index))


def address(index: int, ip: str, *, prefix: int) -> Message:
    """Give a link an address; IPv6 addresses skip duplicate detection."""
    return Message(_NEWADDR, CREATE | EXCL, _address(index, ip, prefix))


def delete_address(index: int, ip: str, *, prefix: int) -> Message:
    """Take an address from a link."""
    return Message(_DELADDR, 0, _address(index, ip, prefix))


def _address(index: int, ip: str, prefix: int) -> bytes:
    family = _family(ip)
    no_detection = 2 if family == socket.AF_INET6 else 0
    head = struct.pack("BBBBI", family, prefix, no_detection, 0, index)
    return head + attribute(1, _packed(ip)) + attribute(2, _packed(ip))


def route(
    destination: str,
    *,
    link: int = 0,
    via: str = "",
    on_link: bool = False,
    table: int = _MAIN_TABLE,
    local: bool = False,
) -> Message:
    """Add a route.

    Args:
        destination: Such as `10.0.0.0/24`.
        link: Number of the link to send over.
        via: The next hop, if there is one.
        on_link: The next hop is reachable although no address says so.
        table: The routing table, below 256.
        local: Deliver to this network's own sockets instead of sending.
    """
    ip, _, prefix = destination.partition("/")
    scope = 0 if via else _HOST_SCOPE if local else _LINK_SCOPE
    kind = _LOCAL_ROUTE if local else 1
    flags = 4 if on_link else 0
    body = struct.pack(
        "BBBBBBBBI",
        _family(ip),
        int(prefix),
        0,
        0,
        table,
        _BOOT_PROTOCOL,
        scope,
        kind,
        flags,
    )
    if int(prefix):
        body += attribute(1, _packed(ip))
    if link:
        body += number(4, link)
    if via:
        body += attribute(5, _packed(via))
    return Message(_NEWROUTE, CREATE | EXCL, body)


def mark_rule(mark: int, *, table: int, priority: int = 100) -> Message:
    """Route packets that carry `mark` by another table."""
    head = struct.pack("BBBBBBBBI", socket.AF_INET, 0, 0, 0, table, 0, 0, 1, 0)
    return Message(_NEWRULE, CREATE | EXCL, head + number(10, mark) + number(6, priority))


def is_absent(error: RefusedError) -> bool:
    """Say whether the kernel refused because the thing is not there."""
    return error.errno in (errno.ENOENT, errno.ENODEV, errno.EADDRNOTAVAIL, errno.ESRCH)


def is_present(error: RefusedError) -> bool:
    """Say whether the kernel refused because the thing is there already."""
    return error.errno == errno.EEXIST
