"""What is done for a running container: hooks, and what follows from its probes.

Decides when a container counts as started, ready or dead. Refuses to know how it is asked
(`probes`) and what its pod does then.
"""

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from isthmus.base import clock
from isthmus.lab.machine import containers, probes

Obj = dict[str, Any]

Event = Callable[[str, str, str], Awaitable[None]]
"""Records an event: its kind, reason and message."""

_HOOK_LIMIT_S = 600.0


def target(spec: Obj, container: containers.Container, network: int, pod_ip: str) -> probes.Target:
    """Return where a container is asked, from its node's network."""
    named = {
        port["name"]: port["containerPort"] for port in spec.get("ports") or () if port.get("name")
    }
    return probes.Target(network, pod_ip, named, container.execute)


async def act(hook: Obj, where: probes.Target, *, limit_s: float, clock_: clock.Clock) -> bool:
    """Do what a lifecycle hook says, for at most `limit_s` seconds; say whether it went well."""
    if "sleep" in hook:
        await clock_.sleep(min(float(hook["sleep"].get("seconds") or 0), limit_s))
        return True
    return (await probes.ask({**hook, "timeoutSeconds": limit_s}, where)).good


@dataclass(frozen=True, slots=True)
class Care:
    """Looks after one run of a container.

    Attributes:
        grace_s: How long it may take to end when it is to be started anew.
    """

    spec: Obj
    container: containers.Container
    target: probes.Target
    grace_s: float
    clock: clock.Clock
    event: Event

    async def after_start(self) -> None:
        """Run the hook that follows the start; a failing one ends the container."""
        hook = (self.spec.get("lifecycle") or {}).get("postStart")
        if hook and not await act(hook, self.target, limit_s=_HOOK_LIMIT_S, clock_=self.clock):
            await self.event("Warning", "FailedPostStartHook", "PostStartHook failed")
            await self._kill("FailedPostStartHook")

    async def until_started(self) -> None:
        """Wait for the startup probe; when it takes too long, end the container."""
        probe = self.spec.get("startupProbe")
        if not probe:
            return
        period_s = float(probe.get("periodSeconds") or 10)
        limit_s = float(probe.get("initialDelaySeconds") or 0)
        limit_s += period_s * int(probe.get("failureThreshold") or 3)
        deadline = self.clock.monotonic() + limit_s

        async def failed(message: str) -> None:
            await self._unhealthy("Startup", message)
            if self.clock.monotonic() >= deadline:
                await self._kill("failed startup probe")

        await probes.until_good(probe, self.target, failed=failed, time=self.clock)

    async def readiness(self, judged: Callable[[bool], Awaitable[None]]) -> None:
        """Tell, for ever, whether it is ready; it is not at first."""
        probe = self.spec["readinessProbe"]

        async def failed(message: str) -> None:
            await self._unhealthy("Readiness", message)

        async def verdict(good: bool, message: str) -> None:
            await judged(good)
            if not good:
                await self._unhealthy("Readiness", message)

        await probes.until_good(probe, self.target, failed=failed, time=self.clock)
        await judged(True)
        await probes.follow(probe, self.target, was_good=True, judged=verdict, time=self.clock)

    async def liveness(self) -> None:
        """End it when it no longer lives; its pod starts it again."""
        probe = self.spec["livenessProbe"]

        async def verdict(good: bool, message: str) -> None:
            if not good:
                await self._unhealthy("Liveness", message)
                await self._kill("failed liveness probe, will be restarted")

        await self.clock.sleep(float(probe.get("initialDelaySeconds") or 0))
        await probes.follow(probe, self.target, was_good=True, judged=verdict, time=self.clock)

    async def _unhealthy(self, which: str, message: str) -> None:
        await self.event("Warning", "Unhealthy", f"{which} probe failed: {message}")

    async def _kill(self, why: str) -> None:
        await self.event("Normal", "Killing", f"Container {self.spec['name']} {why}")
        with contextlib.suppress(LookupError):
            await self.container.stop(self.grace_s)
