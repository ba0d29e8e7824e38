"""Nodes that stop answering, and pods whose node is gone.

It decides what is said of such pods. It refuses to know why a node is silent.
"""

import contextlib

from isthmus.base import clock, tasks
from isthmus.lab.apiserver import api as apis
from isthmus.lab.apiserver import mirrors
from isthmus.lab.apiserver.errors import ApiError
from isthmus.lab.apiserver.values import Obj
from isthmus.lab.controllers import owners, reconciling


class NodeLifecycle:
    """Marks the pods of a node that is not ready, removes those of one that is gone."""

    def __init__(self, api: apis.Api, follow: mirrors.Mirrors, system_clock: clock.Clock) -> None:
        self._api = api
        self._clock = system_clock
        self._nodes = follow.of("nodes")
        self._pods = follow.of("pods")
        self._loop = reconciling.Reconciler("node lifecycle", self._reconcile)
        self._nodes.listen(self._on_node)

    def start(self, nursery: tasks.Nursery) -> None:
        """Run in `nursery`."""
        self._loop.start(nursery)

    def _on_node(self, old: Obj | None, new: Obj | None) -> None:
        if old is None:
            return
        if new is None or (owners.is_ready(old) and not owners.is_ready(new)):
            self._loop.touch(old["metadata"]["name"])

    async def _reconcile(self, name: str) -> None:
        node = self._nodes.get(name)
        pods = [pod for pod in self._pods.items() if pod["spec"].get("nodeName") == name]
        for pod in pods:
            if node is None:
                await self._remove(pod)
            elif not owners.is_ready(node) and owners.is_ready(pod):
                await self._mark(pod)

    async def _remove(self, pod: Obj) -> None:
        namespace, name = mirrors.key_of(pod)
        with contextlib.suppress(ApiError):
            await self._api.delete("pods", name, namespace, grace_s=0)

    async def _mark(self, pod: Obj) -> None:
        namespace, name = mirrors.key_of(pod)
        conditions = list((pod.get("status") or {}).get("conditions") or ())
        new = {**owners.condition(pod, "Ready"), "status": "False", "reason": "NodeNotReady"}
        changed = owners.with_condition(conditions, new, now=self._clock.now())
        patch = {"status": {"conditions": changed}}
        with contextlib.suppress(ApiError):
            await self._api.patch("pods", name, patch, namespace=namespace, subresource="status")
