"""In which order a client hears of several types.

A change is told so that nothing refers to what is not there yet: clusters, endpoints, listeners,
routes, secrets. Clusters and endpoints go only after everything that could still refer to them has
been told; in state of the world they are told along with the new ones until then. A client that was
told of new clusters is led to them, and away from others, when it can use them: it asks for the endpoints
of a cluster only after it has heard of it, and until it has them whoever is led there is turned away.

Source: spec section 4.6; xDS protocol, "Eventual consistency considerations".
"""

import functools
from dataclasses import dataclass
from typing import Final

from isthmus.base import hashing
from isthmus.resources import snapshot
from isthmus.resources.snapshot import TypeUrl


class Part(hashing.Word):
    """Which half of a change a step tells."""

    ADDITIONS = "additions"
    REMOVALS = "removals"
    WHOLE = "whole"


@dataclass(frozen=True, slots=True)
class Step:
    """Tell one part of what changed in one type."""

    type_url: TypeUrl
    part: Part


REMOVED_LAST: Final = frozenset({snapshot.CLUSTERS, snapshot.ENDPOINTS})

NAMED: Final = frozenset(
    {
        snapshot.ENDPOINTS,
        snapshot.MEMBERS,
        snapshot.ROUTES,
        snapshot.SECRETS,
        TypeUrl(snapshot.PREFIX + "envoy.config.core.v3.TypedExtensionConfig"),
    }
)
"""Types of which a client gets only what it names."""

ON_DEMAND: Final = frozenset({snapshot.ADDRESSES})
"""Types of which a client may name something else than it gets: an alias, or a whole."""

LEADING: Final = frozenset(
    {
        Step(snapshot.LISTENERS, Part.WHOLE),
        Step(snapshot.ROUTES, Part.WHOLE),
        *(Step(each, Part.REMOVALS) for each in REMOVED_LAST),
    }
)
"""Steps that lead a client to clusters, or away from what will be gone."""


@functools.lru_cache(maxsize=256)
def steps(types: frozenset[TypeUrl]) -> tuple[Step, ...]:
    """Return the order in which changes of `types` are told."""
    others = sorted(types.difference(snapshot.PUSH_ORDER))
    ordered = [*(known for known in snapshot.PUSH_ORDER if known in types), *others]
    forward = (
        Step(each, Part.ADDITIONS if each in REMOVED_LAST else Part.WHOLE) for each in ordered
    )
    backward = (Step(each, Part.REMOVALS) for each in reversed(ordered) if each in REMOVED_LAST)
    return (*forward, *backward)
