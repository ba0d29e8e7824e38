"""Gives memory back to the system that nobody uses any more.

It decides nothing about when. What refers to itself waits for the garbage collector, which runs
the more rarely the more a program holds; and what glibc's allocator gets back it keeps, in pieces
between others, for as long as the program runs. Connections are made of both: control planes
that took 130 new credentials of other clusters held 5 to 8 MiB more than before, of which the
collector alone gave nothing back, and `malloc_trim` all but 2 to 4. Python has no name for that
call, hence ctypes; with a heap of 1 GiB it took 14 ms. Other C libraries, musl's for one, have
nothing like it and do without.
"""

import contextlib
import ctypes
import gc
from collections.abc import Callable, Iterator
from typing import Final


def trimmer(library: object) -> Callable[[int], object]:
    """Return what makes a C library give back what it has free; it may have nothing like that."""
    found: Callable[[int], object] | None = getattr(library, "malloc_trim", None)
    return found or (lambda _: None)


AT_ONCE: Final = 10_000
"""So many new objects are looked at in one go, within some tenths of a millisecond."""

_TRIM: Final = trimmer(ctypes.CDLL(None))


def collect_rarely() -> None:
    """Let the garbage collector look at new objects less often than Python would.

    What the mesh is computed into holds no cycles, and there is much of it: going through it took
    a third of the time that computing it did.
    """
    gc.set_threshold(AT_ONCE, 10, 10)


READ_BYTES: Final = 32 * 1024
"""What the event loop reads from a connection of TLS at a time."""


def read_less_at_once() -> None:
    """Let each connection of TLS that the event loop opens hold a small buffer.

    Its own are of 256 KiB, all of which is written at the start: what one connection reads
    once in a while, such as a watch, takes as much then as a thousand objects.
    """
    from asyncio import sslproto  # which programs without an event loop need not load

    sslproto.SSLProtocol.max_size = READ_BYTES


@contextlib.contextmanager
def without_collection(*, stays: bool = False) -> Iterator[None]:
    """Spare the garbage collector while much is made at once that holds no cycles.

    Of what `stays` it is spared afterwards, too, until somebody has it look at all there is.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if stays:
            gc.freeze()
        if was_enabled:
            gc.enable()


def give_back() -> None:
    """Collect what refers only to itself, and give the system what the allocator has free."""
    gc.collect()
    trim()


def trim() -> None:
    """Give the system what the allocator has free; nobody looks for what refers to itself."""
    _TRIM(0)
