"""Writes snapshots of clusters into the slots of one shelf: whole before the old one goes.

Writing is by compare-and-swap. Of what, and when, is decided by whoever holds the shelf; what a slot
looks like is decided by `fleet.slots`.

Source: docs/decisions/0012-snapshots-of-remote-clusters.md.
"""

from collections.abc import Set

from isthmus.base import clock
from isthmus.fleet import slots
from isthmus.kube import client, kinds
from isthmus.mesh.identities import ClusterId


class Shelving:
    """The slots of a shelf, as they are in the cluster, and changes to them."""

    def __init__(
        self, shelf: slots.Shelf, *, namespace: str, system_clock: clock.Clock, keep_left_s: float
    ) -> None:
        """Prepare.

        Args:
            shelf: Where snapshots are kept.
            namespace: Where its ConfigMaps are.
            system_clock: Time.
            keep_left_s: How long the snapshot of a cluster that left stays.
        """
        self._shelf = shelf
        self._namespace = namespace
        self._clock = system_clock
        self._keep_left_s = keep_left_s
        self._slots: dict[str, client.Obj] = {}
        self._left: dict[ClusterId, float] = {}

    async def look(self, writes: client.Client) -> None:
        """Learn what is in the slots; the parts themselves are not kept in memory."""
        found = await writes.list_(
            kinds.CONFIG_MAP, namespace=self._namespace, labels=self._shelf.selector
        )
        self._slots = {
            one["metadata"]["name"]: {**one, "binaryData": {}}
            for one in found
            if one["metadata"]["name"] in self._shelf.names
        }

    async def put(
        self,
        writes: client.Client,
        packed: slots.Packed,
        *,
        known_at: clock.Instant,
        stay: Set[ClusterId],
    ) -> bool:
        """Write a snapshot; tell whether there was room for it.

        Args:
            writes: Where.
            packed: What.
            known_at: When it was true.
            stay: Clusters whose snapshots must not go to make room.
        """
        before = [name for name in self._taken() if self._cluster_of(name) == packed.cluster]
        names = tuple(before) if self._holds(before, packed) else self._room_for(packed, before)
        if names is None:
            await self._empty_left(writes, stay, longer_than_s=0.0)
            names = self._room_for(packed, before)
        if names is None:
            return False
        for part, name in enumerate(names):
            made = slots.slot(
                self._shelf, name, packed, part, namespace=self._namespace, known_at=known_at
            )
            await self._write(writes, made)
        for name in before:
            if name not in names:
                await self._empty(writes, name)
        return True

    async def forget(self, writes: client.Client, stay: Set[ClusterId]) -> None:
        """Empty the slots of clusters that left a while ago: of all but those that stay."""
        await self._empty_left(writes, stay, longer_than_s=self._keep_left_s)

    async def _empty_left(
        self, writes: client.Client, stay: Set[ClusterId], *, longer_than_s: float
    ) -> None:
        now = self._clock.monotonic()
        left = [name for name in self._taken() if self._cluster_of(name) not in stay]
        seen = {cluster: self._left.get(cluster, now) for cluster in map(self._cluster_of, left)}
        self._left = seen
        for name in left:
            if now - seen[self._cluster_of(name)] >= longer_than_s:
                await self._empty(writes, name)

    def _room_for(self, packed: slots.Packed, held: list[str]) -> tuple[str, ...] | None:
        return slots.room_for(self._shelf, len(packed.parts), held=held, taken=self._taken())

    def _holds(self, names: list[str], packed: slots.Packed) -> bool:
        digests = {self._annotation(name, slots.DIGEST) for name in names}
        servers = {self._annotation(name, slots.SERVER) for name in names}
        is_same = digests == {packed.digest} and servers == {packed.server}
        return is_same and len(names) == len(packed.parts)

    def _taken(self) -> list[str]:
        taken = [name for name in self._slots if self._cluster_of(name)]
        return sorted(taken, key=lambda name: (self._part_of(name), name))

    def _cluster_of(self, name: str) -> ClusterId:
        return ClusterId(self._annotation(name, slots.CLUSTER))

    def _part_of(self, name: str) -> int:
        number = self._annotation(name, slots.PART).partition("/")[0]
        return int(number) if number.isdecimal() else 0

    def _annotation(self, name: str, key: str) -> str:
        annotations = self._slots[name]["metadata"].get("annotations") or {}
        return str(annotations.get(key, ""))

    async def _empty(self, writes: client.Client, name: str) -> None:
        await self._write(writes, slots.empty(self._shelf, name, namespace=self._namespace))

    async def _write(self, writes: client.Client, wanted: client.Obj) -> None:
        name = wanted["metadata"]["name"]
        old = self._slots.get(name)
        if old is None:
            stored = await writes.create(kinds.CONFIG_MAP, wanted)
        else:
            # The version that we saw makes this a compare-and-swap.
            metadata = {
                **wanted["metadata"],
                "resourceVersion": old["metadata"]["resourceVersion"],
            }
            stored = await writes.update(kinds.CONFIG_MAP, {**wanted, "metadata": metadata})
        self._slots[name] = {**stored, "binaryData": {}}
