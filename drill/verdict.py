"""Judges what a drill has seen, from the records alone.

    Record → violations, figures

The rules of counting: a request is lost when it was not answered with 200, whatever the reason,
since every client has a healthy destination all the time. A request that was answered must have
arrived somewhere, and only there; it may have arrived twice only if a proxy saw a try fail.
"""

import ipaddress
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from drill import records

GONE_LIMIT_S: Final = 5.0
"""A removed cluster is gone from all proxies within this."""
BACK_LIMIT_S: Final = 60.0
"""All is as before within this; half of it may be the kubelet's, whose back-off grows to 30 s."""
GROWTH_LIMIT_MIB: Final = 5.0
FILES_LIMIT: Final = 24
"""So many open files more are connections that come and go: of proxies, and of watches on their way.

Were one left by each new credential, it would be more than a hundred in the long drill.
"""
UNSEEN_LIMIT_S: Final = 15.0
"""A machine that is busy with other things may keep a proxy from answering for a while."""
WINDOW: Final = 5
"""Memory is read every few seconds; the middle of so many readings is compared."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken promise."""

    at: float
    rule: str
    text: str


def violations(record: records.Record) -> list[Violation]:
    """Return everything that a drill must not see, in the order in which it happened."""
    found = [
        *_lost(record),
        *_counted(record),
        *_shrunk(record),
        *_removed(record),
        *_swollen(record),
        *_ineffective(record),
        *(Violation(at, "drill", text) for at, text in record.notes),
    ]
    return sorted(found, key=lambda each: each.at)


def _lost(record: records.Record) -> Iterator[Violation]:
    for request in record.requests:
        if request.is_lost:
            faults = ", ".join(map(str, record.in_progress(request.at))) or "no fault"
            flags = record.flags.get(request.id, "")
            said = f", flags {flags}" if flags else ""
            text = (
                f"{request.client}: {request.id}: status {request.status} after "
                f"{request.took_s:.2f} s{said}: {request.body.strip()[:160]}; during {faults}"
            )
            yield Violation(request.at, "lost request", text)


def _counted(record: records.Record) -> Iterator[Violation]:
    answered = Counter(client for client in (each.client for each in record.requests))
    for client, sent in record.sent.items():
        if answered[client] != sent:
            text = f"{client}: {sent} sent, {answered[client]} accounted for"
            yield Violation(record.ended, "accounting", text)
    arrived = Counter(each.id for each in record.arrivals)
    for request in record.requests:
        if not request.is_lost and not arrived[request.id]:
            yield Violation(request.at, "phantom", f"{request.id} was answered by nobody")
    repeated = sum(count - 1 for count in arrived.values())
    failed = sum(record.failed_tries.values())
    if repeated > failed:
        text = f"{repeated} requests arrived again, and {failed} tries failed"
        yield Violation(record.ended, "duplicate", text)
    strangers = {each.caller for each in record.arrivals} - {record.expected_caller}
    if strangers:
        yield Violation(record.ended, "identity", f"callers: {', '.join(sorted(strangers))}")


def _shrunk(record: records.Record) -> Iterator[Violation]:
    away = [fault for fault in record.faults if fault.kind == records.REMOVAL]
    places = Places(record.owners)
    for glance in record.glances:
        expected = record.expected.get(glance.proxy, frozenset())
        missing = [
            endpoint
            for endpoint in sorted(expected - glance.endpoints)
            if not _may_miss(glance, places.owner(endpoint[1]), away)
        ]
        if missing:
            faults = ", ".join(map(str, record.in_progress(glance.at))) or "no fault"
            first = " ".join(missing[0])
            text = (
                f"{glance.proxy.cluster} {glance.proxy.pod} lacks {len(missing)} of "
                f"{len(expected)}: {first} …; during {faults}"
            )
            yield Violation(glance.at, "endpoints shrank", text)


def _may_miss(glance: records.Glance, owner: str, away: Iterable[records.Fault]) -> bool:
    """Whether a proxy may have lost what leads to `owner`: its control plane was told to."""
    return any(
        fault.watcher == glance.proxy.cluster and fault.cluster == owner and fault.covers(glance.at)
        for fault in away
    )


class Places:
    """Finds the clusters that addresses lead to."""

    def __init__(self, owners: Mapping[str, str]) -> None:
        self._networks = [(ipaddress.ip_network(text), name) for text, name in owners.items()]
        self._known: dict[str, str] = {}

    def owner(self, address: str) -> str:
        """Return the cluster that an address with a port leads to; empty when nobody knows."""
        if address not in self._known:
            self._known[address] = self._found(address.rpartition(":")[0])
        return self._known[address]

    def of(self, endpoints: Iterable[records.Endpoint], *, service: str = "") -> set[str]:
        """Return the clusters that endpoints of a service, or of all, lead to."""
        return {self.owner(address) for name, address in endpoints if service in name} - {""}

    def _found(self, host: str) -> str:
        try:
            ip = ipaddress.ip_address(host)
        except ValueError:
            return ""
        return next((name for network, name in self._networks if ip in network), "")


def _removed(record: records.Record) -> Iterator[Violation]:
    most_s = GONE_LIMIT_S * record.slowness
    for fault in record.faults:
        if fault.kind == records.REMOVAL and (fault.gone_s is None or fault.gone_s > most_s):
            took = (
                "was not gone" if fault.gone_s is None else f"was gone after {fault.gone_s:.1f} s"
            )
            yield Violation(fault.began, "removal", f"{fault}: {took}; {most_s:g} s at most")
        limit_s = BACK_LIMIT_S * record.slowness + _silent_s(record, fault)
        if fault.ended is None or (fault.back_s is not None and fault.back_s > limit_s):
            yield Violation(fault.began, "recovery", f"{fault}: was not as before in time")


def _silent_s(record: records.Record, kill: records.Fault) -> float:
    """Return for how long a killed control plane had no API server of its own to begin with."""
    if kill.kind != records.KILL or kill.ended is None:
        return 0.0
    own = [
        (max(kill.began, each.began), min(kill.ended, each.ended or record.ended))
        for each in record.faults
        if each.kind == records.BLACKOUT and each.cluster == kill.cluster
    ]
    return sum(max(0.0, until - since) for since, until in own)


@dataclass(frozen=True, slots=True)
class Growth:
    """What one control plane held first and last, while credentials were replaced.

    Attributes:
        files_before: The fewest that were open at any look.
        tells: Whether it was looked at often enough to tell growth from what is done once: in some
            seconds, most of what comes is code that runs for the first time.
    """

    cluster: str
    before_mib: float
    after_mib: float
    files_before: float
    files_after: float
    threads_before: float
    threads_after: float
    tells: bool = True

    @property
    def mib(self) -> float:
        """How much memory it holds more."""
        return self.after_mib - self.before_mib


def growths(record: records.Record) -> list[Growth]:
    """Return how much more each control plane holds after the phase without kills."""
    first, last = record.memory_phase
    found: list[Growth] = []
    for cluster in sorted({each.cluster for each in record.holdings}):
        own = [h for h in record.holdings if h.cluster == cluster and first <= h.at <= last]
        if len(own) > 1 and len({each.pid for each in own}) == 1:
            size = min(WINDOW, len(own) // 2)
            growth = _growth(cluster, own[:size], own[-size:])
            found.append(replace(growth, tells=len(own) >= 2 * WINDOW))
    return found


def _growth(
    cluster: str, early: Sequence[records.Holding], late: Sequence[records.Holding]
) -> Growth:
    median = statistics.median
    return Growth(
        cluster,
        median(each.pss_mib for each in early),
        median(each.pss_mib for each in late),
        # Beside a credential that is taken up, all watches of the one before are open, too.
        min(each.files for each in early),
        min(each.files for each in late),
        median(each.threads for each in early),
        median(each.threads for each in late),
    )


def _swollen(record: records.Record) -> Iterator[Violation]:
    for growth in growths(record):
        if growth.tells and growth.mib > GROWTH_LIMIT_MIB:
            text = f"{growth.cluster}: control plane grew by {growth.mib:.1f} MiB"
            yield Violation(record.memory_phase[1], "memory", text)
        if growth.files_after - growth.files_before > FILES_LIMIT:
            text = (
                f"{growth.cluster}: {growth.files_before:.0f} open files became "
                f"{growth.files_after:.0f}"
            )
            yield Violation(record.memory_phase[1], "open files", text)


def _ineffective(record: records.Record) -> Iterator[Violation]:
    """Doubt the drill itself: without traffic, glances or rotations it proves nothing."""
    if not record.requests or not record.glances:
        yield Violation(record.ended, "drill", "nothing was seen")
    for proxy in sorted(record.expected, key=str):
        seen = record.seen.get(proxy, record.began)
        gap = max(record.gaps_s.get(proxy, 0.0), record.ended - seen)
        if gap > UNSEEN_LIMIT_S * record.slowness:
            text = f"{proxy.cluster} {proxy.pod} was not looked at for {gap:.0f} s"
            yield Violation(seen, "drill", text)
    wanted = Counter[str]()
    for fault in record.faults:
        if fault.kind == records.ROTATION and fault.ended and fault.ended <= record.memory_phase[1]:
            wanted.update(c for c in record.updates if c != fault.cluster)
    for cluster, count in record.updates.items():
        if count < wanted[cluster]:
            text = f"{cluster}: {wanted[cluster]} new credentials, {count} taken up"
            yield Violation(record.ended, "drill", text)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that a share of all do not exceed; 0 without any."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
