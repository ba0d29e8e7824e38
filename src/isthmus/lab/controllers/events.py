"""Events: what happened to an object, for `kubectl describe` and `kubectl get events`.

It decides how repeats are counted. A lost Event hurts nobody, so refusals are ignored.
"""

import contextlib

from isthmus.base import clock
from isthmus.lab.apiserver import api as apis
from isthmus.lab.apiserver.errors import ApiError
from isthmus.lab.apiserver.values import Obj
from isthmus.lab.controllers import owners


class Recorder:
    """Writes the Events of one component."""

    def __init__(self, api: apis.Api, *, component: str, system_clock: clock.Clock) -> None:
        self._api = api
        self._component = component
        self._clock = system_clock

    async def record(self, obj: Obj, *, kind: str, reason: str, message: str) -> None:
        """Say once more that `reason` happened to `obj`; `kind` is `Normal` or `Warning`."""
        with contextlib.suppress(ApiError):
            await self._write(obj, kind, reason, message)

    async def _write(self, obj: Obj, kind: str, reason: str, message: str) -> None:
        metadata = obj["metadata"]
        namespace = metadata.get("namespace") or "default"
        moment = owners.stamp(self._clock.now())
        name = f"{metadata['name']}.{owners.template_hash({'u': metadata['uid'], 'r': reason, 'm': message})}"
        try:
            found = await self._api.get("events", name, namespace)
        except ApiError:
            found = None
        if found is not None:
            patch = {"count": found.get("count", 1) + 1, "lastTimestamp": moment}
            await self._api.patch("events", name, patch, namespace=namespace)
            return
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
