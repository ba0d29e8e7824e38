"""How well each cluster is followed, as a value, and the metrics that say the same.

Source: spec sections 2.3 and 2.7.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from isthmus.base import clock, metrics
from isthmus.mesh.identities import ClusterId

Status = Literal["synced", "syncing", "timeout", "closed"]
STATUSES: tuple[Status, ...] = ("synced", "syncing", "timeout", "closed")

SHOWN_DIGITS = 12
"""So much of a digest is shown to people and commands."""


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """How well a cluster is followed.

    Attributes:
        secret: `namespace/name` of its secret; empty for our own cluster.
        age_s: How old its objects are if it does not answer; else 0.
        error: What its API server last failed with; empty while all is well.
        generation: How many credentials it was followed with.
        known: Whether its objects are in the model, as they are or as they were last seen.
        recalled: Whether they come from a snapshot that an earlier control plane kept.
        digest: Fingerprint of the kubeconfig that it is followed with.
        token_expires: When the credential ends; None if it never does.
    """

    cluster: ClusterId
    secret: str
    status: Status
    age_s: float = 0.0
    error: str = ""
    generation: int = 0
    known: bool = False
    recalled: bool = False
    digest: str = ""
    token_expires: clock.Instant | None = None


def objection(cluster: ClusterId, *, is_known: bool | None) -> str:
    """Say why proxies of a cluster cannot be told of the mesh; empty when they can.

    `is_known` is None of a cluster that nobody follows.
    """
    if is_known is None:
        # They were proven while it still belonged to the mesh.
        return f"cluster `{cluster}` has left the mesh"
    # Their own pods are not known: what they have would be taken away from them.
    return "" if is_known else f"cluster `{cluster}` is not known yet"


class Measures:
    """What Istio's operators watch of a fleet, and how old knowledge and credentials are."""

    def __init__(self, into: metrics.Metrics) -> None:
        self.managed = into.gauge(
            "istiod_managed_clusters", "Clusters that are followed.", "cluster_type"
        )
        self.timeouts = into.counter(
            "remote_cluster_sync_timeouts_total", "Clusters that did not sync in time.", "cluster"
        )
        self.events = into.counter(
            "remote_cluster_secret_events_total", "Clusters added, changed, removed.", "event"
        )
        self._status = into.gauge(
            "istiod_remote_cluster_sync_status",
            "1 for the status that a remote cluster has.",
            "cluster",
            "cluster_type",
            "status",
        )
        self._age = into.gauge(
            "isthmus_remote_cluster_age_seconds",
            "How old what is known of a cluster is; 0 while it answers.",
            "cluster",
        )
        self._left = into.gauge(
            "isthmus_remote_token_left_seconds",
            "How long the credential of a cluster holds; absent if for ever.",
            "cluster",
        )

    def show(self, statuses: Mapping[ClusterId, Status]) -> None:
        """Set the status of every remote cluster."""
        for cluster, current in statuses.items():
            for status in STATUSES:
                self._status.set(float(status == current), cluster, "remote", status)

    def show_ages(self, statuses: Iterable[ClusterStatus], *, now: clock.Instant) -> None:
        """Set what grows by itself; to be called when somebody looks."""
        for one in statuses:
            self._age.set(round(one.age_s, 1), one.cluster)
            if one.token_expires is None:
                self._left.remove(one.cluster)
            else:
                self._left.set((one.token_expires - now).total_seconds(), one.cluster)

    def forget(self, cluster: ClusterId) -> None:
        """Remove what was said of a cluster."""
        for metric in (self.timeouts, self._age, self._left):
            metric.remove(cluster)
        for status in STATUSES:
            self._status.remove(cluster, "remote", status)
