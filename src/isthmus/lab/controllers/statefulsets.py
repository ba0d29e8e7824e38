"""StatefulSets: pods with ordered names, one after the other.

It decides names and order, and replaces outdated pods from the last to the first. It makes no
volumes: claims need storage that the lab does not have.
"""

import copy

from isthmus.base import clock, tasks
from isthmus.lab.apiserver import api as apis
from isthmus.lab.apiserver import mirrors
from isthmus.lab.apiserver.values import Obj
from isthmus.lab.controllers import owned_pods, owners, reconciling, replicasets

_RESOURCE = "statefulsets.apps"
_HASH = "controller-revision-hash"
_NAME = "statefulset.kubernetes.io/pod-name"


class StatefulSets:
    """Keeps the ordered pods of every StatefulSet."""

    def __init__(self, api: apis.Api, follow: mirrors.Mirrors, system_clock: clock.Clock) -> None:
        self._api = api
        self._clock = system_clock
        self._owned = owned_pods.OwnedPods(
            api, component="statefulset-controller", system_clock=system_clock
        )
        self._sets = follow.of(_RESOURCE)
        self._loop = reconciling.Reconciler("statefulsets", self._reconcile)
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
            if pod is not None and (key := owners.owner_key(pod, "StatefulSet")):
                self._loop.touch(key)

    async def _reconcile(self, key: mirrors.Key) -> None:
        namespace, name = key
        found = self._sets.get(name, namespace)
        if found is None or "deletionTimestamp" in found["metadata"]:
            return
        pods = {
            pod["metadata"]["name"]: pod
            for pod in await self._api.list("pods", namespace)
            if owners.is_owned(pod, found)
        }
        await self._step(found, pods)
        await self._write_status(found, list(pods.values()))

    async def _step(self, found: Obj, pods: dict[str, Obj]) -> None:
        name = found["metadata"]["name"]
        wanted = [f"{name}-{index}" for index in range(found["spec"].get("replicas", 1))]
        ordered = found["spec"].get("podManagementPolicy", "OrderedReady") == "OrderedReady"
        for each in wanted:
            pod = pods.get(each)
            if pod is None:
                pods[each] = pod = await self._owned.create(_pod(found, each), owner=found)
            elif not owners.is_active(pod):
                if "deletionTimestamp" not in pod["metadata"]:
                    await self._owned.delete(pod, owner=found)
                return
            if ordered and not owners.is_ready(pod):
                return
        surplus = sorted(set(pods) - set(wanted), key=_ordinal)
        outdated = [each for each in wanted if _is_outdated(found, pods[each])]
        ending = any("deletionTimestamp" in pod["metadata"] for pod in pods.values())
        unready = any(not owners.is_ready(pods[each]) for each in wanted)
        if surplus and not ending:
            await self._owned.delete(pods[surplus[-1]], owner=found)
        elif outdated and not ending and not unready and _rolls(found):
            await self._owned.delete(pods[outdated[-1]], owner=found)

    async def _write_status(self, found: Obj, pods: list[Obj]) -> None:
        updated = sum(not _is_outdated(found, pod) for pod in pods)
        revision = f"{found['metadata']['name']}-{_hash(found)}"
        settled = updated == len(pods)
        old = (found.get("status") or {}).get("currentRevision", revision)
        status: Obj = {
            "observedGeneration": found["metadata"].get("generation", 1),
            "replicas": len(pods),
            "readyReplicas": sum(map(owners.is_ready, pods)),
            "availableReplicas": sum(map(owners.is_ready, pods)),
            "currentReplicas": updated if settled else len(pods) - updated,
            "updatedReplicas": updated,
            "currentRevision": revision if settled else old,
            "updateRevision": revision,
        }
        await replicasets.write_status(self._api, _RESOURCE, found, status)


def _ordinal(name: str) -> int:
    return int(name.rpartition("-")[2])


def _hash(found: Obj) -> str:
    return owners.template_hash(found["spec"]["template"])


def _is_outdated(found: Obj, pod: Obj) -> bool:
    has = pod["metadata"].get("labels") or {}
    return bool(has.get(_HASH) != f"{found['metadata']['name']}-{_hash(found)}")


def _rolls(found: Obj) -> bool:
    strategy = found["spec"].get("updateStrategy") or {}
    return bool(strategy.get("type", "RollingUpdate") == "RollingUpdate")


def _pod(found: Obj, name: str) -> Obj:
    pod = copy.deepcopy(owners.pod_from(found["spec"]["template"], owner=found, name=name))
    has = pod["metadata"].setdefault("labels", {})
    has |= {
        _NAME: name,
        _HASH: f"{found['metadata']['name']}-{_hash(found)}",
        "apps.kubernetes.io/pod-index": str(_ordinal(name)),
    }
    pod["spec"]["hostname"] = name
    if service := found["spec"].get("serviceName"):
        pod["spec"]["subdomain"] = service
    return pod
