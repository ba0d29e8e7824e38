"""Pods that controllers make and remove, with what `kubectl describe` tells of it.

It decides which Events the owner gets, also when a pod is refused. It refuses to know how many
pods there should be.
"""

from isthmus.base import clock
from isthmus.lab.apiserver import api as apis
from isthmus.lab.apiserver.errors import ApiError
from isthmus.lab.apiserver.values import Obj
from isthmus.lab.controllers import events, owners


class OwnedPods:
    """Makes and removes the pods of one controller's objects."""

    def __init__(self, api: apis.Api, *, component: str, system_clock: clock.Clock) -> None:
        self._api = api
        self._clock = system_clock
        self._events = events.Recorder(api, component=component, system_clock=system_clock)

    async def create(self, pod: Obj, *, owner: Obj) -> Obj:
        """Create a pod of `owner`.

        Raises:
            ApiError: It was refused; the owner's Events say why.
        """
        try:
            made = await self._api.create("pods", pod)
        except ApiError as error:
            await self.tell(owner, "FailedCreate", f"Error creating: {error.message}", bad=True)
            raise
        await self.tell(owner, "SuccessfulCreate", f"Created pod: {made['metadata']['name']}")
        return made

    async def delete(self, pod: Obj, *, owner: Obj) -> None:
        """Begin the end of a pod of `owner`."""
        name = pod["metadata"]["name"]
        await self._api.delete("pods", name, pod["metadata"]["namespace"])
        await self.tell(owner, "SuccessfulDelete", f"Deleted pod: {name}")

    async def tell(self, owner: Obj, reason: str, message: str, *, bad: bool = False) -> None:
        """Record an Event of `owner`."""
        kind = "Warning" if bad else "Normal"
        await self._events.record(owner, kind=kind, reason=reason, message=message)

    def failure(self, found: Obj, error: ApiError | None) -> list[Obj]:
        """Return the condition ReplicaFailure of an owner whose pods are refused, or nothing."""
        if error is None:
            return []
        new = {
            "type": "ReplicaFailure",
            "status": "True",
            "reason": "FailedCreate",
            "message": error.message,
        }
        old = list((found.get("status") or {}).get("conditions") or ())
        return owners.with_condition(old, new, now=self._clock.now())
