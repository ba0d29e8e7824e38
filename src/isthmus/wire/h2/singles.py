"""What arrives nearly always: one message in one frame, and nothing else; it is known at a glance.

Clients that acknowledge the same say it in the same bytes, frame and all. What was taken apart once
is looked up from then on, by all of its bytes; what is kept is bounded, and only saves work.

Source: performance rule 1; gRPC over HTTP/2.
"""

from typing import Final, NamedTuple

from isthmus.wire.h2 import frames

PREFIX_BYTES: Final = 5
"""What stands before a message: whether it is compressed, and its size."""
_AROUND: Final = frames.HEAD_BYTES + PREFIX_BYTES
SHORT: Final = 512
"""Bytes that are worth to be remembered."""
MOST_KNOWN: Final = 1024


class Single(NamedTuple):
    """A message that came alone.

    Attributes:
        size: What it takes of a window.
    """

    stream: int
    size: int
    message: bytes


_KNOWN: Final[dict[bytes, Single]] = {}


def single(content: bytes) -> Single | None:
    """Return the one whole message that `content` is; None if it is anything else."""
    known = _KNOWN.get(content)
    if known is not None:
        return known
    found = _taken_apart(content)
    if found is not None and len(content) <= SHORT:
        if len(_KNOWN) >= MOST_KNOWN:
            del _KNOWN[next(iter(_KNOWN))]
        _KNOWN[content] = found
    return found


def _taken_apart(content: bytes) -> Single | None:
    if len(content) <= _AROUND:
        return None
    size, kind, flags, stream = frames.head_at(content, 0)
    if kind != frames.DATA or flags or stream == 0 or size != len(content) - frames.HEAD_BYTES:
        return None
    is_compressed = content[frames.HEAD_BYTES]
    length = int.from_bytes(content[frames.HEAD_BYTES + 1 : _AROUND], "big")
    if is_compressed or length != size - PREFIX_BYTES or size > frames.LARGEST:
        return None
    return Single(stream, size, content[_AROUND:])
