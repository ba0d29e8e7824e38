"""The identities that may answer for a service: those of its endpoints, and that are declared.

Endpoints that are not ready count too: whether one is ready changes often, whose it is does not.

Source: spec sections 1.2 and 4.8.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from isthmus.engine import collections, graph, reader
from isthmus.mesh import peering
from isthmus.mesh.ambient import Sharing
from isthmus.mesh.identities import ClusterId, SpiffeId
from isthmus.mesh.services import Service, ServiceKey
from isthmus.registry import endpoints, settings


@dataclass(frozen=True, slots=True)
class Told:
    """What linked clusters tell.

    Attributes:
        client: The cluster whose clients might call what they share.
    """

    client: ClusterId
    sharing: collections.Collection[ServiceKey, Sharing]
    imports: collections.Index[ServiceKey, peering.ImportKey, peering.Import]


def declare(
    graph_: graph.Graph,
    *,
    services: collections.Collection[ServiceKey, Service],
    shards: endpoints.Shards,
    told: Told,
    settings_: settings.Nodes,
) -> collections.Collection[ServiceKey, tuple[str, ...]]:
    """Declare the SPIFFE identities of all services in `graph_`, sorted."""

    def accounts(
        read: reader.Reader, key: ServiceKey, service: Service
    ) -> Iterable[tuple[ServiceKey, tuple[str, ...]]]:
        holders = {
            (like.cluster, like.namespace, like.service_account)
            for shard in endpoints.shards_of(read, shards, service)
            for like in shard.endpoints.kinds()
            if like.service_account
        }
        ids = set() if service.entry is None else set(service.entry.identities)
        domains, usual = read.value(settings_.domains), read.value(settings_.trust_domain)
        for cluster, namespace, account in holders:
            domain = domains.get(cluster) or usual
            ids.add(str(SpiffeId(domain, namespace, account)))
        yield key, tuple(sorted(ids | _told(read, told, service)))

    return graph_.derive("accounts", services, accounts)


def _told(read: reader.Reader, told: Told, service: Service) -> set[str]:
    """Return the identities that linked clusters tell of what clients here reach in them."""
    origin = service.key if service.derived is None else service.derived.origin
    imports = read.lookup(told.imports, origin)
    sharing = read.get(told.sharing, service.key) if imports else None
    return {
        identity
        for key, one in imports.items()
        if sharing is not None and sharing.reaches(told.client, owner=key.peer)
        for identity in one.export.identities
    }
