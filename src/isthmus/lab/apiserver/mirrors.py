"""Copies of resources that follow the API, for whoever reads the same objects again and again.

It decides how a copy follows and recovers. It refuses to know what the objects mean: listeners
hear of each change and look at the copies.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import TypeAlias

from isthmus.base import tasks
from isthmus.lab.apiserver import api as apis
from isthmus.lab.apiserver.values import Obj

Key: TypeAlias = tuple[str, str]
"""Namespace (empty for cluster-wide objects) and name."""

Listener: TypeAlias = Callable[[Obj | None, Obj | None], None]
"""Called with an object as it was and as it is; None where there was or is none."""


def key_of(obj: Obj) -> Key:
    """Return the key of an object."""
    metadata = obj["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


class Mirror:
    """The objects of one resource. They are shared: whoever reads them must not change them."""

    def __init__(self, api: apis.Api, resource: str) -> None:
        self._api = api
        self._resource = resource
        self._objects: dict[Key, Obj] = {}
        self._synced = asyncio.Event()
        self._listeners: list[Listener] = []
        self._changed = asyncio.Event()

    def get(self, name: str, namespace: str = "") -> Obj | None:
        """Return one object, or None."""
        return self._objects.get((namespace, name))

    def items(self, namespace: str = "") -> Iterator[Obj]:
        """Yield the objects of `namespace`, or all when it is empty."""
        for (found, _), obj in list(self._objects.items()):
            if not namespace or found == namespace:
                yield obj

    def listen(self, listener: Listener) -> None:
        """Call `listener` at every change from now on, and once for each object there is."""
        self._listeners.append(listener)
        for obj in list(self._objects.values()):
            listener(None, obj)

    async def synced(self) -> None:
        """Wait until every object that exists has arrived once."""
        await self._synced.wait()

    async def wait_for(self, name: str, namespace: str, *, deadline_s: float) -> Obj | None:
        """Return an object as soon as it exists, or None when it does not within `deadline_s`."""
        try:
            async with asyncio.timeout(deadline_s):
                while (found := self.get(name, namespace)) is None:
                    self._changed.clear()
                    await self._changed.wait()
                return found
        except TimeoutError:
            return None

    async def follow(self) -> None:
        """Follow the API until it ends; what vanished meanwhile is told as deleted."""
        seen: set[Key] = set()
        async with self._api.watch(self._resource) as subscription:
            async for event in subscription:
                if event.type == "SYNCED":
                    self._forget(set(self._objects) - seen)
                    self._synced.set()
                    continue
                key = key_of(event.obj)
                seen.add(key)
                self._put(key, None if event.type == "DELETED" else event.obj)

    def _forget(self, gone: set[Key]) -> None:
        for key in gone:
            self._put(key, None)

    def _put(self, key: Key, new: Obj | None) -> None:
        old = self._objects.pop(key, None)
        if new is not None:
            self._objects[key] = new
        self._changed.set()
        if old is None and new is None:
            return
        for listener in self._listeners:
            listener(old, new)


class Mirrors:
    """The mirrors of one cluster, one per resource, each started when first asked for."""

    def __init__(self, api: apis.Api, nursery: tasks.Nursery) -> None:
        self._api = api
        self._nursery = nursery
        self._mirrors: dict[str, Mirror] = {}

    def of(self, resource: str) -> Mirror:
        """Return the mirror of `resource`, such as `deployments.apps`."""
        mirror = self._mirrors.get(resource)
        if mirror is None:
            mirror = self._mirrors[resource] = Mirror(self._api, resource)
            _ = self._nursery.keep(f"mirror of {resource}", mirror.follow)
        return mirror
