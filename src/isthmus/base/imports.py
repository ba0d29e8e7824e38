"""Imports without needless work.

Decides what is kept from a library while it is imported. Refuses to know which library.
"""

import contextlib
import gc
import os
from collections.abc import Iterator
from typing import Final

_NOWHERE: Final = {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull}
"""What OpenSSL reads the machine's authorities from, by the variables that it obeys."""


@contextlib.contextmanager
def at_start() -> Iterator[None]:
    """Import what a program consists of: `without_authorities`, and without garbage collections.

    Next to nothing of what is made meanwhile is garbage, and all of it stays: to go through it
    again and again takes up to a quarter of the time, and what was imported is never looked at
    later. Only for programs' own starts.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        with without_authorities():
            yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


@contextlib.contextmanager
def without_authorities() -> Iterator[None]:
    """Import without reading all authorities that this machine trusts.

    The HTTP library reads them when it is imported, which takes a third of that time, for
    connections that do not say whom they trust. Ours say so, always; one that did not would trust
    nobody. Only for programs' own starts: it holds for the whole process meanwhile.
    """
    before = {name: os.environ.get(name) for name in _NOWHERE}
    os.environ.update(_NOWHERE)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
