"""An answer with its findings, and how the two part ways.

A derivation that checks untrusted input answers with both; from there the values go on to those
who compute with them, and the findings to those who tell people.
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from isthmus.base import errors
from isthmus.engine import collections, graph, reader

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class FindingKey:
    """Names a finding: which check, on which input, the how manieth."""

    check: str
    subject: Hashable
    number: int


Findings = collections.Collection[FindingKey, errors.Finding]


@dataclass(frozen=True, slots=True)
class Checked(Generic[V]):
    """What was understood, None if nothing, and what is wrong.

    Attributes:
        is_broken: Whether an earlier good answer is better than this one.
    """

    value: V | None
    findings: tuple[errors.Finding, ...] = ()
    is_broken: bool = False


class Judged(Protocol):
    """An answer with its findings, of whatever kind it is."""

    @property
    def findings(self) -> tuple[errors.Finding, ...]:
        """What is wrong."""


F = TypeVar("F", bound=Judged)


def values_of(
    graph_: graph.Graph, name: str, checked: collections.Collection[K, Checked[V]]
) -> collections.Collection[K, V]:
    """Declare the values of `checked`."""

    def value(_: reader.Reader, key: K, answer: Checked[V]) -> Iterable[tuple[K, V]]:
        return () if answer.value is None else ((key, answer.value),)

    return graph_.derive(name, checked, value)


def last_good_of(
    graph_: graph.Graph, name: str, checked: collections.Collection[K, Checked[V]]
) -> collections.Collection[K, V]:
    """Declare the last values that were not broken; a broken one only where none was ever good."""

    def good(_: reader.Reader, key: K, answer: Checked[V]) -> Iterable[tuple[K, V]]:
        if answer.is_broken:
            raise reader.KeepLast
        return () if answer.value is None else ((key, answer.value),)

    return graph_.join(
        name,
        graph_.derive(f"{name}.good", checked, good),
        values_of(graph_, f"{name}.any", checked),
    )


def findings_of(graph_: graph.Graph, name: str, checked: collections.Collection[K, F]) -> Findings:
    """Declare the findings of `checked`."""

    def findings(
        _: reader.Reader, key: K, answer: F
    ) -> Iterable[tuple[FindingKey, errors.Finding]]:
        for number, finding in enumerate(answer.findings):
            yield FindingKey(name, key, number), finding

    return graph_.derive(f"{name}.findings", checked, findings)
