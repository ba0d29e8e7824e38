"""Addresses for Services of type LoadBalancer.

It decides who gets which address of the pool. It refuses to know how the address reaches pods:
the machine's hook programs that.
"""

from collections.abc import Awaitable, Callable, Sequence

from isthmus.base import clock, tasks
from isthmus.lab.apiserver import api as apis
from isthmus.lab.apiserver import mirrors
from isthmus.lab.apiserver.values import Obj
from isthmus.lab.controllers import events, reconciling

Hook = Callable[[Obj, str | None], Awaitable[None]]
"""Called with a Service and its address whenever it changes, or None when it has none any more."""


class LoadBalancers:
    """Hands out the addresses of a pool."""

    def __init__(
        self,
        api: apis.Api,
        follow: mirrors.Mirrors,
        system_clock: clock.Clock,
        *,
        pool: Sequence[str],
        hook: Hook | None,
    ) -> None:
        self._api = api
        self._pool = tuple(pool)
        self._hook = hook
        self._services = follow.of("services")
        self._given: dict[mirrors.Key, tuple[str, Obj]] = {}
        self._events = events.Recorder(
            api, component="service-controller", system_clock=system_clock
        )
        self._loop = reconciling.Reconciler("load balancers", self._reconcile)
        self._services.listen(self._on_service)

    def start(self, nursery: tasks.Nursery) -> None:
        """Run in `nursery`."""
        self._loop.start(nursery)

    def _on_service(self, old: Obj | None, new: Obj | None) -> None:
        found = new or old
        if found is not None:
            self._loop.touch(mirrors.key_of(found))

    async def _reconcile(self, key: mirrors.Key) -> None:
        await self._services.synced()
        namespace, name = key
        service = self._services.get(name, namespace)
        if service is None or not _wants(service):
            await self._take_back(key, service)
            return
        address = self._address_for(key, service)
        if address is None:
            await self._refuse(service)
            return
        self._given[key] = (address, service)
        if self._hook is not None:
            await self._hook(service, address)
        await self._write(service, [{"ip": address, "ipMode": "VIP"}])

    def _address_for(self, key: mirrors.Key, service: Obj) -> str | None:
        taken = {
            address
            for other in self._services.items()
            if mirrors.key_of(other) != key and _wants(other)
            for address in _addresses(other)
        } | {address for other, (address, _) in self._given.items() if other != key}
        wished = service["spec"].get("loadBalancerIP")
        known = [self._given[key][0]] if key in self._given else []
        candidates = [wished] if wished else [*_addresses(service), *known, *self._pool]
        return next((each for each in candidates if each in self._pool and each not in taken), None)

    async def _take_back(self, key: mirrors.Key, service: Obj | None) -> None:
        given = self._given.pop(key, None)
        if given is not None and self._hook is not None:
            await self._hook(service or given[1], None)
        if service is not None and _addresses(service):
            await self._write(service, None)
        if given is not None:
            self._touch_waiting()

    def _touch_waiting(self) -> None:
        for other in self._services.items():
            if _wants(other) and not _addresses(other):
                self._loop.touch(mirrors.key_of(other))

    async def _refuse(self, service: Obj) -> None:
        wished = service["spec"].get("loadBalancerIP")
        why = f"address {wished} is not free" if wished else "no address is free"
        await self._events.record(
            service,
            kind="Warning",
            reason="SyncLoadBalancerFailed",
            message=f"Error syncing load balancer: failed to ensure load balancer: {why}",
        )

    async def _write(self, service: Obj, ingress: list[Obj] | None) -> None:
        if (_ingress(service) or None) == ingress:
            return
        namespace, name = mirrors.key_of(service)
        patch = {"status": {"loadBalancer": {"ingress": ingress}}}
        await self._api.patch("services", name, patch, namespace=namespace, subresource="status")


def _wants(service: Obj) -> bool:
    return (
        service["spec"].get("type") == "LoadBalancer"
        and not service["spec"].get("loadBalancerClass")
        and "deletionTimestamp" not in service["metadata"]
    )


def _ingress(service: Obj) -> list[Obj]:
    found = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress")
    return list(found or ())


def _addresses(service: Obj) -> list[str]:
    return [each["ip"] for each in _ingress(service) if each.get("ip")]
