"""Where the network namespace of a pod is found on this node, by the pod's UID.

Two ways, the first that knows the pod wins: a folder in which the container runtime shows each
namespace under the pod's UID; or the node's processes, whose control groups bear the UID of the
pod that they belong to. The node's own namespace is never taken for a pod's.

Error: `NetworkMissing` (ISM-NODE-012).
"""

import contextlib
import errno
import os
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass

from isthmus.base import errors, namespaces


class NetworkMissing(errors.IsthmusError):
    """The network namespace of a pod is not found, or cannot be opened."""

    code = "ISM-NODE-012"


@dataclass(frozen=True, slots=True)
class Networks:
    """Where to look.

    Attributes:
        folder: Holds namespaces by UID.
        processes: The node's `/proc`; an own one that shows only our container is of no use.
    """

    folder: pathlib.Path
    processes: pathlib.Path

    def open(self, uid: str) -> int:
        """Return a descriptor of a pod's network namespace, for the caller to close.

        Raises:
            NetworkMissing: It is not there (ISM-NODE-012).
        """
        if not uid or "/" in uid:
            raise NetworkMissing(f"`{uid[:60]}` is no UID of a pod")
        tried = list[str]()
        for place in (self.folder / uid, *self._of_processes(uid)):
            try:
                return _opened(place)
            except OSError as error:
                tried.append(f"{place}: {error.strerror}")
        raise NetworkMissing(
            f"the network of the pod with UID `{uid}` is not found on this node",
            detail="\n".join(tried),
            still_working="every other pod",
            hint="it is looked for again; if that does not help, see whether the folders of the "
            "node are mounted into this agent",
        )

    def has(self, uid: str) -> bool:
        """Say whether the node shows the network of a pod already; asks no processes."""
        try:
            os.close(_opened(self.folder / uid))
        except OSError:
            return False
        return True

    def _of_processes(self, uid: str) -> Iterator[pathlib.Path]:
        # systemd writes underscores for what it would take for levels.
        names = (f"pod{uid}".encode(), f"pod{uid.replace('-', '_')}".encode())
        for process in self.processes.glob("[0-9]*"):
            with contextlib.suppress(OSError):
                groups = (process / "cgroup").read_bytes()
                if any(name in groups for name in names):
                    yield process / "ns" / "net"


def _opened(place: pathlib.Path) -> int:
    with contextlib.ExitStack() as opened:
        fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
        opened.callback(os.close, fd)
        if namespaces.kind_of(fd) != namespaces.NEWNET:
            # As what a namespace is about to be shown on.
            raise OSError(errno.EINVAL, "it is no network namespace")
        own = namespaces.current(namespaces.NEWNET)
        opened.callback(os.close, own)
        if namespaces.same(fd, own):
            raise OSError(errno.EINVAL, "it is the node's own network")
        return os.dup(fd)
