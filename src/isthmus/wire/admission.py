"""How many new streams of discovery there may be, of all callers together and of one pod.

Source: security rule XA-5.
"""

from collections import Counter, deque
from typing import Final

from isthmus.base import clock
from isthmus.wire import callers, nodes
from isthmus.wire.limits import Limits

WHILE_S: Final = 1.0
"""What counts is what came within so long."""


class Admission:
    """Counts streams as they come."""

    def __init__(self, limits: Limits, *, system_clock: clock.Clock) -> None:
        self._limits = limits
        self._clock = system_clock
        self._recent: deque[tuple[float, str]] = deque()
        self._of_pods = Counter[str]()

    def objection(self, caller: callers.Caller) -> str:
        """Count a stream of a caller; say instead why it must come again, if so."""
        now, pod = self._clock.monotonic(), caller.pod_uid
        self._forget_before(now - WHILE_S)
        if len(self._recent) >= self._limits.streams_per_s:
            return "too many new streams; come again"
        if pod and self._of_pods[pod] >= self._limits.pod_streams_per_s:
            return "too many new streams of one pod; come again"
        self._recent.append((now, pod))
        self._of_pods[pod] += 1
        return ""

    def _forget_before(self, moment: float) -> None:
        while self._recent and self._recent[0][0] <= moment:
            _, pod = self._recent.popleft()
            self._of_pods[pod] -= 1
            if not self._of_pods[pod]:
                del self._of_pods[pod]


def pod_of(caller: callers.Caller, node: nodes.Node) -> tuple[str, ...]:
    """Return what counts as the same pod: what was proven, not what it says."""
    if caller.pod_uid:
        return (caller.cluster, caller.pod_uid)
    return (caller.cluster, caller.namespace, caller.service_account, node.name)
