"""Looks up the names of gateways, again and again, and hands the addresses to the compiler.

A name that cannot be looked up keeps the addresses that it had: a name server that is away takes
no gateway away. Addresses that no traffic may be sent to do not count.

Source: spec section 3.3, "Hostname addresses"; drill 36.
"""

import asyncio
import concurrent.futures
import socket
from collections.abc import Awaitable, Callable

from isthmus.base import clock, errors, logs
from isthmus.engine import changes
from isthmus.registry import addresses
from isthmus.runtime import assembly

_LOG = logs.Log("isthmus.resolving")

NAME_UNKNOWN = "ISM-RUN-007"
EVERY_S = 30.0
DEADLINE_S = 10.0
AT_ONCE = 4

Lookup = Callable[[str], Awaitable[tuple[str, ...]]]
"""Returns the addresses of a name; raises `OSError` when there are none."""


class Resolver:
    """Keeps the addresses of gateways' names current."""

    def __init__(
        self,
        mesh: assembly.Mesh,
        *,
        lookup: Lookup | None = None,
        system_clock: clock.Clock | None = None,
    ) -> None:
        self._mesh = mesh
        self._lookup = lookup or _System().look_up
        self._clock = system_clock or clock.SystemClock()
        self._faults: dict[str, str] = {}
        self._names: tuple[str, ...] = ()
        self._woken = asyncio.Event()
        self._is_settled = False
        mesh.graph.listen(self._published)

    @property
    def is_settled(self) -> bool:
        """Whether each name was looked up once; from then on always."""
        known = self._mesh.graph.items(self._mesh.model.looked_up)
        self._is_settled = self._is_settled or all(
            name in known or name in self._faults
            for name in self._mesh.graph.value(self._mesh.model.gateway_names)
        )
        return self._is_settled

    async def run(self) -> None:
        """Look names up until cancelled: at once when one is new, else after a while."""
        while True:
            self._woken.clear()
            await self.look()
            try:
                async with asyncio.timeout(EVERY_S):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def look(self) -> None:
        """Look up every name once, and forget those that nobody asks for any more."""
        names = self._mesh.graph.value(self._mesh.model.gateway_names)
        async with asyncio.TaskGroup() as group:
            asked = {name: group.create_task(self._asked(name), name=name) for name in names}
        found = {name: answer for name, task in asked.items() if (answer := task.result())}
        known = self._mesh.graph.items(self._mesh.model.looked_up)
        gone = [name for name in known if name not in names]
        self._faults = {name: text for name, text in self._faults.items() if name in names}
        with self._mesh.graph.transaction() as transaction:
            for name, answer in found.items():
                transaction.put(self._mesh.model.looked_up, name, answer)
            for name in gone:
                transaction.delete(self._mesh.model.looked_up, name)

    def findings(self) -> list[errors.Finding]:
        """Say which names lead nowhere at present."""
        known = self._mesh.graph.items(self._mesh.model.looked_up)
        return [
            errors.Finding(
                NAME_UNKNOWN,
                f"gateway `{name}`",
                text,
                still_working="its last addresses are used" if name in known else "",
                hint="the control plane looks again every 30 seconds; is the name right?",
            )
            for name, text in sorted(self._faults.items())
        ]

    async def _asked(self, name: str) -> tuple[str, ...]:
        try:
            async with asyncio.timeout(DEADLINE_S):
                answer = await self._lookup(name)
        except (OSError, TimeoutError) as error:
            return self._failed(name, f"its name cannot be looked up: {type(error).__name__}")
        usable = tuple(sorted({one for one in answer if not addresses.fault_of(one)}))
        if not usable:
            return self._failed(name, "its name leads to no address that can be sent to")
        self._faults.pop(name, None)
        return usable

    def _failed(self, name: str, fault: str) -> tuple[str, ...]:
        if self._faults.get(name) != fault:
            _LOG.warning("gateway without addresses", name=name, reason=fault)
        self._faults[name] = fault
        return ()

    def _published(self, batch: changes.Changes) -> None:
        del batch
        names = self._mesh.graph.value(self._mesh.model.gateway_names)
        if names != self._names:
            self._names = names
            self._woken.set()


class _System:
    """Asks the name servers of this machine, with threads of its own: one that hangs harms none."""

    def __init__(self) -> None:
        self._threads = concurrent.futures.ThreadPoolExecutor(AT_ONCE, "lookup")

    async def look_up(self, name: str) -> tuple[str, ...]:
        # The final dot keeps search domains out.
        absolute = f"{name.rstrip('.')}."
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, _answers_of, absolute
        )


def _answers_of(name: str) -> tuple[str, ...]:
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return tuple(str(entry[4][0]) for entry in found)
