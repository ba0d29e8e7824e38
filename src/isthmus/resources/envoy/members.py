"""A slice's endpoints for Envoys that are told of each one by itself (LEDS).

The assignment says only which collections there are; an endpoint that changes is told alone, so
that its cost does not grow with those beside it. A collection is what stands in one place.

Weights of places are left out where nothing looks at them: they are sums, and would change with
each endpoint.

Source: LEDS of Envoy (envoy.config.endpoint.v3.LedsClusterLocalityConfig); docs/decisions/0045.
"""

import functools
import hashlib
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from envoy.config.core.v3 import config_source_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2

from isthmus.mesh.localities import Locality
from isthmus.resources import snapshot, versions
from isthmus.resources.envoy import endpoints
from isthmus.views import view

PREFIX: Final = "xdstp://isthmus/envoy.config.endpoint.v3.LbEndpoint/"
EVERY: Final = "*"
TURN: Final = "a"
"""A letter at the end of names and versions, which streams replace; see `xds.collections`."""

NAME_BYTES: Final = 10
LEDS: Final = endpoint_components_pb2.LedsClusterLocalityConfig(
    leds_config=config_source_pb2.ConfigSource(ads={}, resource_api_version="V3")
)


PLACES: Final = 4096
"""So many places are remembered: clients in several places are told of the same ones."""

RECENT: Final = 256
"""So many editions of collections are remembered: each has as many endpoints as its place."""

LISTED: Final = 32
"""Of so many the members are remembered: each has a message of its own, half a kilobyte."""


def build(slice_: view.EndpointsSlice) -> snapshot.Resource:
    """Return the assignment, with its collections."""
    seen = Counter[Locality]()
    parts, collections = [endpoints.named(slice_.cluster_name)], []
    for group in slice_.groups:
        name = _name(slice_.cluster_name, group.locality, seen[group.locality])
        seen[group.locality] += 1
        weight = group.weight if slice_.weighs_places else 0
        parts.append(_group(group.locality, name, weight=weight, priority=group.priority))
        collections.append(_collection(name, group.endpoints))
    body = b"".join(parts)
    return snapshot.Resource(
        snapshot.ENDPOINTS,
        slice_.cluster_name,
        f"{versions.of(body)}-{TURN}",
        body,
        collections=tuple(collections),
    )


@functools.lru_cache(maxsize=PLACES)
def _name(cluster: str, place: Locality, number: int) -> str:
    """Return the name of a collection, which lasts as long as its place has endpoints."""
    parts = f"{cluster}\0{place.region}\0{place.zone}\0{place.subzone}\0{number}".encode()
    return f"{PREFIX}{hashlib.blake2b(parts, digest_size=NAME_BYTES).hexdigest()}/{TURN}/{EVERY}"


@functools.lru_cache(maxsize=PLACES)
def _group(place: Locality, name: str, *, weight: int, priority: int) -> bytes:
    """Return a place as it stands in an assignment."""
    said = endpoint_components_pb2.LocalityLbEndpoints(
        locality={"region": place.region, "zone": place.zone, "sub_zone": place.subzone},
        priority=priority,
        load_balancing_weight={"value": weight} if weight else None,
        leds_cluster_locality_config=LEDS,
    )
    said.leds_cluster_locality_config.leds_collection_name = name
    assignment = endpoint_pb2.ClusterLoadAssignment(endpoints=[said])
    return bytes(assignment.SerializeToString(deterministic=True))


@functools.lru_cache(maxsize=RECENT)
def _collection(name: str, found: view.Told) -> snapshot.Resource:
    # Of several collections the same pods may be members, by other names.
    content = hashlib.blake2b(name.encode(), digest_size=versions.VERSION_BYTES)
    content.update(endpoints.members(found))
    # Editions last as long as somebody remembers that they were told; their members must not.
    listing = functools.partial(_members, name.removesuffix(EVERY), found)
    contents = snapshot.Contents.made(content.hexdigest(), functools.partial(_listed, listing))
    fresh = snapshot.Resource(snapshot.MEMBERS, name, contents, b"")
    # Of a set that changes most collections stay as they were: who has them need not look.
    return _KNOWN.setdefault((name, content.hexdigest()), fresh)


_KNOWN: Final = weakref.WeakValueDictionary[tuple[str, str], snapshot.Resource]()

Listing = Callable[[], Mapping[str, snapshot.Resource]]


@functools.lru_cache(maxsize=LISTED)
def _listed(listing: Listing) -> Mapping[str, snapshot.Resource]:
    """Return the members of an edition, which is known by what lists them."""
    return listing()


def _members(prefix: str, found: view.Told) -> Mapping[str, snapshot.Resource]:
    # Addresses appear once in an assignment; see `views.locality`.
    members = (
        versions.encoded(
            snapshot.MEMBERS,
            message,
            name=f"{prefix}{address}:{port}",
        )
        for address, port, message in endpoints.each(found)
    )
    return {member.name: member for member in members}
