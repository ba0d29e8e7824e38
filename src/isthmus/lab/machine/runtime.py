"""What the API server can ask of running pods: run a program, read logs, open a connection.

Decides how streams of a program are connected to whoever asked. Framing on the wire is not its
business.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence

from isthmus.lab.machine import attaching, containers, kubelet, logbook, pods, probes, spawning


class Running:
    """A program that runs in a container, with the streams of whoever asked for it."""

    def __init__(self, child: spawning.Child, stdout: int, stderr: int, stdin: int) -> None:
        self._child = child
        self._stdin = stdin
        self._out: asyncio.Queue[bytes] = asyncio.Queue()
        self._err: asyncio.Queue[bytes] = asyncio.Queue()
        _into(stdout, self._out)
        if stderr >= 0:
            _into(stderr, self._err)
        else:
            self._err.put_nowait(b"")

    async def read_stdout(self) -> bytes:
        """Return the next bytes of standard output, or nothing at its end."""
        return await containers.next_of(self._out)

    async def read_stderr(self) -> bytes:
        """Return the next bytes of standard error, or nothing at its end."""
        return await containers.next_of(self._err)

    async def write_stdin(self, data: bytes) -> None:
        """Send `data` to standard input; what a program no longer reads is dropped."""
        if self._stdin >= 0 and not await containers.pour(self._stdin, data):
            await self.close_stdin()

    async def close_stdin(self) -> None:
        """End standard input."""
        if self._stdin >= 0:
            os.close(self._stdin)
            self._stdin = -1

    def resize(self, *, rows: int, columns: int) -> None:
        """Tell the program's terminal its size."""
        containers.resize(self._stdin, rows=rows, columns=columns)

    async def wait(self) -> int:
        """Return the exit status once the program has ended."""
        code = await asyncio.shield(self._child.ended)
        await self.close_stdin()
        return code

    def kill(self) -> None:
        """End the program: nobody listens any more."""
        self._child.signal(signal.SIGKILL)


def _into(fd: int, queue: "asyncio.Queue[bytes]") -> None:
    finished = containers.pump(fd, queue.put_nowait)
    finished.add_done_callback(lambda _: queue.put_nowait(b""))


class Runtime:
    """Reaches into the pods of one cluster."""

    def __init__(self, nodes: kubelet.Kubelet) -> None:
        self._nodes = nodes

    async def exec(
        self,
        namespace: str,
        pod: str,
        container: str,
        argv: Sequence[str],
        *,
        stdin: bool,
        tty: bool,
    ) -> Running:
        """Start a program in a container.

        Raises:
            LookupError: The container does not run, or there is no such program.
        """
        found = self._container(self._nodes.worker(namespace, pod), container)
        running = _on_terminal(found, argv) if tty else _on_pipes(found, argv, stdin=stdin)
        child, result = running
        failure = await child.started
        if failure:
            result.kill()
            await result.close_stdin()
            raise LookupError(failure)
        return result

    async def attach(
        self, namespace: str, pod: str, container: str, *, stdin: bool
    ) -> attaching.Attached:
        """Join the main program of a container.

        Raises:
            LookupError: The container does not run.
        """
        found = self._container(self._nodes.worker(namespace, pod), container)
        return attaching.Attached(found, stdin=stdin)

    def _container(self, worker: pods.PodWorker, name: str) -> containers.Container:
        wanted = name or worker.pod["spec"]["containers"][0]["name"]
        found = worker.containers.get(wanted)
        if found is None or not found.is_running:
            raise LookupError(f"container {wanted} is not running")
        return found

    async def logs(  # noqa: PLR0913  # the questions that `kubectl logs` asks
        self,
        namespace: str,
        pod: str,
        container: str,
        *,
        follow: bool,
        tail: int | None,
        previous: bool,
        since_s: float | None,
        timestamps: bool,
    ) -> AsyncIterator[bytes]:
        """Yield what a container wrote.

        Raises:
            LookupError: It never ran.
        """
        book = self._log(self._nodes.worker(namespace, pod), container, previous=previous)
        async for line in book.read(
            follow=follow, tail=tail, since_s=since_s, timestamps=timestamps
        ):
            yield line

    def _log(self, worker: pods.PodWorker, name: str, *, previous: bool) -> logbook.Logbook:
        wanted = name or worker.pod["spec"]["containers"][0]["name"]
        if previous:
            if wanted not in worker.previous:
                pod = worker.pod["metadata"]["name"]
                raise LookupError(
                    f'previous terminated container "{wanted}" in pod "{pod}" not found'
                )
            return worker.previous[wanted]
        if wanted not in worker.containers:
            raise LookupError(f"container {wanted} is waiting to start")
        return worker.containers[wanted].log

    async def dial(
        self, namespace: str, pod: str, port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to a port on the loopback of a pod.

        Raises:
            OSError: Nothing listens.
            LookupError: There is no such pod.
        """
        wires = self._nodes.worker(namespace, pod).network
        if wires is None:
            raise LookupError(f"pod {namespace}/{pod} has no network yet")
        link = await probes.dial(wires.network, "127.0.0.1", port)
        return await asyncio.open_connection(sock=link)


def _on_pipes(
    container: containers.Container, argv: Sequence[str], *, stdin: bool
) -> tuple[spawning.Child, Running]:
    out_read, out_write = os.pipe2(os.O_CLOEXEC)
    err_read, err_write = os.pipe2(os.O_CLOEXEC)
    if stdin:
        in_read, in_write = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(in_write, False)
    else:
        in_read, in_write = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), -1
    child = container.run(argv, spawning.Streams(in_read, out_write, err_write))
    for fd in (in_read, out_write, err_write):
        os.close(fd)
    return child, Running(child, out_read, err_read, in_write)


def _on_terminal(
    container: containers.Container, argv: Sequence[str]
) -> tuple[spawning.Child, Running]:
    own, other = os.openpty()
    child = container.run(argv, spawning.Streams(other, other, other), terminal=True)
    os.close(other)
    os.set_blocking(own, False)
    return child, Running(child, own, -1, os.dup(own))
