"""Numbers as protobuf writes them: seven bits to a byte, the lowest first.

What is encoded and compared by hand needs them; messages of any other kind are the library's.

Source: protobuf encoding specification.
"""

from typing import Final

SEVEN_BITS: Final = 0x7F
CONTINUES: Final = 0x80
"""Set in every byte but the last."""


def written(number: int) -> bytes:
    """Return the bytes of a number that is not negative."""
    return _SMALL[number] if number < _SMALL_SIZE else _written(number)


def _written(number: int) -> bytes:
    content = bytearray()
    while number > SEVEN_BITS:
        content.append(number & SEVEN_BITS | CONTINUES)
        number >>= 7
    content.append(number)
    return bytes(content)


_SMALL_SIZE: Final = 4096
_SMALL: Final = tuple(map(_written, range(_SMALL_SIZE)))
