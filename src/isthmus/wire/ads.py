"""The aggregated discovery service: one gRPC stream per proxy, in both forms of the protocol.

It proves the caller before it reads a byte, lets in as many as its limits say, and hands the
stream over to a talk of `talks`. What a proxy should have is decided by whoever implements
`Discovery`.

Source: spec sections 4.4 and 4.6; security rules XA-1, XA-2 and XA-5.
"""

import asyncio
import inspect
import itertools
from collections.abc import Awaitable, Callable, Container, Iterator, Mapping
from typing import Final, NoReturn, Protocol

import grpc

from isthmus.base import clock, errors, logs, metrics
from isthmus.wire import (
    admission,
    callers,
    counting,
    debugstreams,
    encoding,
    nodes,
    patience,
    peers,
    polling,
    streams,
    talks,
)
from isthmus.wire.h2 import calls
from isthmus.wire.limits import Limits as Limits
from isthmus.xds import messages
from isthmus.xds.messages import Flavour

SERVICE: Final = "envoy.service.discovery.v3.AggregatedDiscoveryService"
METHODS: Final[Mapping[str, Flavour]] = {
    "StreamAggregatedResources": Flavour.STATE_OF_THE_WORLD,
    "DeltaAggregatedResources": Flavour.DELTA,
}
MOST_ASIDES: Final = 100
"""Questions on one stream that is no proxy's."""

_LOG = logs.Log("isthmus.ads")

Changed = talks.Changed
Watch = talks.Watch


class NotReady(errors.IsthmusError):
    """Nothing can be served yet: the mesh is not known well enough."""

    code = "ISM-XDS-002"


class Discovery(Protocol):
    """Knows who may connect, and what each proxy should have."""

    authenticator: callers.Authenticator

    def open(self, caller: callers.Caller, node: nodes.Node) -> Watch | Awaitable[Watch]:
        """Begin to follow what a proxy should have, perhaps after somebody was asked.

        Raises:
            NodeRefused: It may not have anything (ISM-XDS-001).
            NotReady: It should come again (ISM-XDS-002).
        """


class Asides(Protocol):
    """Answers questions on streams that are no proxy's."""

    def placed(self, credentials: callers.Credentials) -> callers.Credentials:
        """Return the credentials of who names no cluster."""

    async def answer(
        self, request: messages.Request, caller: callers.Caller, *, flavour: Flavour
    ) -> tuple[str, bytes]:
        """Return the nonce and the message that answer a request.

        Raises:
            debugstreams.Refused: The caller may not see this, or does not say what.
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
        self._ground = talks.Ground(self.limits, self.counters, system_clock=self.clock)
        self.greeting: tuple[tuple[str, str], ...] = ()
        """What callers who are let in are told before they say anything; nothing where empty.

        A refusal that a client of gRPC's library meets while it writes is lost on it.
        """
        self.asides: Asides | None = None
        """Answers streams that are no proxy's; without it there are none."""
        self.numbers: Iterator[int] = itertools.count(1)
        """Tell streams of one proxy apart."""
        self._opened = 0
        self._admission = admission.Admission(self.limits, system_clock=self.clock)
        self.patience = patience.Patience(
            each=self.limits.streams_per_pod, seconds=self.limits.ready_s
        )
        self._talks: dict[str, talks.Talk] = {}
        self._of_pods: dict[tuple[str, ...], list[talks.Talk]] = {}

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
        return tuple(talk.status() for talk in self._talks.values())

    def followed(self) -> tuple[tuple[Watch, streams.StreamStatus], ...]:
        """Return the same with what each proxy should have."""
        return tuple((talk.watch, talk.status()) for talk in self._talks.values())

    def end(self, stream_id: str, *, reason: str) -> None:
        """End one stream; its proxy will come again and must prove itself anew."""
        talk = self._talks.get(stream_id)
        if talk is not None:
            talk.stop("UNAVAILABLE", reason)

    def end_those(self, watches: Container[Watch], *, status: str, reason: str) -> None:
        """End the streams of proxies that are followed by these."""
        for talk in [each for each in self._talks.values() if each.watch in watches]:
            talk.stop(status, reason)

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
        objection = self._admission.objection(caller)
        if objection:
            raise _Ended("RESOURCE_EXHAUSTED", objection)
        if self.greeting:
            await context.send_initial_metadata(self.greeting)
        content = await _first(context, wait_s=self.limits.first_message_s)
        if content is None:
            return
        first, claim = self._parsed(content, flavour)
        if self.asides is not None and debugstreams.is_aside(first.type_url):
            await self._serve_aside(self.asides, context, first, caller, flavour)
            return
        if is_unplaced:
            # A proxy must say which cluster it is in, for that one to judge it.
            caller = await self._proven(credentials)
        if claim is None or not claim.id:
            raise _Ended("INVALID_ARGUMENT", "the first message must carry a node with an id")
        node, watch = await self._opened_for(caller, claim)
        record = streams.Record(
            id=self._next_id(node),
            node=node,
            caller=caller,
            peer=str(context.peer() or ""),
            flavour=flavour,
            connected_at=self.clock.now(),
        )
        await self._talk(context, first, record=record, watch=watch)

    async def _talk(
        self,
        context: grpc.aio.ServicerContext | calls.Call,
        first: messages.Request,
        *,
        record: streams.Record,
        watch: Watch,
    ) -> None:
        way = context if isinstance(context, calls.Call) else polling.Polled(context)
        talk = talks.Talk(
            self._ground,
            way=way,
            watch=watch,
            record=record,
            gone=self._gone,
        )
        self._list(talk)
        try:
            talk.begin(first)
        except Exception:
            talk.lost()
            raise
        if isinstance(way, calls.Call):
            way.follow(talk)
            return
        status, text = await way.run(talk)
        if status != talks.FINE:
            await _abort(context, _Ended(status, text))

    async def _serve_aside(
        self,
        asides: Asides,
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
                    newest, content = await asides.answer(request, caller, flavour=flavour)
                except debugstreams.Refused as error:
                    raise _Ended(error.status, error.text) from error
                async with asyncio.timeout(self.limits.write_s):
                    await context.write(content)
            heard = await _first(context, wait_s=self.limits.first_message_s)
            if heard is None:
                return
            request, _claim = self._parsed(heard, flavour)

    def _parsed(
        self, content: bytes, flavour: Flavour
    ) -> tuple[messages.Request, nodes.Claim | None]:
        try:
            return self._ground.opening(content, flavour=flavour)
        except encoding.MessageRefused as error:
            raise _Ended(error.status, str(error)) from error

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

    async def _opened_for(
        self, caller: callers.Caller, claim: nodes.Claim
    ) -> tuple[nodes.Node, Watch]:
        try:
            node = nodes.parse(claim)
            nodes.check(node, caller=caller)
            await self.patience.wait(admission.pod_of(caller, node))
            opened = self.discovery.open(caller, node)
            return node, await opened if inspect.isawaitable(opened) else opened
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
        return f"{node.name}-{next(self.numbers)}"

    def _list(self, talk: talks.Talk) -> None:
        record = talk.record
        same = self._of_pods.setdefault(talk.key, [])
        same.append(talk)
        for oldest in same[: max(len(same) - self.limits.streams_per_pod, 0)]:
            # The newest is the one that the proxy uses; an older one may be half dead.
            oldest.stop("ABORTED", "the same pod opened another stream")
        self._talks[record.id] = talk
        self.counters.connected.add(1, _shown(record))
        _LOG.info("proxy connected", stream=record.id, cluster=str(record.caller.cluster))

    def _gone(self, talk: talks.Talk) -> None:
        record, shown = talk.record, _shown(talk.record)
        del self._talks[record.id]
        same = self._of_pods[talk.key]
        same.remove(talk)
        if not same:
            del self._of_pods[talk.key]
        self.counters.connected.add(-1, shown)
        if not self.counters.connected.values[(shown,)]:
            # A version is the client's own word: what nobody says any more takes no room.
            self.counters.connected.remove(shown)
        _LOG.info("proxy gone", stream=record.id, cluster=str(record.caller.cluster))


def _shown(record: streams.Record) -> str:
    return record.node.version or record.node.envoy_version


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


async def _abort(context: grpc.aio.ServicerContext, ended: _Ended) -> NoReturn:
    await context.abort(grpc.StatusCode[ended.status], ended.text)
    raise AssertionError("abort raises")
