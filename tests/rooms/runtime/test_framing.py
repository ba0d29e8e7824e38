"""Processes of one control plane: a message that cannot be read costs that message, or a new beginning."""

import asyncio

import msgspec
import pytest

from isthmus.runtime import framing
from isthmus.runtime.annex import messages

MOST_BYTES = 1000
FIRST, SECOND = messages.Counted(1, 2, 3, 4), messages.Counted(5, 6, 7, 8)
UNREADABLE = {
    "odd": (3).to_bytes(framing.LENGTH) + b"odd",
    "too large": (MOST_BYTES + 1).to_bytes(framing.LENGTH) + b"x" * (MOST_BYTES + 1),
    "nested": (900).to_bytes(framing.LENGTH) + b"\x91" * 900,
    "of another kind": framing.framed(msgspec.defstruct("Odd", ["number"], tag=True)(1)),
}


async def heard(*told, **ways):
    reader = asyncio.StreamReader()
    for each in told:
        reader.feed_data(each)
    reader.feed_eof()
    decoder = msgspec.msgpack.Decoder(messages.Told)
    found = framing.heard(reader, decoder, most_bytes=MOST_BYTES, **ways)
    return [message async for message in found]


@pytest.mark.parametrize("unreadable", UNREADABLE.values(), ids=UNREADABLE)
async def test_a_message_that_cannot_be_read_is_left_out(unreadable):
    told = (framing.framed(FIRST), unreadable, framing.framed(SECOND))

    assert await heard(*told) == [FIRST, SECOND]


@pytest.mark.parametrize("unreadable", UNREADABLE.values(), ids=UNREADABLE)
async def test_it_is_the_last_where_what_follows_means_nothing_without_it(unreadable):
    told = (framing.framed(FIRST), unreadable, framing.framed(SECOND))

    assert await heard(*told, leaves_out=False) == [FIRST]


async def test_the_other_side_may_end_in_the_middle_of_a_message():
    assert await heard(framing.framed(FIRST), framing.framed(SECOND)[:-1]) == [FIRST]
