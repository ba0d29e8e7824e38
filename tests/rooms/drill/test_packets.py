"""What a wire may carry beside TCP: nothing that was not there to be read."""

import ipaddress
import struct

import pytest
from drill import packets

GATEWAY, POD = ("172.30.0.42", 15443), ("172.30.0.2", 39280)
RECORD = b"\x17\x03\x03\x00\x13" + bytes(range(0x13))


def packet(source, target, protocol, content):
    """Return an IPv4 packet."""
    ends = (ipaddress.IPv4Address(each).packed for each in (source, target))
    head = struct.pack("!BxHxxxxBBxx", 0x45, 20 + len(content), 64, protocol)
    return b"".join((head, *ends, content))


def segment(content, *, source=GATEWAY, target=POD, sequence=7):
    """Return a packet of TCP with an option, as the kernel's have."""
    head = struct.pack("!HHIIBBHxxxx", source[1], target[1], sequence, 0, 8 << 4, packets.ACK, 64)
    options = b"\1\1\x08\x0a" + bytes(8)
    return packet(source[0], target[0], packets.TCP, head + options + content)


def frame(content, kind=packets.IPV4):
    return bytes(12) + struct.pack("!H", kind) + content


def report(quoted, *, kind=3, code=0, to=GATEWAY[0]):
    """Return what a node says of a packet for a pod of its own that has ended."""
    return packet(POD[0], to, packets.ICMP, struct.pack("!BBxxxxxx", kind, code) + quoted)


LATE = segment(RECORD)
ON_THE_WIRE = [frame(LATE), frame(bytes(28), packets.ARP)]


@pytest.mark.parametrize("quoted", [LATE, LATE[:60], segment(b"", sequence=90)])
@pytest.mark.parametrize("code", [0, 1])
def test_a_report_that_no_way_leads_on_may_quote_what_the_wire_carried(quoted, code):
    assert packets.strays_of([*ON_THE_WIRE, frame(report(quoted, code=code))]) == []


STRAYS = {
    "text that was not sent": report(segment(b"GET /hello")),
    "text of another moment": report(segment(RECORD, sequence=8)),
    "a connection that is not here": report(segment(b"", target=("10.10.1.6", 5000))),
    "told to somebody else": report(LATE, to="172.30.0.1"),
    "another code": report(LATE, code=13),
    "a redirect": report(LATE, kind=5),
    "a call": report(b"GET /hello HTTP/1.1\r\nhost: helloworld.sample\r\n\r\n", kind=8),
    "too little": report(LATE[:24]),
    "about a datagram": report(packet(GATEWAY[0], POD[0], 17, LATE[20:])),
    "a datagram": packet(GATEWAY[0], POD[0], 17, b"version.bind" * 2),
}


@pytest.mark.parametrize("content", STRAYS.values(), ids=STRAYS)
def test_whatever_else_a_wire_carries_is_named(content):
    assert len(packets.strays_of([*ON_THE_WIRE, frame(content)])) == 1


def test_who_says_what_about_which_packet_is_named():
    [named] = packets.strays_of([frame(report(LATE))])

    assert named.startswith(f"{POD[0]} to {GATEWAY[0]}: ICMP 3/0: ")
    assert repr(RECORD)[2:-1] in named
