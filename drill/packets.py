"""Reads captured frames: who talks to whom, and whether what they say is TLS and nothing else."""

import struct
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

Place = tuple[str, int]
"""An address and a port."""

ETHERNET, IPV4, ARP, TCP = 14, 0x0800, 0x0806, 6
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


def kinds_of(frames: Iterable[bytes]) -> set[tuple[int, int]]:
    """Return the set of what frames carry, but for TCP over IPv4: (ether type, IP protocol)."""
    kinds = {(_type(frame), frame[23] if _type(frame) == IPV4 else 0) for frame in frames}
    return kinds - {(IPV4, TCP)}


def _type(frame: bytes) -> int:
    (found,) = struct.unpack_from("!H", frame, 12)
    return int(found)


def streams_of(frames: Iterable[bytes]) -> list[Stream]:
    """Put the bytes of all TCP connections together; return a stream for each direction."""
    found: list[Stream] = []
    live: dict[tuple[Place, Place], Stream] = {}
    for frame in frames:
        if _type(frame) != IPV4 or frame[23] != TCP:
            continue
        head = (frame[ETHERNET] & 15) * 4
        (total,) = struct.unpack_from("!H", frame, ETHERNET + 2)
        whole = frame[ETHERNET : ETHERNET + total] if total else frame[ETHERNET:]
        source, target = (".".join(map(str, whole[at : at + 4])) for at in (12, 16))
        ports = struct.unpack_from("!HH", whole, head)
        sequence, _ = struct.unpack_from("!II", whole, head + 4)
        offset, flags = (whole[head + 12] >> 4) * 4, whole[head + 13]
        key = ((source, ports[0]), (target, ports[1]))
        if key not in live or (flags & SYN and live[key].begin not in (None, _after(sequence))):
            live[key] = Stream(*key)
            found.append(live[key])
        stream = live[key]
        if flags & SYN:
            stream.begin, stream.is_client = _after(sequence), not flags & ACK
        payload = whole[head + offset :]
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
