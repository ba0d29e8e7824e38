"""A client that joined the main program of a container: sees what it writes, and may write to it.

Decides when standard input ends. The program itself goes on, whoever comes and leaves.
"""

import asyncio

from isthmus.lab.machine import containers


class Attached:
    """One client's view of a running container."""

    def __init__(self, container: containers.Container, *, stdin: bool) -> None:
        self._container = container
        self._stdin = stdin
        self._queues: dict[str, asyncio.Queue[bytes]] = {
            "stdout": asyncio.Queue(),
            "stderr": asyncio.Queue(),
        }
        self._leave = container.listen(lambda name, got: self._queues[name].put_nowait(got))
        container.finished.add_done_callback(self._end)

    def _end(self, _: object) -> None:
        for queue in self._queues.values():
            queue.put_nowait(b"")

    async def read_stdout(self) -> bytes:
        """Return the next bytes of standard output, or nothing at its end."""
        return await containers.next_of(self._queues["stdout"])

    async def read_stderr(self) -> bytes:
        """Return the next bytes of standard error, or nothing at its end."""
        return await containers.next_of(self._queues["stderr"])

    async def write_stdin(self, data: bytes) -> None:
        """Send `data` to standard input, if the container keeps that open."""
        if self._stdin:
            await self._container.write_stdin(data)

    async def close_stdin(self) -> None:
        """Stop writing; a container that takes input once sees its end."""
        if self._stdin and self._container.reads_once:
            self._container.close_stdin()

    def resize(self, *, rows: int, columns: int) -> None:
        """Tell the container's terminal its size."""
        self._container.resize(rows=rows, columns=columns)

    async def wait(self) -> int:
        """Return once the program has ended: attaching succeeded, however the program ended."""
        await asyncio.shield(self._container.finished)
        return 0

    def leave(self) -> None:
        """Listen no longer."""
        self._leave()
