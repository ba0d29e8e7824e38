"""Requests that go on inside a pod: log, exec, attach, port-forward and proxy.

It decides which framing a client speaks and what is relayed. It refuses to know how a pod runs:
`PodRuntime` is the machine's part.

What the assembly of a cluster needs::

    streams = streams.PodStreams(api, runtime, nursery=nursery)
    app = http.application(api, security, streams)
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

from isthmus.base import tasks


class ExecStream(Protocol):
    """A program that runs in a container."""

    async def read_stdout(self) -> bytes:
        """Return the next bytes of standard output, or nothing at its end."""

    async def read_stderr(self) -> bytes:
        """Return the next bytes of standard error, or nothing at its end."""

    async def write_stdin(self, data: bytes) -> None:
        """Send `data` to standard input."""

    async def close_stdin(self) -> None:
        """End standard input."""

    async def wait(self) -> int:
        """Return the exit status once the program has ended."""


class PodRuntime(Protocol):
    """What the machine does for the streams."""

    async def exec(
        self,
        namespace: str,
        pod: str,
        container: str,
        argv: Sequence[str],
        *,
        stdin: bool,
        tty: bool,
    ) -> ExecStream:
        """Start a program in a container. Raises LookupError when it is not running."""

    def logs(
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
        """Yield what a container wrote. Raises LookupError when it never ran."""

    async def dial(
        self, namespace: str, pod: str, port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to a port on the loopback of a pod. Raises OSError when nothing listens."""


class PodStreams:
    """Answers the streaming requests for the pods of one cluster."""

    def __init__(self, api: Any, runtime: PodRuntime, *, nursery: tasks.Nursery) -> None:
        self._api = api
        self._runtime = runtime
        self._nursery = nursery
