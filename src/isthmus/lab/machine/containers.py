"""One container: starts its program, keeps what it writes, runs others beside it, ends it.

Decides how streams are connected and what a container may do on the machine. Refuses to know when
it should run.
"""

import asyncio
import contextlib
import errno
import fcntl
import os
import signal
import struct
import termios
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from isthmus.base import clock
from isthmus.lab import images
from isthmus.lab.machine import environment, logbook, roots, spawner, spawning

Obj = dict[str, Any]

DEFAULT_CAPABILITIES = (
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
)
"""What container engines leave to root in a container, but for making device files."""

# But to programs of which the table of images says that they cannot do without.
_NEVER_GIVEN = frozenset({"SYS_ADMIN", "SYS_MODULE", "SYS_RAWIO", "SYS_BOOT", "MKNOD", "SYS_TIME"})
_CHUNK = 64 << 10
_MOST_UNSEEN = 1 << 20

Listener: TypeAlias = Callable[[str, bytes], None]
"""Takes the name of a stream and what was written to it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything needed to start a container.

    Attributes:
        namespaces: The pod's network, host name and shared memory.
        keeps_stdin: Whether its standard input stays open.
        reads_once: Whether that ends with the first client who wrote to it.
    """

    image: images.Image
    program: spawner.Program
    root: roots.Root
    namespaces: tuple[int, int, int]
    keeps_stdin: bool = False
    reads_once: bool = False


def plan(
    container: Obj,
    *,
    pod: Obj,
    env: Mapping[str, str],
    root: roots.Root,
    pod_namespaces: tuple[int, int, int],
    many_users: bool,
) -> Plan:
    """Decide what a container executes and as whom.

    Raises:
        images.UnknownImageError: The lab has no such image.
    """
    image = images.find(container["image"])
    command = [environment.expand(each, env) for each in container.get("command") or ()]
    args = [environment.expand(each, env) for each in container.get("args") or ()]
    security = {
        **(pod["spec"].get("securityContext") or {}),
        **(container.get("securityContext") or {}),
    }
    uid = int(security.get("runAsUser") or 0)
    gid = int(security.get("runAsGroup") or 0)
    groups = [*(security.get("supplementalGroups") or ()), security.get("fsGroup")]
    program = spawner.Program(
        argv=image.argv(command=command, args=args),
        env=env,
        folder=container.get("workingDir") or "/",
        uid=uid if many_users else 0,
        gid=gid if many_users else 0,
        groups=tuple(int(each) for each in groups if each is not None) if many_users else (),
        capabilities=_kept(security.get("capabilities") or {}, image, many_users=many_users),
        change_user=many_users,
        no_new_privileges=security.get("allowPrivilegeEscalation") is False,
        terminal=bool(container.get("tty")),
    )
    return Plan(
        image,
        program,
        root,
        pod_namespaces,
        keeps_stdin=bool(container.get("stdin")),
        reads_once=bool(container.get("stdinOnce")),
    )


def _kept(wanted: Obj, image: images.Image, *, many_users: bool) -> tuple[str, ...]:
    if not many_users:
        return image.capabilities
    dropped = {name.upper().removeprefix("CAP_") for name in wanted.get("drop") or ()}
    added = {name.upper().removeprefix("CAP_") for name in wanted.get("add") or ()}
    kept = set() if "ALL" in dropped else set(DEFAULT_CAPABILITIES) - dropped
    refused = _NEVER_GIVEN - set(image.capabilities)
    return tuple(sorted((kept | added) & set(spawner.CAPABILITY_NAMES) - refused))


class Container:
    """A run of a container. Lives in one event loop.

    Attributes:
        log: What it has written.
        finished: Done with its exit code once it has ended and all that it wrote was given on.
    """

    def __init__(self, plan_: Plan, owner: spawning.Spawning, system_clock: clock.Clock) -> None:
        self.log = logbook.Logbook(system_clock)
        self._plan = plan_
        self._owner = owner
        self._child: spawning.Child | None = None
        self._stdin = -1
        self._outputs: list[asyncio.Future[None]] = []
        self._listeners: list[Listener] = []
        # What nobody has seen: for a program that waits for a client, the first one sees all.
        self._unseen: list[tuple[str, bytes]] | None = [] if plan_.reads_once else None
        self.finished: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def start(self) -> str:
        """Start it; return why it could not, or an empty text."""
        with contextlib.ExitStack() as opened:
            if self._plan.program.terminal:
                streams = self._open_terminal(opened)
            else:
                stdin = self._open_stdin(opened)
                ends = [self._collect(name, opened) for name in ("stdout", "stderr")]
                streams = spawning.Streams(stdin, *ends)
            self._child = self._owner.start(
                self._plan.program,
                root=self._plan.root,
                pod=self._plan.namespaces,
                streams=streams,
            )
        return await self._child.started

    def _open_terminal(self, opened: contextlib.ExitStack) -> spawning.Streams:
        own, other = os.openpty()
        self._outputs.append(pump(own, lambda content: self._take("stdout", content)))
        self._stdin = os.dup(own)
        _closed_later(other, opened)
        return spawning.Streams(other, other, other)

    def _open_stdin(self, opened: contextlib.ExitStack) -> int:
        if not self._plan.keeps_stdin:
            return _closed_later(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), opened)
        read, self._stdin = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._stdin, False)
        return _closed_later(read, opened)

    def _collect(self, stream: str, opened: contextlib.ExitStack) -> int:
        read, write = os.pipe2(os.O_CLOEXEC)
        if self._plan.program.change_user:
            # Programs open `/dev/stdout` again, which is this pipe: it must be their user's own.
            os.fchown(write, self._plan.program.uid, self._plan.program.gid)
        self._outputs.append(pump(read, lambda content: self._take(stream, content)))
        return _closed_later(write, opened)

    def _take(self, stream: str, content: bytes) -> None:
        self.log.feed(stream, content)
        for listener in self._listeners:
            listener(stream, content)
        if self._unseen is not None and sum(len(each) for _, each in self._unseen) < _MOST_UNSEEN:
            self._unseen.append((stream, content))

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Give what it writes from now on to `listener`, until the answer is called."""
        for stream, content in self._unseen or ():
            listener(stream, content)
        self._unseen = None
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    @property
    def reads_once(self) -> bool:
        """Whether its standard input ends with the first client who wrote to it."""
        return self._plan.reads_once

    async def write_stdin(self, content: bytes) -> None:
        """Send `content` to standard input; what the program no longer reads is dropped."""
        if self._stdin >= 0 and not await pour(self._stdin, content):
            self.close_stdin()

    def close_stdin(self) -> None:
        """End standard input."""
        if self._stdin >= 0:
            os.close(self._stdin)
            self._stdin = -1

    def resize(self, *, rows: int, columns: int) -> None:
        """Tell its terminal its size, if it has one."""
        resize(self._stdin, rows=rows, columns=columns)

    async def wait(self) -> int:
        """Return its exit code once it has ended and all that it wrote is kept."""
        assert self._child is not None
        code = await asyncio.shield(self._child.ended)
        for output in self._outputs:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await asyncio.shield(output)
        self.log.close()
        self.close_stdin()
        if not self.finished.done():
            self.finished.set_result(code)
        return code

    @property
    def is_running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._child is not None and not self._child.ended.done()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        if self._child is not None:
            self._child.signal(number)

    async def stop(self, grace_s: float) -> None:
        """Ask it to end; after `grace_s` seconds make it."""
        if not self.is_running:
            return
        assert self._child is not None
        self.signal(signal.SIGTERM if grace_s > 0 else signal.SIGKILL)
        try:
            async with asyncio.timeout(max(grace_s, 0.001)):
                await asyncio.shield(self._child.ended)
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await asyncio.shield(self._child.ended)

    def run(
        self, argv: Sequence[str], streams: spawning.Streams, *, terminal: bool = False
    ) -> spawning.Child:
        """Run another program inside, as the container's own user.

        Raises:
            LookupError: The container does not run.
        """
        if self._child is None or self._child.ended.done():
            raise LookupError("the container is not running")
        own = self._plan.program
        env = {**own.env, "TERM": "xterm"} if terminal else own.env
        program = spawner.Program(
            argv=self._plan.image.executed(argv),
            env=env,
            folder=own.folder,
            uid=own.uid,
            gid=own.gid,
            groups=own.groups,
            capabilities=own.capabilities,
            change_user=own.change_user,
            terminal=terminal,
            no_new_privileges=own.no_new_privileges,
        )
        return self._owner.run(program, into=self._child, streams=streams)

    async def execute(self, argv: Sequence[str], limit_s: float) -> int:
        """Run a program inside, ignore what it says, and return its exit code."""
        nothing = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        try:
            child = self.run(argv, spawning.Streams(nothing, nothing, nothing))
        except LookupError:
            return spawner.CANNOT_START
        finally:
            os.close(nothing)
        try:
            async with asyncio.timeout(limit_s):
                return await asyncio.shield(child.ended)
        finally:
            child.signal(signal.SIGKILL)


def _closed_later(fd: int, opened: contextlib.ExitStack) -> int:
    opened.callback(os.close, fd)
    return fd


def pump(fd: int, take: Callable[[bytes], None]) -> asyncio.Future[None]:
    """Give whatever can be read from `fd` to `take`; close it at its end, which is returned."""
    loop = asyncio.get_running_loop()
    finished: asyncio.Future[None] = loop.create_future()
    os.set_blocking(fd, False)

    def readable() -> None:
        try:
            content = os.read(fd, _CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            # A terminal whose program has ended answers so instead of an empty read.
            if error.errno != errno.EIO:
                raise
            content = b""
        if content:
            take(content)
            return
        loop.remove_reader(fd)
        os.close(fd)
        if not finished.done():
            finished.set_result(None)

    loop.add_reader(fd, readable)
    return finished


async def pour(fd: int, content: bytes) -> bool:
    """Write all of `content`; say whether it was taken."""
    rest = memoryview(content)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:
            await _writable(fd)
        except OSError:
            return False
    return True


async def _writable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_writer(fd, ready.set_result, None)
    try:
        await ready
    finally:
        loop.remove_writer(fd)


async def next_of(queue: "asyncio.Queue[bytes]") -> bytes:
    """Return the next bytes of a stream; whoever reads again after the end gets the end again."""
    content = await queue.get()
    if not content:
        queue.put_nowait(b"")
    return content


def resize(terminal: int, *, rows: int, columns: int) -> None:
    """Tell a terminal its size; anything else does not care."""
    with contextlib.suppress(OSError):
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
