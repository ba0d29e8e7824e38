"""The wire format of DNS, as far as a server needs it that answers from a list of names.

Reads the question of a message and writes answers to it. What names stand for, and what becomes
of questions that the list cannot answer, is decided elsewhere. Nothing a stranger sends can do
more than be refused.

Source: RFC 1035 section 4, RFC 6891 section 6.1.
"""

import ipaddress
import struct
from collections.abc import Sequence
from dataclasses import dataclass

PORT = 53
A, CNAME, SRV, AAAA, OPT, ANY = 1, 5, 33, 28, 41, 255
INTERNET = 1

NO_ERROR, MALFORMED, FAILED, NO_SUCH_NAME, NOT_IMPLEMENTED, REFUSED = range(6)
"""What a reply says of how it went."""

RESPONSE, AUTHORITATIVE, TRUNCATED, RECURSION_WISHED = 0x8000, 0x0400, 0x0200, 0x0100
RECURSION_AVAILABLE = 0x0080
_OPERATION, _CODE = 0x7800, 0x000F

SHORTEST_LIMIT, LONGEST_DATAGRAM, LONGEST = 512, 1232, 65535
"""What every client takes in a datagram; what passes every network; what fits a stream's frame."""

_HEADER = struct.Struct(">HHHHHH")
_MOST_NAME, _MOST_LABEL = 255, 63
_TO_QUESTION = b"\xc0\x0c"
"""The question's name, in two bytes."""


class MalformedError(Exception):
    """A message whose question cannot be read."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a message asks.

    Attributes:
        number: The message's own, by which its sender knows the reply.
        name: In lower case, without a final dot; empty for one that no host could have.
        section: The question as it was written.
        limit: How long a datagram may be that the client takes.
    """

    number: int
    flags: int
    name: str
    kind: int
    group: int
    section: bytes
    limit: int = SHORTEST_LIMIT

    @property
    def is_usual(self) -> bool:
        """Whether it asks what something is, about the internet."""
        return not self.flags & _OPERATION and self.group == INTERNET


@dataclass(frozen=True, slots=True)
class Record:
    """One answer; `content` is in the form of its kind."""

    name: str
    kind: int
    content: bytes
    ttl_s: int


def question_of(message: bytes) -> Question:
    """Read the question of a message.

    Raises:
        MalformedError: It is no question, or cut off, or not made as questions are.
    """
    try:
        number, flags, questions, _, _, additional = _HEADER.unpack_from(message)
        if flags & RESPONSE or questions != 1:
            raise MalformedError("no question")
        labels, offset = _labels(message, _HEADER.size)
        kind, group = struct.unpack_from(">HH", message, offset)
    except (struct.error, IndexError) as error:
        raise MalformedError("cut off") from error
    end = offset + 4
    return Question(
        number,
        flags,
        _text(labels),
        kind,
        group,
        message[_HEADER.size : end],
        _limit(message, end) if additional else SHORTEST_LIMIT,
    )


def reply(
    question: Question,
    records: Sequence[Record] = (),
    *,
    code: int = NO_ERROR,
    longest: int = LONGEST,
) -> bytes:
    """Answer a question; a reply that would be too long says so and holds no records."""
    flags = RESPONSE | AUTHORITATIVE | RECURSION_AVAILABLE | (question.flags & RECURSION_WISHED)
    body = b"".join(_record(each, question.name) for each in records)
    count = len(records)
    if _HEADER.size + len(question.section) + len(body) > longest:
        flags, body, count = flags | TRUNCATED, b"", 0
    return _HEADER.pack(question.number, flags | code, 1, count, 0, 0) + question.section + body


def refusal(message: bytes, *, code: int) -> bytes:
    """Answer a message that cannot be read; empty when it is itself an answer, or nothing."""
    if len(message) < _HEADER.size:
        return b""
    number, flags = struct.unpack_from(">HH", message)
    if flags & RESPONSE:
        return b""
    kept = flags & (_OPERATION | RECURSION_WISHED)
    return _HEADER.pack(number, RESPONSE | RECURSION_AVAILABLE | kept | code, 0, 0, 0, 0)


def answers(message: bytes, question: Question) -> bool:
    """Say whether a message is a reply to this question: same number, same section."""
    if len(message) < _HEADER.size:
        return False
    number, flags, questions, *_ = _HEADER.unpack_from(message)
    section = message[_HEADER.size : _HEADER.size + len(question.section)]
    return (
        number == question.number
        and bool(flags & RESPONSE)
        # Some servers leave the question out of replies that say what went wrong.
        and (section.lower() == question.section.lower() if questions else bool(flags & _CODE))
    )


def code_of(message: bytes) -> int:
    """Return how a reply says that it went."""
    return int(struct.unpack_from(">H", message, 2)[0]) & _CODE


def with_code(message: bytes, code: int) -> bytes:
    """Return a reply that says otherwise how it went."""
    (flags,) = struct.unpack_from(">H", message, 2)
    return message[:2] + struct.pack(">H", flags & ~_CODE | code) + message[4:]


def asking(name: str, kind: int, *, number: int = 0, limit: int = 0) -> bytes:
    """Make a message that asks; with `limit` it tells how long a datagram may be."""
    head = _HEADER.pack(number, RECURSION_WISHED, 1, 0, 0, 1 if limit else 0)
    option = struct.pack(">BHHIH", 0, OPT, limit, 0, 0) if limit else b""
    return head + encoded(name) + struct.pack(">HH", kind, INTERNET) + option


def encoded(name: str) -> bytes:
    """Return a name as it is written in a message.

    Raises:
        MalformedError: It has a label, or as a whole is, longer than names can be.
    """
    labels = [label.encode("ascii") for label in name.split(".") if label]
    if any(len(label) > _MOST_LABEL for label in labels):
        raise MalformedError("label is too long")
    content = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    if len(content) > _MOST_NAME:
        raise MalformedError("name is too long")
    return content


def address_record(name: str, address: str, *, ttl_s: int) -> Record:
    """Return the record of an IP address."""
    parsed = ipaddress.ip_address(address)
    return Record(name, A if parsed.version == 4 else AAAA, parsed.packed, ttl_s)


def alias_record(name: str, target: str, *, ttl_s: int) -> Record:
    """Return the record that says what a name is another name for."""
    return Record(name, CNAME, encoded(target), ttl_s)


def framed(message: bytes) -> bytes:
    """Return a message as it travels in a stream."""
    return struct.pack(">H", len(message)) + message


def _labels(message: bytes, offset: int) -> tuple[list[bytes], int]:
    """Read a name that is not compressed; nothing comes before it that it could refer to."""
    labels = []
    begin = offset
    while (size := message[offset]) != 0:
        if size > _MOST_LABEL or offset - begin > _MOST_NAME:
            raise MalformedError("name is too long, or not written out")
        label = message[offset + 1 : offset + 1 + size]
        if len(label) < size:
            raise MalformedError("cut off")
        labels.append(label)
        offset += 1 + size
    return labels, offset + 1


def _text(labels: Sequence[bytes]) -> str:
    if any(b"." in label or not label.isascii() for label in labels):
        return ""
    return b".".join(labels).decode("ascii").lower()


def _limit(message: bytes, end: int) -> int:
    """Return what the client says that it takes, where it says so right after its question."""
    try:
        root, kind, size = struct.unpack_from(">BHH", message, end)
    except struct.error:
        return SHORTEST_LIMIT
    if root != 0 or kind != OPT:
        return SHORTEST_LIMIT
    return max(SHORTEST_LIMIT, min(int(size), LONGEST_DATAGRAM))


def _record(record: Record, asked: str) -> bytes:
    owner = _TO_QUESTION if record.name.lower() == asked else encoded(record.name)
    head = struct.pack(">HHIH", record.kind, INTERNET, record.ttl_s, len(record.content))
    return owner + head + record.content
