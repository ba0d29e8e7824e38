"""Of which assignments a client's clusters wait, although it has them: what their versions say.

A cluster that becomes another one waits for its endpoints to be told once more, and a client that
comes again does not say so. What it says are versions. So the version of an assignment, as it is told
to who hears differences, begins with that of the cluster that the client had by then: who has a
cluster and its endpoints, told for this very cluster, waits for nothing and hears nothing.

That holds as long as no client is told of a cluster that its endpoints were told for, while it has
another one in between: it hears of its endpoints first, for the one that it has.

Source: xDS protocol, "Client behavior for warming"; docs/decisions/0050.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from typing_extensions import override

from isthmus.resources import snapshot
from isthmus.resources.snapshot import Resource
from isthmus.xds import collections, ledgers

ENDS: Final = "."
"""Stands behind a cluster's version."""


class Told(Mapping[str, Resource]):
    """Assignments as they are told to who has certain clusters."""

    __slots__ = ("_clusters", "_held")

    def __init__(self, held: Mapping[str, Resource], clusters: ledgers.Ledger) -> None:
        self._held = held
        self._clusters = clusters

    @override
    def __getitem__(self, name: str) -> Resource:
        found, cluster = self._held[name], self._clusters.get(name)
        if cluster is None:
            return found
        # What is told is kept for whoever hears the same: its body may rest like the other's.
        return snapshot.shared(replace(found, version=f"{cluster}{ENDS}{found.version}"))

    @override
    def __contains__(self, name: object) -> bool:
        return name in self._held

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    @override
    def __len__(self) -> int:
        return len(self._held)


def waiting(
    clusters: Iterable[str],
    *,
    sets: Mapping[str, Resource],
    assignments: ledgers.Ledger,
    members: ledgers.Ledger,
    turn: str,
) -> tuple[str, ...]:
    """Return those of some clusters that wait for what their client was not told yet.

    Args:
        clusters: Their names, by which their assignments go.
        sets: The assignments that there are: what has none waits for nothing.
        assignments: Which of them the client was told.
        members: Which collections.
        turn: How these are called on its stream.
    """

    def is_ready(name: str) -> bool:
        parts = (collections.named(one.name, turn) for one in sets[name].collections)
        return name in assignments and all(one in members for one in parts)

    return tuple(name for name in clusters if name in sets and not is_ready(name))


def returning(
    clusters: Iterable[Resource], *, has: ledgers.Ledger, assignments: ledgers.Ledger
) -> tuple[str, ...]:
    """Return the names of clusters that are to be told, and must not be before their endpoints.

    Args:
        clusters: What is to be told.
        has: Which clusters the client has by now.
        assignments: Which assignments.
    """
    return tuple(
        one.name
        for one in clusters
        if (assignment := assignments.get(one.name)) is not None
        and assignment.startswith(f"{one.version}{ENDS}")
        and has.get(one.name) not in {None, one.version}
    )
