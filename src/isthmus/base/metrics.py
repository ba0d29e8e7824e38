"""Counters and gauges in the text format that Prometheus reads.

A metric is declared once, with its labels; a name that is declared twice is a defect and refused.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Metric:
    """One counter or gauge, with a value for each combination of label values."""

    name: str
    kind: str
    description: str
    labels: tuple[str, ...] = ()
    values: dict[tuple[str, ...], float] = field(default_factory=dict)

    def add(self, amount: float = 1.0, *labels: str) -> None:
        """Raise the value for `labels` by `amount`."""
        self.values[labels] = self.values.get(labels, 0.0) + amount

    def set(self, value: float, *labels: str) -> None:
        """Set the value for `labels`."""
        self.values[labels] = value

    def remove(self, *labels: str) -> None:
        """Forget the value for `labels`, as when the cluster that it spoke of is gone."""
        self.values.pop(labels, None)

    def lines(self) -> Iterable[str]:
        """Yield the metric in the text exposition format."""
        yield f"# HELP {self.name} {self.description}"
        yield f"# TYPE {self.name} {self.kind}"
        for labels, value in sorted(self.values.items()):
            shown = ",".join(
                f'{key}="{_escaped(text)}"' for key, text in zip(self.labels, labels, strict=True)
            )
            yield f"{self.name}{{{shown}}} {value:g}" if shown else f"{self.name} {value:g}"


class Metrics:
    """All metrics of one program."""

    def __init__(self) -> None:
        self._metrics: dict[str, Metric] = {}

    def counter(self, name: str, description: str, *labels: str) -> Metric:
        """Declare a value that only rises."""
        return self._declare(Metric(name, "counter", description, labels))

    def gauge(self, name: str, description: str, *labels: str) -> Metric:
        """Declare a value that rises and falls."""
        return self._declare(Metric(name, "gauge", description, labels))

    def text(self) -> str:
        """Return all metrics in the text exposition format."""
        return (
            "\n".join(line for metric in self._metrics.values() for line in metric.lines()) + "\n"
        )

    def names(self) -> tuple[str, ...]:
        """Return the names of all declared metrics."""
        return tuple(self._metrics)

    def _declare(self, metric: Metric) -> Metric:
        if metric.name in self._metrics:
            raise ValueError(f"metric declared twice: {metric.name}")
        self._metrics[metric.name] = metric
        return metric


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
