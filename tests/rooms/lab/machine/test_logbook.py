"""What is kept of a container's output."""

import asyncio

from isthmus.base import clock
from isthmus.lab.machine import logbook


def book():
    return logbook.Logbook(clock.SystemClock())


async def lines(kept, **options):
    return [line async for line in kept.read(**options)]


async def test_output_becomes_lines_however_it_was_cut():
    kept = book()
    kept.feed("stdout", b"one\ntw")
    kept.feed("stderr", b"other\n")
    kept.feed("stdout", b"o\n")

    assert await lines(kept) == [b"one\n", b"other\n", b"two\n"]


async def test_what_lacks_a_line_break_shows_when_the_run_ends():
    kept = book()
    kept.feed("stdout", b"last words")
    assert await lines(kept) == []

    kept.close()
    assert await lines(kept) == [b"last words"]


async def test_a_tail_is_the_end():
    kept = book()
    kept.feed("stdout", b"1\n2\n3\n")

    assert await lines(kept, tail=2) == [b"2\n", b"3\n"]
    assert await lines(kept, tail=0) == []


async def test_a_follower_sees_what_comes_until_the_end():
    kept = book()
    kept.feed("stdout", b"1\n")
    follower = kept.read(follow=True)
    assert await anext(follower) == b"1\n"

    asyncio.get_running_loop().call_soon(kept.feed, "stdout", b"2\n")
    assert await anext(follower) == b"2\n"
    asyncio.get_running_loop().call_soon(kept.close)
    assert [line async for line in follower] == []


async def test_the_oldest_lines_go_when_there_is_too_much():
    kept = book()
    for _ in range(5):
        kept.feed("stdout", b"x" * (logbook.MOST_BYTES // 4) + b"\n")

    assert 0 < len(await lines(kept)) < 5
