"""What is known of linked clusters from their own control planes.

Each link is followed by itself. A stream that breaks takes nothing away: what was told last goes on
counting, with its age, until the link is deleted or the other side says that a record is gone.

Source: spec section 7.7; promise P5.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from typing_extensions import override

from isthmus.base import clock, errors, logs, metrics
from isthmus.mesh import peering
from isthmus.mesh.identities import ClusterId
from isthmus.mesh.services import ServiceKey
from isthmus.registry import imports
from isthmus.resources import peering as records
from isthmus.runtime import assembly
from isthmus.wire import peerclient

_LOG = logs.Log("isthmus.peering")

PEER_SILENT: Final = "ISM-RUN-020"
MOST_REFUSED: Final = 20
"""Records of one cluster that are reported as refused, one by one."""

MOST_REMEMBERED: Final = 1000


class Counters:
    """What is counted about linked clusters."""

    def __init__(self, registered: metrics.Metrics) -> None:
        gauge = registered.gauge
        self.connected = gauge(
            "isthmus_peer_connected", "Whether a linked cluster is heard: 1 or 0.", "peer"
        )
        self.records = gauge(
            "isthmus_peer_services", "Services that a linked cluster tells of.", "peer"
        )
        self.refused = gauge(
            "isthmus_peer_services_refused", "Those of them that do not count.", "peer"
        )
        self.age = gauge(
            "isthmus_peer_age_seconds", "Seconds since a linked cluster was heard.", "peer"
        )

    def forget(self, peer: ClusterId) -> None:
        """Forget a cluster that is no longer linked."""
        for one in (self.connected, self.records, self.refused, self.age):
            one.remove(peer)


@dataclass(frozen=True, slots=True)
class Status:
    """How well a linked cluster is heard.

    Attributes:
        is_connected: Whether it is heard now.
        is_known: Whether it was ever heard to the end.
        is_recalled: Whether that was by an earlier control plane, and never since.
        age_s: Since it was last heard; None when it never was.
        reason: Why it is not heard; empty when it is.
        version: Of the last message that was taken.
        services: How many it tells of that count.
        refused: Why others do not count, by `<namespace>/<name>`.
    """

    link: peering.Link
    is_connected: bool
    is_known: bool
    age_s: float | None
    reason: str
    version: str
    services: int
    refused: Mapping[str, str]
    is_recalled: bool = False


@dataclass(slots=True)
class Peer(peerclient.Listener):
    """One linked cluster.

    Attributes:
        is_heard: Whether it was ever heard to the end by us.
        is_recalled: Whether what is known of it was told to an earlier control plane.
        version: Grows with each change of what it tells.
    """

    mesh: assembly.Mesh
    link: peering.Link
    clock: clock.Clock
    counters: Counters
    talk: peerclient.Talk = field(init=False)
    node_id: str = ""
    is_connected: bool = False
    is_heard: bool = False
    is_recalled: bool = False
    version: int = 0
    heard_at: float | None = None
    reason: str = "it was not asked yet"
    refused: dict[str, str] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)

    @property
    def is_known(self) -> bool:
        """Whether what it tells is known, of now or of an earlier control plane."""
        return self.is_heard or self.is_recalled

    def __post_init__(self) -> None:
        self.talk = peerclient.Talk(self, self.node_id, self.mesh.seat.cluster)
        self._count()

    @override
    def speaker(self, found: records.Speaker) -> str:
        link = self.link
        for what, said, wanted in (
            ("cluster", found.cluster, link.peer),
            ("network", found.network, link.network),
            ("trust domain", found.trust_domain, link.trust_domain),
        ):
            if said != wanted:
                return f"it is of {what} `{said[:80]}`, and the link says `{wanted}`"
        return ""

    @override
    def take(self, told: Mapping[str, bytes], removed: tuple[str, ...]) -> Mapping[str, str]:
        faults = dict[str, str]()
        fresh = dict[peering.ImportKey, peering.Export]()
        for name, body in told.items():
            try:
                export = records.read_service(body, name=name)
            except records.RecordMalformed as error:
                faults[name] = error.happened
                continue
            fault = imports.fault_of(export, self.link, domain=self.mesh.seat.domain)
            if fault:
                faults[name] = fault
            else:
                fresh[self._key(export.service)] = export
        with self.mesh.graph.transaction() as transaction:
            for name in removed:
                service = records.key_of(name)
                if service is not None:
                    transaction.delete(self.mesh.model.peers.told, self._key(service))
            for key, export in fresh.items():
                transaction.put(self.mesh.model.peers.told, key, export)
        self._note(told, removed, faults)
        return faults

    def _note(
        self, told: Mapping[str, bytes], removed: tuple[str, ...], faults: Mapping[str, str]
    ) -> None:
        for name in (*told, *removed):
            self.refused.pop(name, None)
        self.refused.update(faults)
        for name in sorted(self.refused)[MOST_REMEMBERED:]:
            del self.refused[name]
        self.names |= told.keys() - faults.keys()
        self.names.difference_update(removed)
        if removed or len(told) > len(faults):
            self.version += 1
        if faults:
            name = min(faults)
            _LOG.warning(
                "records of a linked cluster refused",
                peer=str(self.link.peer),
                records=len(faults),
                first=name[:200],
                reason=faults[name],
            )
        self._count()

    def recall(self, told: Mapping[str, bytes], *, age_s: float) -> None:
        """Begin with what it told an earlier control plane; it must not have been asked yet."""
        _ = self.take(told, ())
        self.talk.remember(self.names)
        self.is_recalled = True
        self.heard_at = self.clock.monotonic() - max(age_s, 0.0)
        _LOG.info(
            "linked cluster is known from a snapshot",
            peer=str(self.link.peer),
            services=len(self.names),
            age_s=round(age_s, 1),
        )

    def exports(self) -> list[peering.Export]:
        """Return what it tells, as far as it counts."""
        found = self.mesh.graph.items(self.mesh.model.peers.told)
        return [one for key, one in sorted(found.items()) if key.peer == self.link.peer]

    @override
    def heard(self) -> None:
        # That it answers does not make young what it has not told us.
        if not self.is_recalled:
            self.heard_at = self.clock.monotonic()

    @override
    def complete(self) -> None:
        if not self.is_connected:
            _LOG.info("linked cluster heard", peer=str(self.link.peer), services=len(self.names))
        self.is_connected = self.is_heard = True
        self.is_recalled = False
        self.heard_at = self.clock.monotonic()
        self.reason = ""
        self._count()

    @override
    def broken(self, reason: str) -> None:
        if self.is_connected or reason != self.reason:
            _LOG.warning(
                "linked cluster cannot be heard; what is known of it stays",
                peer=str(self.link.peer),
                reason=reason,
            )
        self.is_connected, self.reason = False, reason
        self._count()

    def forget(self) -> None:
        """Drop all that it has told: it is no longer linked."""
        peer = self.link.peer
        with self.mesh.graph.transaction() as transaction:
            transaction.replace(self.mesh.model.peers.told, lambda key: key.peer == peer, {})
        self.counters.forget(peer)

    def status(self) -> Status:
        """Return how well it is heard at this moment."""
        age = None if self.heard_at is None else self.clock.monotonic() - self.heard_at
        return Status(
            self.link,
            self.is_connected,
            self.is_known,
            age,
            self.reason,
            self.talk.version,
            len(self.names),
            dict(self.refused),
            self.is_recalled,
        )

    def findings(self) -> list[errors.Finding]:
        """Say what is wrong with it and with what it tells."""
        found = [
            imports.finding_of(self.link.peer, records.key_of(name) or ServiceKey("", name), why)
            for name, why in sorted(self.refused.items())[:MOST_REFUSED]
        ]
        if not self.is_connected:
            found.append(silence(self.status()))
        return found

    def _key(self, service: ServiceKey) -> peering.ImportKey:
        return peering.ImportKey(self.link.peer, service.namespace, service.name)

    def _count(self) -> None:
        peer = self.link.peer
        self.counters.connected.set(float(self.is_connected), peer)
        self.counters.records.set(len(self.names), peer)
        self.counters.refused.set(len(self.refused), peer)


def silence(status: Status) -> errors.Finding:
    """Say that a linked cluster cannot be heard, and since when."""
    link = status.link
    whom = " an earlier control plane" if status.is_recalled else ""
    known = (
        f"what it told{whom} {status.age_s:.0f} s ago goes on counting"
        if status.is_known and status.age_s is not None
        else "all other links; what this cluster has itself"
    )
    return errors.Finding(
        code=PEER_SILENT,
        subject=f"Gateway {link.namespace}/{link.name}",
        happened=f"linked cluster `{link.peer}` cannot be heard: {status.reason}",
        still_working=known,
        hint=hint_for(status.reason, link),
    )


def hint_for(reason: str, link: peering.Link) -> str:
    """Return the next step, as far as the reason tells it."""
    at = f"{link.addresses[0]}:{link.discovery_port}"
    if "CERTIFICATE_VERIFY_FAILED" in reason or "Ssl handshake" in reason:
        return (
            "compare the roots of both clusters (`isthmus ca show`), the end of the other's "
            "certificates, its name and its trust domain"
        )
    if "UNAUTHENTICATED" in reason:
        return f"let cluster `{link.peer}` accept this one: link it back, or list its trust domain"
    if "it is of" in reason:
        return f"remove the link, and link cluster `{link.peer}` again"
    return f"see whether {at} answers, and whether cluster `{link.peer}` exposes port 15012"


Proof = Callable[[peering.Link], peerclient.Target | None]
"""Returns where and how a linked cluster is asked; None while nothing proves us."""
