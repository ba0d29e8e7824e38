"""The files of a node: what `hostPath` volumes show, and the network namespaces of its pods.

Decides where on the lab's own memory a path of a node is; never is it one of the machine's. A
pod's network namespace is a file with the pod's UID for its name, for as long as the pod lives.
Refuses to know what pods do with any of it.

Errors: `environment.MissingError`, `volumes.UnsupportedVolumeError`.
"""

import contextlib
import pathlib
from collections.abc import Callable
from typing import Any

from isthmus.base import namespaces
from isthmus.lab.machine import environment, volumes

Obj = dict[str, Any]

NAMESPACES = "/run/netns"
_FOLDERS = ("/proc", "/etc", "/opt")
"""What every node has and agents look for; there is nothing of the machine in them."""
_OWN_MODE = 0o755

_CHECKS: dict[str, tuple[str, Callable[[pathlib.Path], bool]]] = {
    "": ("there", pathlib.Path.exists),
    "Directory": ("a directory", pathlib.Path.is_dir),
    "DirectoryOrCreate": ("a directory", pathlib.Path.is_dir),
    "File": ("a file", pathlib.Path.is_file),
    "FileOrCreate": ("a file", pathlib.Path.is_file),
    "Socket": ("a socket file", pathlib.Path.is_socket),
}


class NodeFiles:
    """One node's files, below `folder`."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder.resolve()
        self._namespaces = self._place(NAMESPACES)

    def prepare(self) -> None:
        """Make what every node has.

        Network namespaces that appear later are seen by containers that mounted the folder
        before, if they asked for that.
        """
        for path in (self._namespaces, *map(self._place, _FOLDERS)):
            path.mkdir(parents=True)
        namespaces.bind(str(self._namespaces), str(self._namespaces))
        namespaces.share_mounts(str(self._namespaces))

    def volume(self, wanted: Obj) -> pathlib.Path:
        """Return where a `hostPath` leads, made if it may be.

        Raises:
            environment.MissingError: It is not there, or not what it should be.
            volumes.UnsupportedVolumeError: No node has such files.
        """
        path, kind = wanted.get("path") or "", wanted.get("type") or ""
        if kind not in _CHECKS:
            raise volumes.UnsupportedVolumeError(
                f"hostPath `{path}` is to be a {kind}, which no node of the lab has",
                hint=f"types that it has: {', '.join(sorted(filter(None, _CHECKS)))}",
            )
        place = self._place(path)
        if kind in ("", "DirectoryOrCreate") and not place.exists():
            place.mkdir(parents=True, mode=_OWN_MODE)
        if kind == "FileOrCreate" and not place.exists():
            place.touch()
        what, holds = _CHECKS[kind]
        if not holds(place):
            raise environment.MissingError(f"hostPath type check failed: {path} is not {what}")
        return place

    def show(self, uid: str, network: int) -> None:
        """Let a pod's network namespace appear."""
        place = self._namespaces / uid
        place.touch()
        namespaces.bind(f"/proc/self/fd/{network}", str(place))

    def hide(self, uid: str) -> None:
        """Let it vanish; it need not be there."""
        place = self._namespaces / uid
        with contextlib.suppress(OSError):
            namespaces.unmount(str(place))
        place.unlink(missing_ok=True)

    def _place(self, path: str) -> pathlib.Path:
        parts = pathlib.PurePosixPath(path).parts
        if parts[:1] != ("/",) or ".." in parts:
            raise volumes.UnsupportedVolumeError(f"`{path}` is no path of a node")
        # As on any Linux of today, where the one is a link to the other.
        inner = parts[2:] if parts[1:3] == ("var", "run") else parts[1:]
        place = self._folder.joinpath(*inner)
        if not place.resolve().is_relative_to(self._folder):
            raise volumes.UnsupportedVolumeError(f"`{path}` leads out of its node")
        return place
