"""A load generator that runs in a pod: HTTP/1.1 with keep-alive, one JSON document as its result.

    load.py closed HOST PORT --connections 8 --seconds 3   as many requests as are answered
    load.py open HOST PORT --rate 200 --seconds 5          so many a second, and how long they take
    load.py watch HOST PORT --rate 200                     who answers for the first time, and when

It also tells how busy it was itself: near 1.0 it has measured itself and not what it called.
"""

import argparse
import asyncio
import json
import sys
import time

from typing_extensions import override

WARM_UP_S = 0.5
LIMIT_S = 10.0
_END = b"\r\n\r\n"
_LENGTH = b"content-length:"


class Broken(Exception):  # noqa: N818  # it is counted, not shown
    """An answer that did not come, or not whole."""


class Connection(asyncio.Protocol):
    """One connection, with one request under way at most."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._answered: asyncio.Future[tuple[int, bytes]] | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    @override
    def data_received(self, data: bytes) -> None:
        self._rest += data
        head, found, rest = self._rest.partition(_END)
        if not found:
            return
        length = _length(head)
        if len(rest) < length or self._answered is None or self._answered.done():
            return
        self._rest = rest[length:]
        self._answered.set_result((int(head[9:12]), rest[:length]))

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(Broken("the connection ended"))
        self._transport = None

    def ask(self, request: bytes) -> "asyncio.Future[tuple[int, bytes]]":
        """Send a request; return its status and body in time.

        Raises:
            Broken: The connection has ended.
        """
        if self._transport is None:
            raise Broken("the connection has ended")
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answered

    def close(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.close()


def _length(head: bytes) -> int:
    at = head.lower().find(_LENGTH)
    if at < 0:
        return 0
    return int(head[at + len(_LENGTH) :].partition(b"\r\n")[0])


class Target:
    """Who is called, and what came of it."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._request = f"GET / HTTP/1.1\r\nhost: {host}:{port}\r\n\r\n".encode()
        self.failed = 0
        self.seen: dict[str, float] = {}

    async def connect(self) -> Connection:
        """Open a connection."""
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, self._host, self._port)
        return connection

    async def call(self, connection: Connection) -> tuple[Connection, bool]:
        """Send one request; return whether it was answered, and the connection to go on with."""
        try:
            async with asyncio.timeout(LIMIT_S):
                status, body = await connection.ask(self._request)
        except (Broken, TimeoutError):
            self.failed += 1
            connection.close()
            return await self.connect(), False
        if status != 200:  # HTTP's OK
            self.failed += 1
            return connection, False
        self.seen.setdefault(body.decode(), time.monotonic())
        return connection, True

    async def call_fast(self, connection: Connection) -> Connection:
        """Send one request without a limit of time: nothing is measured but the way."""
        try:
            status, _ = await connection.ask(self._request)
        except Broken:
            status, connection = 0, await self.connect()
        if status != 200:  # HTTP's OK
            self.failed += 1
        return connection


async def closed(target: Target, *, connections: int, seconds: float) -> dict[str, object]:
    """Send the next request as soon as the one before was answered, on every connection."""
    counted = answered = 0
    counting = False
    latencies: list[float] = []
    ends = time.monotonic() + WARM_UP_S + seconds

    async def caller() -> None:
        nonlocal counted, answered
        connection = await target.connect()
        while time.monotonic() < ends:
            since = time.perf_counter()
            connection = await target.call_fast(connection)
            answered += 1
            if counting:
                counted += 1
                latencies.append(time.perf_counter() - since)
        connection.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(caller())
        await asyncio.sleep(WARM_UP_S)
        counting, began, cpu_before = True, time.monotonic(), time.process_time()
        await asyncio.sleep(seconds)
        counting, took_s = False, time.monotonic() - began
        busy_s = time.process_time() - cpu_before
    return {
        "requests": counted,
        "answered": answered,
        "seconds": took_s,
        "failed": target.failed,
        "busy": busy_s / took_s,
        "ceiling": counted / busy_s,
        **_quantiles(latencies),
    }


def _quantiles(latencies: list[float]) -> dict[str, float]:
    ordered = sorted(latencies) or [0.0]
    last = len(ordered) - 1
    return {
        "p50_ms": ordered[last // 2] * 1000,
        "p99_ms": ordered[int(last * 0.99)] * 1000,
    }


async def opened(target: Target, *, rate: float, seconds: float) -> dict[str, object]:
    """Send requests at fixed moments, whether or not earlier ones were answered.

    A request that has to wait for a free connection counts from the moment at which it was due.
    """
    free = [await target.connect() for _ in range(8)]
    for each in free:
        await target.call(each)
    latencies: list[float] = []

    async def caller(since: float) -> None:
        connection = free.pop() if free else await target.connect()
        connection, answered = await target.call(connection)
        if answered:
            latencies.append(time.perf_counter() - since)
        free.append(connection)

    began, cpu_before = time.perf_counter(), time.process_time()
    async with asyncio.TaskGroup() as group:
        for number in range(int(rate * seconds)):
            due = began + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            # Timers ring up to a millisecond late; that is ours, and does not count.
            group.create_task(caller(time.perf_counter() if free else due))
    took_s = time.perf_counter() - began
    for each in free:
        each.close()
    return {
        "latencies_us": [round(each * 1e6) for each in latencies],
        "failed": target.failed,
        "busy": (time.process_time() - cpu_before) / took_s,
    }


async def watch(target: Target, *, rate: float) -> None:
    """Call at a rate for ever, each time anew, and print who answers for the first time."""
    known = failed = 0
    while True:
        try:
            connection, _ = await target.call(await target.connect())
            connection.close()
        except OSError:
            target.failed += 1
        if len(target.seen) != known or target.failed != failed:
            known, failed = len(target.seen), target.failed
            sys.stdout.write(json.dumps({"seen": target.seen, "failed": failed}) + "\n")
            sys.stdout.flush()
        await asyncio.sleep(1 / rate)


async def main() -> None:
    """Run one kind of load."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["closed", "open", "watch"])
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rate", type=float, default=200.0)
    chosen = parser.parse_args()
    target = Target(chosen.host, chosen.port)
    match chosen.kind:
        case "closed":
            result = await closed(target, connections=chosen.connections, seconds=chosen.seconds)
        case "open":
            result = await opened(target, rate=chosen.rate, seconds=chosen.seconds)
        case _:
            await watch(target, rate=chosen.rate)
            return
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
