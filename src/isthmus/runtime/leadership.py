"""Elects, among the replicas of control planes, the one that writes into a cluster.

The lock is the annotation that Istio's own control plane uses, on a ConfigMap, changed by
compare-and-swap, so that both can share a cluster. A holder counts as gone when its record has
not changed for as long as it promised, by our own clock: nobody's clocks are compared. A leader
that cannot renew stops its work before anybody else may begin.

Source: spec section 6.6; drill 24.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from isthmus.base import clock, errors, logs, tasks
from isthmus.kube import client, kinds, problems

_LOG = logs.Log("isthmus.leadership")
NAMESPACE_LOCK = "istio-namespace-controller-election"
ANNOTATION = "control-plane.alpha.kubernetes.io/leader"
REMOTE_MARK = "^"
TTL_S = 30
RENEW_DEADLINE_S = 15.0
RENEW_S = 7.5
RETRY_S = 2.0
RELEASE_S = 2.0


class Record(msgspec.Struct, frozen=True, rename="camel"):
    """Who holds the lock."""

    holder_identity: str = ""
    holder_key: str = ""
    lease_duration_seconds: int = TTL_S
    acquire_time: str = ""
    renew_time: str = ""
    leader_transitions: int = 0


@dataclass(frozen=True, slots=True)
class Candidate:
    """Who stands for election.

    Attributes:
        identity: The pod.
        revision: The control plane's revision.
        is_remote: Whether the cluster is another than the candidate's own.
        is_default: Whether the revision is the default one.
    """

    identity: str
    revision: str = "default"
    is_remote: bool = False
    is_default: bool = True

    @property
    def key(self) -> str:
        """What the candidate writes as `holderKey`."""
        return f"{REMOTE_MARK if self.is_remote else ''}{self.revision}"


def may_take(record: Record, *, candidate: Candidate, unchanged_s: float) -> bool:
    """Tell whether a candidate may write itself into the lock.

    Args:
        record: What the lock holds.
        candidate: Who asks.
        unchanged_s: For how long the candidate has seen the record unchanged.
    """
    if not record.holder_identity or record.holder_identity == candidate.identity:
        return True
    if unchanged_s > record.lease_duration_seconds:
        return True
    held_remotely = record.holder_key.startswith(REMOTE_MARK)
    revision = record.holder_key.removeprefix(REMOTE_MARK)
    if not revision:
        return False
    if revision == candidate.revision:
        return held_remotely and not candidate.is_remote
    return candidate.is_default and revision != "default"


class Election:
    """Stands for election in one cluster and works while elected."""

    def __init__(
        self,
        writes: client.Client,
        candidate: Candidate,
        *,
        namespace: str,
        lock: str = NAMESPACE_LOCK,
        on_seen: Callable[[], None] = lambda: None,
        system_clock: clock.Clock | None = None,
    ) -> None:
        """Prepare; nothing is asked before `run`.

        Args:
            writes: The cluster.
            candidate: Who stands.
            namespace: Where the lock is.
            lock: Its name.
            on_seen: Called after each look at the lock.
            system_clock: Time.
        """
        self._writes = writes
        self._on_seen = on_seen
        self._candidate = candidate
        self._namespace = namespace
        self._lock = lock
        self._clock = system_clock or clock.SystemClock()
        self._seen: tuple[Record, float] | None = None
        self._renewed_at: float | None = None
        self._has_written = False

    def holds(self) -> bool:
        """Tell whether we lead: checked before every write, so that a stalled leader is mute."""
        return (
            self._renewed_at is not None
            and self._clock.monotonic() - self._renewed_at < RENEW_DEADLINE_S
        )

    def speaks(self) -> bool:
        """Tell whether nobody else leads those of our revision: we do, or another revision does."""
        if self.holds() or self._seen is None:
            return self.holds()
        revision = self._seen[0].holder_key.removeprefix(REMOTE_MARK)
        return bool(self._seen[0].holder_identity) and revision != self._candidate.revision

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Stand until cancelled; run `work` while elected, and give the lock back at the end."""
        try:
            while True:
                if await self._acquired():
                    await self._lead(work)
                await self._clock.sleep(RETRY_S)
        finally:
            await self._release()

    async def _lead(self, work: Callable[[], Awaitable[None]]) -> None:
        _LOG.info("leading", cluster=self._writes.access.name, lock=self._lock)
        async with tasks.Nursery(system_clock=self._clock) as nursery:
            _ = nursery.keep(f"work of {self._lock}", work)
            wait_s = RENEW_S
            while self.holds():
                await self._clock.sleep(wait_s)
                wait_s = RENEW_S if await self._acquired() else RETRY_S
        self._renewed_at = None
        _LOG.warning("no longer leading", cluster=self._writes.access.name, lock=self._lock)

    async def _acquired(self) -> bool:
        """Take or renew the lock if we may; a lost race or no answer is no lock."""
        acquired = await self._tried()
        self._on_seen()
        return acquired

    async def _tried(self) -> bool:
        began = self._clock.monotonic()
        try:
            stored = await self._writes.find(
                kinds.CONFIG_MAP, self._lock, namespace=self._namespace
            )
            record = _record(stored)
            if not may_take(
                record, candidate=self._candidate, unchanged_s=self._unchanged_s(record)
            ):
                self._renewed_at = None
                return False
            # An answer that nobody waits for any more does not undo the writing.
            self._has_written = True
            await self._write(stored, self._next(record))
        except errors.IsthmusError as error:
            if not (isinstance(error, problems.ApiError) and error.is_conflict):
                _LOG.debug("cannot reach the lock", lock=self._lock, error=error.happened)
            return False
        self._renewed_at = began
        return True

    def _unchanged_s(self, record: Record) -> float:
        now = self._clock.monotonic()
        if self._seen is None or self._seen[0] != record:
            self._seen = (record, now)
        return now - self._seen[1]

    def _next(self, record: Record) -> Record:
        now = self._clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        ours = record.holder_identity == self._candidate.identity
        return Record(
            holder_identity=self._candidate.identity,
            holder_key=self._candidate.key,
            acquire_time=record.acquire_time if ours else now,
            renew_time=now,
            leader_transitions=record.leader_transitions + (0 if ours else 1),
        )

    async def _write(self, stored: client.Obj | None, record: Record) -> None:
        text = msgspec.json.encode(record).decode()
        if stored is None:
            await self._writes.create(
                kinds.CONFIG_MAP,
                {
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": {
                        "name": self._lock,
                        "namespace": self._namespace,
                        "annotations": {ANNOTATION: text},
                    },
                },
            )
            return
        metadata = stored["metadata"]
        metadata["annotations"] = {**(metadata.get("annotations") or {}), ANNOTATION: text}
        # The resourceVersion that was read makes this a compare-and-swap.
        await self._writes.update(kinds.CONFIG_MAP, stored)

    async def _release(self) -> None:
        self._renewed_at = None
        if not self._has_written:
            return
        with contextlib.suppress(errors.IsthmusError, TimeoutError):
            async with asyncio.timeout(RELEASE_S):
                await self._free()

    async def _free(self) -> None:
        stored = await self._writes.find(kinds.CONFIG_MAP, self._lock, namespace=self._namespace)
        record = _record(stored)
        if stored is not None and record.holder_identity == self._candidate.identity:
            freed = msgspec.structs.replace(
                record, holder_identity="", holder_key="", lease_duration_seconds=1
            )
            await self._write(stored, freed)


def _record(stored: client.Obj | None) -> Record:
    annotations = ((stored or {}).get("metadata") or {}).get("annotations") or {}
    try:
        return msgspec.json.decode(annotations.get(ANNOTATION, "{}"), type=Record)
    except msgspec.DecodeError:
        # Nobody can renew what nobody can read.
        return Record()
