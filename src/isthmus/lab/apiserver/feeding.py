"""Sends a watch to one client for as long as both want it.

Decides when a bookmark is due, when time is up and when the client has gone; which events there
are, and how they are written, is the watch's own affair.
"""

import asyncio

from aiohttp import web

from isthmus.lab.apiserver import errors, watching

_LIVENESS_S = 5.0
_LONGEST_WATCH_S = 3600.0


async def feed(
    request: web.Request,
    response: web.StreamResponse,
    *,
    watch: watching.Watch,
    asked: watching.Wish,
    bookmark_s: float,
) -> None:
    """Write what has happened, then what happens, until time is up or the client is gone.

    Args:
        request: The client's.
        response: Prepared; is left open.
        watch: What is sent.
        asked: What the client wants of it.
        bookmark_s: How often an idle watch gets a bookmark.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + (asked.timeout_s or _LONGEST_WATCH_S)
    marked = loop.time()
    beginning = b"".join(watch.beginning())
    if beginning:
        await response.write(beginning)
    while not watch.feed.closed and loop.time() < end:
        # Looking up now and then notices clients that went away without a word.
        left = min(_LIVENESS_S, end - loop.time(), marked + bookmark_s - loop.time())
        if await watch.feed.wait(max(left, 0.01)):
            lines = b"".join(watch.lines(watch.feed.take()))
            if lines:
                await response.write(lines)
        elif asked.bookmarks and loop.time() >= marked + bookmark_s:
            marked = loop.time()
            await response.write(watch.bookmark())
        if request.transport is None or request.transport.is_closing():
            return
    await response.write(b"".join(watch.lines(watch.feed.take())))
    if watch.feed.overrun:
        await response.write(watching.failure(errors.expired("the watch fell too far behind")))
    elif asked.bookmarks and not watch.feed.closed:
        await response.write(watch.bookmark())
