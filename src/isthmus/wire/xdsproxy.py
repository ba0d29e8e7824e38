"""Carries a proxy's discovery stream to the control plane and adds the proof of who it is.

Bytes go through as they are. When either end closes, so does the other: the proxy then opens a
new stream, and with it the token and the roots are read again. An agent that answers its pod's
questions for names asks for the table of names on the same stream.

Source: spec section 4.3.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

import grpc

from isthmus.base import errors, logs, tasks
from isthmus.wire import dialing, nametables

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
METHODS = ("StreamAggregatedResources", "DeltaAggregatedResources")

_LOG = logs.Log("isthmus.xdsproxy")


def handler(
    target: Callable[[], dialing.Target], *, names: nametables.Take | None = None
) -> grpc.GenericRpcHandler:
    """Make the service, to be added to a gRPC server on a Unix socket.

    Args:
        target: Reads anew where the control plane is and what proves us to it.
        names: Takes tables of names; None asks for none.
    """
    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            method: grpc.stream_stream_rpc_method_handler(_carrier(method, target, names))
            for method in METHODS
        },
    )


def _carrier(
    method: str, target: Callable[[], dialing.Target], names: nametables.Take | None
) -> Callable[[AsyncIterator[bytes], grpc.aio.ServicerContext], object]:
    async def carry(requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> None:
        try:
            chosen = target()
        except errors.IsthmusError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, error.happened)
            return
        async with dialing.channel(chosen) as channel:
            call = channel.stream_stream(f"/{SERVICE}/{method}")(
                metadata=chosen.metadata(), wait_for_ready=True
            )
            try:
                talk = nametables.Talk(method, names) if names is not None else None
                await _carried(requests, context=context, call=call, talk=talk)
            except grpc.aio.AioRpcError as error:
                _LOG.warning(
                    "discovery stream ended; the proxy will open another",
                    server=chosen.server_name,
                    status=error.code().name,
                    reason=error.details(),
                )
                await context.abort(error.code(), error.details() or "")
            finally:
                call.cancel()

    return carry


async def _carried(
    requests: AsyncIterator[bytes],
    *,
    context: grpc.aio.ServicerContext,
    call: "grpc.aio.StreamStreamCall[bytes, bytes]",
    talk: nametables.Talk | None,
) -> None:
    # Two sides write when names are asked for, and a call takes one message at a time.
    writing = asyncio.Lock()

    async def say(content: bytes) -> None:
        async with writing:
            await call.write(content)

    async def upward() -> None:
        opening = talk
        try:
            async for request in requests:
                await say(request)
                if opening is not None:
                    # The first request must be the one that says whose stream this is.
                    await say(opening.begin())
                    opening = None
            await call.done_writing()
        except (grpc.aio.AioRpcError, grpc.aio.UsageError):
            # The other direction sees the same end and says why.
            return

    async with tasks.Nursery() as nursery:
        _ = nursery.start("discovery requests", upward())
        first = True
        async for answer in call:
            if first:
                _LOG.info("control plane answers")
                first = False
            said = talk.hear(answer) if talk is not None else None
            if said is None:
                await context.write(answer)
            else:
                await say(said)
