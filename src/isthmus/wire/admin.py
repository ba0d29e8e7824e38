"""Pages about the control plane itself: is it ready, its metrics, and what it knows.

What it knows is shown on a Unix socket, to whoever may enter the container, and on the monitoring
port to whoever proves who they are. A port on loopback proves nothing: everything in the pod's
network, and every forwarded port, comes from there.

Source: spec section 9.1; security rules of section 4.8; docs/decisions/0014.
"""

import http
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from isthmus.base import errors, logs, version
from isthmus.wire import callers, debugging, pages, peers

_LOG = logs.Log("isthmus.admin")

REGISTRATION: Final = "/v1/registration"
"""Was always laid out in lines, so that people could search it with grep."""
VERSION_AS_ASKED: Final = "//version"
"""How `istioctl version` asks; Istio's own server takes two slashes for one."""

MOST_BYTES: Final = 64 * 1024
LOOPBACK: Final = frozenset({"127.0.0.1", "::1"})
WHO: Final = "prove who you are: send a token of a service account with audience `istio-ca`\n"


@dataclass(frozen=True, slots=True)
class Pages:
    """The pages of one control plane.

    Attributes:
        unready: Says why it cannot serve yet; empty when it can.
        metrics_text: All metrics in the text exposition format.
    """

    desk: debugging.Desk
    unready: Callable[[], str]
    metrics_text: Callable[[], str]

    def public(self) -> web.Application:
        """Return the pages for everybody: `/ready`, `/version`, `/metrics`."""
        application = web.Application(client_max_size=MOST_BYTES)
        application.router.add_get("/ready", pages.ready_page(self.unready))
        application.router.add_get("/version", _version)
        application.router.add_get(VERSION_AS_ASKED, _version)
        application.router.add_get("/metrics", self._metrics)
        return application

    def private(self) -> web.Application:
        """Return all pages; only for a Unix socket."""

        async def everybody(_: web.Request) -> debugging.Viewer:
            return debugging.EVERYTHING

        return self._with_debug(everybody)

    def guarded(
        self, authenticator: callers.Authenticator, *, trusts_loopback: bool = False
    ) -> web.Application:
        """Return all pages; those about what is known for callers who prove who they are."""

        async def proven(request: web.Request) -> debugging.Viewer:
            if trusts_loopback and request.remote in LOOPBACK:
                return debugging.EVERYTHING
            caller = await _caller(request, authenticator, own=self.desk.own_cluster)
            if self.desk.is_busy_with(caller):
                raise web.HTTPTooManyRequests(text=debugging.TOO_MANY)
            return self.desk.viewer(caller)

        return self._with_debug(proven)

    def _with_debug(
        self, viewer_of: Callable[[web.Request], Awaitable[debugging.Viewer]]
    ) -> web.Application:
        async def debug(request: web.Request) -> web.Response:
            viewer = await viewer_of(request)
            target = request.match_info.get("name", "")
            await self.desk.gather()
            return _shown(self.desk.answer(f"{target}?{request.query_string}", viewer))

        async def registration(request: web.Request) -> web.Response:
            return _shown(self.desk.registration(await viewer_of(request)))

        application = self.public()
        for path in ("/debug", "/debug/", "/debug/{name}"):
            application.router.add_get(path, debug)
        application.router.add_get(REGISTRATION, registration)
        return application

    async def _metrics(self, _request: web.Request) -> web.Response:
        headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        await self.desk.gather(with_streams=False)
        return web.Response(text=self.metrics_text(), headers=headers)


async def _caller(
    request: web.Request, authenticator: callers.Authenticator, *, own: str
) -> callers.Caller:
    """Return who asks, by the token of the request.

    Who names no cluster means the control plane's own, whose API server then reviews the token.
    """
    shown = peers.shown(request.headers.items(), verified={}, peer=str(request.remote))
    if shown.token and not shown.claimed_cluster:
        shown = callers.Credentials(shown.token, own, peer=shown.peer)
    try:
        return await authenticator.authenticate(shown)
    except callers.CallerRefused as error:
        _LOG.warning("caller of a page refused", peer=shown.peer, reason=error.happened)
        raise web.HTTPUnauthorized(text=WHO, headers={"WWW-Authenticate": "Bearer"}) from error
    except (errors.IsthmusError, TimeoutError) as error:
        raise web.HTTPServiceUnavailable(text="nobody can judge your token now\n") from error


async def _version(_: web.Request) -> web.Response:
    # Version, revision and status with dashes between, as Istio's clients take it apart.
    return web.Response(text=f"{version.VERSION}-isthmus-Clean")


def _shown(answer: debugging.Answer) -> web.Response:
    kind = "application/json" if answer.is_json else "text/plain"
    return web.Response(status=http.HTTPStatus(answer.status), text=answer.text, content_type=kind)
