"""Keeps the keys of those who issue tokens current, and hands them to the compiler.

Keys that cannot be fetched again stay for a week, as with Istio; then nobody is believed by them.
Where none were had yet, it is tried again soon, and no token is believed meanwhile.

Source: Istio's JWKS resolver; decision 0037.
"""

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from isthmus.base import clock, errors, logs, metrics, tasks
from isthmus.engine import changes
from isthmus.kube import tls
from isthmus.mesh.authentication import KeySource
from isthmus.registry import key_sets
from isthmus.runtime import assembly
from isthmus.wire import key_sets as door

_LOG = logs.Log("isthmus.key_sets")

UNAVAILABLE: Final = "ISM-RUN-012"
SOONEST_S: Final = 1.0
RETRY_S: Final = 60.0
KEPT_S: Final = 7 * 24 * 3600.0
SETTLING_S: Final = 15.0
AT_ONCE: Final = 16
MORE_ROOTS: Final = "/cacerts/extra.pem"
"""Where Istio's chart mounts certificates of issuers that nobody outside signs for."""

METADATA: Final = tuple(
    ipaddress.ip_network(text) for text in ("100.100.100.200/32", "fd00:ec2::/32", "64:ff9b::/96")
)
"""What clouds tell about machines, where that is not link-local; and ways around such lists."""

Fetch = Callable[[KeySource], Awaitable[str]]
"""Returns what is at a place; raises `IsthmusError` where nothing is."""


@dataclass(slots=True)
class _Known:
    """What became of one source.

    Attributes:
        due: When it is fetched next.
        got: When that last succeeded; None before.
    """

    due: float = 0.0
    got: float | None = None
    failures: int = 0
    fault: str = ""


class KeySets:
    """Fetches what the mesh wants, again and again."""

    def __init__(  # each is an independent choice
        self,
        mesh: assembly.Mesh,
        *,
        fetch: Fetch,
        refresh_s: float,
        registered: metrics.Metrics,
        system_clock: clock.Clock,
    ) -> None:
        self._mesh = mesh
        self._nodes = mesh.model.key_sets
        self._fetch = fetch
        self._refresh_s = refresh_s
        self._clock = system_clock
        self._known: dict[KeySource, _Known] = {}
        self._wanted: tuple[KeySource, ...] = ()
        self._woken = asyncio.Event()
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._settling_since: float | None = None
        self._is_settled = False
        self._had = registered.counter(
            "pilot_jwks_resolver_network_fetch_success_total",
            "Sets of keys that were fetched from those who issue tokens.",
        )
        self._failed = registered.counter(
            "pilot_jwks_resolver_network_fetch_fail_total",
            "Sets of keys that could not be fetched.",
        )
        mesh.graph.listen(self._published)

    @property
    def is_settled(self) -> bool:
        """Whether each set was tried once, or nobody should wait any longer; then always."""
        if self._is_settled:
            return True
        now = self._clock.monotonic()
        if self._settling_since is None:
            self._settling_since = now
        wanted = self._mesh.graph.value(self._nodes.wanted)
        is_tried = all(self._is_tried(one) for one in wanted)
        self._is_settled = is_tried or now - self._settling_since > SETTLING_S
        return self._is_settled

    def _is_tried(self, source: KeySource) -> bool:
        one = self._known.get(source)
        return one is not None and (one.got is not None or bool(one.failures))

    async def run(self) -> None:
        """Fetch until cancelled: at once what is new, and else when it is due."""
        while True:
            self._woken.clear()
            await self.look()
            due = min((one.due for one in self._known.values()), default=None)
            wait_s = None if due is None else max(due - self._clock.monotonic(), 0.0)
            try:
                async with asyncio.timeout(wait_s):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def look(self) -> None:
        """Fetch all that is due, and forget what nobody wants any more."""
        wanted = self._mesh.graph.value(self._nodes.wanted)
        self._forget(set(wanted))
        now = self._clock.monotonic()
        due = [one for one in wanted if self._known.setdefault(one, _Known()).due <= now]
        # What goes wrong with one issuer must not keep the keys of others away.
        async with tasks.Nursery(system_clock=self._clock) as nursery:
            for source in due:
                self._known[source].due = now + RETRY_S
            name = "fetch keys"
            begun = [nursery.start(name, self._refresh(source)) for source in due]
            if begun:
                _ = await asyncio.wait(begun)

    def findings(self) -> list[errors.Finding]:
        """Say whose keys cannot be had at present."""
        return [
            errors.Finding(
                UNAVAILABLE,
                f"issuer `{source.issuer[:200]}`",
                f"its keys cannot be fetched: {one.fault}",
                still_working="its last keys are used"
                if one.got is not None
                else "requests without a token of it; those with one are refused",
                hint=f"the control plane tries again; ask `{(source.uri or source.issuer)[:200]}`"
                " from its pod",
            )
            for source, one in sorted(self._known.items())
            if one.fault
        ]

    async def _refresh(self, source: KeySource) -> None:
        one = self._known[source]
        async with self._at_once:
            try:
                keys = key_sets.known(await self._fetch(source))
                fault = "" if keys else "what is there is no set of keys"
            except errors.IsthmusError as error:
                keys, fault = "", error.happened
        now = self._clock.monotonic()
        if not fault:
            self._had.add()
            one.due, one.got, one.failures, one.fault = now + self._refresh_s, now, 0, ""
            self._tell(source, keys)
            return
        self._failed.add()
        if fault != one.fault:
            _LOG.warning("keys of tokens not fetched", issuer=source.issuer[:200], reason=fault)
        soon_s = min(SOONEST_S * 2**one.failures, RETRY_S)
        one.due, one.failures, one.fault = now + soon_s, min(one.failures + 1, 16), fault
        if one.got is not None and now - one.got > KEPT_S:
            one.got = None
            self._tell(source, "")

    def _tell(self, source: KeySource, keys: str) -> None:
        if source in self._known:
            with self._mesh.graph.transaction() as transaction:
                transaction.put(self._nodes.fetched, source, keys)

    def _forget(self, wanted: set[KeySource]) -> None:
        gone = [source for source in self._known if source not in wanted]
        for source in gone:
            del self._known[source]
        if not gone:
            return
        with self._mesh.graph.transaction() as transaction:
            for source in gone:
                transaction.delete(self._nodes.fetched, source)

    def _published(self, batch: changes.Changes) -> None:
        del batch
        wanted = self._mesh.graph.value(self._nodes.wanted)
        if wanted != self._wanted:
            self._wanted = wanted
            self._woken.set()


def confined(blocked: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> door.Forbidden:
    """Return what says which addresses nobody may make the control plane ask.

    Its own and its machine's are, and what clouds tell about machines; networks of the cluster
    are not, where many an issuer is; `blocked` are more of them.
    """

    def forbidden(text: str) -> str:
        why = tls.forbidden(text)
        address = ipaddress.ip_address(text.partition("%")[0])
        address = getattr(address, "ipv4_mapped", None) or address
        if not why and any(address in one for one in METADATA):
            why = "a cloud's own"
        return why or ("blocked by a setting" if any(address in one for one in blocked) else "")

    return forbidden
