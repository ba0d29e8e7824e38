"""Bodies of resources that are told to nobody at the moment, folded: a tenth of what they are.

What proxies have is kept as bytes, so that whoever comes is told without anything being computed
again. Most of it nobody asks for most of the time, and it repeats itself: endpoints of a service
differ by their addresses. So it is folded while it rests, and unfolded when it is wanted.

It decides how; when, whoever runs the loop.

Source: docs/decisions/0062-what-follows-is-not-written-down.md.
"""

import zlib
from typing import Final

LEAST: Final = 384
"""What is shorter is not worth its while."""

LEVEL: Final = 1


class Folded(bytes):
    """Bytes that stand for longer ones."""

    __slots__ = ()


def folded(body: bytes) -> bytes:
    """Return what stands for `body`, or that itself where it would gain little."""
    if len(body) < LEAST or isinstance(body, Folded):
        return body
    found = Folded(zlib.compress(body, LEVEL))
    return found if len(found) * 2 < len(body) else body


def unfolded(held: bytes) -> bytes:
    """Return what was folded, or bytes that were not."""
    return zlib.decompress(held) if isinstance(held, Folded) else held
