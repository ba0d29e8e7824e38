"""What a control plane leaves behind about a remote cluster, so that the next one need not forget it.

Pure. It decides which of a cluster's objects are kept, and which snapshots speak of that very API
server; how they become ConfigMaps is decided by `slots`. Only what the registry reads is kept;
nothing in it comes from a Secret.

Source: design rules 4 and 5; drill 03; docs/decisions/0012-snapshots-of-remote-clusters.md.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from isthmus.base import clock, errors
from isthmus.fleet import generations, slots, sources
from isthmus.kube import objects, sharing
from isthmus.mesh.identities import ClusterId

REFUSED = "ISM-FLEET-018"
MOST_BYTES = 256 * 1024 * 1024
SHELF = slots.REMOTE

_KEPT_ANNOTATIONS = ("istio.io/", "isthmus.dev/")
_TYPES: Mapping[str, type[objects.Object]] = {
    one.collection: one.decode for one in generations.EVERYWHERE
}

Content = Mapping[str, Mapping[sources.ObjectKey, objects.Object]]


@dataclass(frozen=True, slots=True)
class Recalled:
    """A cluster's objects as an earlier control plane last knew them."""

    cluster: ClusterId
    server: str
    known_at: clock.Instant
    content: Content


def pack(cluster: ClusterId, content: Content, *, server: str) -> slots.Packed:
    """Make a cluster's objects small; takes about 0.1 s for 4,000 pods."""
    listed = {
        collection: [_kept(value) for _, value in sorted(entries.items())]
        for collection, entries in content.items()
        if collection in _TYPES
    }
    return slots.pack(cluster, msgspec.json.encode(listed), server=server)


def _kept(found: objects.Object) -> objects.Object:
    value = found.whole()
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


def recall(
    found: Iterable[slots.Obj],
) -> tuple[dict[ClusterId, Recalled], tuple[errors.Finding, ...]]:
    """Return the newest whole snapshot of each cluster, and what is wrong with others."""
    findings: list[errors.Finding] = []
    recalled = slots.recall(
        found,
        _content,
        wrong=lambda cluster, why, where: findings.append(refusal(cluster, why, where=where)),
    )
    return {
        cluster: Recalled(cluster, kept.server, kept.known_at, content)
        for cluster, (kept, content) in recalled.items()
    }, tuple(findings)


def refusal(cluster: str, why: str, *, where: str = "") -> errors.Finding:
    """Return the finding that a cluster's snapshot is not used."""
    return errors.Finding(
        REFUSED,
        f"snapshot of cluster {cluster}" + (f" ({where})" if where else ""),
        f"it is not used: {why}",
        still_working="the cluster is known again as soon as its API server answers",
        hint="a new snapshot is written once the cluster is followed",
    )


def _content(kept: slots.Kept) -> Content:
    text = slots.inflated(kept, most=MOST_BYTES)
    try:
        listed = msgspec.json.decode(text, type=dict[str, list[msgspec.Raw]])
        return {
            collection: {
                sources.ObjectKey(kept.cluster, one.metadata.namespace, one.metadata.name): one
                for item in listed[collection]
                for one in (sharing.lean(msgspec.json.decode(item, type=kind)),)
            }
            for collection, kind in _TYPES.items()
        }
    except (ValueError, RecursionError, KeyError) as error:
        raise slots.BrokenError(f"it cannot be read: {error}") from error
