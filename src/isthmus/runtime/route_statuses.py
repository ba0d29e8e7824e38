"""Says of HTTPRoutes what became of them, while we lead in our cluster.

What is said is decided in `gateways`; here it is followed and written.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from isthmus.base import clock, tasks
from isthmus.gateways import attaching, route_statuses
from isthmus.kube import client, gateway_api, informer, kinds, objects, problems
from isthmus.mesh.gateway_classes import Behaviour
from isthmus.registry import http_routes
from isthmus.runtime import reconciling

MANAGER: Final = "isthmus-gateways"
Key = tuple[str, str]
Parents = Callable[[Key], tuple[gateway_api.Gateway, Behaviour] | None]


class Routes:
    """Follows the HTTPRoutes of one cluster, and writes their status."""

    def __init__(
        self,
        writes: client.Client,
        may_write: Callable[[], bool],
        *,
        parent_of: Parents,
        on_parents: Callable[[set[Key]], None],
        system_clock: clock.Clock,
    ) -> None:
        """Prepare.

        Args:
            writes: The cluster.
            may_write: Asked before every write.
            parent_of: Returns a Gateway that is ours.
            on_parents: Called with the Gateways whose routes have changed.
            system_clock: Time.
        """
        self._writes = writes
        self._may_write = may_write
        self._parent_of = parent_of
        self._on_parents = on_parents
        self._clock = system_clock
        self._named: dict[Key, set[Key]] = {}
        self._near: dict[str, set[Key]] = {}
        self._queue: reconciling.Reconciler[Key] = reconciling.Reconciler(
            "routes", self._reconcile, system_clock=system_clock
        )
        self._routes: informer.Informer[gateway_api.HttpRoute] = informer.Informer(
            writes,
            kinds.HTTP_ROUTE,
            gateway_api.HttpRoute,
            on_batch=self._on_routes,
            optional=True,
            system_clock=system_clock,
        )
        self._services: informer.Informer[objects.Service] = informer.Informer(
            writes,
            kinds.SERVICE,
            objects.Service,
            on_batch=self._on_called,
            system_clock=system_clock,
        )
        self._entries: informer.Informer[objects.ServiceEntry] = informer.Informer(
            writes,
            kinds.SERVICE_ENTRY,
            objects.ServiceEntry,
            on_batch=self._on_called,
            optional=True,
            system_clock=system_clock,
        )
        self._namespaces: informer.Informer[objects.Namespace] = informer.Informer(
            writes,
            kinds.NAMESPACE,
            objects.Namespace,
            on_batch=self._on_namespaces,
            system_clock=system_clock,
        )

    async def follow(self, nursery: tasks.Nursery) -> None:
        """Begin to follow; return when all is known, so that counts are true."""
        for one in (self._services, self._entries, self._namespaces, self._routes):
            _ = nursery.keep(f"follow {one.kind.plural} of routes", one.run)
        for one in (self._services, self._entries, self._namespaces, self._routes):
            await one.synced.wait()
        _ = nursery.keep("keep status of routes", self._queue.run)

    def parents_changed(self, keys: set[Key]) -> None:
        """Look again at the routes that name any of these Gateways."""
        self._queue.mark(*(key for key, named in self._named.items() if named & keys))

    def attached_to(self, gateway: gateway_api.Gateway, behaviour: Behaviour) -> Mapping[str, int]:
        """Return how many routes are attached to each listener."""
        return route_statuses.attached_to(gateway, behaviour, self._routes.items, self._labels_of)

    def _labels_of(self, namespace: str) -> Mapping[str, str]:
        found = self._namespaces.items.get(("", namespace))
        return (found.metadata.labels if found is not None else None) or {}

    def _on_routes(self, changes: Mapping[Key, gateway_api.HttpRoute | None]) -> None:
        touched = set[Key]()
        for key, route in changes.items():
            touched |= self._named.pop(key, set())
            for near in self._near.values():
                near.discard(key)
            if route is not None:
                found = (attaching.parent_of(route, one) for one in route.spec.parent_refs or ())
                self._named[key] = {one for one in found if one is not None}
                touched |= self._named[key]
                for namespace in attaching.namespaces_of(route):
                    self._near.setdefault(namespace, set()).add(key)
        self._queue.mark(*changes)
        self._on_parents(touched)

    def _on_called(self, changes: Mapping[Key, object]) -> None:
        for namespace in {namespace for namespace, _ in changes}:
            self._queue.mark(*self._near.get(namespace, ()))

    def _on_namespaces(self, changes: Mapping[Key, objects.Namespace | None]) -> None:
        names = {name for _, name in changes}
        routes = [key for key in self._routes.items if key[0] in names]
        self._queue.mark(*routes)
        self._on_parents({parent for key in routes for parent in self._named.get(key, ())})

    def _called_by(
        self, route: gateway_api.HttpRoute
    ) -> Iterator[tuple[attaching.Called, tuple[tuple[str, int], ...]]]:
        """Yield the parents of a route that are called within the mesh, and their ports."""
        for reference in route.spec.parent_refs or ():
            called = attaching.called_by(route, reference)
            if called is None:
                continue
            place = (called.namespace, called.name)
            entry = self._entries.items.get(place)
            service = self._services.items.get(place)
            if called.kind == attaching.SERVICE and service is not None:
                yield called, tuple((one.name, one.port) for one in service.spec.ports)
            elif called.kind == attaching.SERVICE_ENTRY and entry is not None:
                yield called, tuple(_ports(entry))

    async def _reconcile(self, key: Key) -> bool:
        route = self._routes.items.get(key)
        if route is None or route.metadata.deletion_timestamp or not self._may_write():
            return False
        found = {named: self._parent_of(named) for named in self._named.get(key, ())}

        def has_port(namespace: str, name: str, port: int) -> bool:
            service = self._services.items.get((namespace, name))
            return service is not None and any(one.port == port for one in service.spec.ports)

        status = route_statuses.of_route(
            route,
            {named: parent for named, parent in found.items() if parent is not None},
            within=dict(self._called_by(route)),
            labels=self._labels_of(key[0]),
            checks=http_routes.checks_with(has_port),
            now=self._clock.now().strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
        if route_statuses.is_said(route, status):
            return False
        try:
            await self._writes.patch(
                kinds.HTTP_ROUTE,
                key[1],
                {"status": status},
                namespace=key[0],
                subresource="status",
                field_manager=MANAGER,
            )
        except problems.ApiError as error:
            if not error.is_missing:
                raise
        return True


def _ports(entry: objects.ServiceEntry) -> Iterator[tuple[str, int]]:
    listed = (entry.spec or {}).get("ports")
    for one in listed if isinstance(listed, list) else ():
        if isinstance(one, dict) and isinstance(one.get("number"), int):
            yield str(one.get("name", "")), one["number"]
