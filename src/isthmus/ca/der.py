"""How the few ASN.1 values of a certificate are written down, in their one distinguished form.

Knows no certificate: what stands in one, and in which order, is `leaves`' concern.

Source: X.690, sections 8 and 10.
"""

import datetime
from typing import Final

INTEGER: Final = 0x02
BITS: Final = 0x03
OCTETS: Final = 0x04
SEQUENCE: Final = 0x30

TRUE: Final = b"\x01\x01\xff"

_UTC_TIME: Final = b"\x17\x0d%02d%02d%02d%02d%02d%02dZ"
_GENERALIZED_TIME: Final = b"\x18\x0f%04d%02d%02d%02d%02d%02dZ"


def tagged(tag: int, content: bytes) -> bytes:
    """Write a value of one tag: its length, then its content."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    if size < 0x100:
        return bytes((tag, 0x81, size)) + content
    if size < 0x10000:
        return bytes((tag, 0x82, size >> 8, size & 0xFF)) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + content


def content_of(value: bytes) -> bytes:
    """Return what stands in a value, without its tag and length, and whatever follows it."""
    size = value[1]
    return value[2:] if size < 0x80 else value[2 + (size & 0x7F) :]


def integer(number: int) -> bytes:
    """Write a number that is not negative."""
    return tagged(INTEGER, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def moment(when: datetime.datetime) -> bytes:
    """Write a moment in UTC, to the second: as RFC 5280, 4.1.2.5 wants it in certificates."""
    rest = (when.month, when.day, when.hour, when.minute, when.second)
    if when.year < 2050:
        return _UTC_TIME % (when.year % 100, *rest)
    return _GENERALIZED_TIME % (when.year, *rest)
