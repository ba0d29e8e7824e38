"""What the control plane and its annex say to each other.

Each message is MessagePack behind its length, over a pair of sockets that nobody else has.
"""

import asyncio
from typing import Final, TypeAlias, TypeVar

import msgspec

from isthmus.inject import settings as inject_settings
from isthmus.wire import notary

LENGTH: Final = 4
MOST_BYTES: Final = 8 << 20


class State(msgspec.Struct, frozen=True, tag=True):
    """All that the process works with, whole; a new one takes the place of the last.

    Attributes:
        authority: Files of the authority in force, by name; empty while there is none.
        chain_pem: The certificate to serve with; empty while there is none.
        injection: None while pods cannot be given proxies.
        unready: Why the control plane cannot serve yet; empty when it can.
        usual_s: How long certificates live; `longest_s` at most.
    """

    authority: dict[str, str]
    chain_pem: str
    key_pem: str
    injection: inject_settings.InjectionSettings | None
    unready: str
    usual_s: int
    longest_s: int


class Sign(msgspec.Struct, frozen=True, tag=True):
    """Asks for a certificate."""

    number: int
    wanted: notary.Wanted


class Signed(msgspec.Struct, frozen=True, tag=True):
    """Answers a question of that number; `fault` says why there is no chain."""

    number: int
    chain: tuple[str, ...]
    fault: notary.Unsigned | None = None


class Counted(msgspec.Struct, frozen=True, tag=True):
    """How many pods were asked about since the last time, and what became of them."""

    requests: int
    success: int
    failure: int
    skip: int


Asked: TypeAlias = State | Sign
Told: TypeAlias = Signed | Counted
Message = TypeVar("Message", Asked, Told)

_ENCODER: Final = msgspec.msgpack.Encoder()


def framed(message: Asked | Told) -> bytes:
    """Return a message as it is sent."""
    content = _ENCODER.encode(message)
    return len(content).to_bytes(LENGTH) + content


async def received(
    reader: asyncio.StreamReader, decoder: msgspec.msgpack.Decoder[Message]
) -> Message | None:
    """Return the next message; None when the other side is gone."""
    try:
        length = int.from_bytes(await reader.readexactly(LENGTH))
        if length > MOST_BYTES:
            return None
        return decoder.decode(await reader.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionError, msgspec.DecodeError):
        return None
