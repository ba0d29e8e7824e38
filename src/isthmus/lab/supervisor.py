"""The process that a lab hangs on: when it ends, however it ends, nothing of the lab is left.

    outer  in the machine's namespaces' processes; its number is the lab's
      └─ inner  first process of the lab's own pid namespace, in its own network, mounts, host name
           ├─ one spawner per cluster       (see machine.spawner), forked while it is small
           └─ one cluster process per cluster (see cluster), forked once their code is loaded

The kernel kills `inner` when `outer` dies, and everything else when `inner` dies; networks and
mounts go with the last process in them. Decides that, and refuses to know Kubernetes.
"""

import argparse
import compileall
import contextlib
import functools
import gc
import json
import os
import pathlib
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import NoReturn

import isthmus
from isthmus.base import logs, namespaces
from isthmus.lab import state
from isthmus.lab import topology as topologies
from isthmus.lab.machine import network, spawner

_LOG = logs.Log("isthmus.lab.supervisor")
_KEPT_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "VIRTUAL_ENV", "TZ")
_WHOLE = (
    namespaces.NEWNET | namespaces.NEWNS | namespaces.NEWPID | namespaces.NEWUTS | namespaces.NEWIPC
)


def main(argv: list[str] | None = None) -> None:
    """Become a lab; tell progress, one JSON object per line, to the descriptor `--progress`."""
    options = _parser().parse_args(argv)
    logs.configure("info")
    place = state.Place(pathlib.Path(options.folder))
    topology = topologies.parse(json.loads(options.topology))
    listeners = {name: int(fd) for name, fd in json.loads(options.listeners).items()}
    machine = namespaces.current(namespaces.NEWNET)
    _separate()
    alive, life = os.pipe2(os.O_CLOEXEC)
    inner = os.fork()
    if inner == 0:
        os.close(life)
        _Inner(place, topology, listeners, options.progress, alive).run(machine)
    os.close(machine)
    os.close(options.progress)
    for fd in listeners.values():
        os.close(fd)
    _guard(inner, place)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="isthmus-lab")
    parser.add_argument("--folder", required=True)
    parser.add_argument("--topology", required=True)
    parser.add_argument("--listeners", required=True)
    parser.add_argument("--progress", required=True, type=int)
    return parser


def _separate() -> None:
    uid, gid = os.getuid(), os.getgid()
    if uid == 0:
        namespaces.unshare(_WHOLE)
    else:
        namespaces.unshare(_WHOLE | namespaces.NEWUSER)
        namespaces.map_root(uid=uid, gid=gid)


def _guard(inner: int, place: state.Place) -> NoReturn:
    def end(*_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(inner, signal.SIGKILL)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, end)
    _, status = os.waitpid(inner, 0)
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGKILL:
        place.remove()
    sys.exit(0 if code == -signal.SIGKILL else 1)


class _Inner:
    """The first process of the lab."""

    def __init__(
        self,
        place: state.Place,
        topology: topologies.Topology,
        listeners: Mapping[str, int],
        progress: int,
        alive: int,
    ) -> None:
        self._place = place
        self._topology = topology
        self._listeners = listeners
        self._progress = progress
        self._alive = alive
        self._clusters: dict[int, str] = {}

    def run(self, machine: int) -> NoReturn:
        namespaces.die_with_parent()
        os.setsid()
        own = namespaces.current(namespaces.NEWNET)
        if namespaces.same(machine, own):
            sys.exit("refusing to build a lab in the machine's own network")
        os.close(machine)
        os.close(own)
        try:
            self._prepare()
            self._begin()
        except OSError as error:
            self._tell({"failed": str(error)})
            raise
        self._watch()

    def _prepare(self) -> None:
        namespaces.private_mounts()
        with contextlib.suppress(OSError):
            # Where a container engine hides parts of /proc, the one that is there must do.
            namespaces.mount("proc", "/proc", "proc")
        socket.sethostname("isthmus-lab")
        namespaces.mount("tmpfs", str(self._place.scratch), "tmpfs", options="mode=755")
        network.build_bridges(self._topology)
        self._tell({"step": "networks"})

    def _begin(self) -> None:
        links: dict[str, socket.socket] = {}
        for cluster in self._topology.clusters:
            links[cluster.name] = self._spawner(links.values())
        # Loaded once, and only now: clusters share it, and spawners stay small without it.
        from isthmus.lab import cluster as loaded

        gc.collect()
        gc.freeze()
        for cluster in self._topology.clusters:
            pid = os.fork()
            if pid == 0:
                held = self._become(cluster.name, links)
                place = self._place
                _serve(functools.partial(loaded.serve, self._topology, cluster, place, held))
            self._clusters[pid] = cluster.name
        for link in links.values():
            link.close()
        if os.fork() == 0:
            _compile_package()
        for fd in self._listeners.values():
            os.close(fd)

    def _spawner(self, others: Iterable[socket.socket]) -> socket.socket:
        """Start a spawner; return the end of the link that its cluster holds."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork() == 0:
            for each in (ours, *others):
                each.close()
            self._only(theirs.fileno())
            spawner.serve(theirs)
        theirs.close()
        return ours

    def _only(self, link: int) -> None:
        for fd in (*self._listeners.values(), self._progress, self._alive):
            if fd != link:
                os.close(fd)

    def _drop_progress(self) -> None:
        os.close(self._progress)
        self._progress = -1

    def _become(self, name: str, links: Mapping[str, socket.socket]) -> tuple[int, int, int]:
        """Be a cluster's process; return its listener, its link and where progress goes."""
        for other, link in links.items():
            if other != name:
                link.close()
                os.close(self._listeners[other])
        os.close(self._alive)
        kept = {key: os.environ[key] for key in _KEPT_ENVIRONMENT if key in os.environ}
        os.environ.clear()
        # It trusts its own authority, and webhooks those that they name: the machine's need not
        # be read.
        os.environ.update(kept, HOME=str(self._place.scratch), SSL_CERT_FILE=os.devnull)
        return self._listeners[name], links[name].detach(), self._progress

    def _tell(self, progress: Mapping[str, object]) -> None:
        with contextlib.suppress(OSError):
            os.write(self._progress, json.dumps(progress).encode() + b"\n")

    def _watch(self) -> NoReturn:
        bell_out, bell_in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(bell_in, warn_on_full_buffer=False)
        while True:
            self._reap()
            progress = [self._progress] if self._progress >= 0 else []
            ready, _, _ = select.select([bell_out, self._alive, *progress], [], [], 5.0)
            if self._alive in ready:
                # The outer process is gone: end, and let the kernel end everything else.
                os._exit(0)
            if self._progress in ready:
                # Nobody listens any more: it is known by now, or whoever started it is gone.
                if not self._place.is_recorded:
                    os._exit(1)
                self._drop_progress()
            if bell_out in ready:
                os.read(bell_out, 4096)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            name = self._clusters.pop(pid, None)
            if name is not None:
                _LOG.error("cluster ended", cluster=name, code=os.waitstatus_to_exitcode(status))
            if not self._clusters:
                os._exit(1)


def _serve(work: Callable[[], None]) -> NoReturn:
    """Run a cluster in a forked process, which must not go on as its parent would."""
    try:
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _compile_package() -> NoReturn:
    """Keep the package's modules compiled, since containers see them read-only."""
    with contextlib.suppress(OSError):
        os.nice(10)
        for folder in isthmus.__path__:
            compileall.compile_dir(folder, quiet=2)
    os._exit(0)


if __name__ == "__main__":
    main()
