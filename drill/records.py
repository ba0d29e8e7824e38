"""What a drill has seen, as values: requests, arrivals, glances at proxies, faults, memory.

Times are seconds since 1970; all programs of a drill run on one machine and share its clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from typing_extensions import override

ROTATION: Final = "rotation"
REMOVAL: Final = "removal"
BLACKOUT: Final = "blackout"
KILL: Final = "kill"
KINDS: Final = (ROTATION, REMOVAL, BLACKOUT, KILL)

Endpoint = tuple[str, str]
"""Envoy's name of a cluster, and an address."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request, as the client that sent it says; `status` 0 when there was no answer."""

    client: str
    id: str
    at: float
    took_s: float
    status: int
    body: str = ""

    @property
    def is_lost(self) -> bool:
        """Whether it was not answered as it should be; a healthy destination is always there."""
        return self.status != 200  # HTTP's OK


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request, as the pod that answered says; `caller` is the certificate's identity."""

    server: str
    id: str
    caller: str


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy, and the cluster whose control plane tells it what it knows."""

    cluster: str
    pod: str


@dataclass(frozen=True, slots=True)
class Glance:
    """The endpoints that a proxy had from a moment on, until its next glance."""

    proxy: Proxy
    at: float
    endpoints: frozenset[Endpoint]


@dataclass(slots=True)
class Fault:
    """Something that was done to the mesh; `ended` is when all was well again, if ever.

    Attributes:
        kind: One of `KINDS`.
        cluster: Whose credential, secret, API server or control plane it was.
        watcher: The cluster whose control plane lost `cluster`, for a removal.
        gone_s: How long it took until every proxy had forgotten a removed cluster.
        back_s: How long it took until all was as before.
    """

    kind: str
    cluster: str
    began: float
    watcher: str = ""
    detail: str = ""
    gone_s: float | None = None
    back_s: float | None = None
    ended: float | None = None

    @override
    def __str__(self) -> str:
        """Say it as a person would."""
        place = f" at {self.watcher}" if self.watcher else ""
        more = f" ({self.detail})" if self.detail else ""
        return f"{self.kind} of {self.cluster}{place}{more}"

    def covers(self, moment: float, *, after_s: float = 0.0) -> bool:
        """Whether it was in progress, or had ended a short while before."""
        return self.began <= moment and (self.ended is None or moment <= self.ended + after_s)


@dataclass(frozen=True, slots=True)
class Holding:
    """What a control plane holds: its share of memory, its open files and its threads."""

    cluster: str
    pid: int
    at: float
    pss_mib: float
    files: int
    threads: int


@dataclass(slots=True)
class Record:
    """Everything that was seen in one drill.

    Attributes:
        owners: Address to the cluster that it leads to.
        seen: When each proxy was looked at last.
        gaps_s: How long each proxy could not be looked at, at most.
        memory_phase: From when to when no control plane was killed, after warming up.
        updates: New credentials that each control plane took up while none was killed.
        notes: What went wrong in the drill itself, with the moment.
        slowness: How many times longer than usual all may take on this machine.
    """

    seed: int
    began: float
    requests: list[Request] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)
    glances: list[Glance] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    holdings: list[Holding] = field(default_factory=list)
    owners: Mapping[str, str] = field(default_factory=dict)
    expected: Mapping[Proxy, frozenset[Endpoint]] = field(default_factory=dict)
    seen: dict[Proxy, float] = field(default_factory=dict)
    gaps_s: dict[Proxy, float] = field(default_factory=dict)
    failed_tries: dict[Proxy, int] = field(default_factory=dict)
    memory_phase: tuple[float, float] = (0.0, 0.0)
    updates: dict[str, int] = field(default_factory=dict)
    notes: list[tuple[float, str]] = field(default_factory=list)
    sent: dict[str, int] = field(default_factory=dict)
    flags: dict[str, str] = field(default_factory=dict)
    ended: float = 0.0
    slowness: float = 1.0
    expected_caller: str = "spiffe://cluster.local/ns/sample/sa/sleep"

    def in_progress(self, moment: float) -> list[Fault]:
        """Return the faults at a moment, and those that have just ended."""
        return [fault for fault in self.faults if fault.covers(moment, after_s=AFTERMATH_S)]

    def count(self, kind: str) -> int:
        """Return how many faults of a kind there were."""
        return sum(fault.kind == kind for fault in self.faults)


AFTERMATH_S: Final = 5.0
