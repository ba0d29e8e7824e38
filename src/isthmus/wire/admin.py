"""Pages about the control plane itself: is it ready, its metrics, and what it knows.

What it knows is shown only on a Unix socket, to whoever may enter the container: a port on
loopback grants nothing. Keys and tokens are struck out of every document.

Source: spec section 9.1; security rules of section 4.8.
"""

import contextlib
import json
import pathlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from aiohttp import web

from isthmus.base import version

Document = object
"""What JSON can say."""

Page = Callable[[web.Request], Awaitable[web.Response]]

DEBUG: Final = (
    "clusterz",
    "syncz",
    "endpointz",
    "registryz",
    "networkz",
    "configz",
    "connections",
    "findings",
)
OF_PROXY: Final = ("config_dump", "edsz")
ALIASES: Final = {"/debug/endpointShardz": "endpointz"}
REGISTRATION: Final = "/v1/registration"
"""Was always laid out in lines, so that people could search it with grep."""
SECRET_KEYS: Final = frozenset({"private_key", "privateKey", "token", "password"})
MOST_BYTES: Final = 64 * 1024
SHUTDOWN_S: Final = 2.0
OWNER_ONLY: Final = 0o600
NOT_CONNECTED: Final = (
    "Proxy not connected to this Pilot instance. It may be connected to another instance.\n"
)


class Reports(Protocol):
    """What the control plane can say of itself; each answer is plain JSON."""

    def clusterz(self) -> Document:
        """Return the clusters that are watched."""

    def syncz(self) -> Document:
        """Return what each proxy was sent and has accepted."""

    def registration(self) -> Document:
        """Return all services with their instances, port by port."""

    def endpointz(self) -> Document:
        """Return the endpoints of all services by cluster."""

    def registryz(self) -> Document:
        """Return all services."""

    def networkz(self) -> Document:
        """Return the gateways of all networks."""

    def configz(self) -> Document:
        """Return the objects of Istio's API that are in use."""

    def connections(self) -> Document:
        """Return the proxies that are connected."""

    def findings(self) -> Document:
        """Return what is wrong with single objects."""

    def config_dump(self, proxy: str) -> Document | None:
        """Return what one proxy should have; None when it is not connected."""

    def edsz(self, proxy: str) -> Document | None:
        """Return the endpoints that one proxy should have; None when it is not connected."""


@dataclass(frozen=True, slots=True)
class Pages:
    """The pages of one control plane.

    Attributes:
        unready: Says why it cannot serve yet; empty when it can.
        metrics_text: All metrics in the text exposition format.
    """

    reports: Reports
    unready: Callable[[], str]
    metrics_text: Callable[[], str]

    def public(self) -> web.Application:
        """Return the pages for everybody: `/ready`, `/version`, `/metrics`."""
        application = web.Application(client_max_size=MOST_BYTES)
        application.router.add_get("/ready", ready_page(self.unready))
        application.router.add_get("/version", _page(lambda: {"version": version.VERSION}))
        application.router.add_get("/metrics", self._metrics)
        return application

    def private(self) -> web.Application:
        """Return all pages; only for a Unix socket."""
        application = self.public()
        sources = {name: _page(getattr(self.reports, name)) for name in DEBUG}
        sources |= {name: _page_of_proxy(getattr(self.reports, name)) for name in OF_PROXY}
        listed = sorted(f"/debug/{name}" for name in sources)
        for name, page in sources.items():
            application.router.add_get(f"/debug/{name}", page)
        for path, name in ALIASES.items():
            application.router.add_get(path, sources[name])
        application.router.add_get(REGISTRATION, _page(self.reports.registration, lines=True))
        for path in ("/debug", "/debug/list"):
            application.router.add_get(path, _page(lambda: listed))
        return application

    async def _metrics(self, _request: web.Request) -> web.Response:
        headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(text=self.metrics_text(), headers=headers)


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
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[int]:
    """Serve until the block ends, on a port or on a Unix socket that only this user can open.

    Yields the port, which differs from `port` when that is 0.
    """
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    try:
        if path:
            _vacate(path)
            await web.UnixSite(runner, path).start()
            _close_to_others(path)
            yield 0
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


def redacted(document: Document) -> Document:
    """Return a document without the values of keys and tokens."""
    if isinstance(document, Mapping):
        return {
            key: "[redacted]" if key in SECRET_KEYS else redacted(value)
            for key, value in document.items()
        }
    if isinstance(document, list | tuple):
        return [redacted(each) for each in document]
    return document


def _page(source: Callable[[], Document], *, lines: bool = False) -> Page:
    async def page(request: web.Request) -> web.Response:
        return _json(source(), lines=lines or "pretty" in request.query)

    return page


def _page_of_proxy(
    source: Callable[[str], Document | None],
) -> Page:
    async def page(request: web.Request) -> web.Response:
        proxy = request.query.get("proxyID", "")
        if not proxy:
            raise web.HTTPBadRequest(text="say which proxy: ?proxyID=<pod>.<namespace>\n")
        document = source(proxy)
        if document is None:
            raise web.HTTPNotFound(text=NOT_CONNECTED)
        return _json(document, lines="pretty" in request.query)

    return page


def _json(document: Document, *, lines: bool) -> web.Response:
    indent = 2 if lines else None
    separators = None if indent else (",", ":")
    text = json.dumps(redacted(document), indent=indent, separators=separators, default=str)
    return web.Response(text=text + "\n", content_type="application/json")
