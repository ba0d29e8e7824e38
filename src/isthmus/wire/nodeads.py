"""Serves discovery to the one Envoy of a node, from the tables of this process.

The only client is the proxy that the agent has started itself, over a Unix socket of its own, so
that nobody is asked who he is. It speaks the delta form; whatever it refuses is logged with its
own words, and it goes on with what it has.

Source: spec section 4.6; Envoy's documentation of ADS.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Final

import grpc

from isthmus.base import logs, tasks
from isthmus.resources.snapshot import Resource, Snapshot, TypeUrl
from isthmus.wire import ads, encoding, sds
from isthmus.xds import messages, session
from isthmus.xds.messages import Flavour

METHOD: Final = "DeltaAggregatedResources"
MOST_REASON: Final = 500
LAST_WORDS_S: Final = 0.1

_LOG = logs.Log("isthmus.nodeads")

Wake = Callable[[Mapping[TypeUrl, frozenset[str]]], None]
Change = tuple[TypeUrl, str, Resource | None]
"""A resource as it is now; None for one that is gone."""


class Table:
    """All that the proxy should have now; streams wait for its changes."""

    def __init__(self) -> None:
        self._by_type: dict[TypeUrl, dict[str, Resource]] = {}
        self._wakers: set[Wake] = set()
        self.refused: Mapping[str, str] = {}
        """The words of the proxy about what it has refused and not been told anew, by name."""

    def snapshot(self) -> Snapshot:
        """Return what the proxy should have; it follows later changes."""
        return Snapshot(self._by_type)

    def change(self, changes: Iterable[Change]) -> None:
        """Put, replace or remove resources, then wake every stream once."""
        names = dict[TypeUrl, set[str]]()
        for type_url, name, resource in changes:
            named = self._by_type.setdefault(type_url, {})
            if resource is None:
                named.pop(name, None)
            else:
                named[name] = resource
            names.setdefault(type_url, set()).add(name)
        told = {type_url: frozenset(some) for type_url, some in names.items()}
        anew = frozenset[str]().union(*told.values())
        self.refused = {name: why for name, why in self.refused.items() if name not in anew}
        for wake in tuple(self._wakers):
            wake(told)

    def follow(self, wake: Wake) -> Callable[[], None]:
        """Call `wake` with the names at each change, until the returned function is called."""
        self._wakers.add(wake)
        return lambda: self._wakers.discard(wake)

    def heard(self, outcome: messages.Accepted | messages.Refused) -> None:
        """Take note that the proxy works with an offer or does not."""
        if isinstance(outcome, messages.Accepted):
            return
        _LOG.warning(
            "node proxy refused an update",
            resources=", ".join(outcome.names[:10]),
            reason=outcome.message[:MOST_REASON],
        )
        self.refused = {**self.refused, **dict.fromkeys(outcome.names, outcome.message)}


def handler(table: Table) -> grpc.GenericRpcHandler:
    """Make the service, to be added to a gRPC server on a Unix socket."""

    async def stream(_requests: object, context: grpc.aio.ServicerContext) -> None:
        await _Stream(table, context).run()

    methods = {METHOD: grpc.stream_stream_rpc_method_handler(stream)}
    return grpc.method_handlers_generic_handler(ads.SERVICE, methods)


@contextlib.asynccontextmanager
async def serving(table: Table, shelf: sds.Shelf, *, socket: str) -> AsyncIterator[None]:
    """Serve configuration and secrets to the one Envoy of a node, both on one socket."""
    server = grpc.aio.server(handlers=(handler(table), sds.handler(shelf)))
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(LAST_WORDS_S)


class _Stream:
    """One talk with the proxy."""

    def __init__(self, table: Table, context: grpc.aio.ServicerContext) -> None:
        self._table = table
        self._context = context
        self._talk = session.Session(Flavour.DELTA)
        self._woken = asyncio.Event()
        self._changed: dict[TypeUrl, set[str]] = {}
        self._is_over = False

    async def run(self) -> None:
        """Talk until the proxy ends it."""
        unfollow = self._table.follow(self._wake)
        self._talk.given(self._table.snapshot())
        try:
            async with tasks.Nursery() as nursery:
                _ = nursery.start("requests of the node's proxy", self._read())
                await self._write()
        finally:
            unfollow()

    def _wake(self, changed: Mapping[TypeUrl, frozenset[str]]) -> None:
        for type_url, names in changed.items():
            self._changed.setdefault(type_url, set()).update(names)
        self._woken.set()

    async def _read(self) -> None:
        try:
            while (content := await self._context.read()) is not grpc.aio.EOF:
                request, _ = encoding.request(content, flavour=Flavour.DELTA)
                if not self._hear(request):
                    break
                self._woken.set()
        finally:
            self._is_over = True
            self._woken.set()

    def _hear(self, request: messages.Request) -> bool:
        for action in self._talk.heard(request):
            if isinstance(action, messages.Close):
                _LOG.warning("node proxy breaks the protocol", reason=action.message)
                return False
            self._table.heard(action.outcome)
        return True

    async def _write(self) -> None:
        while self._is_open():
            self._woken.clear()
            self._take_in()
            while self._is_open() and (offer := self._talk.next()) is not None:
                await self._context.write(encoding.response(offer, flavour=Flavour.DELTA))
                self._take_in()
            if not self._woken.is_set():
                await self._woken.wait()

    def _is_open(self) -> bool:
        return not self._is_over

    def _take_in(self) -> None:
        if self._changed:
            changed = {kind: frozenset(names) for kind, names in self._changed.items()}
            self._changed = {}
            self._talk.given(self._table.snapshot(), changed)
