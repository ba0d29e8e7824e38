"""Deployments: one ReplicaSet per revision of the template, rolled from the old to the new.

It decides revisions, the pace of a rollout, and what the conditions say. It refuses to know about
pods: it reads and scales ReplicaSets only.
"""

import copy
from dataclasses import dataclass

from isthmus.base import clock, tasks
from isthmus.lab.apiserver import api as apis
from isthmus.lab.apiserver import mirrors
from isthmus.lab.apiserver.values import Obj
from isthmus.lab.controllers import events, owners, pacing, reconciling, replicasets

_RESOURCE = "deployments.apps"
_SETS = "replicasets.apps"
_HASH = "pod-template-hash"
_REVISION = "deployment.kubernetes.io/revision"
_NOT_COPIED = frozenset(
    {
        _REVISION,
        "kubectl.kubernetes.io/last-applied-configuration",
        "deployment.kubernetes.io/desired-replicas",
        "deployment.kubernetes.io/max-replicas",
    }
)


@dataclass(frozen=True, slots=True)
class _Rollout:
    """A Deployment and its ReplicaSets: the one of its template, and the older ones."""

    deployment: Obj
    new: Obj | None
    old: list[Obj]

    @property
    def all(self) -> list[Obj]:
        return [*self.old, self.new] if self.new else self.old


class Deployments:
    """Rolls every Deployment to its template."""

    def __init__(self, api: apis.Api, follow: mirrors.Mirrors, system_clock: clock.Clock) -> None:
        self._api = api
        self._clock = system_clock
        self._events = events.Recorder(
            api, component="deployment-controller", system_clock=system_clock
        )
        self._deployments = follow.of(_RESOURCE)
        self._loop = reconciling.Reconciler("deployments", self._reconcile)
        self._deployments.listen(self._on_deployment)
        follow.of(_SETS).listen(self._on_set)
        follow.of("pods").listen(self._on_pod)

    def start(self, nursery: tasks.Nursery) -> None:
        """Run in `nursery`."""
        self._loop.start(nursery)

    def _on_deployment(self, old: Obj | None, new: Obj | None) -> None:
        if new is not None:
            self._loop.touch(mirrors.key_of(new))

    def _on_set(self, old: Obj | None, new: Obj | None) -> None:
        for found in (old, new):
            if found is not None and (key := owners.owner_key(found, "Deployment")):
                self._loop.touch(key)

    def _on_pod(self, old: Obj | None, new: Obj | None) -> None:
        """A Recreate rollout waits for the end of the last old pod."""
        if old is None or new is not None:
            return
        for found in self._deployments.items(old["metadata"]["namespace"]):
            if _strategy(found) == "Recreate":
                self._loop.touch(mirrors.key_of(found))

    async def _reconcile(self, key: mirrors.Key) -> None:
        namespace, name = key
        found = self._deployments.get(name, namespace)
        if found is None or "deletionTimestamp" in found["metadata"]:
            return
        rollout = _sorted_out(found, await self._sets_of(found))
        if found["spec"].get("paused"):
            await self._scale_paused(rollout)
        else:
            rollout = await self._with_new_set(rollout)
            await self._roll(rollout)
            await self._forget_history(rollout)
        await self._write_status(found, await self._sets_of(found))

    async def _sets_of(self, found: Obj) -> list[Obj]:
        sets = await self._api.list(_SETS, found["metadata"]["namespace"])
        return [each for each in sets if owners.is_owned(each, found)]

    async def _with_new_set(self, rollout: _Rollout) -> _Rollout:
        latest = max((_revision(each) for each in rollout.old), default=0)
        if rollout.new is None:
            new = await self._api.create(_SETS, _new_set(rollout, latest + 1))
            await self._tell_scaled(rollout.deployment, new, 0, new["spec"]["replicas"])
        else:
            new = rollout.new
            if _revision(new) <= latest:
                new = await self._annotate(_SETS, new, {_REVISION: str(latest + 1)})
        wanted = new["metadata"]["annotations"][_REVISION]
        annotations = rollout.deployment["metadata"].get("annotations") or {}
        if annotations.get(_REVISION) != wanted:
            await self._annotate(_RESOURCE, rollout.deployment, {_REVISION: wanted})
        return _Rollout(rollout.deployment, new, rollout.old)

    async def _annotate(self, resource: str, obj: Obj, annotations: dict[str, str]) -> Obj:
        metadata = obj["metadata"]
        patch = {"metadata": {"annotations": annotations}}
        return await self._api.patch(
            resource, metadata["name"], patch, namespace=metadata["namespace"]
        )

    async def _roll(self, rollout: _Rollout) -> None:
        spec = rollout.deployment["spec"]
        if _strategy(rollout.deployment) == "Recreate":
            wishes = pacing.recreate(
                spec.get("replicas", 1), _counts(rollout), gone=await self._old_are_gone(rollout)
            )
        else:
            wishes = pacing.rolling(spec.get("replicas", 1), _counts(rollout), _pace(spec))
        for found, replicas in zip(rollout.all, wishes, strict=True):
            await self._scale(rollout.deployment, found, replicas)

    async def _old_are_gone(self, rollout: _Rollout) -> bool:
        uids = {each["metadata"]["uid"] for each in rollout.old}
        pods = await self._api.list("pods", rollout.deployment["metadata"]["namespace"])
        found = (owners.controller_of(pod) for pod in pods)
        return not any(each and each["uid"] in uids for each in found)

    async def _scale_paused(self, rollout: _Rollout) -> None:
        """Pausing stops the rollout, not scaling: the difference goes to the newest ReplicaSet."""
        active = [each for each in rollout.all if each["spec"].get("replicas")]
        target = active[-1] if active else rollout.new
        if target is None:
            return
        others = sum(each["spec"]["replicas"] for each in active if each is not target)
        wanted = rollout.deployment["spec"].get("replicas", 1)
        await self._scale(rollout.deployment, target, max(0, wanted - others))

    async def _scale(self, deployment: Obj, found: Obj, replicas: int) -> None:
        before = found["spec"].get("replicas", 1)
        if before == replicas:
            return
        metadata = found["metadata"]
        await self._api.patch(
            _SETS,
            metadata["name"],
            {"spec": {"replicas": replicas}},
            namespace=metadata["namespace"],
        )
        await self._tell_scaled(deployment, found, before, replicas)

    async def _tell_scaled(self, deployment: Obj, found: Obj, before: int, after: int) -> None:
        if before == after:
            return
        way = "up" if after > before else "down"
        name = found["metadata"]["name"]
        await self._events.record(
            deployment,
            kind="Normal",
            reason="ScalingReplicaSet",
            message=f"Scaled {way} replica set {name} from {before} to {after}",
        )

    async def _forget_history(self, rollout: _Rollout) -> None:
        limit = rollout.deployment["spec"].get("revisionHistoryLimit", 10)
        empty = [
            each
            for each in rollout.old
            if not each["spec"].get("replicas") and not each.get("status", {}).get("replicas")
        ]
        for each in empty[: max(0, len(empty) - limit)]:
            await self._api.delete(_SETS, each["metadata"]["name"], each["metadata"]["namespace"])

    async def _write_status(self, found: Obj, sets: list[Obj]) -> None:
        rollout = _sorted_out(found, sets)
        now = self._clock.now()
        status = _status(rollout, now)
        deadline_s = found["spec"].get("progressDeadlineSeconds", 600)
        progressing = next(each for each in status["conditions"] if each["type"] == "Progressing")
        if progressing["reason"] not in {"NewReplicaSetAvailable", "ProgressDeadlineExceeded"}:
            self._loop.touch_later(mirrors.key_of(found), delay_s=deadline_s + 0.1)
        await replicasets.write_status(self._api, _RESOURCE, found, status)


def _sorted_out(found: Obj, sets: list[Obj]) -> _Rollout:
    template = _comparable(found["spec"]["template"])
    ordered = sorted(sets, key=_revision)
    new = next(
        (each for each in ordered if _comparable(each["spec"]["template"]) == template), None
    )
    return _Rollout(found, new, [each for each in ordered if each is not new])


def _comparable(template: Obj) -> Obj:
    """Return a template without what a ReplicaSet adds to it."""
    metadata = dict(template.get("metadata") or {})
    metadata.pop("creationTimestamp", None)
    metadata["labels"] = {
        key: value for key, value in (metadata.get("labels") or {}).items() if key != _HASH
    }
    kept = {key: value for key, value in metadata.items() if value}
    return {**template, "metadata": kept}


def _revision(found: Obj) -> int:
    text = (found["metadata"].get("annotations") or {}).get(_REVISION, "0")
    return int(text) if text.isdigit() else 0


def _strategy(found: Obj) -> str:
    return str((found["spec"].get("strategy") or {}).get("type", "RollingUpdate"))


def _pace(spec: Obj) -> pacing.Pace:
    rolling = (spec.get("strategy") or {}).get("rollingUpdate") or {}
    return pacing.pace(
        spec.get("replicas", 1),
        surge=rolling.get("maxSurge", "25%"),
        unavailable=rolling.get("maxUnavailable", "25%"),
    )


def _counts(rollout: _Rollout) -> list[pacing.Count]:
    return [
        pacing.Count(
            wanted=each["spec"].get("replicas", 1),
            available=(each.get("status") or {}).get("availableReplicas", 0),
        )
        for each in rollout.all
    ]


def _new_set(rollout: _Rollout, revision: int) -> Obj:
    found = rollout.deployment
    spec, metadata = found["spec"], found["metadata"]
    digest = owners.template_hash(_comparable(spec["template"]))
    template = copy.deepcopy(spec["template"])
    labels = {**((template.get("metadata") or {}).get("labels") or {}), _HASH: digest}
    template.setdefault("metadata", {})["labels"] = labels
    selector = copy.deepcopy(spec["selector"])
    selector.setdefault("matchLabels", {})[_HASH] = digest
    copied = {
        key: value
        for key, value in (metadata.get("annotations") or {}).items()
        if key not in _NOT_COPIED
    }
    wanted = spec.get("replicas", 1)
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{metadata['name']}-{digest}",
            "namespace": metadata["namespace"],
            "labels": labels,
            "annotations": {
                **copied,
                _REVISION: str(revision),
                "deployment.kubernetes.io/desired-replicas": str(wanted),
                "deployment.kubernetes.io/max-replicas": str(wanted + _pace(spec).surge),
            },
            "ownerReferences": [owners.reference(found)],
        },
        "spec": {
            "replicas": _first_wish(rollout),
            "minReadySeconds": spec.get("minReadySeconds", 0),
            "selector": selector,
            "template": template,
        },
    }


def _first_wish(rollout: _Rollout) -> int:
    """Return how many pods a new revision may have at once."""
    spec = rollout.deployment["spec"]
    wanted: int = spec.get("replicas", 1)
    if _strategy(rollout.deployment) == "Recreate":
        return 0 if rollout.old else wanted
    return pacing.rolling(wanted, [*_counts(rollout), pacing.Count(0, 0)], _pace(spec))[-1]


def _status(rollout: _Rollout, now: clock.Instant) -> Obj:
    found = rollout.deployment
    total = _sum(rollout.all, "replicas")
    available = _sum(rollout.all, "availableReplicas")
    status: Obj = {
        "observedGeneration": found["metadata"].get("generation", 1),
        "replicas": total,
        "updatedReplicas": _sum([rollout.new] if rollout.new else [], "replicas"),
        "readyReplicas": _sum(rollout.all, "readyReplicas"),
        "availableReplicas": available,
        "unavailableReplicas": max(0, found["spec"].get("replicas", 1) - available),
    }
    status["conditions"] = _conditions(rollout, status, now)
    return status


def _sum(sets: list[Obj], field: str) -> int:
    return sum((each.get("status") or {}).get(field, 0) for each in sets)


def _conditions(rollout: _Rollout, status: Obj, now: clock.Instant) -> list[Obj]:
    found = rollout.deployment
    conditions = list((found.get("status") or {}).get("conditions") or ())
    replicas = found["spec"].get("replicas", 1)
    least = max(0, replicas - _pace(found["spec"]).unavailable)
    if status["availableReplicas"] >= least:
        available = ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    else:
        available = (
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        )
    conditions = _put(conditions, "Available", available, now, moved=False)
    progressing, moved = _progress(rollout, status, now)
    conditions = _put(conditions, "Progressing", progressing, now, moved=moved)
    refused = owners.condition(rollout.new or {}, "ReplicaFailure")
    if refused:
        said = (refused["status"], refused["reason"], refused["message"])
        return _put(conditions, "ReplicaFailure", said, now, moved=False)
    return [each for each in conditions if each["type"] != "ReplicaFailure"]


def _put(
    conditions: list[Obj], kind: str, said: tuple[str, str, str], now: clock.Instant, *, moved: bool
) -> list[Obj]:
    status, reason, message = said
    old = next((each for each in conditions if each["type"] == kind), {})
    updated = owners.stamp(now)
    if not moved and (old.get("status"), old.get("reason")) == (status, reason):
        updated = old.get("lastUpdateTime", updated)
    new = {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastUpdateTime": updated,
    }
    return owners.with_condition(conditions, new, now=now)


def _progress(
    rollout: _Rollout, status: Obj, now: clock.Instant
) -> tuple[tuple[str, str, str], bool]:
    """Return what condition Progressing says, and whether there was progress since it last did."""
    found = rollout.deployment
    name = rollout.new["metadata"]["name"] if rollout.new else ""
    replicas = found["spec"].get("replicas", 1)
    old = owners.condition(found, "Progressing")
    if found["spec"].get("paused"):
        return ("Unknown", "DeploymentPaused", "Deployment is paused"), False
    if all(status[field] == replicas for field in ("updatedReplicas", "replicas")) and (
        status["availableReplicas"] >= replicas
    ):
        return (
            "True",
            "NewReplicaSetAvailable",
            f'ReplicaSet "{name}" has successfully progressed.',
        ), False
    before = found.get("status") or {}
    moved = any(
        status[field] > before.get(field, 0)
        for field in ("updatedReplicas", "readyReplicas", "availableReplicas")
    ) or (status["replicas"] - status["updatedReplicas"]) < (
        before.get("replicas", 0) - before.get("updatedReplicas", 0)
    )
    if not moved and _is_late(found, old, now):
        return (
            "False",
            "ProgressDeadlineExceeded",
            f'ReplicaSet "{name}" has timed out progressing.',
        ), False
    return ("True", "ReplicaSetUpdated", f'ReplicaSet "{name}" is progressing.'), moved


def _is_late(found: Obj, old: Obj, now: clock.Instant) -> bool:
    if old.get("reason") == "ProgressDeadlineExceeded":
        return _is_observed(found)
    if old.get("reason") != "ReplicaSetUpdated":
        return False
    since = owners.instant(old["lastUpdateTime"])
    limit_s: int = found["spec"].get("progressDeadlineSeconds", 600)
    return (now - since).total_seconds() > limit_s


def _is_observed(found: Obj) -> bool:
    """Whether the status already speaks of this generation, so that its verdict still holds."""
    observed = (found.get("status") or {}).get("observedGeneration", 0)
    return bool(observed >= found["metadata"].get("generation", 1))
