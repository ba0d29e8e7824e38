"""How far control planes of linked clusters have come with what they are told here.

Each answers what it is told by its nonce, and asks every few seconds who we are: that question is
its heartbeat. What is in use there is what it answered last; one that refuses some records has the
others in use.

Source: spec section 7.7.
"""

from collections.abc import Iterable
from typing import Final

from isthmus.base import clock
from isthmus.resources import peering as records
from isthmus.wire import streams

Document = dict[str, object]
LEAST_S: Final = 0.1
"""Who is behind is behind, however short."""


def rows(statuses: Iterable[streams.StreamStatus], *, now: clock.Instant) -> list[Document]:
    """Return each listening control plane, with what it was told and what it has in use."""
    found = [_row(one, now) for one in statuses if records.CLUSTER in one.types]
    return sorted(found, key=lambda row: (str(row["cluster"]), str(row["istiod"])))


def _row(status: streams.StreamStatus, now: clock.Instant) -> Document:
    services = status.types.get(records.SERVICE, streams.TypeStatus())
    beats = status.types.get(records.CLUSTER, streams.TypeStatus())
    is_level = services.sent == services.acked or _is_answered(services)
    return {
        "cluster": status.caller.cluster,
        "istiod": status.node.name,
        "connectedAt": status.connected_at.isoformat(),
        "toldVersion": _version(services.sent),
        "appliedVersion": _version(services.sent if is_level else services.acked),
        "behindSeconds": 0.0 if is_level else max(_passed(services.sent_at, now), LEAST_S),
        "heardSeconds": _passed(beats.answered_at or status.connected_at, now),
        "refused": sorted(services.refused),
        "error": services.error,
    }


def _is_answered(services: streams.TypeStatus) -> bool:
    """Say whether the newest was answered by a refusal of some records: the others are in use."""
    if not services.error:
        return False
    sent, answered = services.sent_at, services.answered_at
    return sent is not None and answered is not None and answered >= sent


def _version(nonce: str) -> str:
    # A nonce is the version, with a number where one was told twice before it was answered.
    return nonce.partition("-")[0]


def _passed(since: clock.Instant | None, now: clock.Instant) -> float:
    return 0.0 if since is None else round(max((now - since).total_seconds(), 0.0), 1)
