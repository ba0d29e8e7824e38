"""Which waypoint stands before what: by its own word, or else by its namespace's.

Source: spec section 7.6; docs/reference/workload-discovery.md.
"""

from isthmus.engine import reader
from isthmus.mesh.ambient import WaypointUse
from isthmus.mesh.identities import ClusterId
from isthmus.mesh.services import Service, ServiceKey
from isthmus.views import facts


def of_service(
    read: reader.Reader, known: facts.Facts, service: Service, *, cluster: ClusterId
) -> ServiceKey | None:
    """Return the waypoint of a service in a cluster; None where there is none.

    What is shared under a name of its own has that of the Service that it is made of.
    """
    key = service.key if service.derived is None else service.derived.origin
    use = read.get(known.model.for_nodes.waypoints.of_services, (cluster, key))
    return found(read, known, use, (cluster, key.namespace), is_for_services=True)


def found(
    read: reader.Reader,
    known: facts.Facts,
    use: WaypointUse | None,
    place: tuple[ClusterId, str],
    *,
    is_for_services: bool,
) -> ServiceKey | None:
    """Return the waypoint of what wants `use` in a namespace of a cluster, if it is there."""
    waypoints = known.model.for_nodes.waypoints
    use = use or read.get(waypoints.of_namespaces, place)
    if use is None or use.waypoint is None:
        return None
    there = read.get(waypoints.waypoints, (place[0], use.waypoint))
    if there is None:
        return None
    serves = there.for_services if is_for_services else there.for_workloads
    return use.waypoint if serves else None
