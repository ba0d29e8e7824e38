"""One worker, as the control plane sees it: started, fed, asked, and started again when it ends.

A worker proves nothing and decides nothing: it asks who calls and what a proxy sees, and is
believed only about callers who were proven to it.

Source: docs/decisions/0051; security rules XA-1, XA-2 and XA-5.
"""

import asyncio
import contextlib
import functools
import itertools
import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from isthmus.base import clock, errors, logs, metrics, tasks
from isthmus.mesh.proxies import ProxyKind
from isthmus.resources import snapshot
from isthmus.runtime import children, framing
from isthmus.runtime.fanout import counts, feeding, messages, shown
from isthmus.runtime.watching import ProxyWatch, Source
from isthmus.views.view import Scope
from isthmus.wire import admission, ads, callers, csr, debugstreams, nodes, streams

MOST_WAITING: Final = 4096
"""Questions of one worker at one time; what comes beyond is told to come again."""

MOST_PROVEN: Final = 20_000
"""Callers that were proven to one worker and may open streams."""

SPACING_S: Final = 0.005
"""Between two times that a worker is told of changes."""

LOOK_EVERY_S: Final = 1.0
MOST_SILENCE: Final = 15
"""So many looks without a word from it, and a worker is ended."""
STARTING: Final = 10
"""So many times as many one has that does not serve yet: starting takes some seconds."""

READY_S: Final = 0.05
"""How often it is asked whether proxies may come in, as long as they wait in a worker."""

ANSWER_S: Final = 2.0
AT_ONCE: Final = 32
NOTHING: Final = frozenset[str]()

_LOG = logs.Log("isthmus.fanout")


class WorkerEnded(errors.IsthmusError):
    """A process that tells proxies has ended by itself."""

    code = "ISM-RUN-033"


class Proxies(Source[Scope], Protocol):
    """What the control plane knows of proxies."""

    authenticator: callers.Authenticator

    def open(self, caller: callers.Caller, node: nodes.Node) -> ProxyWatch[Scope]:
        """Begin to follow what a proxy should have."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What all workers stand on.

    Attributes:
        certify: Answers who asks for a certificate; may raise `csr.RefusedError`.
        state: What they serve with; None while there is nothing.
        came: Told of each stream: the pod, its worker and its number there.
        left: The same when it has ended.
    """

    proxies: Proxies
    certify: Callable[[bytes, callers.Credentials], Awaitable[tuple[str, ...]]]
    asides: Callable[[], ads.Asides | None]
    state: Callable[[], messages.State | None]
    admission: admission.Admission
    registered: metrics.Metrics
    came: Callable[[tuple[str, ...], "Worker", int], None]
    left: Callable[[tuple[str, ...], "Worker", int], None]
    log_level: str
    clock: clock.Clock


@dataclass(slots=True)
class Followed:
    """A proxy that is connected to a worker."""

    caller: callers.Caller
    node: nodes.Node
    watch: ProxyWatch[Scope]
    scopes: tuple[Scope, ...]
    implied: frozenset[str]


class Worker:
    """One process.

    Attributes:
        serving: Set while clients may be handed to it.
        pid: Of the process that is there, or was last.
        starts: How many there have been.
        opened: How many streams there have been.
        told: What it serves with.
    """

    def __init__(self, number: int, of: int, ground: Ground) -> None:
        self._place = (number, of)
        self._ground = ground
        self._followed: dict[int, Followed] = {}
        self._proven: OrderedDict[callers.Caller, None] = OrderedDict()
        self._numbers = itertools.count(1)
        self._asked: dict[int, tuple[list[messages.Statuses], asyncio.Future[None]]] = {}
        self._inbox: list[messages.Told] = []
        self._is_due = asyncio.Event()
        self._feed = feeding.Feed(ground.proxies.catalog, wake=self._is_due.set)
        self._counted = counts.Share(ground.registered)
        self._nursery = tasks.Nursery(system_clock=ground.clock)
        self._writer: asyncio.StreamWriter | None = None
        self._door: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._waiting = self._silence = 0
        self._connected = self._handed = 0
        self._is_ending = False
        self.serving = asyncio.Event()
        self.pid = self.opened = self.starts = 0
        self.told: messages.State | None = None

    @property
    def load(self) -> int:
        """About how many clients it has."""
        return self._connected + self._handed

    def hand(self, client: socket.socket) -> bool:
        """Hand it a client; return whether that was possible."""
        if self._door is None:
            return False
        try:
            socket.send_fds(self._door, [b"\0"], [client.fileno()])
        except OSError:
            return False
        self._handed += 1
        return True

    def look(self) -> None:
        """Tell it soon what has changed, if anything has."""
        self._is_due.set()

    def end(self, *numbers: int, status: str, reason: str) -> None:
        """End streams; their proxies will come again."""
        if numbers:
            # A stream may be on its way to be opened still.
            self._send_in_order(messages.End(numbers, status, reason))

    def of_cluster(self, cluster: str) -> tuple[int, ...]:
        """Return the streams of a cluster."""
        return tuple(n for n, one in self._followed.items() if one.caller.cluster == cluster)

    def of_pod(self, pod: str) -> tuple[int, ...]:
        """Return the streams of pods of this name."""
        return tuple(n for n, one in self._followed.items() if one.node.pod == pod)

    def drain(self, grace_s: float) -> None:
        """Have it end its streams within a time, and then itself."""
        self._is_ending = True
        self.serving.clear()
        self._send(messages.Drain(grace_s))

    async def ended(self) -> None:
        """Wait until it has ended."""
        if self._process is not None:
            await self._process.wait()

    async def gathered(self, *, with_streams: bool) -> tuple[streams.StreamStatus, ...]:
        """Count what it has counted; if wanted, return how far its proxies have come."""
        if self._writer is None:
            return ()
        number, found = next(self._numbers), list[messages.Statuses]()
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked[number] = (found, answered)
        try:
            self._send(messages.Ask(number, with_streams))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_S):
                    await answered
        finally:
            self._asked.pop(number, None)
        return tuple(shown.statuses(found, self._followed))

    # The process.

    async def run(self) -> None:
        """Start it and serve it until it ends.

        Raises:
            WorkerEnded: It has ended, by itself or by somebody else.
        """
        ours, theirs = socket.socketpair()
        door, its_door = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        door.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=ours)
        self._writer, self._door, self._silence = writer, door, 0
        try:
            with theirs, its_door:
                self._process = await children.started(
                    "push", theirs, its_door, log_level=self._ground.log_level
                )
            self.pid = self._process.pid
            self.starts += 1
            await self._talk(reader)
        finally:
            await self._forget(door)
        own = asyncio.current_task()
        if self._is_ending or (own is not None and own.cancelling()):
            # Nobody shall start it again; Python 3.11's `wait_for` forgets that it was cancelled if it
            # has its answer as well.
            raise asyncio.CancelledError
        raise WorkerEnded(
            f"process {self.pid}, which tells proxies, has ended by itself",
            still_working="proxies of other processes; its own connect again",
            hint="it is started again; if it ends again and again, the log says why, above",
        )

    async def _talk(self, reader: asyncio.StreamReader) -> None:
        decoder = msgspec.msgpack.Decoder[messages.Said](messages.Said)
        _ = self._nursery.start("tell a worker", self._needed(self._tell()))
        _ = self._nursery.start("look after a worker", self._needed(self._look_after()))
        async for message in framing.heard(reader, decoder, most_bytes=messages.MOST_BYTES):
            self._silence = 0
            tasks.attempt("hear a worker", functools.partial(self._take, message))

    async def _needed(self, work: Coroutine[object, object, None]) -> None:
        """Do some work; when it ends, so does the talk."""
        writer = self._writer
        try:
            with contextlib.suppress(ConnectionError):
                await work
        finally:
            work.close()
            if writer is not None:
                writer.close()

    async def _forget(self, door: socket.socket) -> None:
        """Forget all its proxies: they come again."""
        writer, self._writer, self._door = self._writer, None, None
        self.serving.clear()
        door.close()
        if writer is not None:
            writer.close()
        if self._process is not None:
            await children.ended(self._process)
        await self._nursery.close()
        # Not before: who told it until now would say to nobody what the next one must hear.
        self.told = None
        self._counted.leave()
        self._connected = self._handed = self._waiting = 0
        self._proven.clear()
        for _, answered in self._asked.values():
            if not answered.done():
                answered.set_result(None)
        self._feed.close()
        for count, number in enumerate(list(self._followed)):
            self._close(number)
            if count % AT_ONCE == 0:
                await asyncio.sleep(0)
        self._inbox.clear()

    async def _look_after(self) -> None:
        while True:
            await self._ground.clock.sleep(LOOK_EVERY_S)
            self._silence += 1
            most = MOST_SILENCE if self.serving.is_set() else MOST_SILENCE * STARTING
            if self._silence > most and self._process is not None:
                _LOG.error("a worker is silent and is ended", pid=self.pid)
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
            for number, one in self._followed.items():
                if one.node.kind is ProxyKind.ZTUNNEL:
                    self._moved(number, {})
            self._is_due.set()

    # What it is told.

    def _send(self, message: messages.Told) -> None:
        if self._writer is not None:
            self._writer.write(framing.framed(message))

    def _send_in_order(self, message: messages.Told) -> None:
        """Tell it after what the scopes of this moment hold."""
        self._inbox.append(message)
        self._is_due.set()

    async def _due(self) -> None:
        """Wait until there may be something to tell."""
        waits = self.told is not None and not self.told.is_ready
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_S if waits else None):
                await self._is_due.wait()
        self._is_due.clear()

    async def _tell(self) -> None:
        writer = self._writer
        assert writer is not None
        while True:
            await self._due()
            state = self._ground.state()
            if state is not None:
                state = msgspec.structs.replace(state, first=self._place[0], step=self._place[1])
            if state is not None and state != self.told:
                self.told = state
                self._send(state)
            changed, forgotten = self._feed.take()
            inbox, self._inbox = self._inbox, []
            for part in feeding.parts(changed) if changed else ():
                self._send(part)
                # It has one part on its way: what changes meanwhile waits as names.
                await writer.drain()
                await asyncio.sleep(0)
            for message in inbox:
                self._send(message)
            if forgotten:
                self._send(messages.Forgotten(forgotten))
            await writer.drain()
            await self._ground.clock.sleep(SPACING_S)

    # What it says.

    def _take(self, message: messages.Said) -> None:
        match message:
            case messages.Prove() | messages.Certify() | messages.Aside():
                self._answer(message.number, self._asked_for(message))
            case messages.Open():
                self._open(message)
            case messages.Close():
                self._close(message.number)
            case messages.Statuses() | messages.Figures():
                self._show(message)
            case messages.Alive():
                self._connected, self._handed = message.connections, 0
                if not self._is_ending:
                    self.serving.set()

    def _show(self, message: messages.Statuses | messages.Figures) -> None:
        found, answered = self._asked.get(message.number, ([], None))
        if isinstance(message, messages.Statuses):
            found.append(message)
            return
        self._counted.take(message)
        if answered is not None and not answered.done():
            answered.set_result(None)

    def _answer(self, number: int, work: Coroutine[object, object, messages.Told]) -> None:
        if self._waiting >= MOST_WAITING:
            work.close()
            self._refuse(number, "", "too busy now; come again", status="UNAVAILABLE")
            return
        self._waiting += 1

        async def answered() -> None:
            try:
                self._send(await work)
            except errors.IsthmusError as error:
                self._refuse(number, error.code, error.happened, detail=error.detail)
            except csr.RefusedError as refusal:
                self._refuse(number, "", refusal.text, status=refusal.status.name)
            except debugstreams.Refused as refused:
                self._refuse(number, "", refused.text, status=refused.status)
            finally:
                self._waiting -= 1

        _ = self._nursery.start("answer a worker", answered())

    def _refuse(
        self, number: int, code: str, happened: str, *, status: str = "", detail: str = ""
    ) -> None:
        self._send(messages.Refused(number, code, status, happened, detail))

    async def _asked_for(
        self, asked: messages.Prove | messages.Certify | messages.Aside
    ) -> messages.Told:
        match asked:
            case messages.Prove():
                return await self._prove(asked)
            case messages.Certify():
                chain = await self._ground.certify(asked.request, asked.credentials)
                return messages.Certified(asked.number, chain)
            case messages.Aside():
                return await self._aside(asked)

    async def _prove(self, asked: messages.Prove) -> messages.Told:
        caller = await self._ground.proxies.authenticator.authenticate(asked.credentials)
        self._proven[caller] = None
        self._proven.move_to_end(caller)
        while len(self._proven) > MOST_PROVEN:
            self._proven.popitem(last=False)
        return messages.Proven(asked.number, caller)

    async def _aside(self, asked: messages.Aside) -> messages.Told:
        asides = self._ground.asides()
        if asides is None or asked.caller not in self._proven:
            raise debugstreams.Refused("PERMISSION_DENIED", "nobody was proven")
        nonce, content = await asides.answer(asked.request, asked.caller, flavour=asked.flavour)
        return messages.Answered(asked.number, nonce, content)

    def _open(self, asked: messages.Open) -> None:
        number, caller, node = asked.number, asked.caller, asked.node
        objection = self._ground.admission.objection(caller)
        if caller not in self._proven:
            objection = "nobody was proven"
        if objection:
            self._refuse(number, nodes.NodeRefused.code, objection, status="RESOURCE_EXHAUSTED")
            return
        try:
            nodes.check(node, caller=caller)
            watch = self._ground.proxies.open(caller, node)
        except nodes.NodeRefused as error:
            self._refuse(number, error.code, error.happened, status=error.status)
            return
        except ads.NotReady as error:
            self._refuse(number, error.code, error.happened)
            return
        self._follow(asked, watch)

    def _follow(self, asked: messages.Open, watch: ProxyWatch[Scope]) -> None:
        number = asked.number
        # Its worker is told of changes, for all of its proxies at once.
        watch.heeds(snapshot.CLUSTERS, NOTHING)
        watch.on_change(functools.partial(self._moved, number))
        scopes = self._feed.see(watch.scopes)
        implied = self._ground.proxies.implied_of(watch.key)
        self._followed[number] = Followed(asked.caller, asked.node, watch, watch.scopes, implied)
        self.opened += 1
        self._send_in_order(messages.Opened(number, scopes, tuple(implied)))
        self._ground.came(admission.pod_of(asked.caller, asked.node), self, number)

    def _moved(self, number: int, changed: object) -> None:
        """Tell that a proxy sees other scopes, if it does."""
        del changed
        one = self._followed.get(number)
        if one is None or self._writer is None:
            return
        implied = self._ground.proxies.implied_of(one.watch.key)
        if one.watch.scopes == one.scopes and implied == one.implied:
            return
        scopes = self._feed.see(one.watch.scopes)
        # What nobody sees any more must not be told as gone: it is forgotten.
        self._feed.leave(one.scopes)
        one.scopes, one.implied = one.watch.scopes, implied
        self._send_in_order(messages.Moved(number, scopes, tuple(implied)))

    def _close(self, number: int) -> None:
        one = self._followed.pop(number, None)
        if one is None:
            return
        if self._writer is not None:
            self._feed.leave(one.scopes)
        tasks.attempt("forget a proxy", one.watch.close)
        self._ground.left(admission.pod_of(one.caller, one.node), self, number)
