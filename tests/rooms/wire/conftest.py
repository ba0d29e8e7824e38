"""A discovery service on a loopback socket, whose mesh is a dictionary."""

import asyncio
import contextlib
import dataclasses
from dataclasses import dataclass, field

import grpc
import pytest

from isthmus.base import clock
from isthmus.mesh.identities import ClusterId
from isthmus.resources.snapshot import EMPTY
from isthmus.testing import pace, playbook
from isthmus.wire import ads, callers, listening
from isthmus.wire.h2 import server as h2_server

CALLER = callers.Caller(ClusterId("c1"), "default", "sleep", pod="sleep-1", pod_uid="u1")


class StoppedClock(clock.SystemClock):
    """So that a second does not pass while a test counts what may happen in one."""

    def __init__(self):
        self.passed = 0.0

    def monotonic(self):
        return self.passed


class FakeAuthenticator:
    async def authenticate(self, credentials):
        if credentials.token == "other":
            return dataclasses.replace(CALLER, pod="sleep-2", pod_uid="u2")
        if credentials.token != "good":
            raise callers.CallerRefused("the token proves nothing")
        return CALLER


@dataclass
class FakeWatch:
    held: object = EMPTY
    wake: object = None
    reports: asyncio.Queue = field(default_factory=asyncio.Queue)
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    def snapshot(self):
        return self.held

    def heeds(self, type_url, names):
        """Nothing: every change is told."""

    def on_change(self, wake):
        self.wake = wake

    def status(self, report):
        self.reports.put_nowait(report)

    def close(self):
        self.closed.set()


@dataclass
class FakeDiscovery:
    authenticator: object = field(default_factory=FakeAuthenticator)
    held: object = EMPTY
    world: dict = field(default_factory=dict)
    watches: list = field(default_factory=list)
    problem: Exception | None = None
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    def open(self, caller, node):
        if self.problem is not None:
            raise self.problem
        self.watches.append(FakeWatch(self.held))
        self.opened.set()
        return self.watches[-1]

    async def watch(self):
        await asyncio.wait_for(self.opened.wait(), pace.patience(10))
        return self.watches[-1]

    def change(self, world):
        changed = playbook.difference(self.world, world)
        self.world = world
        self.give(playbook.snapshot_of(world), changed)

    def give(self, snapshot, changed):
        self.held = snapshot
        for watch in self.watches:
            watch.held = snapshot
            watch.wake(changed)


@pytest.fixture
def discovery():
    return FakeDiscovery()


ANY_SIZE = (("grpc.max_receive_message_length", -1),)
"""Whoever asks takes what it is sent, or does not read: what is tested is the server."""


async def own_server(handlers):
    server = h2_server.Server(handlers, limits=listening.LIMITS)
    return server, server.listen("127.0.0.1:0")


async def reference_server(handlers):
    server = grpc.aio.server(options=listening.OPTIONS)
    server.add_generic_rpc_handlers(handlers)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, port


@pytest.fixture(params=[own_server, reference_server], ids=["own", "reference"])
def started(request):
    """Start a gRPC server: our own, and gRPC's, which says how it should be."""
    return request.param


@pytest.fixture
def serving(discovery, started):
    @contextlib.asynccontextmanager
    async def serve(*, through=lambda handler: handler, **limits):
        service = ads.Service(discovery, limits=ads.Limits(**limits), system_clock=StoppedClock())
        server, port = await started((through(service.handler()),))
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", ANY_SIZE) as channel:
                yield service, channel, port
        finally:
            await server.stop(None)

    return serve
