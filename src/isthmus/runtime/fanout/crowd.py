"""All workers together: who is handed which client, and what they have in common.

The control plane accepts clients itself and hands each to the worker that has fewest, so that those
of a worker that has ended spread over all, and nobody else can listen on the port.

Source: docs/decisions/0051.
"""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from isthmus.base import clock, logs, metrics, tasks
from isthmus.runtime import children
from isthmus.runtime.fanout import hosting, messages
from isthmus.wire import admission, ads, callers, streams
from isthmus.wire.limits import Limits

BACKLOG: Final = 1024
ACCEPTS_AT_ONCE: Final = 32
NOBODY_S: Final = 0.05
"""How long clients wait until somebody looks again for a worker."""

EXHAUSTED_S: Final = 1.0

_LOG = logs.Log("isthmus.fanout")


class Crowd:
    """The workers of one control plane."""

    def __init__(  # noqa: PLR0913  # all of them are one thing each
        self,
        count: int,
        *,
        proxies: hosting.Proxies,
        certify: Callable[[bytes, callers.Credentials], Awaitable[tuple[str, ...]]],
        asides: Callable[[], ads.Asides | None],
        state: Callable[[], messages.State | None],
        registered: metrics.Metrics,
        limits: Limits | None = None,
        log_level: str = "info",
        system_clock: clock.Clock | None = None,
    ) -> None:
        self._limits = limits or Limits()
        own_clock = system_clock or clock.SystemClock()
        ground = hosting.Ground(
            proxies=proxies,
            certify=certify,
            asides=asides,
            state=state,
            admission=admission.Admission(self._limits, system_clock=own_clock),
            registered=registered,
            came=self._came,
            left=self._left,
            log_level=log_level,
            clock=own_clock,
        )
        self.workers = tuple(hosting.Worker(at + 1, count, ground) for at in range(count))
        self._of_pods: dict[tuple[str, ...], list[tuple[hosting.Worker, int]]] = {}
        self._statuses: tuple[streams.StreamStatus, ...] = ()
        self._gathering: asyncio.Task[None] | None = None
        self._nursery = tasks.Nursery(system_clock=own_clock)
        self._door: socket.socket | None = None

    @property
    def opened(self) -> int:
        """How many streams there have been."""
        return sum(worker.opened for worker in self.workers)

    def statuses(self) -> tuple[streams.StreamStatus, ...]:
        """Return how far proxies had come when that was gathered last."""
        return self._statuses

    async def gather(self, *, with_streams: bool = True) -> None:
        """Count what workers have counted, and ask how far their proxies have come."""
        if not with_streams:
            await self._gathered(with_streams=False)
            return
        # Of those who ask at once one asks.
        if self._gathering is None or self._gathering.done():
            self._gathering = self._nursery.start("ask workers", self._gather())
        await asyncio.wait((self._gathering,))

    def look(self) -> None:
        """Tell workers soon what has changed."""
        for worker in self.workers:
            worker.look()

    def end_of(self, cluster: str, *, reason: str) -> None:
        """End the streams of a cluster."""
        for worker in self.workers:
            worker.end(*worker.of_cluster(cluster), status="UNAVAILABLE", reason=reason)

    def serve(self, door: socket.socket, nursery: tasks.Nursery) -> None:
        """Start the workers, and hand them whoever comes by a socket."""
        for number, worker in enumerate(self.workers, 1):
            _ = nursery.keep(f"tell proxies, worker {number}", worker.run)
        door.setblocking(False)
        door.listen(BACKLOG)
        self._door = door
        self._open()

    async def serving(self) -> None:
        """Wait until all serve."""
        for worker in self.workers:
            await worker.serving.wait()

    async def stop(self, grace_s: float) -> None:
        """Take no more clients; give their streams so long."""
        if self._door is not None:
            asyncio.get_running_loop().remove_reader(self._door.fileno())
            self._door.close()
            self._door = None
        for worker in self.workers:
            worker.drain(grace_s)
        with contextlib.suppress(TimeoutError):
            # `asyncio.timeout` ends nothing in a task that is cancelled already, in Python 3.11.
            await asyncio.wait_for(self._ended(), grace_s + children.END_S)
        await self._nursery.close()

    async def _ended(self) -> None:
        for worker in self.workers:
            await worker.ended()

    async def _gather(self) -> None:
        found = await self._gathered(with_streams=True)
        self._statuses = tuple(sorted(found, key=lambda status: status.connected_at))

    async def _gathered(self, *, with_streams: bool) -> list[streams.StreamStatus]:
        async with asyncio.TaskGroup() as group:
            asked = [
                group.create_task(worker.gathered(with_streams=with_streams))
                for worker in self.workers
            ]
        return [status for one in asked for status in one.result()]

    # Clients.

    def _open(self) -> None:
        if self._door is not None:
            asyncio.get_running_loop().add_reader(self._door.fileno(), self._accept, self._door)

    def _shut_for(self, door: socket.socket, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(door.fileno())
        loop.call_later(seconds, self._open)

    def _accept(self, door: socket.socket) -> None:
        for _ in range(ACCEPTS_AT_ONCE):
            ready = [worker for worker in self.workers if worker.serving.is_set()]
            if not ready:
                self._shut_for(door, NOBODY_S)
                return
            try:
                client, _address = door.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                _LOG.warning("no further connections for now", reason=str(error))
                self._shut_for(door, EXHAUSTED_S)
                return
            with client:
                if not _handed(client, ready):
                    # All have as many as they can begin with: this one comes again.
                    self._shut_for(door, NOBODY_S)
                    return

    # Pods.

    def _came(self, pod: tuple[str, ...], worker: hosting.Worker, number: int) -> None:
        same = self._of_pods.setdefault(pod, [])
        same.append((worker, number))
        for older, one in same[: max(len(same) - self._limits.streams_per_pod, 0)]:
            older.end(one, status="ABORTED", reason="the same pod opened another stream")

    def _left(self, pod: tuple[str, ...], worker: hosting.Worker, number: int) -> None:
        same = self._of_pods.get(pod, [])
        if (worker, number) in same:
            same.remove((worker, number))
        if not same:
            self._of_pods.pop(pod, None)


def _handed(client: socket.socket, ready: Iterable[hosting.Worker]) -> bool:
    return any(worker.hand(client) for worker in sorted(ready, key=lambda one: one.load))
