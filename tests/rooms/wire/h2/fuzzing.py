"""Bytes become the life of a connection to the service of discovery, and whatever they are, holds.

Each byte chooses what a client does next: something right, so that it comes far, or something
wrong, or bytes as they are. Both Hypothesis and a fuzzer that follows coverage can choose.
"""

import asyncio
import contextlib
import logging
import socket

import hpack
from envoy.service.discovery.v3 import discovery_pb2

from isthmus.mesh.identities import ClusterId
from isthmus.resources.snapshot import ADDRESSES, CLUSTERS, EMPTY, ENDPOINTS
from isthmus.testing import playbook
from isthmus.wire import ads, callers
from isthmus.wire.h2 import connection, frames, lines, server

PATH = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"
CALLER = callers.Caller(ClusterId("c1"), "default", "sleep", pod="sleep-1", pod_uid="u1")
NODE = "sidecar~10.0.0.1~sleep-1.default~default.svc.cluster.local"
TYPES = (CLUSTERS, ENDPOINTS, ADDRESSES, "", "other")
LIMITS = server.Limits(
    message_bytes=10_000, each=connection.Limits(streams=4, header_bytes=2_000, window=20_000)
)
LARGE = "x" * 60_000


class Failed(AssertionError):  # noqa: N818  # it fails a test
    """Something was raised, kept or lost that should not be."""


class _Watch:
    def __init__(self, discovery):
        self.discovery = discovery
        self.wakes = []

    def snapshot(self):
        return self.discovery.held

    def on_change(self, wake):
        self.wakes.append(wake)

    def heeds(self, type_url, names):
        pass

    def status(self, report):
        pass

    def close(self):
        self.discovery.watches.discard(self)


class _Discovery:
    def __init__(self):
        self.authenticator = self
        self.held, self.world, self.watches, self.number = EMPTY, {}, set(), 0

    async def authenticate(self, _credentials):
        return CALLER

    def open(self, _caller, _node):
        watch = _Watch(self)
        self.watches.add(watch)
        return watch

    def change(self):
        self.number += 1
        world = {CLUSTERS: {"a": str(self.number), "b": LARGE}, ENDPOINTS: {"e": str(self.number)}}
        changed = playbook.difference(self.world, world)
        self.world, self.held = world, playbook.snapshot_of(world)
        for watch in list(self.watches):
            for wake in watch.wakes:
                wake(changed)


class _Client:
    """Turns bytes into what it says."""

    def __init__(self, content):
        self._left = bytearray(content)
        self._encoder = hpack.Encoder()
        self._opened = 0

    def said(self):
        yield frames.PREFACE + frames.settings(())
        while self._left:
            yield self._next()

    def _byte(self):
        return self._left.pop(0) if self._left else 0

    def _some(self):
        size = self._byte()
        found = bytes(self._left[:size])
        del self._left[:size]
        return found

    def _next(self):
        choice = self._byte()
        acts = (
            self._open,
            self._ask,
            self._ask,
            self._message,
            lambda: self._frame(frames.DATA, self._some()),
            lambda: frames.window_update(self._byte(), more=self._byte() << (self._byte() % 25)),
            lambda: frames.reset(self._byte(), frames.Code.CANCEL),
            lambda: frames.settings([(self._byte(), self._byte() << (self._byte() % 25))]),
            lambda: self._frame(self._byte(), self._some()),
            lambda: frames.ping(b"12345678") * self._byte(),
            self._some,
            lambda: None,
        )
        return acts[choice % len(acts)]()

    def _frame(self, kind, content):
        stream, flags = self._byte(), self._byte()
        return frames.head(kind, size=len(content), flags=flags, stream=stream) + content

    def _open(self):
        self._opened += 1
        name = ("DeltaAggregatedResources", "StreamAggregatedResources", "None")[self._byte() % 3]
        block = self._encoder.encode(
            (
                (":method", "POST"),
                (":scheme", "https"),
                (":path", PATH + name),
                ("te", "trailers"),
                ("content-type", "application/grpc"),
                ("authorization", "Bearer good"),
                ("clusterid", "c1"),
            )
        )
        flags = frames.END_HEADERS | (self._byte() == 1)
        stream = 2 * self._opened - 1
        return frames.head(frames.HEADERS, size=len(block), flags=flags, stream=stream) + block

    def _ask(self):
        kind = discovery_pb2.DeltaDiscoveryRequest
        request = kind(type_url=TYPES[self._byte() % len(TYPES)], node={"id": NODE})
        request.response_nonce = self._some().decode(errors="replace")
        if self._byte() % 2:
            request.resource_names_subscribe.extend(["e", "*", chr(self._byte())])
        return self._message(request.SerializeToString())

    def _message(self, content=None):
        content = self._some() if content is None else content
        body = bytes([self._byte() == 255]) + len(content).to_bytes(4, "big") + content
        stream = max(2 * self._opened - 1, 1)
        return frames.head(frames.DATA, size=len(body), stream=stream) + body


def run(content):
    """Let a client do what `content` says; raise `Failed` if anything is not as it must be."""
    logged = []

    class Noticed(logging.Handler):
        def emit(self, record):
            logged.append(record.getMessage())

    noticed, log = Noticed(), logging.getLogger("isthmus.tasks")
    log.addHandler(noticed)
    try:
        asyncio.run(_lived(content))
    finally:
        log.removeHandler(noticed)
    if logged:
        raise Failed(logged)


async def _lived(content):
    discovery = _Discovery()
    discovery.change()
    service = ads.Service(discovery, limits=ads.Limits(together_s=0.0, streams_per_s=1000))
    served = server.Server((service.handler(),), limits=LIMITS)
    port = served.listen("127.0.0.1:0")
    loop = asyncio.get_running_loop()
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setblocking(False)
        with contextlib.suppress(OSError, TimeoutError):
            for said in _Client(content).said():
                if said is None:
                    discovery.change()
                else:
                    async with asyncio.timeout(5):
                        await loop.sock_sendall(sock, said)
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                _look(served)
                with contextlib.suppress(BlockingIOError):
                    sock.recv(1 << 16)
    for _ in range(1000):
        if not served.connections and not discovery.watches:
            break
        await asyncio.sleep(0.001)
    else:
        raise Failed("something is left of a connection that is gone")
    if service.statuses():
        raise Failed("a stream is listed that is gone")
    await served.stop(None)


def _look(served):
    """What a client makes us hold is bounded."""
    for line in served._lines:
        state = line.state
        if len(state._buffer) > frames.LARGEST + frames.HEAD_BYTES + lines.READ_BYTES:
            raise Failed("more than a frame is kept")
        if len(state._streams) > LIMITS.each.streams or line.calls > LIMITS.each.streams:
            raise Failed("more streams than allowed")
        if sum(len(call._partial or b"") for call in line._calls.values()) > 4 * 30_005:
            raise Failed("more than a window and a message are kept")
        if line._backlog is not None and line._backlog.size > lines.HIGH_BYTES + 1_000_000:
            raise Failed("more is written than anybody reads")
