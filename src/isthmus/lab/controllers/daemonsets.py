"""DaemonSets: one pod on every fitting node.

It decides on which nodes, and the order of an update. Such pods are bound here, as they do not
wait for a node to be ready.
"""

import copy
from collections.abc import Iterable

from isthmus.base import clock, tasks
from isthmus.lab.apiserver import api as apis
from isthmus.lab.apiserver import mirrors
from isthmus.lab.apiserver.values import Obj
from isthmus.lab.controllers import (
    owned_pods,
    owners,
    pacing,
    reconciling,
    replicasets,
    scheduling,
)

_RESOURCE = "daemonsets.apps"
_HASH = "controller-revision-hash"
_READY: Obj = {"conditions": [{"type": "Ready", "status": "True"}]}
_TOLERATIONS = [
    {"key": f"node.kubernetes.io/{name}", "operator": "Exists", "effect": effect}
    for name, effect in (
        ("not-ready", "NoExecute"),
        ("unreachable", "NoExecute"),
        ("unschedulable", "NoSchedule"),
    )
]


class DaemonSets:
    """Keeps one pod per fitting node for every DaemonSet."""

    def __init__(self, api: apis.Api, follow: mirrors.Mirrors, system_clock: clock.Clock) -> None:
        self._api = api
        self._clock = system_clock
        self._owned = owned_pods.OwnedPods(
            api, component="daemonset-controller", system_clock=system_clock
        )
        self._sets = follow.of(_RESOURCE)
        self._nodes = follow.of("nodes")
        self._loop = reconciling.Reconciler("daemonsets", self._reconcile)
        self._sets.listen(self._on_set)
        self._nodes.listen(self._on_node)
        follow.of("pods").listen(self._on_pod)

    def start(self, nursery: tasks.Nursery) -> None:
        """Run in `nursery`."""
        self._loop.start(nursery)

    def _on_set(self, old: Obj | None, new: Obj | None) -> None:
        if new is not None:
            self._loop.touch(mirrors.key_of(new))

    def _on_node(self, old: Obj | None, new: Obj | None) -> None:
        for found in self._sets.items():
            self._loop.touch(mirrors.key_of(found))

    def _on_pod(self, old: Obj | None, new: Obj | None) -> None:
        for pod in (old, new):
            if pod is not None and (key := owners.owner_key(pod, "DaemonSet")):
                self._loop.touch(key)

    async def _reconcile(self, key: mirrors.Key) -> None:
        await self._nodes.synced()
        namespace, name = key
        found = self._sets.get(name, namespace)
        if found is None or "deletionTimestamp" in found["metadata"]:
            return
        wanted = [node["metadata"]["name"] for node in self._nodes.items() if _fits(found, node)]
        pods = [
            pod for pod in await self._api.list("pods", namespace) if owners.is_owned(pod, found)
        ]
        limits = _limits(found, len(wanted))
        kept = await self._settle(found, pods, wanted, surge=limits.surge)
        if limits.surge:
            await self._put_beside(found, kept, surge=limits.surge)
        else:
            await self._replace_one(found, _first(kept), len(wanted), limits.unavailable)
        await self._write_status(found, _first(kept), len(wanted))

    async def _settle(
        self, found: Obj, pods: list[Obj], wanted: list[str], *, surge: int
    ) -> dict[str, list[Obj]]:
        """Add what is missing, remove what is too much or has ended; return what stays, by node.

        Where the next pod may come before the last one goes, a node may have two, the next one
        last, until that is available.
        """
        kept: dict[str, list[Obj]] = {}
        busy: set[str] = set()
        for pod in sorted(pods, key=lambda each: str(each["metadata"]["creationTimestamp"])):
            node = pod["spec"].get("nodeName", "")
            here = kept.get(node, [])
            if "deletionTimestamp" in pod["metadata"]:
                busy.add(node)
            elif node not in wanted or not owners.is_active(pod):
                await self._owned.delete(pod, owner=found)
                busy.add(node)
            elif not here or (surge and len(here) == 1 and _outdated(found, here)):
                kept[node] = [*here, pod]
            else:
                await self._owned.delete(pod, owner=found)
                busy.add(node)
        for node in wanted:
            if node not in kept and (surge or node not in busy):
                kept[node] = [await self._owned.create(_pod(found, node), owner=found)]
        return kept

    async def _put_beside(self, found: Obj, kept: dict[str, list[Obj]], *, surge: int) -> None:
        two = 0
        for node, (first, *others) in sorted(kept.items()):
            if self._available(found, others):
                await self._owned.delete(first, owner=found)
                kept[node] = others
            else:
                two += bool(others)
        for node, pods in sorted(kept.items()):
            if two < surge and len(pods) == 1 and _outdated(found, pods):
                pods.append(await self._owned.create(_pod(found, node), owner=found))
                two += 1

    async def _replace_one(
        self, found: Obj, pods: list[Obj], wanted: int, unavailable: int
    ) -> None:
        if not _is_rolling(found):
            return
        allowed = max(1, unavailable)
        missing = wanted - len(self._available(found, pods))
        for pod in _outdated(found, pods):
            if not owners.is_ready(pod):
                await self._owned.delete(pod, owner=found)
            elif missing < allowed:
                await self._owned.delete(pod, owner=found)
                missing += 1

    def _available(self, found: Obj, pods: list[Obj]) -> list[Obj]:
        after_s = found["spec"].get("minReadySeconds", 0)
        now = self._clock.now()
        return [pod for pod in pods if owners.is_available(pod, after_s=after_s, now=now)]

    async def _write_status(self, found: Obj, pods: list[Obj], wanted: int) -> None:
        available = len(self._available(found, pods))
        status: Obj = {
            "observedGeneration": found["metadata"].get("generation", 1),
            "numberAvailable": available or None,
            "numberUnavailable": (wanted - available) or None,
            "updatedNumberScheduled": (len(pods) - len(_outdated(found, pods))) or None,
        }
        wished = {key: value for key, value in status.items() if value is not None}
        counted = {
            "currentNumberScheduled": len(pods),
            "desiredNumberScheduled": wanted,
            "numberMisscheduled": 0,
            "numberReady": sum(map(owners.is_ready, pods)),
        }
        await replicasets.put_status(self._api, _RESOURCE, found, {**wished, **counted})


def _is_rolling(found: Obj) -> bool:
    strategy = found["spec"].get("updateStrategy") or {}
    return bool(strategy.get("type", "RollingUpdate") == "RollingUpdate")


def _limits(found: Obj, wanted: int) -> pacing.Pace:
    rolling = (found["spec"].get("updateStrategy") or {}).get("rollingUpdate") or {}
    surge = rolling.get("maxSurge", 0) if _is_rolling(found) else 0
    return pacing.pace(wanted, surge=surge, unavailable=rolling.get("maxUnavailable", 1))


def _first(kept: dict[str, list[Obj]]) -> list[Obj]:
    return [pods[0] for pods in kept.values()]


def _hash(found: Obj) -> str:
    return owners.template_hash(found["spec"]["template"])


def _outdated(found: Obj, pods: Iterable[Obj]) -> list[Obj]:
    current = _hash(found)
    return [pod for pod in pods if (pod["metadata"].get("labels") or {}).get(_HASH) != current]


def _fits(found: Obj, node: Obj) -> bool:
    """Whether the DaemonSet wants a pod on `node`, were it ready."""
    spec = {key: value for key, value in node.get("spec", {}).items() if key != "unschedulable"}
    taints = [each for each in spec.get("taints") or () if "node.kubernetes.io/" not in each["key"]]
    ideal = {**node, "spec": {**spec, "taints": taints}, "status": _READY}
    return not scheduling.unfit({"spec": found["spec"]["template"]["spec"]}, ideal)


def _pod(found: Obj, node: str) -> Obj:
    pod = copy.deepcopy(owners.pod_from(found["spec"]["template"], owner=found))
    pod["metadata"].setdefault("labels", {})[_HASH] = _hash(found)
    pod["spec"]["nodeName"] = node
    pod["spec"]["tolerations"] = [*(pod["spec"].get("tolerations") or ()), *_TOLERATIONS]
    return pod
