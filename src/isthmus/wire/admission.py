"""How many new streams of discovery there may be, of all callers together and of one pod.

Source: security rule XA-5.
"""

from collections import deque

from isthmus.base import clock
from isthmus.wire import callers, nodes
from isthmus.wire.limits import Limits


class Admission:
    """Counts streams as they come."""

    def __init__(self, limits: Limits, *, system_clock: clock.Clock) -> None:
        self._limits = limits
        self._clock = system_clock
        self._recent: deque[tuple[float, str]] = deque(maxlen=limits.streams_per_s)

    def objection(self, caller: callers.Caller) -> str:
        """Count a stream of a caller; say instead why it must come again, if so."""
        now = self._clock.monotonic()
        is_full = len(self._recent) == self._recent.maxlen
        if is_full and now - self._recent[0][0] < 1.0:
            return "too many new streams; come again"
        own = caller.pod_uid and sum(
            pod == caller.pod_uid and now - at < 1.0 for at, pod in self._recent
        )
        if own and own >= self._limits.pod_streams_per_s:
            return "too many new streams of one pod; come again"
        self._recent.append((now, caller.pod_uid))
        return ""


def pod_of(caller: callers.Caller, node: nodes.Node) -> tuple[str, ...]:
    """Return what counts as the same pod: what was proven, not what it says."""
    if caller.pod_uid:
        return (caller.cluster, caller.pod_uid)
    return (caller.cluster, caller.namespace, caller.service_account, node.name)
