"""What is known of each open discovery stream, for people and for `proxy-status`.

A record only: it decides nothing about what a proxy is told.

Source: spec section 9.1.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from isthmus.base import clock
from isthmus.resources import snapshot
from isthmus.resources.snapshot import TypeUrl
from isthmus.wire import callers, nodes
from isthmus.xds import messages
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


@dataclass(slots=True)
class _Progress:
    """How far a proxy has come with a type, as it changes; never what it was told, which is much."""

    sent: str = ""
    version: str = ""
    acked: str = ""
    sent_at: clock.Instant | None = None
    answered_at: clock.Instant | None = None
    refused: frozenset[str] = frozenset()
    error: str = ""

    def status(self) -> TypeStatus:
        return TypeStatus(
            sent=self.sent,
            acked=self.acked,
            version=self.version,
            sent_at=self.sent_at,
            answered_at=self.answered_at,
            refused=self.refused,
            error=self.error,
        )


@dataclass(slots=True)
class Record:
    """Keeps the status of one stream up to date."""

    id: str
    node: nodes.Node
    caller: callers.Caller
    peer: str
    flavour: Flavour
    connected_at: clock.Instant
    _types: dict[TypeUrl, _Progress] = field(default_factory=dict)

    def asked(self, type_url: TypeUrl) -> None:
        """Note that the proxy wants resources of a type."""
        if type_url not in self._types:
            self._types[type_url] = _Progress()

    def sent(self, offer: messages.Offer, *, now: clock.Instant) -> None:
        """Note that an offer is on its way."""
        held = self._types.get(offer.type_url)
        if held is None:
            held = self._types[offer.type_url] = _Progress()
        held.sent, held.version, held.sent_at = offer.nonce, offer.version, now
        if held.refused:
            told = (resource.name for resource in offer.resources)
            held.refused = held.refused.difference(told, offer.removed)
            held.error = held.error if held.refused else ""

    def heard(self, outcome: messages.Accepted | messages.Refused, *, now: clock.Instant) -> None:
        """Note how an offer was answered."""
        held = self._types.get(outcome.type_url)
        if held is None:
            held = self._types[outcome.type_url] = _Progress()
        held.answered_at = now
        if isinstance(outcome, messages.Accepted):
            held.acked = outcome.nonce
        else:
            # It may take the rest when that is offered without what it blames.
            held.refused |= frozenset(outcome.names or outcome.offered)
            held.error = outcome.message or "refused"

    def status(self, subscribed: Callable[[TypeUrl], frozenset[str]]) -> StreamStatus:
        """Return the status of this moment; `subscribed` says which names of a type are wanted."""
        return StreamStatus(
            self.id,
            self.node,
            self.caller,
            self.peer,
            self.flavour,
            self.connected_at,
            MappingProxyType({each: held.status() for each, held in self._types.items()}),
            MappingProxyType({each: subscribed(each) for each in self._types}),
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
