"""The scheduler: gives each waiting pod a node.

It decides which nodes fit and which of them is best: pods of one controller are spread first, then
all pods. It refuses to know how pods run; resource
requests are not counted, because the nodes share one machine.
"""

from collections import Counter

from isthmus.base import clock, tasks
from isthmus.lab.apiserver import api as apis
from isthmus.lab.apiserver import labels, mirrors
from isthmus.lab.apiserver.errors import ApiError
from isthmus.lab.apiserver.values import Obj
from isthmus.lab.controllers import events, owners, reconciling


class Scheduler:
    """Binds pods to nodes."""

    def __init__(self, api: apis.Api, follow: mirrors.Mirrors, system_clock: clock.Clock) -> None:
        self._api = api
        self._clock = system_clock
        self._pods = follow.of("pods")
        self._nodes = follow.of("nodes")
        self._events = events.Recorder(
            api, component="default-scheduler", system_clock=system_clock
        )
        self._bound: dict[mirrors.Key, str] = {}
        self._loop = reconciling.Reconciler("scheduler", self._reconcile)
        self._pods.listen(self._on_pod)
        self._nodes.listen(self._on_node)

    def start(self, nursery: tasks.Nursery) -> None:
        """Run in `nursery`."""
        self._loop.start(nursery)

    def _on_pod(self, old: Obj | None, new: Obj | None) -> None:
        if new is not None and _waits(new):
            self._loop.touch(mirrors.key_of(new))
            return
        gone = new or old
        if gone is not None:
            self._bound.pop(mirrors.key_of(gone), None)

    def _on_node(self, old: Obj | None, new: Obj | None) -> None:
        if new is None or (old is not None and _fitness(old) == _fitness(new)):
            return
        for pod in self._pods.items():
            if _waits(pod):
                self._loop.touch(mirrors.key_of(pod))

    async def _reconcile(self, key: mirrors.Key) -> None:
        await self._nodes.synced()
        namespace, name = key
        pod = self._pods.get(name, namespace)
        if pod is None or not _waits(pod) or key in self._bound:
            return
        nodes = list(self._nodes.items())
        reasons = Counter(why for node in nodes if (why := unfit(pod, node)))
        fitting = [node["metadata"]["name"] for node in nodes if not unfit(pod, node)]
        if not fitting:
            await self._refuse(pod, len(nodes), reasons)
            return
        load, siblings = self._load(), self._load(owners.controller_of(pod))
        chosen = min(fitting, key=lambda node: (siblings[node], load[node], node))
        await self._bind(pod, chosen)

    def _load(self, controller: Obj | None = None) -> Counter[str]:
        """Count the pods per node, of one controller if it is given.

        A binding counts before the mirror tells of it.
        """
        load: Counter[str] = Counter()
        for pod in self._pods.items():
            node = pod["spec"].get("nodeName") or self._bound.get(mirrors.key_of(pod))
            theirs = (owners.controller_of(pod) or {}).get("uid")
            if controller is not None and theirs != controller["uid"]:
                continue
            if node and owners.is_active(pod):
                load[node] += 1
        return load

    async def _bind(self, pod: Obj, node: str) -> None:
        namespace, name = key = mirrors.key_of(pod)
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name, "namespace": namespace},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        try:
            await self._api.create("pods", binding, subresource="binding")
        except ApiError as error:
            if error.code == 404:  # the pod went away meanwhile
                return
            raise
        self._bound[key] = node
        message = f"Successfully assigned {namespace}/{name} to {node}"
        await self._events.record(pod, kind="Normal", reason="Scheduled", message=message)

    async def _refuse(self, pod: Obj, count: int, reasons: Counter[str]) -> None:
        if count:
            listed = ", ".join(f"{many} {why}" for why, many in sorted(reasons.items()))
            message = f"0/{count} nodes are available: {listed}."
        else:
            message = "no nodes available to schedule pods"
        if owners.condition(pod, "PodScheduled").get("message") == message:
            return
        conditions = list((pod.get("status") or {}).get("conditions") or ())
        new = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
        }
        patch = {
            "status": {"conditions": owners.with_condition(conditions, new, now=self._clock.now())}
        }
        namespace, name = mirrors.key_of(pod)
        await self._api.patch("pods", name, patch, namespace=namespace, subresource="status")
        await self._events.record(pod, kind="Warning", reason="FailedScheduling", message=message)


def unfit(pod: Obj, node: Obj) -> str:
    """Return why `node` cannot take `pod`, in the scheduler's words, or nothing."""
    spec, has = pod["spec"], labels.labels_of(node)
    wishes = node.get("spec") or {}
    if wishes.get("unschedulable"):
        return "node(s) were unschedulable"
    if not owners.is_ready(node):
        return "node(s) had untolerated taint {node.kubernetes.io/not-ready: }"
    if any(has.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return "node(s) didn't match Pod's node affinity/selector"
    if not _affinity_holds(spec, node):
        return "node(s) didn't match Pod's node affinity/selector"
    for taint in wishes.get("taints") or ():
        if taint["effect"] in {"NoSchedule", "NoExecute"} and not _tolerated(spec, taint):
            return f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"
    return ""


def _waits(pod: Obj) -> bool:
    spec = pod["spec"]
    return (
        not spec.get("nodeName")
        and not spec.get("schedulingGates")
        and spec.get("schedulerName", "default-scheduler") == "default-scheduler"
        and owners.is_active(pod)
    )


def _fitness(node: Obj) -> tuple[object, ...]:
    spec = node.get("spec") or {}
    return (
        owners.is_ready(node),
        spec.get("unschedulable"),
        spec.get("taints"),
        labels.labels_of(node),
    )


def _affinity_holds(spec: Obj, node: Obj) -> bool:
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if not required:
        return True
    fields = {"metadata.name": node["metadata"]["name"]}
    return any(
        labels.matches(
            {"matchExpressions": term.get("matchExpressions") or ()}, labels.labels_of(node)
        )
        and labels.matches({"matchExpressions": term.get("matchFields") or ()}, fields)
        for term in required.get("nodeSelectorTerms") or ()
    )


def _tolerated(spec: Obj, taint: Obj) -> bool:
    return any(
        (not each.get("key") or each["key"] == taint["key"])
        and each.get("effect") in {None, "", taint["effect"]}
        and (each.get("operator") == "Exists" or each.get("value", "") == taint.get("value", ""))
        for each in spec.get("tolerations") or ()
    )
