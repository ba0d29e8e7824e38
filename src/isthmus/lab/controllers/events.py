"""Events: what happened to an object, for `kubectl describe` and `kubectl get events`.

It decides how repeats are counted, and names, so that Events sort as they happened. A lost Event
hurts nobody, so refusals are ignored.
"""

import contextlib
from typing import TypeAlias

from isthmus.base import clock
from isthmus.lab.apiserver import api as apis
from isthmus.lab.apiserver.errors import ApiError
from isthmus.lab.apiserver.values import Obj
from isthmus.lab.controllers import owners

_REMEMBERED = 4096
_Key: TypeAlias = tuple[str, str, str]


class Recorder:
    """Writes the Events of one component."""

    def __init__(self, api: apis.Api, *, component: str, system_clock: clock.Clock) -> None:
        self._api = api
        self._component = component
        self._clock = system_clock
        self._names: dict[_Key, str] = {}
        self._last = 0

    async def record(self, obj: Obj, *, kind: str, reason: str, message: str) -> None:
        """Say once more that `reason` happened to `obj`; `kind` is `Normal` or `Warning`."""
        with contextlib.suppress(ApiError):
            await self._write(obj, kind, reason, message)

    async def _write(self, obj: Obj, kind: str, reason: str, message: str) -> None:
        metadata = obj["metadata"]
        namespace = metadata.get("namespace") or "default"
        moment = owners.stamp(self._clock.now())
        key = (metadata["uid"], reason, message)
        if key in self._names and await self._repeat(self._names[key], namespace, moment):
            return
        name = self._remember(key, metadata["name"])
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": {
                "apiVersion": obj["apiVersion"],
                "kind": obj["kind"],
                "name": metadata["name"],
                "namespace": metadata.get("namespace", ""),
                "uid": metadata["uid"],
                "resourceVersion": metadata.get("resourceVersion", ""),
            },
            "type": kind,
            "reason": reason,
            "message": message,
            "source": {"component": self._component},
            "reportingComponent": self._component,
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "count": 1,
        }
        await self._api.create("events", event)

    async def _repeat(self, name: str, namespace: str, moment: str) -> bool:
        """Count an Event once more; say whether it is still there."""
        try:
            found = await self._api.get("events", name, namespace)
            patch = {"count": found.get("count", 1) + 1, "lastTimestamp": moment}
            await self._api.patch("events", name, patch, namespace=namespace)
        except ApiError:
            return False
        return True

    def _remember(self, key: _Key, about: str) -> str:
        """Name a new Event by its moment: Events of one moment keep their order."""
        self._last = max(self._last + 1, int(self._clock.now().timestamp() * 1e9))
        self._names.pop(key, None)
        self._names[key] = f"{about}.{self._last:x}"
        if len(self._names) > _REMEMBERED:
            del self._names[next(iter(self._names))]
        return self._names[key]
