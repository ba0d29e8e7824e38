"""What a pod is told when it asks for a name: by its own agent, else by its cluster's DNS.

Nothing is asked; the agent's table is the one that its proxy would be told.
"""

import ipaddress
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

from isthmus.mesh.services import ServiceKey
from isthmus.node import names
from isthmus.resources import snapshot
from isthmus.testing import shapes

if TYPE_CHECKING:
    from isthmus.testing import builders


def addresses_of(
    mesh: "builders.Mesh", source: shapes.Pod, *, host: str
) -> Iterator[tuple[str, Fraction]]:
    """Yield the addresses that a pod would call, and how often it would call each."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        found = (
            _told(mesh, source, host) or _of_cluster(mesh, source, host) or _of_world(mesh, host)
        )
    else:
        found = (host,)
    yield from ((address, Fraction(1, len(found))) for address in found)


def _told(mesh: "builders.Mesh", source: shapes.Pod, host: str) -> tuple[str, ...]:
    forms = names.Forms(source.namespace, "cluster.local")
    tables = mesh.snapshot_of(source).of(snapshot.NAMES) if source.dns else {}
    for table in tables.values():
        found = names.read(table.body, forms=forms).find(host)
        if found is not None:
            return found.addresses
    return ()


def _of_world(mesh: "builders.Mesh", host: str) -> tuple[str, ...]:
    """Return the address of a server whose names are among what it is known by outside."""
    return next((pod.external[:1] for pod in mesh.pods if host in pod.external[1:]), ())


def _of_cluster(mesh: "builders.Mesh", source: shapes.Pod, host: str) -> tuple[str, ...]:
    name, _, rest = host.partition(".")
    key = ServiceKey(rest.split(".")[0] or source.namespace, name)
    cluster = mesh.clusters[source.cluster]
    service = mesh.graph.get(mesh.model.services, key)
    vips = dict(service.vips).get(cluster.id, ()) if service is not None else ()
    if vips:
        return vips[:1]
    endpoints = mesh.graph.get(mesh.model.endpoints, key) or ()
    return tuple(sorted({one.address for one in endpoints if one.cluster == cluster.id}))
