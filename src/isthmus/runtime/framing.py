"""How processes of one control plane talk: messages behind their length, on sockets that only they have.

Decides how a message is found in a stream of bytes, and what becomes of one that cannot be read. Knows
none of the messages: `annex.messages` and `fanout.messages` say which there are.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Final, TypeVar

import msgspec

from isthmus.base import logs

LENGTH: Final = 4
_SKIPPED_AT_ONCE: Final = 1 << 16
_ENCODER: Final = msgspec.msgpack.Encoder()
_LOG = logs.Log("isthmus.processes")

Message = TypeVar("Message")


def framed(message: msgspec.Struct) -> bytes:
    """Return a message as it is sent: its length, 4 bytes, and MessagePack."""
    content = _ENCODER.encode(message)
    return len(content).to_bytes(LENGTH) + content


async def heard(
    reader: asyncio.StreamReader,
    decoder: msgspec.msgpack.Decoder[Message],
    *,
    most_bytes: int,
    leaves_out: bool = True,
) -> AsyncIterator[Message]:
    """Yield each message until the other side is gone.

    Args:
        reader: Where they come from.
        decoder: Knows which there may be.
        most_bytes: A longer one cannot be read.
        leaves_out: Whether what follows one that cannot be read is worth as much without it. If
            not, such a message is the last: both sides begin anew.
    """
    while True:
        try:
            length = int.from_bytes(await reader.readexactly(LENGTH))
            is_large = length > most_bytes
            content = b"" if is_large else await reader.readexactly(length)
            if is_large and leaves_out:
                await _skip(reader, length)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        try:
            message = None if is_large else decoder.decode(content)
            reason = f"{length} bytes are more than {most_bytes}"
        except (msgspec.DecodeError, RecursionError) as error:
            message, reason = None, str(error)[:200]
        if message is not None:
            yield message
            continue
        _LOG.error("message of another process cannot be read", reason=reason, left_out=leaves_out)
        if not leaves_out:
            return


async def _skip(reader: asyncio.StreamReader, length: int) -> None:
    while length:
        length -= len(await reader.readexactly(min(length, _SKIPPED_AT_ONCE)))
