"""What is known of each open discovery stream, for people and for `proxy-status`.

A record only: it decides nothing about what a proxy is told.

Source: spec section 9.1.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from isthmus.base import clock
from isthmus.resources import snapshot
from isthmus.resources.snapshot import TypeUrl
from isthmus.wire import callers, nodes
from isthmus.xds import standings
from isthmus.xds.messages import Flavour

SHORT: Final[Mapping[TypeUrl, str]] = MappingProxyType(
    {
        snapshot.CLUSTERS: "cluster",
        snapshot.LISTENERS: "listener",
        snapshot.ROUTES: "route",
        snapshot.ENDPOINTS: "endpoint",
        TypeUrl(snapshot.PREFIX + "envoy.config.core.v3.TypedExtensionConfig"): "extensionconfig",
    }
)
"""What Istio's own document calls the types that it lists by name."""

KINDS: Final[Mapping[TypeUrl, str]] = MappingProxyType(
    {**SHORT, snapshot.MEMBERS: "endpointmember"}
)
"""What metrics and logs call types."""


@dataclass(frozen=True, slots=True)
class TypeStatus:
    """How far one proxy has come with one type.

    Attributes:
        sent: Nonce of the newest offer, or empty when none was made.
        acked: Nonce of the newest offer that is in use, or empty.
        refused: The names that the proxy refuses, until it is told something else of them.
        error: What it said when it refused them; empty when it refuses none.
    """

    sent: str = ""
    acked: str = ""
    version: str = ""
    sent_at: clock.Instant | None = None
    answered_at: clock.Instant | None = None
    refused: frozenset[str] = frozenset()
    error: str = ""


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """One open stream.

    Attributes:
        watches: The names that it is subscribed to, by type; `*` stands for all.
    """

    id: str
    node: nodes.Node
    caller: callers.Caller
    peer: str
    flavour: Flavour
    connected_at: clock.Instant
    types: Mapping[TypeUrl, TypeStatus]
    watches: Mapping[TypeUrl, frozenset[str]]


Times = tuple[clock.Instant | None, clock.Instant | None]
"""When something of a type was last offered, and when an offer was last answered."""


@dataclass(slots=True)
class Record:
    """What does not change while a stream is open, but for when it was told what.

    Attributes:
        times: Of types, unless whoever tells the proxy has them at hand.
    """

    id: str
    node: nodes.Node
    caller: callers.Caller
    peer: str
    flavour: Flavour
    connected_at: clock.Instant
    times: dict[TypeUrl, Times] = field(default_factory=dict)

    def status(self, talks: standings.Talks, times: Mapping[TypeUrl, Times]) -> StreamStatus:
        """Return the status of this moment, of a proxy that stands there; `times` come first."""
        known = {**self.times, **times}
        return StreamStatus(
            self.id,
            self.node,
            self.caller,
            self.peer,
            self.flavour,
            self.connected_at,
            MappingProxyType(
                {kind: _status(talk, known.get(kind, (None, None))) for kind, talk in talks.items()}
            ),
            MappingProxyType({kind: talk.held.names for kind, talk in talks.items()}),
        )


def _status(talk: standings.Talk, times: Times) -> TypeStatus:
    sent_at, answered_at = times
    return TypeStatus(
        sent=talk.newest,
        acked=talk.acked,
        version=talk.version,
        sent_at=sent_at,
        answered_at=answered_at,
        refused=talk.refused,
        error=talk.error,
    )


def syncz(statuses: Iterable[StreamStatus]) -> list[dict[str, Any]]:
    """Return the document behind `/debug/syncz`."""
    return [_synced(status) for status in statuses]


def adsz(statuses: Iterable[StreamStatus]) -> dict[str, Any]:
    """Return the document behind `/debug/adsz`."""
    listed = list(statuses)
    document = connections(listed)
    for client, status in zip(document["clients"], listed, strict=True):
        place = status.node.locality
        client["metadata"] = {
            "CLUSTER_ID": status.caller.cluster,
            "NAMESPACE": status.caller.namespace,
            "SERVICE_ACCOUNT": status.caller.service_account,
            "NETWORK": status.node.network,
            "ISTIO_VERSION": status.node.version,
            "NODE_NAME": status.node.host,
        }
        client["locality"] = {"region": place.region, "zone": place.zone, "subZone": place.subzone}
        client["watches"] = {kind: sorted(names) for kind, names in sorted(status.watches.items())}
    return document


def resources(statuses: Iterable[StreamStatus]) -> dict[str, list[str]]:
    """Return the document behind `/debug/resourcesz`."""
    names = dict[str, set[str]]()
    for status in statuses:
        for kind, wanted in status.watches.items():
            names.setdefault(kind, set()).update(wanted)
    return {kind: sorted(names[kind]) for kind in sorted(names)}


def connections(statuses: Iterable[StreamStatus]) -> dict[str, Any]:
    """Return the document behind `/debug/connections`."""
    clients = [
        {
            "connectionId": status.id,
            "connectedAt": status.connected_at.isoformat(),
            "address": status.peer,
            "labels": dict(status.node.labels),
        }
        for status in statuses
    ]
    return {"totalClients": len(clients), "clients": clients}


def _synced(status: StreamStatus) -> dict[str, Any]:
    document: dict[str, Any] = {
        "cluster_id": status.caller.cluster,
        "proxy": status.node.name,
        "proxy_type": status.node.kind.value,
        "proxy_version": status.node.version or status.node.envoy_version,
        "istio_version": status.node.version or status.node.envoy_version,
        "resources": {each: _typed(type_) for each, type_ in sorted(status.types.items())},
    }
    for type_url, short in SHORT.items():
        found = status.types.get(type_url, TypeStatus())
        document[f"{short}_sent"] = found.sent
        document[f"{short}_acked"] = found.acked
    return document


def _typed(status: TypeStatus) -> dict[str, Any]:
    document: dict[str, Any] = {"sent": status.sent, "acked": status.acked}
    if status.sent_at is not None:
        document["sentTime"] = status.sent_at.isoformat()
    if status.error:
        document["lastError"] = status.error
        document["refused"] = sorted(status.refused)
    return document
