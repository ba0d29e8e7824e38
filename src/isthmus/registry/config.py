"""How Istio's own objects are read: from the configuration cluster only, checked one by one.

What is wrong with a part names the object and the field, and costs that part alone; an object of
which nothing can be used is left out.

Source: spec sections 2.3 and 8.2.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from isthmus.base import errors
from isthmus.engine import collections, graph, reader
from isthmus.fleet import sources
from isthmus.kube import objects
from isthmus.registry import checked, fields, settings

O = TypeVar("O", bound=objects.Object)  # noqa: E741
P = TypeVar("P")

OBJECT_DOUBTFUL: Final = "ISM-REG-013"
NAME: Final = "name"


@dataclass(frozen=True, slots=True)
class Origin:
    """The object that is being read; `domain` is the DNS suffix of services."""

    kind: str
    namespace: str
    name: str
    domain: str


@dataclass(frozen=True, slots=True)
class Nodes(Generic[P]):
    """The understood objects of one kind."""

    values: collections.Collection[sources.ObjectKey, P]
    findings: checked.Findings


def declare(
    graph_: graph.Graph,
    kind: str,
    objects_: collections.Collection[sources.ObjectKey, O],
    *,
    seat: settings.Seat,
    read: Callable[[Origin, O, fields.Problems], P | None],
    used: str = "the rest of the object is used",
) -> Nodes[P]:
    """Declare the objects of one kind in `graph_`.

    `read` says what an object means and notes what is wrong with it; None if it means nothing.
    `used` says what becomes of an object with something wrong in it.
    """

    def check(
        _: reader.Reader, key: sources.ObjectKey, object_: O
    ) -> Iterable[tuple[sources.ObjectKey, checked.Checked[P]]]:
        if key.cluster != seat.cluster:
            return
        problems = fields.Problems()
        origin = Origin(kind, key.namespace, key.name, seat.domain)
        value = read(origin, object_, problems)
        findings = tuple(
            _finding(origin, text, used="all other objects are used" if value is None else used)
            for text in problems.texts()
        )
        yield key, checked.Checked(value, findings)

    both = graph_.derive(f"{kind}.checked", objects_, check)
    return Nodes(
        values=checked.values_of(graph_, kind, both),
        findings=checked.findings_of(graph_, kind, both),
    )


def _finding(origin: Origin, happened: str, *, used: str) -> errors.Finding:
    return errors.Finding(
        code=OBJECT_DOUBTFUL,
        subject=f"{origin.kind} {origin.namespace}/{origin.name}",
        happened=happened,
        still_working=used,
        hint="correct the field, or remove what is not supported",
    )
