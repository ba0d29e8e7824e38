"""How many views of the mesh there are, and how many there may be.

Each holds something of every service, whoever shares it: a handful for each cluster are usual. Rules
that tell clients apart by their labels make more. Where there are as many as are allowed, proxies
that would need another one wait; all others are told as before.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from isthmus.base import errors, metrics
from isthmus.views import view
from isthmus.views.view import Scope

WIDE: Final[Mapping[type, str]] = {
    view.OutboundScope: "outbound",
    view.GatewayScope: "gateway",
    view.WaypointScope: "waypoint",
    view.NodesScope: "nodes",
}
"""Kinds of scopes that hold something of every service, by what they are called."""

MOST_USUAL: Final = 4000
SHARE_OF_WARNING: Final = 4
"""Beyond one part in so many there is a finding."""


class Views:
    """Counts views."""

    def __init__(
        self, registered: metrics.Metrics | None = None, *, most: int = MOST_USUAL
    ) -> None:
        self._most = most
        self._count = Counter[str]()
        self._gauge = (registered or metrics.Metrics()).gauge(
            "isthmus_views", "Views of the mesh that proxies share.", "kind"
        )

    def come(self, scope: Scope, change: int = 1) -> None:
        """Count a scope that somebody sees from now on, or with -1 nobody any more."""
        kind = WIDE.get(type(scope))
        if kind is not None:
            self._count[kind] += change
            self._gauge.set(self._count[kind], kind)

    def objection(self, fresh: Iterable[Scope]) -> str:
        """Say why these scopes cannot be seen besides all others; empty when they can."""
        more = sum(type(scope) in WIDE for scope in fresh)
        if not more or self._count.total() + more <= self._most:
            return ""
        return f"there are {self._count.total()} views of the mesh already, of {self._most}"

    def findings(self) -> list[errors.Finding]:
        """Warn of too many."""
        count = self._count.total()
        if count * SHARE_OF_WARNING <= self._most:
            return []
        kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(self._count.items()))
        return [
            errors.Finding(
                "ISM-XDS-003",
                "views of the mesh",
                f"there are {count}, of at most {self._most}: {kinds}",
                still_working="all connected proxies; at the most, those that need another view"
                " wait",
                hint="see which rules tell clients apart by labels, or raise `ISTHMUS_MOST_VIEWS`",
            )
        ]
