"""Keeps what linked clusters told where the next control plane finds it.

The same rules as for clusters that are followed by remote secret: only the leader writes, what has
just been heard at once, changes every few seconds at most, the same again now and then so that its
age says when it was last true. A snapshot speaks of one link: of that cluster, that network and that
trust domain. What is recalled is judged again, record by record, as if it were told just now.

Source: docs/decisions/0012-snapshots-of-remote-clusters.md,
docs/decisions/0038-what-linked-clusters-told-is-kept.md.
"""

import asyncio
import datetime
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from isthmus.base import clock, errors, logs
from isthmus.fleet import slots
from isthmus.kube import client
from isthmus.mesh import peering
from isthmus.mesh.identities import ClusterId
from isthmus.resources import peering as records
from isthmus.runtime import peer_imports, shelving
from isthmus.wire import peerclient

_LOG = logs.Log("isthmus.snapshots")

REFUSED: Final = "ISM-RUN-021"
NOT_KEPT: Final = "ISM-RUN-022"
MOST_BYTES: Final = 64 * 1024 * 1024
MOST_PARTS: Final = 8
MOST_AGE: Final = datetime.timedelta(days=7)
"""What is older counts no more; who has not been heard for a week may be anybody by now."""

EVERY_S, STAMP_S, KEEP_LEFT_S, LOOK_S = 10.0, 300.0, 60.0, 1.0


class _Text(msgspec.Struct, forbid_unknown_fields=True):
    """What is written of one linked cluster."""

    peer: str
    records: dict[str, bytes]


@dataclass(frozen=True, slots=True)
class Recalled:
    """What a linked cluster told an earlier control plane.

    Attributes:
        link: Fingerprint of the link by which it was told.
        records: By the names of the resources, as they are told.
    """

    link: str
    known_at: clock.Instant
    records: Mapping[str, bytes]


def fingerprint(link: peering.Link) -> str:
    """Return what tells whom a link leads to from others, wherever its gateway is."""
    text = f"{link.peer}\n{link.network}\n{link.trust_domain}"
    return hashlib.sha256(text.encode()).hexdigest()


def pack(link: peering.Link, exports: Iterable[peering.Export]) -> slots.Packed | None:
    """Make small what a cluster tells; None when it is too much to be kept."""
    told, size = dict[str, bytes](), 0
    for one in exports:
        resource = records.service_resource(one)
        size += len(resource.body) + len(resource.name)
        if size > MOST_BYTES // 2:  # It grows by a third as text.
            return None
        told[resource.name] = resource.body
    text = msgspec.json.encode(_Text(link.peer, dict(sorted(told.items()))))
    packed = slots.pack(link.peer, text, server=fingerprint(link))
    return packed if len(packed.parts) <= MOST_PARTS else None


def recall(
    found: Iterable[slots.Obj],
) -> tuple[dict[ClusterId, Recalled], dict[str, errors.Finding]]:
    """Return the newest whole snapshot of each cluster, and what is wrong with others."""
    findings = dict[str, errors.Finding]()

    def wrong(cluster: str, why: str, where: str) -> None:
        findings[cluster] = refusal(cluster, f"{why} ({where})")

    whole = slots.recall(found, _read, wrong=wrong)
    return {
        cluster: Recalled(kept.server, kept.known_at, told)
        for cluster, (kept, told) in whole.items()
    }, findings


def _read(kept: slots.Kept) -> Mapping[str, bytes]:
    try:
        text = msgspec.json.decode(slots.inflated(kept, most=MOST_BYTES), type=_Text)
    except (ValueError, RecursionError) as error:
        raise slots.BrokenError(f"it cannot be read: {error}") from error
    if text.peer != kept.cluster:
        raise slots.BrokenError(f"it is of cluster `{text.peer[:63]}`")
    if len(text.records) > peerclient.MOST_RECORDS:
        raise slots.BrokenError("it is too large")
    return text.records


def objection(recalled: Recalled, link: peering.Link, *, now: clock.Instant) -> str:
    """Say why a snapshot does not count for a link; empty when it does."""
    if recalled.link != fingerprint(link):
        return "the link leads to another network or trust domain now"
    if now - recalled.known_at > MOST_AGE:
        return f"it was true at {recalled.known_at:%Y-%m-%d %H:%M}Z, which is too long ago"
    return ""


def refusal(cluster: str, why: str) -> errors.Finding:
    """Return the finding that what a linked cluster told before is not used."""
    return errors.Finding(
        REFUSED,
        f"snapshot of linked cluster {cluster}",
        f"it is not used: {why}",
        still_working="what this cluster has itself; all other links",
        hint="it is written anew as soon as the cluster is heard",
    )


class Heard(Protocol):
    """Who knows what linked clusters tell."""

    def followed(self) -> Mapping[ClusterId, peer_imports.Peer] | None:
        """Return the linked clusters; None while it is not known which there are."""


@dataclass(frozen=True, slots=True)
class _Saved:
    """What was last written of a cluster."""

    peer: peer_imports.Peer
    version: int
    link: str
    at: float
    heard_at: float


class Snapshots:
    """Writes what linked clusters tell while we lead."""

    def __init__(
        self,
        heard: Heard,
        *,
        namespace: str,
        system_clock: clock.Clock,
        every_s: float = EVERY_S,
        keep_left_s: float = KEEP_LEFT_S,
        look_s: float = LOOK_S,
    ) -> None:
        """Prepare; nothing is written before `run`.

        Args:
            heard: What is told.
            namespace: Where the ConfigMaps are.
            system_clock: Time.
            every_s: How long what changes may wait.
            keep_left_s: How long the snapshot of a cluster that is linked no more stays.
            look_s: How often it is looked what is due.
        """
        self._heard = heard
        self._clock = system_clock
        self._every_s = every_s
        self._look_s = look_s
        self._shelving = shelving.Shelving(
            slots.LINKED, namespace=namespace, system_clock=system_clock, keep_left_s=keep_left_s
        )
        self._saved: dict[ClusterId, _Saved] = {}
        self._not_kept: dict[ClusterId, str] = {}

    def findings(self) -> list[errors.Finding]:
        """Name the linked clusters of which nothing can be kept."""
        return [
            errors.Finding(
                NOT_KEPT,
                f"snapshot of linked cluster {cluster}",
                why,
                still_working="the cluster itself; only a control plane that starts while it cannot"
                " be heard will not know it, or know what was kept before",
                hint="share fewer services there, or link fewer clusters",
            )
            for cluster, why in sorted(self._not_kept.items())
        ]

    async def run(self, writes: client.Client, may_write: Callable[[], bool]) -> None:
        """Write until cancelled; to be run by the leader only."""
        self._saved.clear()
        await self._shelving.look(writes)
        while True:
            peers = self._heard.followed()
            if peers is not None and may_write():
                await self._shelving.forget(writes, peers.keys())
                for cluster in [one for one in self._not_kept if one not in peers]:
                    del self._not_kept[cluster]
                for peer in [one for one in peers.values() if self._is_due(one)]:
                    await self._save(writes, peer, peers)
            await self._clock.sleep(self._look_s)

    def _is_due(self, peer: peer_imports.Peer) -> bool:
        if not peer.is_heard:
            return False  # All that is known of it is from there.
        saved = self._saved.get(peer.link.peer)
        if saved is None or saved.peer is not peer:
            return True
        passed = self._clock.monotonic() - saved.at
        is_other = (saved.version, saved.link) != (peer.version, fingerprint(peer.link))
        # Of whoever has fallen silent it is to be known since when.
        is_ended = not peer.is_connected and (peer.heard_at or 0.0) > saved.heard_at
        if is_other or is_ended:
            return passed >= self._every_s
        return passed >= STAMP_S and peer.is_connected

    async def _save(
        self,
        writes: client.Client,
        peer: peer_imports.Peer,
        peers: Mapping[ClusterId, peer_imports.Peer],
    ) -> None:
        link, version, age_s = peer.link, peer.version, peer.status().age_s or 0.0
        heard_at = peer.heard_at or 0.0
        known_at = self._clock.now() - datetime.timedelta(seconds=age_s)
        packed = await asyncio.to_thread(pack, link, peer.exports())
        if packed is None:
            self._not_kept[link.peer] = "it tells more than can be kept"
        elif await self._shelving.put(writes, packed, known_at=known_at, stay=peers.keys()):
            self._not_kept.pop(link.peer, None)
            size = sum(map(len, packed.parts))
            _LOG.debug("linked cluster kept", peer=link.peer, size_bytes=size)
        else:
            count = len(slots.LINKED.names)
            self._not_kept[link.peer] = f"there is no room for it in {count} ConfigMaps"
        now = self._clock.monotonic()
        self._saved[link.peer] = _Saved(peer, version, fingerprint(link), now, heard_at)
