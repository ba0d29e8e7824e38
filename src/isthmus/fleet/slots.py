"""How something that must outlive a control plane becomes a few ConfigMaps of limited size, and back.

Pure. It decides what a ConfigMap that holds a part looks like, and which parts are whole and belong
together; it knows nothing of what is in them. A fixed number of ConfigMaps, the slots of a shelf, is
shared by all clusters that something is kept of, so that the right to change them can name them. A
cluster's newest snapshot never overwrites its only whole one.

Source: docs/decisions/0012-snapshots-of-remote-clusters.md.
"""

import base64
import binascii
import datetime
import hashlib
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from isthmus.base import clock
from isthmus.install import rights
from isthmus.mesh.identities import ClusterId

LABEL: Final = "isthmus.dev/remote-snapshot"
CLUSTER, SERVER = "isthmus.dev/cluster", "isthmus.dev/server"
DIGEST, PART, KNOWN_AT = "isthmus.dev/digest", "isthmus.dev/part", "isthmus.dev/known-at"
FORMAT: Final = "isthmus.dev/format"
KEY: Final = "part"
VERSION: Final = "1"
PART_BYTES: Final = 640 * 1024

Obj = dict[str, Any]
Content = TypeVar("Content")


class BrokenError(Exception):
    """A snapshot that cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """Some slots, and what tells them from those of other shelves.

    Attributes:
        label: The value of the label that all of them bear.
        names: Of all ConfigMaps that hold parts.
    """

    label: str
    names: tuple[str, ...]

    @property
    def selector(self) -> str:
        """Selects the slots."""
        return f"{LABEL}={self.label}"


REMOTE: Final = Shelf("true", rights.SNAPSHOTS)
"""What is known of clusters that are followed by remote secret."""

LINKED: Final = Shelf("link", rights.LINK_SNAPSHOTS)
"""What linked clusters told."""


@dataclass(frozen=True, slots=True)
class Packed:
    """What is known of a cluster, ready to be written.

    Attributes:
        server: Fingerprint of where it came from.
        digest: Fingerprint of what it is.
    """

    cluster: ClusterId
    server: str
    digest: str
    parts: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Kept:
    """What an earlier control plane last knew of a cluster, whole, as it was written."""

    cluster: ClusterId
    server: str
    known_at: clock.Instant
    raw: bytes


# --- writing --------------------------------------------------------------------------------------


def pack(cluster: ClusterId, text: bytes, *, server: str) -> Packed:
    """Make a text small, in parts that fit."""
    raw = zlib.compress(text, 6)
    parts = tuple(raw[start : start + PART_BYTES] for start in range(0, len(raw), PART_BYTES))
    return Packed(cluster, server, hashlib.sha256(raw).hexdigest(), parts)


def slot(
    shelf: Shelf, name: str, packed: Packed, number: int, *, namespace: str, known_at: clock.Instant
) -> Obj:
    """Return the ConfigMap that holds one part."""
    bare = empty(shelf, name, namespace=namespace)
    annotations = {
        FORMAT: VERSION,
        CLUSTER: packed.cluster,
        SERVER: packed.server,
        DIGEST: packed.digest,
        PART: f"{number + 1}/{len(packed.parts)}",
        KNOWN_AT: known_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return {
        **bare,
        "metadata": {**bare["metadata"], "annotations": annotations},
        "binaryData": {KEY: base64.b64encode(packed.parts[number]).decode()},
    }


def empty(shelf: Shelf, name: str, *, namespace: str) -> Obj:
    """Return the ConfigMap of a slot that holds nothing."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": {LABEL: shelf.label}},
    }


# --- reading --------------------------------------------------------------------------------------


def recall(
    found: Iterable[Obj],
    read: Callable[[Kept], Content],
    *,
    wrong: Callable[[str, str, str], None],
) -> dict[ClusterId, tuple[Kept, Content]]:
    """Return the newest snapshot of each cluster that can be read.

    Args:
        found: All slots.
        read: Returns what a snapshot holds, or raises BrokenError.
        wrong: Is told of each one that cannot be used: of which cluster, why, and where it is.
    """
    recalled: dict[ClusterId, tuple[Kept, Content]] = {}
    for cluster, parts in _groups(found):
        try:
            kept = _whole(ClusterId(cluster), parts)
            content = read(kept)
        except BrokenError as error:
            wrong(cluster[:63], str(error), _names(parts))
            continue
        other = recalled.get(kept.cluster)
        if other is None or other[0].known_at < kept.known_at:
            recalled[kept.cluster] = (kept, content)
    return recalled


def inflated(kept: Kept, *, most: int) -> bytes:
    """Return the text of a snapshot.

    Raises:
        BrokenError: It is damaged, or larger than that.
    """
    try:
        inflate = zlib.decompressobj()
        text = inflate.decompress(kept.raw, most)
    except zlib.error as error:
        raise BrokenError(f"it cannot be read: {error}") from error
    if inflate.unconsumed_tail or not inflate.eof:
        raise BrokenError("it is too large")
    return text


def _groups(found: Iterable[Obj]) -> list[tuple[str, list[Obj]]]:
    groups: dict[tuple[str, str], list[Obj]] = {}
    for one in found:
        annotations = _annotations(one)
        if annotations.get(CLUSTER):
            key = (annotations[CLUSTER], annotations.get(DIGEST, ""))
            groups.setdefault(key, []).append(one)
    return [
        (cluster, parts) for (cluster, _), parts in sorted(groups.items(), key=lambda it: it[0])
    ]


def _names(parts: Sequence[Obj]) -> str:
    return ", ".join(sorted(str(one["metadata"].get("name", "")) for one in parts))


def _annotations(one: Obj) -> Mapping[str, str]:
    found = (one.get("metadata") or {}).get("annotations") or {}
    assert isinstance(found, dict)
    return found


def _whole(cluster: ClusterId, parts: Sequence[Obj]) -> Kept:
    said = _annotations(parts[0])
    if said.get(FORMAT) != VERSION:
        raise BrokenError(f"it has the unknown format `{said.get(FORMAT, '')[:20]}`")
    try:
        known_at = datetime.datetime.fromisoformat(said.get(KNOWN_AT, ""))
    except ValueError:
        raise BrokenError("it does not say when it was true") from None
    if known_at.tzinfo is None:
        raise BrokenError("it does not say when it was true")
    raw = b"".join(_part(one) for one in _ordered(parts))
    if hashlib.sha256(raw).hexdigest() != said.get(DIGEST):
        raise BrokenError("it is not what was written")
    return Kept(cluster, said.get(SERVER, ""), known_at, raw)


def _ordered(parts: Sequence[Obj]) -> list[Obj]:
    by_number = {_annotations(one).get(PART, ""): one for one in parts}
    total = next(iter(by_number)).partition("/")[2]
    # No larger number can be meant, whatever is written there.
    most = len(REMOTE.names)
    count = int(total) if total.isdecimal() and len(total) <= len(str(most)) else 0
    wanted = [f"{number + 1}/{total}" for number in range(min(count, most))]
    if not wanted or count > len(wanted) or not set(wanted) <= by_number.keys():
        raise BrokenError("a part of it is missing")
    return [by_number[part] for part in wanted]


def _part(one: Obj) -> bytes:
    try:
        return base64.b64decode((one.get("binaryData") or {}).get(KEY, ""), validate=True)
    except (binascii.Error, ValueError, TypeError, AttributeError):
        raise BrokenError("it is not what was written") from None


# --- planning -------------------------------------------------------------------------------------


def room_for(
    shelf: Shelf, wanted: int, *, held: Sequence[str], taken: Iterable[str]
) -> tuple[str, ...] | None:
    """Return the slots for a new snapshot of so many parts; None when there are too few.

    A snapshot of one part replaces one of one part at once; any other goes into free slots, so
    that the one that is there stays whole until the new one is.

    Args:
        shelf: Where it is kept.
        wanted: How many parts the new one has.
        held: The slots of the cluster's present snapshot.
        taken: All slots that hold something, of any cluster.
    """
    if wanted == 1 and len(held) == 1:
        return tuple(held)
    busy = set(taken)
    free = [name for name in shelf.names if name not in busy]
    return tuple(free[:wanted]) if len(free) >= wanted else None
