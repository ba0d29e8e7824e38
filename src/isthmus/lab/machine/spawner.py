"""The small process that starts programs: containers, and programs inside running containers.

Decides how a process gets into its namespaces and what it may keep. Refuses to know pods: it is
told what to start by the cluster's process over a socket (`spawning` is that side), and says when
it has ended. It is forked early and stays small and single-threaded, so that forking is cheap and
safe, whatever libraries the cluster's process uses.

    spawner ── fork ──> first process of a new pid namespace: builds the root, waits, passes on
                        signals ── fork ──> the program

When the first process ends, the kernel ends everything that was started in its container.
"""

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import struct
import termios
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from isthmus.base import namespaces
from isthmus.lab.machine import roots

LONGEST_MESSAGE = 1 << 20
START, RUN, SIGNAL = "start", "run", "signal"
CANNOT_START = 128
CAPABILITY_NAMES = frozenset(namespaces.CAPABILITIES)
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126
_STREAMS = 3
_SHARED = namespaces.NEWNET | namespaces.NEWUTS | namespaces.NEWIPC
_FORWARDED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


@dataclass(frozen=True, slots=True)
class Program:
    """What to execute, as whom.

    Attributes:
        capabilities: What it may keep if it runs as root.
        change_user: Whether to become `uid`; otherwise it stays the lab's own user.
        terminal: Whether its standard streams are a terminal that it shall control.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    folder: str = "/"
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    capabilities: tuple[str, ...] = ()
    change_user: bool = False
    terminal: bool = False
    no_new_privileges: bool = False


def serve(link: socket.socket) -> NoReturn:
    """Start what the other end of `link` asks for, until it closes."""
    _Spawner(link).serve()


class _Spawner:
    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._children: dict[int, int] = {}
        self._numbers: dict[int, int] = {}
        self._own_pids = namespaces.current(namespaces.NEWPID)
        self._bell_out, self._bell_in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def serve(self) -> NoReturn:
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._bell_in, warn_on_full_buffer=False)
        roots.python_paths()  # before any root changes; children inherit what was found
        while True:
            ready, _, _ = select.select([self._link.fileno(), self._bell_out], [], [])
            if self._bell_out in ready:
                os.read(self._bell_out, 4096)
                self._reap()
            if self._link.fileno() in ready:
                self._hear()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            number = self._numbers.pop(pid, None)
            if number is not None:
                del self._children[number]
                self._say({"id": number, "ended": exit_code(status)})

    def _hear(self) -> None:
        message, ancillary, _, _ = self._link.recvmsg(
            LONGEST_MESSAGE, socket.CMSG_SPACE(64), socket.MSG_CMSG_CLOEXEC
        )
        fds = _descriptors(ancillary)
        if not message:
            os._exit(0)
        request = json.loads(message)
        try:
            self._act(request, fds)
        finally:
            for fd in fds:
                os.close(fd)

    def _act(self, request: dict[str, Any], fds: Sequence[int]) -> None:
        number = request["id"]
        if request["op"] == SIGNAL:
            if number in self._children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._children[number], request["signal"])
        elif request["op"] == START:
            self._start(number, request, fds)
        else:
            self._run(number, request, fds)

    def _start(self, number: int, request: dict[str, Any], fds: Sequence[int]) -> None:
        root = request["root"]
        plan = roots.Root(
            place=root["place"],
            files=root["files"],
            binds=tuple(roots.Bind(*each) for each in root["binds"]),
            read_only=root["read_only"],
        )
        namespaces.unshare(namespaces.NEWPID)
        pid = -1
        try:
            pid = os.fork()
        finally:
            if pid != 0:
                namespaces.enter(self._own_pids, flags=namespaces.NEWPID)
        if pid == 0:
            _contain(plan, _program(request), fds)
        self._remember(number, pid)

    def _run(self, number: int, request: dict[str, Any], fds: Sequence[int]) -> None:
        target = self._children.get(request["into"])
        pid = os.fork()
        if pid == 0:
            _join(target, _program(request), fds)
        self._remember(number, pid)

    def _remember(self, number: int, pid: int) -> None:
        self._children[number] = pid
        self._numbers[pid] = number

    def _say(self, message: dict[str, Any]) -> None:
        try:
            self._link.send(json.dumps(message).encode())
        except BrokenPipeError:
            os._exit(0)


def exit_code(status: int) -> int:
    """Return a shell's exit code for a wait status: 128 and the signal for a killed process."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _descriptors(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            return list(struct.unpack(f"{len(content) // 4}i", content[: len(content) // 4 * 4]))
    return []


def _program(request: dict[str, Any]) -> Program:
    fields = request["program"]
    for name in ("argv", "groups", "capabilities"):
        fields[name] = tuple(fields[name])
    return Program(**fields)


def _contain(root: roots.Root, program: Program, fds: Sequence[int]) -> NoReturn:
    """Be the first process of a container: build its root, start the program, wait for it."""
    namespaces.die_with_parent()
    _calm()
    os.umask(0o022)
    *streams, report = fds[3:]
    try:
        for fd in fds[:3]:
            namespaces.enter(fd)
        namespaces.unshare(namespaces.NEWNS)
        roots.build(root)
    except (OSError, KeyError) as error:
        _fail(report, f"cannot build the container's file system: {error}")
    child = os.fork()
    if child == 0:
        _execute(program, streams, report)
    _release(fds)
    _wait_for(child)


def _join(target: int | None, program: Program, fds: Sequence[int]) -> NoReturn:
    """Run a program inside a container that is already there."""
    namespaces.die_with_parent()
    _calm()
    *streams, report = fds
    if target is None:
        _fail(report, "the container is not running")
    try:
        process = namespaces.open_process(target)
        namespaces.enter(process, flags=_SHARED | namespaces.NEWNS | namespaces.NEWPID)
        child = os.fork()
    except OSError as error:
        _fail(report, f"cannot enter the container: {error}")
    if child == 0:
        _execute(program, streams, report)
    _release(fds)
    _wait_for(child)


def _calm() -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _fail(report: int, message: str) -> NoReturn:
    with contextlib.suppress(OSError):
        os.write(report, message.encode())
    os._exit(CANNOT_START)


def _release(fds: Sequence[int]) -> None:
    """Keep nothing open that others wait to see closed."""
    nothing = os.open("/dev/null", os.O_RDWR)
    for fd in range(_STREAMS):
        os.dup2(nothing, fd)
    os.closerange(_STREAMS, max(fds, default=_STREAMS) + 64)


def _wait_for(child: int) -> NoReturn:
    for number in _FORWARDED:
        signal.signal(number, lambda got, _: _pass_on(child, got))
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child:
            os._exit(exit_code(status))


def _pass_on(child: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, number)


def _execute(program: Program, streams: Sequence[int], report: int) -> NoReturn:
    try:
        os.setsid()
        for target, fd in enumerate(streams):
            os.dup2(fd, target)
        if program.terminal:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        _enter_folder(program.folder)
        os.umask(0o022)
        _become(program)
        os.execvpe(program.argv[0], program.argv, dict(program.env))
    except FileNotFoundError:
        _report(report, f"`{program.argv[0]}`: no such program", _NOT_FOUND)
    except PermissionError as error:
        _report(report, f"`{program.argv[0]}`: {error.strerror}", _NOT_EXECUTABLE)
    except OSError as error:
        _report(report, f"`{program.argv[0]}`: {error}", CANNOT_START)
    os._exit(CANNOT_START)


def _report(report: int, message: str, code: int) -> NoReturn:
    with contextlib.suppress(OSError):
        os.write(report, message.encode())
    os._exit(code)


def _enter_folder(folder: str) -> None:
    os.makedirs(folder, exist_ok=True)  # noqa: PTH103
    os.chdir(folder)


def _become(program: Program) -> None:
    for number in range(1, signal.NSIG):
        with contextlib.suppress(OSError, ValueError):
            if number not in (signal.SIGKILL, signal.SIGSTOP):
                signal.signal(number, signal.SIG_DFL)
    namespaces.bound_capabilities(program.capabilities)
    if program.change_user:
        os.setgroups(program.groups)
        os.setgid(program.gid)
        os.setuid(program.uid)
    if program.uid == 0 or not program.change_user:
        namespaces.set_capabilities(program.capabilities)
    if program.no_new_privileges:
        namespaces.forbid_new_privileges()
