"""The aggregated discovery service: one gRPC stream per proxy, in both forms of the protocol.

A thin driver around `xds.session`: it proves the caller before it reads a byte, reads and writes
under limits, and tells the session what was heard and what changed. What a proxy should have is
decided by whoever implements `Discovery`. A slow proxy costs one set of names, never a queue.

Source: spec sections 4.4 and 4.6; security rules XA-1, XA-2 and XA-5.
"""

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Awaitable, Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NoReturn, Protocol

import grpc

from isthmus.base import clock, errors, logs, metrics, tasks
from isthmus.resources.snapshot import ADDRESSES, PREFIX, Snapshot, TypeUrl
from isthmus.wire import callers, counting, debugstreams, encoding, nodes, peers, streams
from isthmus.wire.limits import Limits as Limits
from isthmus.xds import messages, session
from isthmus.xds.messages import Flavour

SERVICE: Final = "envoy.service.discovery.v3.AggregatedDiscoveryService"
METHODS: Final[Mapping[str, Flavour]] = {
    "StreamAggregatedResources": Flavour.STATE_OF_THE_WORLD,
    "DeltaAggregatedResources": Flavour.DELTA,
}
MOST_ASIDES: Final = 100
"""Questions on one stream that is no proxy's."""

_LOG = logs.Log("isthmus.ads")

Changed = Mapping[TypeUrl, frozenset[str]]


class NotReady(errors.IsthmusError):
    """Nothing can be served yet: the mesh is not known well enough."""

    code = "ISM-XDS-002"


class Watch(Protocol):
    """What one proxy should have, from now until it is closed."""

    def snapshot(self) -> Snapshot:
        """Return what the proxy should have at this moment."""

    def on_change(self, wake: Callable[[Changed], None]) -> None:
        """Call `wake` with the names that may differ, whenever something changes."""

    def heeds(self, type_url: TypeUrl, names: frozenset[str]) -> None:
        """Of a type, call `wake` for changes of these names only; `*` stands for all.

        Before this was called for any type, it is called for every change.
        """

    def status(self, report: messages.Report) -> None:
        """Take note that the proxy accepted or refused an offer."""

    def close(self) -> None:
        """Forget the proxy."""


class Discovery(Protocol):
    """Knows who may connect, and what each proxy should have."""

    authenticator: callers.Authenticator

    def open(self, caller: callers.Caller, node: nodes.Node) -> Watch:
        """Begin to follow what a proxy should have.

        Raises:
            NodeRefused: It may not have anything (ISM-XDS-001).
            NotReady: It should come again (ISM-XDS-002).
        """


class _Ended(Exception):  # noqa: N818  # how a stream ends, no fault of ours
    def __init__(self, status: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class Service:
    """All discovery streams of this process."""

    def __init__(
        self,
        discovery: Discovery,
        *,
        limits: Limits | None = None,
        system_clock: clock.Clock | None = None,
        registered: metrics.Metrics | None = None,
    ) -> None:
        self.discovery = discovery
        self.limits = limits or Limits()
        self.clock = system_clock or clock.SystemClock()
        self.counters = counting.Counters(registered or metrics.Metrics())
        self.node_accounts: Container[tuple[str, str]] = ()
        """Those of node proxies, whose requests may be larger."""
        self.greeting: tuple[tuple[str, str], ...] = ()
        """What callers who are let in are told before they say anything; nothing where empty.

        A refusal that a client of gRPC's library meets while it writes is lost on it.
        """
        self.asides: debugstreams.Asides | None = None
        """Answers streams that are no proxy's; without it there are none."""
        self._opened = 0
        self._recent: deque[tuple[float, str]] = deque(maxlen=self.limits.streams_per_s)
        self._streams: dict[str, _Stream] = {}

    @property
    def opened(self) -> int:
        """How many streams there have been."""
        return self._opened

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the service, to be added to a gRPC server."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                name: grpc.stream_stream_rpc_method_handler(self._method(flavour))
                for name, flavour in METHODS.items()
            },
        )

    def statuses(self) -> tuple[streams.StreamStatus, ...]:
        """Return the status of every open stream, oldest first."""
        return tuple(
            stream.record.status(stream.talk.subscribed) for stream in self._streams.values()
        )

    def allowance(self, caller: callers.Caller) -> encoding.Allowance:
        """Return how large requests of a caller may be."""
        is_node = (caller.namespace, caller.service_account) in self.node_accounts
        return encoding.FOR_NODES if is_node else encoding.USUAL

    def end(self, stream_id: str, *, reason: str) -> None:
        """End one stream; its proxy will come again and must prove itself anew."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.stop("UNAVAILABLE", reason)

    def _method(
        self, flavour: Flavour
    ) -> Callable[[object, grpc.aio.ServicerContext], Awaitable[None]]:
        async def stream(_requests: object, context: grpc.aio.ServicerContext) -> None:
            try:
                await self._serve(context, flavour)
            except _Ended as ended:
                self.counters.refused.add(1, ended.status)
                await _abort(context, ended)

        return stream

    async def _serve(self, context: grpc.aio.ServicerContext, flavour: Flavour) -> None:
        credentials = _credentials(context)
        is_unplaced = bool(self.asides and credentials.token and not credentials.claimed_cluster)
        placed = self.asides.placed(credentials) if self.asides and is_unplaced else credentials
        caller = await self._proven(placed)
        # Only after the proof: whoever has none must not use up the share of those who have.
        self._admit(caller)
        if self.greeting:
            await context.send_initial_metadata(self.greeting)
        content = await _first(context, wait_s=self.limits.first_message_s)
        if content is None:
            return
        first, claim = _parsed(content, flavour, self.allowance(caller))
        if self.asides is not None and debugstreams.is_aside(first.type_url):
            await self._serve_aside(self.asides, context, first, caller, flavour)
            return
        if is_unplaced:
            # A proxy must say which cluster it is in, for that one to judge it.
            caller = await self._proven(credentials)
        if claim is None or not claim.id:
            raise _Ended("INVALID_ARGUMENT", "the first message must carry a node with an id")
        node, watch = self._opened_for(caller, claim)
        with contextlib.closing(watch):
            record = streams.Record(
                id=self._next_id(node),
                node=node,
                caller=caller,
                peer=str(context.peer() or ""),
                flavour=flavour,
                connected_at=self.clock.now(),
            )
            stream = _Stream(self, context=context, watch=watch, record=record)
            with self._listed(stream):
                await stream.run(first)

    def _admit(self, caller: callers.Caller) -> None:
        now = self.clock.monotonic()
        is_full = len(self._recent) == self._recent.maxlen
        if is_full and now - self._recent[0][0] < 1.0:
            raise _Ended("RESOURCE_EXHAUSTED", "too many new streams; come again")
        own = caller.pod_uid and sum(
            pod == caller.pod_uid and now - at < 1.0 for at, pod in self._recent
        )
        if own and own >= self.limits.pod_streams_per_s:
            raise _Ended("RESOURCE_EXHAUSTED", "too many new streams of one pod; come again")
        self._recent.append((now, caller.pod_uid))

    async def _serve_aside(
        self,
        asides: debugstreams.Asides,
        context: grpc.aio.ServicerContext,
        first: messages.Request,
        caller: callers.Caller,
        flavour: Flavour,
    ) -> None:
        request, newest = first, ""
        for _ in range(MOST_ASIDES):
            if not debugstreams.is_aside(request.type_url):
                raise _Ended("INVALID_ARGUMENT", "this stream asks for debug types only")
            if not newest or request.nonce != newest:
                try:
                    newest, content = asides.answer(request, caller, flavour=flavour)
                except debugstreams.Refused as error:
                    raise _Ended(error.status, error.text) from error
                async with asyncio.timeout(self.limits.write_s):
                    await context.write(content)
            heard = await _first(context, wait_s=self.limits.first_message_s)
            if heard is None:
                return
            request, _claim = _parsed(heard, flavour, encoding.USUAL)

    async def _proven(self, credentials: callers.Credentials) -> callers.Caller:
        try:
            async with asyncio.timeout(self.limits.proof_s):
                return await self.discovery.authenticator.authenticate(credentials)
        except callers.CallerRefused as error:
            _LOG.warning(
                "caller refused",
                peer=credentials.peer,
                reason=error.happened,
                detail=error.detail,
            )
            raise _Ended("UNAUTHENTICATED", "authentication failure") from error
        except (errors.IsthmusError, TimeoutError) as error:
            # Nobody could judge: the caller should come again, with the same proof.
            _LOG.warning("caller cannot be judged", peer=credentials.peer, reason=str(error))
            raise _Ended("UNAVAILABLE", "authentication is not possible now") from error

    def _opened_for(self, caller: callers.Caller, claim: nodes.Claim) -> tuple[nodes.Node, Watch]:
        try:
            node = nodes.parse(claim)
            nodes.check(node, caller=caller)
            return node, self.discovery.open(caller, node)
        except nodes.NodeRefused as error:
            _LOG.warning(
                "proxy refused",
                cluster=str(caller.cluster),
                namespace=caller.namespace,
                pod=caller.pod,
                reason=error.happened,
            )
            raise _Ended(error.status, error.happened) from error
        except NotReady as error:
            text = "server is not ready to serve discovery information"
            raise _Ended("UNAVAILABLE", f"{text}: {error.happened}") from error

    def _next_id(self, node: nodes.Node) -> str:
        self._opened += 1
        return f"{node.name}-{self._opened}"

    @contextlib.contextmanager
    def _listed(self, stream: "_Stream") -> Iterator[None]:
        record = stream.record
        same = [each for each in self._streams.values() if each.key == stream.key]
        for oldest in same[: max(len(same) + 1 - self.limits.streams_per_pod, 0)]:
            # The newest is the one that the proxy uses; an older one may be half dead.
            oldest.stop("ABORTED", "the same pod opened another stream")
        self._streams[record.id] = stream
        shown = record.node.version or record.node.envoy_version
        self.counters.connected.add(1, shown)
        _LOG.info("proxy connected", stream=record.id, cluster=str(record.caller.cluster))
        try:
            yield
        finally:
            del self._streams[record.id]
            self.counters.connected.add(-1, shown)
            if not self.counters.connected.values[(shown,)]:
                # A version is the client's own word: what nobody says any more takes no room.
                self.counters.connected.remove(shown)
            _LOG.info("proxy gone", stream=record.id, cluster=str(record.caller.cluster))


@dataclass(slots=True)
class _Stream:
    service: Service
    context: grpc.aio.ServicerContext = field(kw_only=True)
    watch: Watch = field(kw_only=True)
    record: streams.Record = field(kw_only=True)
    talk: session.Session = field(init=False)
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    changed: dict[TypeUrl, set[str]] = field(default_factory=dict)
    changed_at: float | None = None
    ended: _Ended | None = None
    is_over: bool = False

    def __post_init__(self) -> None:
        self.talk = session.Session(self.record.flavour)

    @property
    def key(self) -> tuple[str, ...]:
        """What counts as the same pod: what was proven, not what it says."""
        caller = self.record.caller
        if caller.pod_uid:
            return (caller.cluster, caller.pod_uid)
        return (
            caller.cluster,
            caller.namespace,
            caller.service_account,
            self.record.node.name,
        )

    def stop(self, status: str, text: str) -> None:
        """Let the stream end with a status."""
        self.ended = self.ended or _Ended(status, text)
        self.woken.set()

    async def run(self, first: messages.Request) -> None:
        """Talk until one side ends it."""
        self.watch.on_change(self._wake)
        self.talk.given(self.watch.snapshot())
        self._hear(first)
        async with tasks.Nursery() as nursery:
            _ = nursery.start(f"read {self.record.id}", self._read())
            try:
                if first.type_url == ADDRESSES:
                    await self._heard_more()
                async with asyncio.timeout(self._age_s() or None):
                    await self._write()
            except TimeoutError:
                self.ended = _Ended("UNAVAILABLE", "the stream is old; connect again")
        if self.ended is not None:
            raise self.ended

    async def _heard_more(self) -> None:
        """Give a node proxy time to ask for policies as well, so that it hears of these first.

        It lets in whom a policy keeps out of which it has heard the name alone.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.service.limits.together_s):
                await self.woken.wait()

    def _age_s(self) -> float:
        # Those that came together must not leave together.
        return self.service.limits.age_s * random.uniform(0.5, 1.5)

    def _wake(self, changed: Changed) -> None:
        if self.changed_at is None:
            self.changed_at = self.service.clock.monotonic()
        for type_url, names in changed.items():
            self.changed.setdefault(type_url, set()).update(names)
        self.woken.set()

    async def _read(self) -> None:
        try:
            while self.ended is None:
                content = await self.context.read()
                if content is grpc.aio.EOF:
                    break
                allowance = self.service.allowance(self.record.caller)
                self._hear(_parsed(content, self.record.flavour, allowance)[0])
                self.woken.set()
        except _Ended as ended:
            self.ended = ended
        finally:
            self.is_over = True
            self.woken.set()

    async def _write(self) -> None:
        while self._is_open():
            self.woken.clear()
            self._take_in()
            while self._is_open() and (offer := self.talk.next()) is not None:
                await self._send(offer)
                # The state may have moved on while the proxy was slow.
                self._take_in()
            self._count_convergence()
            if not self.woken.is_set():
                await self.woken.wait()

    def _count_convergence(self) -> None:
        if self.changed_at is not None and not self.changed:
            passed = self.service.clock.monotonic() - self.changed_at
            self.service.counters.convergence.observe(passed)
            self.changed_at = None

    def _is_open(self) -> bool:
        return self.ended is None and not self.is_over

    def _take_in(self) -> None:
        if self.changed:
            changed = {type_url: frozenset(names) for type_url, names in self.changed.items()}
            self.changed = {}
            self.talk.given(self.watch.snapshot(), changed)

    async def _send(self, offer: messages.Offer) -> None:
        content = encoding.response(offer, flavour=self.record.flavour)
        self.record.sent(offer, now=self.service.clock.now())
        counters, kind = self.service.counters, _short(offer.type_url)
        counters.pushes.add(1, kind)
        counters.size.observe(len(content), kind)
        began = self.service.clock.monotonic()
        deadline = asyncio.timeout(self.service.limits.write_s)
        try:
            async with deadline:
                await self.context.write(content)
            counters.send_time.observe(self.service.clock.monotonic() - began)
        except TimeoutError:
            if not deadline.expired():
                raise
            self.service.counters.write_timeouts.add()
            self.stop("DEADLINE_EXCEEDED", "the proxy does not read what it is sent")

    def _hear(self, request: messages.Request) -> None:
        for action in self.talk.heard(request):
            if isinstance(action, messages.Close):
                self.stop(action.code, action.message)
                return
            self._report(action)
        self.record.asked(request.type_url)
        self.watch.heeds(request.type_url, self.talk.heeds(request.type_url))

    def _report(self, report: messages.Report) -> None:
        outcome = report.outcome
        self.record.heard(outcome, now=self.service.clock.now())
        if isinstance(outcome, messages.Refused):
            self.service.counters.rejects.add(1, _short(outcome.type_url))
            _LOG.warning(
                "proxy refused an update",
                stream=self.record.id,
                cluster=str(self.record.caller.cluster),
                type=_short(outcome.type_url),
                resources=", ".join(outcome.names[:10]),
                reason=outcome.message[:500],
            )
        self.watch.status(report)


def _credentials(context: grpc.aio.ServicerContext) -> callers.Credentials:
    try:
        return peers.credentials(context)
    except callers.CallerRefused as error:
        _LOG.warning("caller refused", peer=str(context.peer()), reason=error.happened)
        raise _Ended("UNAUTHENTICATED", "authentication failure") from error


async def _first(context: grpc.aio.ServicerContext, *, wait_s: float) -> bytes | None:
    try:
        async with asyncio.timeout(wait_s):
            content = await context.read()
    except TimeoutError:
        raise _Ended("DEADLINE_EXCEEDED", f"no message within {wait_s:g} s") from None
    return None if content is grpc.aio.EOF else bytes(content)


def _parsed(
    content: bytes, flavour: Flavour, allowance: encoding.Allowance
) -> tuple[messages.Request, nodes.Claim | None]:
    try:
        return encoding.request(content, flavour=flavour, allowance=allowance)
    except encoding.MessageRefused as error:
        raise _Ended(error.status, str(error)) from error


def _short(type_url: TypeUrl) -> str:
    # A label of a metric must not be the client's to choose freely.
    return streams.SHORT.get(type_url, "other") if type_url.startswith(PREFIX) else "other"


async def _abort(context: grpc.aio.ServicerContext, ended: _Ended) -> NoReturn:
    await context.abort(grpc.StatusCode[ended.status], ended.text)
    raise AssertionError("abort raises")
