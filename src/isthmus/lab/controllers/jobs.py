"""Jobs: pods that run to their end, as many as wished.

It decides how many run at once, how often failures are tried again, and when a Job has ended. It
counts pods as they are; a finished pod that somebody deletes is run again.
"""

import copy

from isthmus.base import clock, tasks
from isthmus.lab.apiserver import api as apis
from isthmus.lab.apiserver import mirrors
from isthmus.lab.apiserver.values import Obj
from isthmus.lab.controllers import owned_pods, owners, reconciling, replicasets

_RESOURCE = "jobs.batch"
_FIRST_BACKOFF_S = 1.0
_LONGEST_BACKOFF_S = 360.0


class Jobs:
    """Runs every Job to its end."""

    def __init__(self, api: apis.Api, follow: mirrors.Mirrors, system_clock: clock.Clock) -> None:
        self._api = api
        self._clock = system_clock
        self._owned = owned_pods.OwnedPods(
            api, component="job-controller", system_clock=system_clock
        )
        self._jobs = follow.of(_RESOURCE)
        self._loop = reconciling.Reconciler("jobs", self._reconcile)
        self._jobs.listen(self._on_job)
        follow.of("pods").listen(self._on_pod)

    def start(self, nursery: tasks.Nursery) -> None:
        """Run in `nursery`."""
        self._loop.start(nursery)

    def _on_job(self, old: Obj | None, new: Obj | None) -> None:
        if new is not None:
            self._loop.touch(mirrors.key_of(new))

    def _on_pod(self, old: Obj | None, new: Obj | None) -> None:
        for pod in (old, new):
            if pod is not None and (key := owners.owner_key(pod, "Job")):
                self._loop.touch(key)

    async def _reconcile(self, key: mirrors.Key) -> None:
        namespace, name = key
        job = self._jobs.get(name, namespace)
        if job is None or "deletionTimestamp" in job["metadata"]:
            return
        if _has_ended(job):
            await self._expire(job)
            return
        pods = [pod for pod in await self._api.list("pods", namespace) if owners.is_owned(pod, job)]
        verdict = self._verdict(job, pods)
        active = [pod for pod in pods if owners.is_active(pod)]
        if verdict or job["spec"].get("suspend"):
            for pod in active:
                await self._owned.delete(pod, owner=job)
            active = []
        else:
            await self._settle(job, pods, active)
        await self._write_status(job, pods, active, verdict)

    async def _settle(self, job: Obj, pods: list[Obj], active: list[Obj]) -> None:
        wanted = _wanted(job, _count(pods, "Succeeded"))
        for pod in active[max(0, wanted) :]:
            await self._owned.delete(pod, owner=job)
        if len(active) >= wanted:
            del active[max(0, wanted) :]
            return
        if (delay_s := self._backoff(pods)) > 0:
            self._loop.touch_later(mirrors.key_of(job), delay_s=delay_s)
            return
        missing = wanted - len(active)
        active.extend([await self._owned.create(_pod(job), owner=job) for _ in range(missing)])

    def _backoff(self, pods: list[Obj]) -> float:
        """Return for how many seconds a failure still holds back the next try."""
        failed = [pod for pod in pods if _phase(pod) == "Failed"]
        if not failed:
            return 0.0
        ended = max(_ended_at(pod) for pod in failed)
        wait_s = min(_FIRST_BACKOFF_S * 2 ** min(len(failed) - 1, 16), _LONGEST_BACKOFF_S)
        return float(wait_s) - (self._clock.now() - ended).total_seconds()

    def _verdict(self, job: Obj, pods: list[Obj]) -> tuple[str, str, str] | None:
        """Return the condition with which the Job has ended, its reason and message."""
        spec = job["spec"]
        succeeded, failed = _count(pods, "Succeeded"), _failures(pods)
        completions = spec.get("completions")
        running = any(owners.is_active(pod) for pod in pods)
        if completions is None:
            complete = succeeded > 0 and not running
        else:
            complete = succeeded >= completions
        if complete:
            message = "Reached expected number of succeeded pods"
            return "Complete", "CompletionsReached", message
        if failed > spec.get("backoffLimit", 6):
            message = "Job has reached the specified backoff limit"
            return "Failed", "BackoffLimitExceeded", message
        return self._late(job)

    def _late(self, job: Obj) -> tuple[str, str, str] | None:
        limit_s = job["spec"].get("activeDeadlineSeconds")
        started = (job.get("status") or {}).get("startTime")
        if limit_s is None or started is None:
            return None
        left_s = limit_s - (self._clock.now() - owners.instant(started)).total_seconds()
        if left_s > 0:
            self._loop.touch_later(mirrors.key_of(job), delay_s=left_s)
            return None
        return "Failed", "DeadlineExceeded", "Job was active longer than specified deadline"

    async def _write_status(
        self, job: Obj, pods: list[Obj], active: list[Obj], verdict: tuple[str, str, str] | None
    ) -> None:
        now = self._clock.now()
        old = job.get("status") or {}
        counts = {
            "active": len(active),
            "ready": sum(map(owners.is_ready, active)),
            "succeeded": _count(pods, "Succeeded"),
            "failed": _count(pods, "Failed"),
        }
        status: Obj = {key: value for key, value in counts.items() if value}
        status.setdefault("ready", 0)
        conditions = list(old.get("conditions") or ())
        if verdict:
            kind, reason, message = verdict
            before = "SuccessCriteriaMet" if kind == "Complete" else "FailureTarget"
            for each in (before, kind):
                new = {"type": each, "status": "True", "reason": reason, "message": message}
                conditions = owners.with_condition(
                    conditions, {**new, "lastProbeTime": owners.stamp(now)}, now=now
                )
            if kind == "Complete":
                status["completionTime"] = owners.stamp(now)
        if conditions:
            status["conditions"] = conditions
        if not job["spec"].get("suspend"):
            status["startTime"] = old.get("startTime") or owners.stamp(now)
        await replicasets.put_status(self._api, _RESOURCE, job, status)
        if verdict:
            _, reason, message = verdict
            if status.get("completionTime"):
                await self._owned.tell(job, "Completed", "Job completed")
            else:
                await self._owned.tell(job, reason, message, bad=True)

    async def _expire(self, job: Obj) -> None:
        after_s = job["spec"].get("ttlSecondsAfterFinished")
        if after_s is None:
            return
        ended = next(
            owners.instant(each["lastTransitionTime"])
            for each in job["status"]["conditions"]
            if each["type"] in {"Complete", "Failed"}
        )
        left_s = after_s - (self._clock.now() - ended).total_seconds()
        if left_s > 0:
            self._loop.touch_later(mirrors.key_of(job), delay_s=left_s)
            return
        namespace, name = mirrors.key_of(job)
        await self._api.delete(_RESOURCE, name, namespace)


def _has_ended(job: Obj) -> bool:
    return any(
        owners.condition(job, kind).get("status") == "True" for kind in ("Complete", "Failed")
    )


def _wanted(job: Obj, succeeded: int) -> int:
    """Return how many pods should run now."""
    parallelism: int = job["spec"].get("parallelism", 1)
    completions: int | None = job["spec"].get("completions")
    if completions is None:
        return 0 if succeeded else parallelism
    return min(parallelism, completions - succeeded)


def _phase(pod: Obj) -> str:
    return str((pod.get("status") or {}).get("phase", ""))


def _count(pods: list[Obj], phase: str) -> int:
    return sum(_phase(pod) == phase for pod in pods)


def _failures(pods: list[Obj]) -> int:
    """Count failed pods, and restarts of containers where the pod itself tries again."""
    restarts: int = sum(
        each.get("restartCount", 0)
        for pod in pods
        if pod["spec"].get("restartPolicy") == "OnFailure" and _phase(pod) in {"Running", "Pending"}
        for each in (pod.get("status") or {}).get("containerStatuses") or ()
    )
    return _count(pods, "Failed") + restarts


def _ended_at(pod: Obj) -> clock.Instant:
    """Return when the last container of a pod ended, or when it was made."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    found = [
        finished
        for each in statuses
        if (finished := (each.get("state") or {}).get("terminated", {}).get("finishedAt"))
    ]
    return owners.instant(max([*found, pod["metadata"]["creationTimestamp"]]))


def _pod(job: Obj) -> Obj:
    pod = copy.deepcopy(owners.pod_from(job["spec"]["template"], owner=job))
    uid, name = job["metadata"]["uid"], job["metadata"]["name"]
    has = pod["metadata"].setdefault("labels", {})
    for prefix in ("", "batch.kubernetes.io/"):
        has.setdefault(f"{prefix}controller-uid", uid)
        has.setdefault(f"{prefix}job-name", name)
    return pod
