"""Where an agent keeps its sockets and the proxy's first configuration.

In a pod it is the volume that the injector mounts, which goes with the pod. Anywhere else it is a
folder of the agent's own, which goes with the agent.
"""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterator

USUAL = pathlib.Path("/etc/istio/proxy")


@contextlib.contextmanager
def working(*, usual: pathlib.Path = USUAL) -> Iterator[pathlib.Path]:
    """Yield `usual` where it can be written to, else a folder that is removed at the end."""
    if usual.is_dir() and os.access(usual, os.W_OK):
        yield usual
        return
    with tempfile.TemporaryDirectory(prefix="isthmus-node-", ignore_cleanup_errors=True) as made:
        yield pathlib.Path(made)
