"""The cluster's side of the spawner: starts programs and learns when they have ended.

Decides nothing about pods; it turns requests into messages and answers into futures.
"""

import asyncio
import contextlib
import dataclasses
import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from isthmus.base import logs
from isthmus.lab.machine import roots, spawner

_LOG = logs.Log("isthmus.lab.spawning")
_LONGEST_REPORT = 4096


@dataclass(frozen=True, slots=True)
class Streams:
    """Descriptors of a program's standard streams; the starter closes its own copies."""

    stdin: int
    stdout: int
    stderr: int

    def descriptors(self) -> tuple[int, int, int]:
        """Return them in order."""
        return self.stdin, self.stdout, self.stderr


class Child:
    """A program that was asked for.

    Attributes:
        started: Done once it executes, with an empty text, or with the reason why it cannot.
        ended: Done once it and, for a container, everything in it has ended, with its exit code.
    """

    def __init__(self, number: int, owner: "Spawning") -> None:
        loop = asyncio.get_running_loop()
        self.number = number
        self.started: asyncio.Future[str] = loop.create_future()
        self.ended: asyncio.Future[int] = loop.create_future()
        self._owner = owner

    def signal(self, number: int) -> None:
        """Send a signal to it, if it still runs."""
        if not self.ended.done():
            self._owner.signal(self, number)


class Spawning:
    """Speaks with one spawner process. Lives in one event loop."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, spawner.LONGEST_MESSAGE)
        self._children: dict[int, Child] = {}
        self._last = 0
        self.closed = asyncio.Event()
        asyncio.get_running_loop().add_reader(link.fileno(), self._hear)

    def close(self) -> None:
        """End the spawner, and with it every program that it started."""
        if not self.closed.is_set():
            asyncio.get_running_loop().remove_reader(self._link.fileno())
            self.closed.set()
            self._link.close()

    def start(
        self,
        program: spawner.Program,
        *,
        root: roots.Root,
        pod: Sequence[int],
        streams: Streams,
    ) -> Child:
        """Start a container in the namespaces of a pod: network, host name, shared memory."""
        plan = {
            "place": root.place,
            "files": dict(root.files),
            "binds": [
                (each.source, each.target, each.read_only, each.follows) for each in root.binds
            ],
            "read_only": root.read_only,
        }
        request: dict[str, object] = {"op": spawner.START, "root": plan}
        return self._ask(request, program, (*pod, *streams.descriptors()))

    def run(self, program: spawner.Program, *, into: Child, streams: Streams) -> Child:
        """Run a program inside a running container."""
        request: dict[str, object] = {"op": spawner.RUN, "into": into.number}
        return self._ask(request, program, streams.descriptors())

    def signal(self, child: Child, number: int) -> None:
        """Send a signal to a child."""
        message = {"op": spawner.SIGNAL, "id": child.number, "signal": number}
        with contextlib.suppress(BrokenPipeError):
            self._link.send(json.dumps(message).encode())

    def _ask(
        self, request: dict[str, object], program: spawner.Program, fds: Sequence[int]
    ) -> Child:
        self._last += 1
        child = Child(self._last, self)
        fields = {each.name: getattr(program, each.name) for each in dataclasses.fields(program)}
        fields["env"] = dict(program.env)
        message = json.dumps({**request, "id": child.number, "program": fields})
        heard, report = os.pipe2(os.O_CLOEXEC)
        try:
            socket.send_fds(self._link, [message.encode()], [*fds, report])
        except OSError as error:
            os.close(heard)
            child.started.set_result(f"the spawner is gone: {error}")
            child.ended.set_result(spawner.CANNOT_START)
            return child
        finally:
            os.close(report)
        self._children[child.number] = child
        os.set_blocking(heard, False)
        asyncio.get_running_loop().add_reader(heard, _report, heard, child)
        return child

    def _hear(self) -> None:
        message = self._link.recv(spawner.LONGEST_MESSAGE)
        if not message:
            self._lost()
            return
        answer = json.loads(message)
        child = self._children.pop(answer["id"], None)
        if child is not None and not child.ended.done():
            child.ended.set_result(answer["ended"])

    def _lost(self) -> None:
        _LOG.error("spawner ended; its programs are gone")
        for child in self._children.values():
            child.ended.set_result(spawner.CANNOT_START)
        self._children.clear()
        self.close()


def _report(heard: int, child: Child) -> None:
    text = os.read(heard, _LONGEST_REPORT)
    asyncio.get_running_loop().remove_reader(heard)
    os.close(heard)
    if not child.started.done():
        child.started.set_result(text.decode(errors="replace"))
