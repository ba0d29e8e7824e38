"""What the HTTP front needs from authentication, authorization and streams.

It names the promises only. The rules of RBAC and the wire of exec live behind them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from aiohttp import web

    from isthmus.lab.apiserver.values import Attributes, Obj, User


class Security(Protocol):
    """Knows callers and what they may do."""

    async def authenticate(self, request: web.Request) -> User:
        """Return who sends `request`, or raise an `ApiError` 401."""

    async def authorize(self, user: User, attributes: Attributes) -> None:
        """Return when `user` may, or raise an `ApiError` 403."""


class Streams(Protocol):
    """Serves what flows between a client and a pod or service."""

    async def log(self, request: web.Request, pod: Obj) -> web.StreamResponse:
        """Send a container's output."""

    async def exec(self, request: web.Request, pod: Obj) -> web.StreamResponse:
        """Run a program in a container."""

    async def attach(self, request: web.Request, pod: Obj) -> web.StreamResponse:
        """Join a container's main program."""

    async def portforward(self, request: web.Request, pod: Obj) -> web.StreamResponse:
        """Carry connections to a pod's ports."""

    async def proxy(
        self, request: web.Request, obj: Obj, *, path: str, port: str
    ) -> web.StreamResponse:
        """Pass an HTTP request on to a pod, service or node."""
