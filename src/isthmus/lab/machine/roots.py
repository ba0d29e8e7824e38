"""A container's own file system: which parts of the machine it sees, and what is its own.

Decides the layout: the machine's programs and libraries, read-only; Python and this package at
the paths where they live; everything else, such as `/etc`, `/var` and `/tmp`, the container's own
and empty. Refuses to know what runs in it.

`Root` travels as JSON to the process that builds it; that process is thrown away afterwards, so
nothing here is undone.
"""

import contextlib
import functools
import os
import pathlib
import stat
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import isthmus
from isthmus.base import namespaces

_SYSTEM = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "nix", "gnu")
_SETTINGS = (
    "alternatives",
    "ca-certificates",
    "crypto-policies",
    "gai.conf",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "pki",
    "protocols",
    "services",
    "ssl",
    "timezone",
)
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
PROGRAMS = "/opt/isthmus/bin"
"""Programs that images have beside their entrypoint, and what stands for them here."""
_OLD = ".machine"
_TEMPORARY = stat.S_ISVTX | 0o777


@dataclass(frozen=True, slots=True)
class Bind:
    """A file or folder of the lab that appears in a container.

    Attributes:
        follows: Whether what is mounted below it later appears, too.
    """

    source: str
    target: str
    read_only: bool = False
    follows: bool = False


@dataclass(frozen=True, slots=True)
class Root:
    """What a container's file system is made of.

    Attributes:
        place: A folder to build it on; every container may use the same.
        files: Small files of its own, path to text.
        binds: Volumes, parents before children.
        read_only: Whether all but volumes and `/dev` can only be read.
    """

    place: str
    files: Mapping[str, str] = field(default_factory=dict)
    binds: tuple[Bind, ...] = ()
    read_only: bool = False


def build(root: Root) -> None:
    """Build the file system and make it this process's own.

    The process must be in a mount namespace that it may change, in its pod's network, and be the
    first of its pid namespace.

    Raises:
        OSError: A part could not be mounted.
    """
    python = python_paths()
    namespaces.follow_mounts()
    namespaces.mount("tmpfs", root.place, "tmpfs", options="mode=755,size=256m")
    namespaces.change_root(root.place, old=_OLD)
    _system()
    _devices()
    _kernel()
    _own(root.files)
    for bind in python:
        _bound(bind.source, bind.target, read_only=True)
    for bind in root.binds:
        _bound(bind.source, bind.target, read_only=bind.read_only)
        if not bind.follows:
            namespaces.private_mounts(bind.target)
    namespaces.unmount(f"/{_OLD}")
    pathlib.Path(f"/{_OLD}").rmdir()
    if root.read_only:
        flags = namespaces.MS_REMOUNT | namespaces.MS_BIND | namespaces.MS_RDONLY
        namespaces.mount("none", "/", flags=flags)


def _machine(path: str) -> pathlib.Path:
    return pathlib.Path(f"/{_OLD}", path.lstrip("/"))


def _system() -> None:
    for name in _SYSTEM:
        source = _machine(name)
        if source.is_symlink():
            pathlib.Path("/", name).symlink_to(str(source.readlink()).lstrip("/"))
        elif source.is_dir():
            _bound(f"/{name}", f"/{name}", read_only=True)


def _bound(source: str, target: str, *, read_only: bool) -> None:
    origin, place = str(_machine(source)), pathlib.Path(target)
    if stat.S_ISDIR(os.stat(origin).st_mode):  # noqa: PTH116  # one call, for files too
        place.mkdir(parents=True, exist_ok=True)
    elif not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    namespaces.bind(origin, target)
    if read_only:
        namespaces.read_only(target)


def _devices() -> None:
    pathlib.Path("/dev").mkdir()
    for name in _DEVICES:
        _bound(f"/dev/{name}", f"/dev/{name}", read_only=False)
    for name, target in _LINKS.items():
        pathlib.Path("/dev", name).symlink_to(target)
    pathlib.Path("/dev/shm").mkdir()
    namespaces.mount("shm", "/dev/shm", "tmpfs", options="mode=1777,size=64m")
    pathlib.Path("/dev/pts").mkdir()
    with contextlib.suppress(OSError):
        namespaces.mount(
            "devpts", "/dev/pts", "devpts", options="newinstance,ptmxmode=0666,mode=0620"
        )
        pathlib.Path("/dev/ptmx").symlink_to("pts/ptmx")


def _kernel() -> None:
    pathlib.Path("/proc").mkdir()
    pathlib.Path("/sys").mkdir()
    # Where a container engine hides parts of its own /proc or /sys, no new one may be mounted.
    for kind, place in (("proc", "/proc"), ("sysfs", "/sys")):
        try:
            namespaces.mount(kind, place, kind, flags=namespaces.MS_NOSUID | namespaces.MS_NODEV)
        except OSError:
            namespaces.bind(str(_machine(place)), place)
    namespaces.read_only("/sys")
    for path in ("/proc/sys", "/proc/sysrq-trigger"):
        if pathlib.Path(path).exists():
            namespaces.bind(path, path)
            namespaces.read_only(path)


def _own(files: Mapping[str, str]) -> None:
    for path in ("/etc", "/tmp", "/run", "/run/lock", "/var", "/var/lib", "/var/log", "/var/tmp"):
        pathlib.Path(path).mkdir()
    for path in ("/var/cache", "/home", "/root", "/opt", "/srv", "/mnt"):
        pathlib.Path(path).mkdir()
    for path in ("/tmp", "/var/tmp", "/run/lock"):
        pathlib.Path(path).chmod(_TEMPORARY)
    pathlib.Path("/var/run").symlink_to("../run")
    pathlib.Path("/etc/mtab").symlink_to("/proc/self/mounts")
    for name in _SETTINGS:
        source = _machine(f"etc/{name}")
        if source.is_symlink():
            pathlib.Path("/etc", name).symlink_to(source.readlink())
        elif source.exists():
            _bound(f"/etc/{name}", f"/etc/{name}", read_only=True)
    for path, text in files.items():
        place = pathlib.Path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    _programs()


def _programs() -> None:
    """Provide programs that images have and the machine may lack; its own come first."""
    place = pathlib.Path(PROGRAMS, "curl")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(f'#!/bin/sh\nexec {sys.executable} -m isthmus.lab.samples.curl "$@"\n')
    place.chmod(0o755)


@functools.cache
def python_paths() -> tuple[Bind, ...]:
    """Return what Python and this package need beside the system's own folders, parents first."""
    wanted = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}
    wanted |= {path for path in sys.path if os.path.isabs(path)}  # noqa: PTH117
    wanted |= {str(pathlib.Path(path).parent) for path in isthmus.__path__}
    wanted |= set(_link_folders(sys.executable))
    wanted |= {os.path.realpath(path) for path in wanted}
    system = tuple(f"/{name}/" for name in _SYSTEM)
    outside = [
        path
        for path in wanted
        if path.count("/") > 1 and not f"{path}/".startswith(system) and pathlib.Path(path).exists()
    ]
    return tuple(Bind(os.path.realpath(path), path) for path in _without_nested(outside))


def _link_folders(executable: str) -> Iterable[str]:
    path = executable
    for _ in range(10):
        yield str(pathlib.Path(path).parent)
        if not pathlib.Path(path).is_symlink():
            return
        path = os.path.join(os.path.dirname(path), os.readlink(path))  # noqa: PTH118, PTH120, PTH115


def _without_nested(paths: Iterable[str]) -> tuple[str, ...]:
    kept: list[str] = []
    for path in sorted(paths, key=lambda each: (len(each), each)):
        if not any(path == other or path.startswith(f"{other}/") for other in kept):
            kept.append(path)
    return tuple(kept)
