"""Reads captured frames: who talks to whom, and whether what they say is TLS and nothing else."""

import struct
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

Place = tuple[str, int]
"""An address and a port."""

ETHERNET, IPV4, ARP, TCP, ICMP = 14, 0x0800, 0x0806, 6, 1
NO_WAY = ((3, 0), (3, 1))
"""What ICMP says of a packet to a network or host that is not there: type and code."""
QUOTED = 8
"""Where in such a report the packet begins."""
SHORTEST = 40
"""So much of it shows that it is TCP."""
FIN, SYN, RST, ACK = 1, 2, 4, 16
CHANGE_CIPHER, ALERT, HANDSHAKE, APPLICATION = 20, 21, 22, 23
CLIENT_HELLO, SERVER_HELLO = 1, 2
LARGEST_RECORD = (1 << 14) + 256
HEADER = 5
CLEAR_HEADERS = (b"x-request-id", b"x-isthmus", b"user-agent", b"x-envoy", b"authorization")
CLEAR = (b"GET /", b"POST /", b"HTTP/1.1", b"PRI * HTTP/2", b"Hello version", *CLEAR_HEADERS)
"""What would be readable if anything were sent without TLS."""


@dataclass(slots=True)
class Stream:
    """One direction of a TCP connection.

    Attributes:
        begin: Sequence number of its first byte, when its beginning was captured.
        is_client: Whether it is from who connected; known only with its beginning.
    """

    source: Place
    target: Place
    begin: int | None = None
    is_client: bool = False
    pieces: dict[int, bytes] = field(default_factory=dict)

    def runs(self) -> list[bytes]:
        """Return its bytes in order, as one text for each stretch without a gap."""
        if not self.pieces:
            return []
        first = self.begin if self.begin is not None else min(self.pieces, key=_from(self.pieces))
        ordered = sorted(self.pieces.items(), key=lambda each: (each[0] - first) % (1 << 32))
        found, position = [bytearray()], 0
        for sequence, piece in ordered:
            offset = (sequence - first) % (1 << 32)
            if offset > 1 << 31:
                continue  # before its beginning: a keep-alive
            if offset > position:
                found.append(bytearray())
                position = offset
            found[-1] += piece[position - offset :]
            position = max(position, offset + len(piece))
        return [bytes(each) for each in found if each]


def _from(pieces: Mapping[int, bytes]) -> Callable[[int], int]:
    middle = next(iter(pieces))
    return lambda sequence: (sequence - middle + (1 << 31)) % (1 << 32)


def frames_of(content: bytes) -> list[bytes]:
    """Split what a capture wrote."""
    found: list[bytes] = []
    place = 0
    while place < len(content):
        (length,) = struct.unpack_from("!I", content, place)
        found.append(content[place + 4 : place + 4 + length])
        place += 4 + length
    return found


def strays_of(frames: Sequence[bytes]) -> list[str]:
    """Name what is neither TCP over IPv4 nor ARP nor a report that discloses nothing.

    A node answers what comes late for a pod that has ended: no way leads there. Its report quotes
    how the packet began, and all of that was on this wire before, in a stream that is judged.
    """
    sent = defaultdict[tuple[Place, Place], list[Stream]](list)
    for stream in streams_of(frames):
        sent[stream.source, stream.target].append(stream)
    return [
        _named(frame)
        for frame in frames
        if _kind(frame) not in ((IPV4, TCP), (ARP, 0)) and not _is_report(frame, sent)
    ]


def _kind(frame: bytes) -> tuple[int, int]:
    """Return what a frame carries: its type and, over IPv4, the protocol."""
    return _type(frame), frame[23] if _type(frame) == IPV4 else 0


def _named(frame: bytes) -> str:
    if _kind(frame) != (IPV4, ICMP):
        return f"kind {_kind(frame)}: {frame[:60]!r}"
    source, target = _addresses(frame[ETHERNET:])
    report = _payload(frame[ETHERNET:])
    return f"{source} to {target}: ICMP {report[0]}/{report[1]}: {report[QUOTED:]!r}"


def _is_report(frame: bytes, sent: Mapping[tuple[Place, Place], Sequence[Stream]]) -> bool:
    """Say whether a frame only tells who sent a packet on this wire that no way leads on."""
    if _kind(frame) != (IPV4, ICMP):
        return False
    report = _payload(frame[ETHERNET:])
    quoted = report[QUOTED:]
    if tuple(report[:2]) not in NO_WAY or len(quoted) < SHORTEST or quoted[9] != TCP:
        return False
    segment = _payload(quoted)
    from_port, to_port, sequence = struct.unpack_from("!HHI", segment)
    source, target = _addresses(quoted)
    text = segment[(segment[12] >> 4) * 4 :]
    return _addresses(frame[ETHERNET:])[1] == source and any(
        stream.pieces.get(sequence, b"").startswith(text)
        for stream in sent.get(((source, from_port), (target, to_port)), ())
    )


def _addresses(packet: bytes) -> tuple[str, str]:
    """Return where an IPv4 packet comes from and goes to."""
    source, target = (".".join(map(str, packet[at : at + 4])) for at in (12, 16))
    return source, target


def _payload(packet: bytes) -> bytes:
    """Return what an IPv4 packet carries, as far as it is there."""
    (total,) = struct.unpack_from("!H", packet, 2)
    return packet[(packet[0] & 15) * 4 : total or len(packet)]


def _type(frame: bytes) -> int:
    (found,) = struct.unpack_from("!H", frame, 12)
    return int(found)


def streams_of(frames: Iterable[bytes]) -> list[Stream]:
    """Put the bytes of all TCP connections together; return a stream for each direction."""
    found: list[Stream] = []
    live: dict[tuple[Place, Place], Stream] = {}
    for frame in frames:
        if _kind(frame) != (IPV4, TCP):
            continue
        source, target = _addresses(frame[ETHERNET:])
        segment = _payload(frame[ETHERNET:])
        *ports, sequence = struct.unpack_from("!HHI", segment)
        offset, flags = (segment[12] >> 4) * 4, segment[13]
        key = ((source, ports[0]), (target, ports[1]))
        if key not in live or (flags & SYN and live[key].begin not in (None, _after(sequence))):
            live[key] = Stream(*key)
            found.append(live[key])
        stream = live[key]
        if flags & SYN:
            stream.begin, stream.is_client = _after(sequence), not flags & ACK
        payload = segment[offset:]
        if payload and len(stream.pieces.get(sequence, b"")) < len(payload):
            stream.pieces[sequence] = payload
    return found


def _after(sequence: int) -> int:
    return (sequence + 1) % (1 << 32)


def volumes_of(streams: Iterable[Stream]) -> dict[Place, int]:
    """Return the bytes that went to or came from each (address, port) that was connected to."""
    found = defaultdict[Place, int](int)
    for stream in streams:
        size = sum(map(len, stream.runs()))
        server = stream.target if stream.target[1] < stream.source[1] else stream.source
        found[server] += size
    return dict(found)


def fault_of(stream: Stream) -> str:
    """Say what in a stream is not TLS; empty when every byte is."""
    for number, run in enumerate(stream.runs()):
        whole = stream.begin is not None and number == 0
        fault = _fault(run, whole=whole, is_client=stream.is_client)
        if fault:
            return f"{stream.source} to {stream.target}: {fault}: {run[:60]!r}"
    return ""


def _fault(run: bytes, *, whole: bool, is_client: bool) -> str:
    clear = next((word for word in CLEAR if word.lower() in run.lower()), None)
    if clear is not None:
        return f"{clear!r} is readable"
    if whole:
        wanted = CLIENT_HELLO if is_client else SERVER_HELLO
        if not (run[0] == HANDSHAKE and run[HEADER] == wanted) and run[0] != ALERT:
            return "it does not begin with a hello"
        return "" if is_records(run) else "not only records"
    # A connection that is older than the capture may be heard from the middle of a record on.
    starts = (at for at in range(min(len(run), HEADER + LARGEST_RECORD)) if is_records(run[at:]))
    return "" if next(starts, None) is not None else "no records"


def is_records(run: bytes) -> bool:
    """Say whether bytes are records of TLS one after the other; the last may go on later."""
    place = 0
    while place < len(run):
        head = run[place : place + HEADER]
        if not CHANGE_CIPHER <= head[0] <= APPLICATION:
            return False
        if len(head) > 1 and head[1] != 3:
            return False
        if len(head) < HEADER:
            return True
        version, length = struct.unpack("!HH", head[1:])
        if not 0x0301 <= version <= 0x0304 or not 0 < length <= LARGEST_RECORD:
            return False
        place += HEADER + length
    return True
