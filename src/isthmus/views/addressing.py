"""At which addresses clients of one cluster reach a service.

The own cluster's addresses always count. Clusters may use the same range, so that an address of
another cluster is used only while it means nothing else here: no service of the client's own
cluster has it, and of two foreign services with one address only the first by name. Clients who
ask us get an address of our making instead.

Source: spec section 2.4.
"""

from isthmus.engine import reader
from isthmus.mesh.identities import ClusterId
from isthmus.mesh.services import Entry, Resolution, Service
from isthmus.views import facts, view


def addresses_of(
    read: reader.Reader,
    known: facts.Facts,
    service: Service,
    *,
    cluster: ClusterId,
    naming: view.Naming,
) -> tuple[str, ...]:
    """Return a service's addresses for clients in a cluster; `naming` is who tells them."""
    if service.entry is not None:
        return _of_entry(read, known, service, service.entry, cluster=cluster, naming=naming)
    own = dict(service.vips).get(cluster, ())
    if own or not is_foreign(service, cluster=cluster):
        return own
    if naming is view.Naming.ALLOCATED:
        return _given(read, known, service)
    foreign = tuple(
        address
        for address in service.vips_in(cluster)
        if _means(read, known, address, service=service, cluster=cluster)
    )
    if foreign or naming is view.Naming.CLUSTER:
        return foreign
    return _given(read, known, service)


def _of_entry(
    read: reader.Reader,
    known: facts.Facts,
    service: Service,
    entry: Entry,
    *,
    cluster: ClusterId,
    naming: view.Naming,
) -> tuple[str, ...]:
    """Return the addresses that a ServiceEntry names, but for those that others have."""
    own = tuple(
        address
        for address in entry.addresses
        if not read.lookup(known.services_by_address, (cluster, address))
        and read.get(known.refused, (service.key, address)) is None
    )
    if own or naming is view.Naming.CLUSTER:
        return own
    return _given(read, known, service)


def _given(read: reader.Reader, known: facts.Facts, service: Service) -> tuple[str, ...]:
    given = read.get(known.allocated, service.key)
    return () if given is None else (given,)


def with_twins(
    read: reader.Reader, known: facts.Facts, service: Service, addresses: tuple[str, ...]
) -> tuple[str, ...]:
    """Return addresses, and the one of IPv6 that belongs to one of our making among them."""
    given = read.get(known.allocated, service.key)
    if given is None or given not in addresses:
        return addresses
    return (*addresses, known.model.ranges.twin_of(given))


def is_foreign(service: Service, *, cluster: ClusterId) -> bool:
    """Say whether clients in a cluster can reach a service only at an address of others' making."""
    return (
        service.resolution is Resolution.VIP
        and service.entry is None
        and not service.is_cluster_local
        and not dict(service.vips).get(cluster)
    )


def _means(
    read: reader.Reader,
    known: facts.Facts,
    address: str,
    *,
    service: Service,
    cluster: ClusterId,
) -> bool:
    """Say whether an address means this foreign service to clients in a cluster."""
    if read.lookup(known.services_by_address, (cluster, address)):
        return False
    rivals = (
        key
        for key, other in read.lookup(known.services_by_any_address, address).items()
        if is_foreign(other, cluster=cluster) and address in other.vips_in(cluster)
    )
    return min(rivals, default=service.key) == service.key
