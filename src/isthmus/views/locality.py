"""Addresses grouped by how near they are and where they stand.

An address appears once: Envoy keeps the first of equal addresses, even across priorities. One that
stands for endpoints of several priorities, as a gateway's does, stands in the nearest of them,
with the weight of those alone: so it gets just what the near endpoints behind it would get.

Source: spec sections 3.4 and 8.1; docs/decisions/0009-a-gateway-stands-at-the-nearest-priority.md.
"""

import dataclasses
import functools
import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from isthmus.mesh import packs
from isthmus.mesh.localities import Locality
from isthmus.mesh.traffic import matches
from isthmus.views import balanced, bunches, view

MOST: Final = bunches.MOST
IN_ORDER: Final = operator.attrgetter("address", "port")
FINENESS: Final = 1000
"""Of shares that are split once more."""

Spot = tuple[int, Locality]
"""How far away, and where."""


class Part(NamedTuple):
    """One address; `weights` says what stands behind it where."""

    endpoint: view.LbEndpoint
    weights: Mapping[Spot, int]


Placed = Mapping[Spot, Sequence[bunches.Bunch]]
NOBODY: Final[Placed] = {}


def grouped(parts: Iterable[Part], *, placed: Placed = NOBODY) -> tuple[view.Group, ...]:
    """Return the addresses by nearness and place, with priorities that leave no gap.

    The members of bunches that are `placed` have their weights already.
    """
    spots = dict[Spot, list[view.Told]]()
    for spot, found in placed.items():
        spots[spot] = list(found)
    for part in parts:
        near = _nearest(part.weights)
        spots.setdefault(_home(near), []).append((_weighing(part, sum(near.values())),))
    ranks = {rank: number for number, rank in enumerate(sorted({rank for rank, _ in spots}))}
    groups = list[view.Group]()
    for spot in sorted(spots):
        rank, place = spot
        if ranks[rank] == 0 and len(spots[spot]) == 1 and spot in placed:
            groups.append(placed[spot][0])  # The same object for all who look.
        else:
            groups.append(_group(place, spots[spot], priority=ranks[rank]))
    return tuple(groups)


def _nearest(weights: Mapping[Spot, int]) -> Mapping[Spot, int]:
    if len(weights) == 1:
        return weights
    nearest = min(rank for rank, _ in weights)
    return {spot: weight for spot, weight in weights.items() if spot[0] == nearest}


def distributed(parts: Sequence[Part], shares: Sequence[tuple[str, int]]) -> tuple[view.Group, ...]:
    """Return the addresses by place, each place with its share; what has none is left out.

    Of several patterns that fit a place the first counts.
    """
    totals = dict[Locality, int]()
    for part in parts:
        for (_, place), weight in part.weights.items():
            totals[place] = totals.get(place, 0) + weight
    targets = _targets(totals, shares)
    kept = [one for one in (_within(part, targets) for part in parts) if one is not None]
    if all(len(part.weights) == 1 for part in kept):
        groups = grouped(kept)
        return tuple(
            view.LocalityGroup(
                group.locality, targets[group.locality], group.endpoints, group.priority
            )
            for group in groups
        )
    # What a gateway gets in several places moves to one of them, so that shares become weights.
    return grouped([_shared(part, targets, totals) for part in kept])


def _targets(
    totals: Mapping[Locality, int], shares: Sequence[tuple[str, int]]
) -> dict[Locality, int]:
    found = dict[Locality, int]()
    for pattern, share in shares:
        places = [one for one in sorted(totals) if one not in found and matches(pattern, one)]
        whole = sum(totals[place] for place in places)
        for place in places:
            found[place] = min(math.ceil(totals[place] * share / whole), MOST)
    return found


def _within(part: Part, targets: Mapping[Locality, int]) -> Part | None:
    weights = {spot: weight for spot, weight in part.weights.items() if spot[1] in targets}
    return Part(part.endpoint, weights) if weights else None


def _shared(part: Part, targets: Mapping[Locality, int], totals: Mapping[Locality, int]) -> Part:
    return Part(
        part.endpoint,
        {
            (rank, place): FINENESS * targets[place] * weight // totals[place]
            for (rank, place), weight in part.weights.items()
        },
    )


def _home(weights: Mapping[Spot, int]) -> Spot:
    """Return where most of the weight is; the first in order, where several have the same."""
    if len(weights) == 1:
        return next(iter(weights))
    return min(weights, key=lambda spot: (-weights[spot], spot))


def _weighing(part: Part, weight: int) -> view.LbEndpoint:
    return _weighed(part.endpoint, min(max(weight, 1), MOST))


@functools.lru_cache(maxsize=4096)
def _weighed(endpoint: view.LbEndpoint, weight: int) -> view.LbEndpoint:
    # Kept, since all places that see a gateway see one of a few weights of it.
    return dataclasses.replace(endpoint, weight=weight)


def _group(place: Locality, runs: Sequence[view.Told], *, priority: int) -> view.Group:
    endpoints = runs[0] if len(runs) == 1 else _merged(runs)  # The same object for all who look.
    if isinstance(endpoints, view.Members):
        if not priority:
            return endpoints
        return view.LocalityGroup(place, endpoints.weight, endpoints, priority)
    weight = min(sum([endpoint.weight for endpoint in endpoints]), MOST)
    return view.LocalityGroup(place, weight, endpoints, priority)


def _merged(runs: Sequence[view.Told]) -> view.Told:
    """Return the endpoints of several runs in order."""
    first = runs[0]
    if isinstance(first, view.Members) and all(_are_alike(first, run) for run in runs):
        rows = [row for run in runs if isinstance(run, view.Members) for row in run.rows()]
        rows.sort(key=_by_address)
        manner = balanced.Manner(first.speaks_mtls, first.manner.scale)
        return view.Members(packs.packed(rows), packs.EVERY, manner)
    return tuple(sorted((one for run in runs for one in run), key=IN_ORDER))


def _are_alike(one: view.Members, run: view.Told) -> bool:
    return (
        isinstance(run, view.Members)
        and not run.ends
        and run.speaks_mtls is one.speaks_mtls
        and run.manner.scale == one.manner.scale
    )


def _by_address(row: packs.Row) -> tuple[str, int]:
    return row[0], row[1].port
