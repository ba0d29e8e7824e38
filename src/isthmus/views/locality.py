"""Endpoints grouped by where they are.

All groups have the first priority: whether traffic prefers near ones is not decided yet.

Source: spec sections 3.4 and 8.1.
"""

from collections.abc import Iterable
from typing import Final

from isthmus.mesh.localities import Locality
from isthmus.views import view

MOST: Final = 2**32 - 1


def grouped(
    placed: Iterable[tuple[Locality, view.LbEndpoint]],
) -> tuple[view.LocalityGroup, ...]:
    """Return the endpoints by place, places and endpoints in order."""
    places = dict[Locality, list[view.LbEndpoint]]()
    for place, endpoint in placed:
        places.setdefault(place, []).append(endpoint)
    return tuple(_group(place, places[place]) for place in sorted(places))


def _group(place: Locality, endpoints: list[view.LbEndpoint]) -> view.LocalityGroup:
    endpoints.sort(key=lambda endpoint: (endpoint.address, endpoint.port))
    weight = min(sum(endpoint.weight for endpoint in endpoints), MOST)
    return view.LocalityGroup(place, weight, tuple(endpoints))
