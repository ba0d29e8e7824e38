"""What workers have counted becomes part of what the control plane counts."""

from isthmus.base import metrics
from isthmus.runtime.fanout import messages


class Share:
    """What one worker has counted, of all."""

    def __init__(self, registered: metrics.Metrics) -> None:
        self._registered = registered
        self._known = metrics.Figures()

    def take(self, told: messages.Figures) -> None:
        """Count what it has counted since it told it last."""
        now = metrics.Figures(
            {name: dict(values) for name, values in told.values.items()},
            {
                name: {labels: (counts, total) for labels, counts, total in rows}
                for name, rows in told.counts.items()
            },
        )
        self._registered.add(now, before=self._known)
        self._known = now

    def leave(self) -> None:
        """Keep what it has counted, but not what was so at this moment: it has ended."""
        gauges = self._registered.gauges()
        before = {name: one for name, one in self._known.values.items() if name in gauges}
        gone: dict[str, dict[tuple[str, ...], float]] = {name: {} for name in before}
        self._registered.add(metrics.Figures(gone), before=metrics.Figures(before))
        self._known = metrics.Figures()


def told(registered: metrics.Metrics, number: int) -> messages.Figures:
    """Return what was counted here, in answer to a question of that number."""
    found = registered.figures()
    return messages.Figures(
        number,
        {name: list(values.items()) for name, values in found.values.items()},
        {
            name: [(labels, counts, total) for labels, (counts, total) in rows.items()]
            for name, rows in found.counts.items()
        },
    )
