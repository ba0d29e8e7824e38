"""Serves an application on sockets that are there already, and can make them fail for a while.

It decides what a client meets at a door that is not open: `refuses` resets whoever connects,
`hangs` takes connections and never says a word, as a firewall or a frozen machine would. Whoever
was inside is cut off at once. What goes on behind the doors does not notice.
"""

import asyncio
import enum
import socket
import ssl
import struct
from collections.abc import Iterable, Mapping

from aiohttp import web

from isthmus.base import tasks
from isthmus.lab.apiserver import listening

_RESET = struct.pack("ii", 1, 0)


class Mode(enum.Enum):
    """What a client meets."""

    SERVES = "serves"
    REFUSES = "refuses"
    HANGS = "hangs"


class Doors:
    """An application's listening sockets, by name."""

    def __init__(
        self,
        app: web.Application,
        sockets: Mapping[str, socket.socket],
        *,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._app = app
        self._sockets = dict(sockets)
        self._context = context
        self._modes = dict.fromkeys(sockets, Mode.SERVES)
        self._sites: dict[str, web.SockSite] = {}
        self._waiters: dict[str, tasks.Nursery] = {}
        self._runner: web.AppRunner | None = None

    @property
    def modes(self) -> Mapping[str, Mode]:
        """What a client meets at each door."""
        return dict(self._modes)

    async def open(self) -> None:
        """Serve at all doors."""
        self._runner = await listening.listen(self._app, [])
        for name in self._sockets:
            await self._serve(name)

    async def turn(self, mode: Mode, names: Iterable[str]) -> None:
        """Make some doors serve or fail from now on."""
        for name in names:
            if self._modes[name] is mode:
                continue
            await self._leave(name)
            self._modes[name] = mode
            if mode is Mode.SERVES:
                await self._serve(name)
            else:
                waiter = self._waiters[name] = tasks.Nursery()
                _ = waiter.start(f"fail at {name}", _fail(self._sockets[name], mode))

    async def close(self) -> None:
        """Serve nobody any more."""
        for name in self._sockets:
            await self._leave(name)
        if self._runner is not None:
            await self._runner.cleanup()

    async def _serve(self, name: str) -> None:
        assert self._runner is not None
        # A copy: a site that ends closes its socket, and clients must not lose the door itself.
        site = web.SockSite(self._runner, self._sockets[name].dup(), ssl_context=self._context)
        await site.start()
        self._sites[name] = site

    async def _leave(self, name: str) -> None:
        waiter = self._waiters.pop(name, None)
        if waiter is not None:
            await waiter.close()
        site = self._sites.pop(name, None)
        if site is not None:
            await site.stop()
            self._cut_off(self._sockets[name].getsockname())

    def _cut_off(self, address: object) -> None:
        assert self._runner is not None
        assert self._runner.server is not None
        for one in self._runner.server.connections:
            if one.transport is not None and one.transport.get_extra_info("sockname") == address:
                one.transport.abort()


async def _fail(door: socket.socket, mode: Mode) -> None:
    loop = asyncio.get_running_loop()
    held: list[socket.socket] = []
    try:
        while True:
            client, _ = await loop.sock_accept(door)
            if mode is Mode.REFUSES:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                client.close()
            else:
                held.append(client)
    finally:
        for client in held:
            client.close()
