"""Which waypoint stands before a service, also before one that clusters share.

Source: spec sections 7.4 and 7.6; docs/reference/workload-discovery.md.
"""

from collections.abc import Iterable

from isthmus.engine import reader
from isthmus.mesh.identities import ClusterId
from isthmus.mesh.services import Service, ServiceKey
from isthmus.views import facts


def of_service(
    read: reader.Reader, known: facts.Facts, service: Service, *, cluster: ClusterId
) -> ServiceKey | None:
    """Return the waypoint of a service in a cluster; None where there is none.

    What is shared under a name of its own has, where a cluster shares it, the waypoint of the
    Service there. Elsewhere it has none: who comes through a gateway finds that of its cluster.
    """
    if service.derived is not None and cluster not in service.derived.exporters:
        return None
    return known.model.for_nodes.waypoints.before_service(read, origin_of(service), cluster=cluster)


def identities_of(
    read: reader.Reader, known: facts.Facts, service: Service, clusters: Iterable[ClusterId]
) -> tuple[str, ...]:
    """Return the identities of a service's waypoints in other clusters, which answer for it."""
    found = {
        waypoint
        for one in clusters
        if (waypoint := of_service(read, known, service, cluster=one)) is not None
    }
    return tuple(identity for one in sorted(found) for identity in known.accounts_of(read, one))


def origin_of(service: Service) -> ServiceKey:
    """Return the name of the Services that a service is made of."""
    return service.key if service.derived is None else service.derived.origin
