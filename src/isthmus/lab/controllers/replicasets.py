"""ReplicaSets: as many pods of a template as wished.

It decides which pods to add and which to remove first. It refuses to know about revisions.
"""

from isthmus.base import clock, tasks
from isthmus.lab.apiserver import api as apis
from isthmus.lab.apiserver import labels, mirrors
from isthmus.lab.apiserver.errors import ApiError
from isthmus.lab.apiserver.values import Obj
from isthmus.lab.controllers import owned_pods, owners, reconciling

_RESOURCE = "replicasets.apps"


class ReplicaSets:
    """Keeps the number of pods of every ReplicaSet."""

    def __init__(self, api: apis.Api, follow: mirrors.Mirrors, system_clock: clock.Clock) -> None:
        self._api = api
        self._clock = system_clock
        self._owned = owned_pods.OwnedPods(
            api, component="replicaset-controller", system_clock=system_clock
        )
        self._sets = follow.of(_RESOURCE)
        self._loop = reconciling.Reconciler("replicasets", self._reconcile)
        self._sets.listen(self._on_set)
        follow.of("pods").listen(self._on_pod)

    def start(self, nursery: tasks.Nursery) -> None:
        """Run in `nursery`."""
        self._loop.start(nursery)

    def _on_set(self, old: Obj | None, new: Obj | None) -> None:
        if new is not None:
            self._loop.touch(mirrors.key_of(new))

    def _on_pod(self, old: Obj | None, new: Obj | None) -> None:
        for pod in (old, new):
            if pod is not None and (key := owners.owner_key(pod, "ReplicaSet")):
                self._loop.touch(key)

    async def _reconcile(self, key: mirrors.Key) -> None:
        namespace, name = key
        found = self._sets.get(name, namespace)
        if found is None or "deletionTimestamp" in found["metadata"]:
            return
        replicas = found["spec"].get("replicas", 1)
        pods = await self._pods_of(found)
        active = [pod for pod in pods if owners.is_active(pod)]
        refused: ApiError | None = None
        try:
            for _ in range(replicas - len(active)):
                pod = owners.pod_from(found["spec"]["template"], owner=found)
                active.append(await self._owned.create(pod, owner=found))
        except ApiError as error:
            refused = error
        for pod in _first_to_go(active)[: max(0, len(active) - replicas)]:
            await self._owned.delete(pod, owner=found)
            active.remove(pod)
        await self._write_status(found, active, refused)
        if refused is not None:
            raise refused

    async def _pods_of(self, found: Obj) -> list[Obj]:
        pods = await self._api.list("pods", found["metadata"]["namespace"])
        selector = found["spec"].get("selector")
        return [
            pod
            for pod in pods
            if owners.is_owned(pod, found) and labels.matches(selector, labels.labels_of(pod))
        ]

    async def _write_status(self, found: Obj, active: list[Obj], refused: ApiError | None) -> None:
        after_s = found["spec"].get("minReadySeconds", 0)
        now = self._clock.now()
        available = [pod for pod in active if owners.is_available(pod, after_s=after_s, now=now)]
        ready = [pod for pod in active if owners.is_ready(pod)]
        if len(available) < len(ready):
            self._loop.touch_later(mirrors.key_of(found), delay_s=min(after_s, 1))
        status: Obj = {
            "replicas": len(active),
            "fullyLabeledReplicas": len(active),
            "readyReplicas": len(ready),
            "availableReplicas": len(available),
            "observedGeneration": found["metadata"].get("generation", 1),
        }
        if conditions := self._owned.failure(found, refused):
            status["conditions"] = conditions
        await write_status(self._api, _RESOURCE, found, status)


async def write_status(api: apis.Api, resource: str, found: Obj, status: Obj) -> None:
    """Write an object's status when it differs, without zeros, as Kubernetes leaves them out."""
    wanted = {key: value for key, value in status.items() if value != 0 or key == "replicas"}
    await put_status(api, resource, found, wanted)


async def put_status(api: apis.Api, resource: str, found: Obj, wanted: Obj) -> None:
    """Make an object's status exactly `wanted`, if it is not."""
    old = found.get("status") or {}
    if old == wanted:
        return
    patch = {**dict.fromkeys(set(old) - set(wanted)), **wanted}
    metadata = found["metadata"]
    await api.patch(
        resource,
        metadata["name"],
        {"status": patch},
        namespace=metadata.get("namespace", ""),
        subresource="status",
    )


def _first_to_go(pods: list[Obj]) -> list[Obj]:
    """Order pods by how little is lost: unassigned, not ready, then the youngest."""
    by_age = sorted(pods, key=lambda pod: pod["metadata"]["creationTimestamp"], reverse=True)
    return sorted(
        by_age,
        key=lambda pod: (bool((pod.get("spec") or {}).get("nodeName")), owners.is_ready(pod)),
    )
