"""Serves an application on sockets that are there already, with TLS or without.

It decides how large a request's lines may be and how long the end may take.
"""

import socket
import ssl
from collections.abc import Iterable

from aiohttp import web

_LONGEST_LINE = 1 << 20  # as long as API servers take, so that long selectors are read


async def listen(
    app: web.Application, sockets: Iterable[socket.socket], *, context: ssl.SSLContext | None = None
) -> web.AppRunner:
    """Serve `app` on listening sockets; call `cleanup` of what is returned to stop."""
    runner = web.AppRunner(
        app,
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=1.0,
        max_line_size=_LONGEST_LINE,
        max_field_size=_LONGEST_LINE,
    )
    await runner.setup()
    for one in sockets:
        site = web.SockSite(runner, one, ssl_context=context)
        await site.start()
    return runner
