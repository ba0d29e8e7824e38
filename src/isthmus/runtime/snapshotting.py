"""Keeps what is known of remote clusters where the next control plane finds it.

Only the leader writes, by compare-and-swap and only what changed: a cluster that has just come at
once, all others every few seconds at most. A new snapshot is whole before the old one goes; one
that is the same is stamped anew now and then, so that its age says when it was last true. That of a
cluster that left stays for a minute, or until another needs the room: should it come back, and we
end before we can write, the next control plane has something to go by. What is in a snapshot, and
who may be recalled from it, is decided by `fleet`.

Source: drill 03; docs/decisions/0012-snapshots-of-remote-clusters.md.
"""

import asyncio
import datetime
from collections.abc import Callable
from dataclasses import dataclass

from isthmus.base import clock, errors, logs
from isthmus.fleet import members, snapshots, supervisor
from isthmus.kube import client
from isthmus.mesh.identities import ClusterId
from isthmus.runtime import shelving

_LOG = logs.Log("isthmus.snapshots")
EVERY_S = 10.0
STAMP_S = 300.0
KEEP_LEFT_S = 60.0
NO_ROOM = "ISM-FLEET-021"


@dataclass(frozen=True, slots=True)
class _Saved:
    """What was last written of a cluster."""

    generation: int
    version: int
    at: float


class Snapshots:
    """Writes the snapshots of all remote clusters while we lead."""

    def __init__(
        self,
        fleet: supervisor.Supervisor,
        *,
        namespace: str,
        system_clock: clock.Clock,
        every_s: float = EVERY_S,
        keep_left_s: float = KEEP_LEFT_S,
    ) -> None:
        """Prepare; nothing is written before `run`.

        Args:
            fleet: The clusters.
            namespace: Where the ConfigMaps are.
            system_clock: Time.
            every_s: How long what changes in a cluster may wait.
            keep_left_s: How long the snapshot of a cluster that left stays.
        """
        self._fleet = fleet
        self._clock = system_clock
        self._every_s = every_s
        self._shelving = shelving.Shelving(
            snapshots.SHELF,
            namespace=namespace,
            system_clock=system_clock,
            keep_left_s=keep_left_s,
        )
        self._saved: dict[ClusterId, _Saved] = {}
        self._without_room: set[ClusterId] = set()
        self._joined = asyncio.Event()
        fleet.on_added(lambda cluster, _: self._note_joined(cluster))
        fleet.on_removed(self._note_left)

    def findings(self) -> list[errors.Finding]:
        """Name the clusters of which no snapshot can be kept."""
        return [
            errors.Finding(
                NO_ROOM,
                f"snapshot of cluster {cluster}",
                f"there is no room for it in {len(snapshots.SHELF.names)} ConfigMaps",
                still_working="the cluster itself; only a control plane that starts while its API"
                " server is away will not know it",
                hint="keep fewer pods or clusters behind one control plane",
            )
            for cluster in sorted(self._without_room)
        ]

    async def run(self, writes: client.Client, may_write: Callable[[], bool]) -> None:
        """Write until cancelled; to be run by the leader only."""
        self._saved.clear()
        await self._shelving.look(writes)
        # Before that, nobody can say which clusters have left.
        await self._fleet.ready.wait()
        while True:
            next_s = self._clock.monotonic() + self._every_s
            self._joined.clear()
            await self._save_all(writes, may_write)
            while await self._is_early_joined(next_s):
                await self._save_due(
                    writes, may_write, lambda link: link.cluster not in self._saved
                )

    async def _is_early_joined(self, next_s: float) -> bool:
        """Tell whether a cluster came before it was time for all; else it is time now."""
        try:
            async with asyncio.timeout(next_s - self._clock.monotonic()):
                await self._joined.wait()
        except TimeoutError:
            return False
        self._joined.clear()
        return True

    def _note_joined(self, cluster: ClusterId) -> None:
        if cluster not in self._saved:
            self._joined.set()

    def _note_left(self, cluster: ClusterId) -> None:
        """What comes back under this name is another, even when it counts from one again."""
        if cluster not in self._fleet.linked():
            self._saved.pop(cluster, None)

    async def _save_all(self, writes: client.Client, may_write: Callable[[], bool]) -> None:
        self._without_room &= self._fleet.linked()
        await self._shelving.forget(writes, self._fleet.linked())
        await self._save_due(writes, may_write, self._is_due)

    async def _save_due(
        self,
        writes: client.Client,
        may_write: Callable[[], bool],
        is_due: Callable[[members.Link], bool],
    ) -> None:
        for link in self._fleet.links():
            if not may_write():
                return
            # While another was written it may have got a new credential, or left.
            if link.generation.is_live and is_due(link):
                await self._save(writes, link)

    def _is_due(self, link: members.Link) -> bool:
        saved = self._saved.get(link.cluster)
        if saved is None:
            return True
        if (saved.generation, saved.version) != (link.generation.number, link.generation.version):
            return True
        is_old = self._clock.monotonic() - saved.at >= STAMP_S
        return is_old and not link.generation.error()

    async def _save(self, writes: client.Client, link: members.Link) -> None:
        generation = link.generation
        number, version = generation.number, generation.version
        known_at = self._clock.now() - datetime.timedelta(seconds=generation.age_s())
        packed = await asyncio.to_thread(
            snapshots.pack, link.cluster, generation.items(), server=link.server
        )
        is_kept = await self._shelving.put(
            writes, packed, known_at=known_at, stay=self._fleet.linked()
        )
        if not is_kept:
            self._without_room.add(link.cluster)
            return
        self._without_room.discard(link.cluster)
        if generation.is_live:
            self._saved[link.cluster] = _Saved(number, version, self._clock.monotonic())
        _LOG.debug(
            "cluster kept",
            cluster=link.cluster,
            size_bytes=sum(map(len, packed.parts)),
            parts=len(packed.parts),
        )
