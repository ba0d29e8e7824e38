"""One stream of a connection: how much each side may still send on it, and what waits.

One object for all of that, since a processor waits longer for what it has not seen for a while than
it takes to work with it, and a server has as many streams as clients.

Source: RFC 9113 section 5; docs/decisions/0072.
"""

from typing import Final

Parts = list[bytes | memoryview]

NOTHING: Final[Parts] = []
"""Of those that have nothing, which are most; never changed."""


class Stream:
    """One stream.

    Attributes:
        number: How both sides call it.
        is_open: Whether the answer has not ended.
        is_heard_out: Whether the client has said all that it has to say.
        unread: Bytes that have arrived and were not taken.
        untold: Bytes that were taken, of which the client was not told yet.
        window: Bytes that the client takes.
        waiting: What that does not let through.
        size: Bytes of that.
        ending: The frame that follows it; empty as long as the stream goes on.
    """

    __slots__ = (
        "ending",
        "is_heard_out",
        "is_open",
        "number",
        "size",
        "unread",
        "untold",
        "waiting",
        "window",
    )

    def __init__(self, number: int, *, window: int = 0, is_open: bool = True) -> None:
        self.number = number
        self.is_open = is_open
        self.is_heard_out = False
        self.unread = 0
        self.untold = 0
        self.window = window
        self.waiting = NOTHING
        self.size = 0
        self.ending = b""
