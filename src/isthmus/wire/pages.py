"""Pages in general: who serves them, where, and the one that says whether something is ready.

It decides nothing about what stands on them, and brings nothing along that a small program would
not want to load.
"""

import contextlib
import pathlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from aiohttp import web

Page = Callable[[web.Request], Awaitable[web.Response]]

SHUTDOWN_S: Final = 2.0
OWNER_ONLY: Final = 0o600


def ready_page(unready: Callable[[], str]) -> Page:
    """Return a page that says whether something can serve, and why not."""

    async def page(_request: web.Request) -> web.Response:
        reason = unready()
        return web.Response(status=503 if reason else 200, text=f"{reason}\n" if reason else "")

    return page


@contextlib.asynccontextmanager
async def listening(
    application: web.Application,
    *,
    host: str = "",
    port: int = 0,
    path: str = "",
    heard: socket.socket | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[int]:
    """Serve until the block ends: on a port, or on a Unix socket that only this user can open.

    Or on a socket that listens already; it is somebody else's, and is left open. Yields the port,
    which differs from `port` when that is 0.
    """
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    try:
        if path:
            _vacate(path)
            await web.UnixSite(runner, path).start()
            _close_to_others(path)
            yield 0
        elif heard is not None:
            await web.SockSite(runner, heard.dup(), ssl_context=tls).start()
            yield int(heard.getsockname()[1])
        else:
            await web.TCPSite(runner, host, port, ssl_context=tls).start()
            yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


def _vacate(path: str) -> None:
    # A container that starts again finds what the one before left.
    pathlib.Path(path).unlink(missing_ok=True)


def _close_to_others(path: str) -> None:
    pathlib.Path(path).chmod(OWNER_ONLY)
