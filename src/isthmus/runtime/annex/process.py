"""The annex as a program: hears the control plane on one socket, API servers on another.

It ends when the control plane does, by whatever that ends.
"""

import asyncio
import contextlib
import signal
import socket
from typing import Final

import msgspec

from isthmus.base import clock, logs, tasks
from isthmus.runtime import framing
from isthmus.runtime.annex import messages, works
from isthmus.wire import pages

COUNT_EVERY_S: Final = 0.5

_LOG = logs.Log("isthmus.annex")


async def run(talk: socket.socket, heard: socket.socket, *, system_clock: clock.Clock) -> None:
    """Answer until the other side of `talk` is gone; the webhook's callers come by `heard`."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # Whole groups of processes may be asked to end; the control plane still answers then.
        asyncio.get_running_loop().add_signal_handler(number, lambda: None)
    reader, writer = await asyncio.open_connection(sock=talk, limit=messages.MOST_BYTES)
    told = works.Works(system_clock)

    async def count() -> None:
        while True:
            await system_clock.sleep(COUNT_EVERY_S)
            counted = told.counted()
            if counted is not None:
                writer.write(framing.framed(counted))

    decoder = msgspec.msgpack.Decoder[messages.Asked](messages.Asked)
    async with contextlib.AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(tasks.Nursery(system_clock=system_clock))
        _ = nursery.keep("count pods", count)
        is_heard = False
        async for message in framing.heard(reader, decoder, most_bytes=messages.MOST_BYTES):
            if isinstance(message, messages.Sign):
                writer.write(framing.framed(told.sign(message)))
                # Those who ask for pods must not wait for everybody who asks for certificates.
                await asyncio.sleep(0)
                continue
            told.take(message)
            if told.serving is not None and not is_heard:
                is_heard = True
                context = told.serving.web_context()
                serving = pages.listening(told.hook.application(), heard=heard, tls=context)
                await stack.enter_async_context(serving)
                writer.write(framing.framed(messages.Listening()))
                _LOG.info("answering for pods")
        writer.close()
