"""An event loop in which no time passes but what is pretended: half a minute of silence takes none.

Whoever looks at the clock moves it on a little, as computing would; where nobody has anything to
do the clock goes on to when somebody has. Sockets are real, and what was written to one can be read at
once from the other, so that the same acts have the same history each time.
"""

import asyncio
import selectors
import socket
from contextlib import contextmanager

LOOK_S = 2e-6
"""What a look at the clock takes, with what is computed around it."""


class _Selector(selectors.DefaultSelector):
    def __init__(self):
        super().__init__()
        self.passed = 0.0

    def select(self, timeout=None):
        found = super().select(0)
        if not found and timeout is None:
            raise AssertionError("nothing will ever happen any more")
        if not found:
            self.passed += timeout
        return found


class Loop(asyncio.SelectorEventLoop):
    """An event loop that pretends."""

    def __init__(self, *, look_s=LOOK_S):
        self.pretended = _Selector()
        self._look_s = look_s
        super().__init__(self.pretended)

    def time(self):
        self.pretended.passed += self._look_s
        return self.pretended.passed


class _End(socket.socket):
    """An end of a pair that lets itself be called one of TCP."""

    def setsockopt(self, level, *rest):
        if level != socket.IPPROTO_TCP:
            super().setsockopt(level, *rest)


def pair(room_bytes):
    """Return both ends of a connection in which about so many bytes have room each way."""
    ends = []
    for one in socket.socketpair():
        end = _End(fileno=one.detach())
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room_bytes // 2)
        ends.append(end)
    return ends


@contextmanager
def pretending(**options):
    """Yield what runs something in pretended time."""
    with asyncio.Runner(loop_factory=lambda: Loop(**options)) as runner:
        yield runner.run
