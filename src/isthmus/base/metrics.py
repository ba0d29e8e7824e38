"""Counters, gauges and histograms in the text format that Prometheus reads.

A metric is declared once, with its labels; a name that is declared twice is a defect and refused.
"""

import bisect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar


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
            number = _number(value)
            yield f"{self.name}{{{shown}}} {number}" if shown else f"{self.name} {number}"


@dataclass(slots=True)
class Histogram:
    """How many of the observed values are at most as large as each bound."""

    name: str
    description: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    counts: dict[tuple[str, ...], list[int]] = field(default_factory=dict)
    sums: dict[tuple[str, ...], float] = field(default_factory=dict)

    def observe(self, value: float, *labels: str, times: int = 1) -> None:
        """Count a value for `labels`, that was seen so many times."""
        counts = self.counts.setdefault(labels, [0] * (len(self.bounds) + 1))
        counts[bisect.bisect_left(self.bounds, value)] += times
        self.sums[labels] = self.sums.get(labels, 0.0) + value * times

    def observe_each(self, values: Sequence[float], *labels: str) -> None:
        """Count several values for `labels`."""
        counts = self.counts.setdefault(labels, [0] * (len(self.bounds) + 1))
        for value in values:
            counts[bisect.bisect_left(self.bounds, value)] += 1
        self.sums[labels] = self.sums.get(labels, 0.0) + sum(values)

    def add(self, now: "Distributions", before: "Distributions") -> None:
        """Count what somebody else has counted since before."""
        for labels, (counts, total) in now.items():
            old, old_total = before.get(labels, ((0,) * len(counts), 0.0))
            own = self.counts.setdefault(labels, [0] * (len(self.bounds) + 1))
            for at, (new, known) in enumerate(zip(counts, old, strict=True)):
                own[at] += new - known
            self.sums[labels] = self.sums.get(labels, 0.0) + total - old_total

    def lines(self) -> Iterable[str]:
        """Yield the metric in the text exposition format."""
        yield f"# HELP {self.name} {self.description}"
        yield f"# TYPE {self.name} histogram"
        names = [f"{bound:g}" for bound in self.bounds] + ["+Inf"]
        for labels, counts in sorted(self.counts.items()):
            given = [f'{k}="{_escaped(v)}"' for k, v in zip(self.labels, labels, strict=True)]
            total = 0
            for name, count in zip(names, counts, strict=True):
                total += count
                shown = ",".join([*given, f'le="{name}"'])
                yield f"{self.name}_bucket{{{shown}}} {total}"
            shown = f"{{{','.join(given)}}}" if given else ""
            yield f"{self.name}_sum{shown} {_number(self.sums[labels])}"
            yield f"{self.name}_count{shown} {total}"


Distributions = Mapping[tuple[str, ...], tuple[tuple[int, ...], float]]
"""How many values there were below each bound, and their sum, by labels."""


@dataclass(slots=True)
class Figures:
    """What a program has counted, by the names of its metrics."""

    values: dict[str, dict[tuple[str, ...], float]] = field(default_factory=dict)
    counts: dict[str, dict[tuple[str, ...], tuple[tuple[int, ...], float]]] = field(
        default_factory=dict
    )


Kind = TypeVar("Kind", Metric, Histogram)


class Metrics:
    """All metrics of one program."""

    def __init__(self) -> None:
        self._metrics: dict[str, Metric | Histogram] = {}
        self._before: list[Callable[[], None]] = []

    def counter(self, name: str, description: str, *labels: str) -> Metric:
        """Declare a value that only rises."""
        return self._declare(Metric(name, "counter", description, labels))

    def gauge(self, name: str, description: str, *labels: str) -> Metric:
        """Declare a value that rises and falls."""
        return self._declare(Metric(name, "gauge", description, labels))

    def histogram(
        self, name: str, description: str, *labels: str, bounds: tuple[float, ...]
    ) -> Histogram:
        """Declare a distribution of values, by bounds that rise."""
        return self._declare(Histogram(name, description, labels, bounds))

    def before_each(self, refresh: Callable[[], None]) -> None:
        """Call `refresh` whenever somebody is about to read, for figures that nobody keeps."""
        self._before.append(refresh)

    def text(self) -> str:
        """Return all metrics in the text exposition format."""
        for refresh in self._before:
            refresh()
        return (
            "\n".join(line for metric in self._metrics.values() for line in metric.lines()) + "\n"
        )

    def figures(self) -> "Figures":
        """Return all values, for another program that counts the same."""
        for refresh in self._before:
            refresh()
        found = Figures()
        for metric in self._metrics.values():
            if isinstance(metric, Metric):
                found.values[metric.name] = dict(metric.values)
            else:
                found.counts[metric.name] = {
                    labels: (tuple(counts), metric.sums[labels])
                    for labels, counts in metric.counts.items()
                }
        return found

    def add(self, now: "Figures", *, before: "Figures") -> None:
        """Count what another program has counted since before, of metrics that are declared here."""
        for name, values in now.values.items():
            metric, old = self._metrics.get(name), before.values.get(name, {})
            if isinstance(metric, Metric):
                for labels in values.keys() | old.keys():
                    metric.add(values.get(labels, 0.0) - old.get(labels, 0.0), *labels)
                    if labels not in values and not metric.values[labels]:
                        metric.remove(*labels)
        for name, counts in now.counts.items():
            histogram = self._metrics.get(name)
            if isinstance(histogram, Histogram):
                histogram.add(counts, before.counts.get(name, {}))

    def gauges(self) -> frozenset[str]:
        """Return the names of values that rise and fall."""
        return frozenset(
            metric.name
            for metric in self._metrics.values()
            if isinstance(metric, Metric) and metric.kind == "gauge"
        )

    def names(self) -> tuple[str, ...]:
        """Return the names of all declared metrics."""
        return tuple(self._metrics)

    def _declare(self, metric: Kind) -> Kind:
        if metric.name in self._metrics:
            raise ValueError(f"metric declared twice: {metric.name}")
        self._metrics[metric.name] = metric
        return metric


def _number(value: float) -> str:
    # Moments have more digits than most formats keep.
    return f"{value:.15g}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
