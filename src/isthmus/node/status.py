"""What the agent shows on its status port: readiness, statistics, the application's probes.

Source: spec section 4.1 (15020).
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from isthmus.base import logs
from isthmus.node import pages, probes, settings

LIVE = "0"
"""Envoy's word for a server that takes requests."""

NEEDED = (
    "cluster_manager.cds.update_success",
    "listener_manager.lds.update_success",
    "listener_manager.workers_started",
)
_FILTER = "|".join(("server.state", *NEEDED)).replace(".", "\\.")

OK, NOT_FOUND, UNREADY, FORBIDDEN = 200, 404, 503, 403

_LOG = logs.Log("isthmus.status")


@dataclass(slots=True)
class Status:
    """Answers on the status port.

    Attributes:
        has_certificate: Says whether there is a certificate that has not ended.
        is_leaving: Says whether the proxy was told to leave.
        quit: Makes the agent end, as after `/quitquitquit`.
        certificate_ends: Gives the end of the certificate in Unix seconds, or None.
        counted: Gives what else the agent counts, as Prometheus reads it.
    """

    wanted: settings.Settings
    has_certificate: Callable[[], bool]
    is_leaving: Callable[[], bool]
    quit: Callable[[], None]
    certificate_ends: Callable[[], float | None]
    counted: Callable[[], str] = str
    application: dict[str, probes.Probe] = field(default_factory=dict)
    _configured: bool = False

    async def answer(self, request: pages.Request) -> pages.Answer:
        """Answer one request."""
        match request.path:
            case "/healthz/ready":
                return await self._ready()
            case "/stats/prometheus" | "/metrics":
                return await self._statistics()
            case "/quitquitquit":
                return self._quit(request)
            case path if path in self.application:
                return await probes.asked(self.application[path])
            case _:
                return pages.Answer(NOT_FOUND, b"not found\n")

    async def _ready(self) -> pages.Answer:
        reason = await self._unready()
        if reason:
            return pages.Answer(UNREADY, reason.encode() + b"\n")
        if not self._configured:
            _LOG.info("proxy is ready")
            self._configured = True
        return pages.Answer(OK)

    async def _unready(self) -> str:
        """Say why no requests should come, or nothing."""
        if self.is_leaving():
            return "proxy is draining"
        if not self.has_certificate():
            return "no certificate yet"
        try:
            answer = await self._admin(f"/stats?filter=^({_FILTER})$")
        except pages.NoAnswer as error:
            return f"proxy does not answer: {error.detail}"
        found = dict(line.partition(": ")[::2] for line in answer.body.decode().splitlines())
        # Once configured, a proxy stays so: a reconnect to the control plane takes nothing away.
        missing = [name for name in NEEDED if found.get(name, "0") == "0"]
        if missing and not self._configured:
            return "not received yet: " + ", ".join(missing)
        state = found.get("server.state", "unknown")
        return "" if state == LIVE else f"proxy is not live, its state is {state}"

    async def _statistics(self) -> pages.Answer:
        parts = [self._own(), self.counted().encode()]
        try:
            parts.append((await self._admin("/stats/prometheus")).body)
        except pages.NoAnswer as error:
            _LOG.warning("proxy does not answer", reason=error.detail)
        scrape = self.wanted.scrape
        if str(scrape.get("scrape", "")).lower() == "true":
            parts.append(await self._scraped(str(scrape.get("port") or 80), scrape))
        return pages.Answer(OK, b"".join(parts), "text/plain; version=0.0.4; charset=utf-8")

    def _own(self) -> bytes:
        ends = self.certificate_ends()
        if ends is None:
            return b""
        name = "istio_agent_cert_expiry_timestamp"
        return (f'# TYPE {name} gauge\n{name}{{resource_name="default"}} {ends:.0f}\n').encode()

    async def _scraped(self, port: str, scrape: object) -> bytes:
        path = scrape.get("path") if isinstance(scrape, dict) else None
        if not port.isdigit() or int(port) == self.wanted.ports.status:
            return b""
        question = pages.Question(
            self.wanted.address, int(port), str(path or "/metrics"), source=probes.SOURCE
        )
        try:
            answer = await pages.ask(question)
        except pages.NoAnswer as error:
            _LOG.warning("application's metrics cannot be read", reason=error.detail)
            return b""
        return answer.body if answer.status == OK else b""

    def _quit(self, request: pages.Request) -> pages.Answer:
        if not request.is_local or request.method != "POST":
            return pages.Answer(FORBIDDEN, b"only POST from this machine\n")
        self.quit()
        return pages.Answer(OK, b"OK\n")

    async def _admin(self, path: str) -> pages.Answer:
        return await pages.ask(pages.Question("127.0.0.1", self.wanted.ports.admin, path))
