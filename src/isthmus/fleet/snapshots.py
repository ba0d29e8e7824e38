"""What a control plane leaves behind about a remote cluster, so that the next one need not forget it.

Pure. It decides how the objects of one cluster become a few ConfigMaps of limited size and back,
and which of them can be trusted to be whole and to speak of that very API server. Only what the
registry reads is kept; nothing in it comes from a Secret.

A fixed number of ConfigMaps, the slots, is shared by all clusters, so that the right to change
them can name them. A cluster's newest snapshot never overwrites its only whole one.

Source: design rules 4 and 5; drill 03; docs/decisions/0012-snapshots-of-remote-clusters.md.
"""

import base64
import binascii
import datetime
import hashlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from isthmus.base import clock, errors
from isthmus.fleet import generations, sources
from isthmus.install import rights
from isthmus.kube import objects
from isthmus.mesh.identities import ClusterId

REFUSED = "ISM-FLEET-018"
LABEL = "isthmus.dev/remote-snapshot"
CLUSTER, SERVER = "isthmus.dev/cluster", "isthmus.dev/server"
DIGEST, PART, KNOWN_AT = "isthmus.dev/digest", "isthmus.dev/part", "isthmus.dev/known-at"
FORMAT = "isthmus.dev/format"
KEY = "part"
VERSION = "1"
PART_BYTES = 640 * 1024
MOST_BYTES = 256 * 1024 * 1024
SLOTS = rights.SNAPSHOTS
"""The names of all ConfigMaps that hold parts."""

_KEPT_ANNOTATIONS = ("istio.io/", "isthmus.dev/")
_TYPES: Mapping[str, type[objects.Object]] = {
    one.collection: one.decode for one in generations.EVERYWHERE
}

Content = Mapping[str, Mapping[sources.ObjectKey, objects.Object]]
Obj = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Packed:
    """A cluster's objects, ready to be written.

    Attributes:
        server: Fingerprint of where they came from.
        digest: Fingerprint of what they are.
    """

    cluster: ClusterId
    server: str
    digest: str
    parts: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Recalled:
    """A cluster's objects as an earlier control plane last knew them."""

    cluster: ClusterId
    server: str
    known_at: clock.Instant
    content: Content


class _BrokenError(Exception):
    """A snapshot that cannot be used; the text says why."""


# --- writing --------------------------------------------------------------------------------------


def pack(cluster: ClusterId, content: Content, *, server: str) -> Packed:
    """Make a cluster's objects small; takes about 0.1 s for 4,000 pods."""
    listed = {
        collection: [_kept(value) for _, value in sorted(entries.items())]
        for collection, entries in content.items()
        if collection in _TYPES
    }
    raw = zlib.compress(msgspec.json.encode(listed), 6)
    parts = tuple(raw[start : start + PART_BYTES] for start in range(0, len(raw), PART_BYTES))
    return Packed(cluster, server, hashlib.sha256(raw).hexdigest(), parts)


def _kept(value: objects.Object) -> objects.Object:
    annotations = value.metadata.annotations
    if not annotations:
        return value
    kept = {
        key: text
        for key, text in annotations.items()
        if any(domain in key for domain in _KEPT_ANNOTATIONS)
    }
    if len(kept) == len(annotations):
        return value
    metadata = msgspec.structs.replace(value.metadata, annotations=kept or None)
    return msgspec.structs.replace(value, metadata=metadata)


def slot(name: str, packed: Packed, number: int, *, namespace: str, known_at: clock.Instant) -> Obj:
    """Return the ConfigMap that holds one part."""
    return {
        **empty(name, namespace=namespace),
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {LABEL: "true"},
            "annotations": {
                FORMAT: VERSION,
                CLUSTER: packed.cluster,
                SERVER: packed.server,
                DIGEST: packed.digest,
                PART: f"{number + 1}/{len(packed.parts)}",
                KNOWN_AT: known_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            },
        },
        "binaryData": {KEY: base64.b64encode(packed.parts[number]).decode()},
    }


def empty(name: str, *, namespace: str) -> Obj:
    """Return the ConfigMap of a slot that holds nothing."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": {LABEL: "true"}},
    }


# --- reading --------------------------------------------------------------------------------------


def recall(
    slots: Iterable[Obj],
) -> tuple[dict[ClusterId, Recalled], tuple[errors.Finding, ...]]:
    """Return the newest whole snapshot of each cluster, and what is wrong with others."""
    groups: dict[tuple[str, str], list[Obj]] = {}
    for one in slots:
        annotations = _annotations(one)
        if annotations.get(CLUSTER):
            key = (annotations[CLUSTER], annotations.get(DIGEST, ""))
            groups.setdefault(key, []).append(one)
    found: dict[ClusterId, Recalled] = {}
    findings = []
    for (cluster, _), parts in sorted(groups.items(), key=lambda item: item[0]):
        try:
            recalled = _unpacked(ClusterId(cluster), parts)
        except _BrokenError as error:
            findings.append(refusal(cluster[:63], str(error), where=_names(parts)))
            continue
        other = found.get(recalled.cluster)
        if other is None or other.known_at < recalled.known_at:
            found[recalled.cluster] = recalled
    return found, tuple(findings)


def refusal(cluster: str, why: str, *, where: str = "") -> errors.Finding:
    """Return the finding that a cluster's snapshot is not used."""
    return errors.Finding(
        REFUSED,
        f"snapshot of cluster {cluster}" + (f" ({where})" if where else ""),
        f"it is not used: {why}",
        still_working="the cluster is known again as soon as its API server answers",
        hint="a new snapshot is written once the cluster is followed",
    )


def _names(parts: Sequence[Obj]) -> str:
    return ", ".join(sorted(str(one["metadata"].get("name", "")) for one in parts))


def _annotations(one: Obj) -> Mapping[str, str]:
    found = (one.get("metadata") or {}).get("annotations") or {}
    assert isinstance(found, dict)
    return found


def _unpacked(cluster: ClusterId, parts: Sequence[Obj]) -> Recalled:
    said = _annotations(parts[0])
    if said.get(FORMAT) != VERSION:
        raise _BrokenError(f"it has the unknown format `{said.get(FORMAT, '')[:20]}`")
    try:
        known_at = datetime.datetime.fromisoformat(said.get(KNOWN_AT, ""))
    except ValueError:
        raise _BrokenError("it does not say when it was true") from None
    if known_at.tzinfo is None:
        raise _BrokenError("it does not say when it was true")
    raw = b"".join(_part(one) for one in _ordered(parts))
    if hashlib.sha256(raw).hexdigest() != said.get(DIGEST):
        raise _BrokenError("it is not what was written")
    return Recalled(cluster, said.get(SERVER, ""), known_at, _content(cluster, raw))


def _ordered(parts: Sequence[Obj]) -> list[Obj]:
    by_number = {_annotations(one).get(PART, ""): one for one in parts}
    total = next(iter(by_number)).partition("/")[2]
    # No larger number can be meant, whatever is written there.
    count = int(total) if total.isdecimal() and len(total) <= len(str(len(SLOTS))) else 0
    wanted = [f"{number + 1}/{total}" for number in range(min(count, len(SLOTS)))]
    if not wanted or count > len(wanted) or not set(wanted) <= by_number.keys():
        raise _BrokenError("a part of it is missing")
    return [by_number[part] for part in wanted]


def _part(one: Obj) -> bytes:
    try:
        return base64.b64decode((one.get("binaryData") or {}).get(KEY, ""), validate=True)
    except (binascii.Error, ValueError, TypeError, AttributeError):
        raise _BrokenError("it is not what was written") from None


def _content(cluster: ClusterId, raw: bytes) -> Content:
    try:
        inflate = zlib.decompressobj()
        text = inflate.decompress(raw, MOST_BYTES)
        if inflate.unconsumed_tail or not inflate.eof:
            raise _BrokenError("it is too large")
        listed = msgspec.json.decode(text, type=dict[str, list[msgspec.Raw]])
        return {
            collection: {
                sources.ObjectKey(cluster, one.metadata.namespace, one.metadata.name): one
                for one in (msgspec.json.decode(item, type=kind) for item in listed[collection])
            }
            for collection, kind in _TYPES.items()
        }
    except (zlib.error, msgspec.DecodeError, KeyError) as error:
        raise _BrokenError(f"it cannot be read: {error}") from error


# --- planning -------------------------------------------------------------------------------------


def room_for(wanted: int, *, held: Sequence[str], taken: Iterable[str]) -> tuple[str, ...] | None:
    """Return the slots for a new snapshot of so many parts; None when there are too few.

    A snapshot of one part replaces one of one part at once; any other goes into free slots, so
    that the one that is there stays whole until the new one is.

    Args:
        wanted: How many parts the new one has.
        held: The slots of the cluster's present snapshot.
        taken: All slots that hold something, of any cluster.
    """
    if wanted == 1 and len(held) == 1:
        return tuple(held)
    busy = set(taken)
    free = [name for name in SLOTS if name not in busy]
    return tuple(free[:wanted]) if len(free) >= wanted else None
