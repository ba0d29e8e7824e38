"""What a pod's row says: how many containers are ready, why it waits, how often it restarted."""

import datetime
from collections.abc import Iterable

from isthmus.lab.apiserver import cells
from isthmus.lab.apiserver.values import Json, Obj


def pod_ready(obj: Obj, _: datetime.datetime) -> Json:
    """Show how many containers are ready, of how many."""
    found = cells.at(obj, "status.containerStatuses") or ()
    ready = sum(bool(one.get("ready")) for one in found)
    total = len(cells.at(obj, "spec.containers") or ())
    for one in _sidecars(obj):
        total += 1
        ready += bool(one.get("ready"))
    return f"{ready}/{total}"


def _sidecars(obj: Obj) -> Iterable[Obj]:
    states = {one.get("name"): one for one in cells.at(obj, "status.initContainerStatuses") or ()}
    for one in cells.at(obj, "spec.initContainers") or ():
        if one.get("restartPolicy") == "Always":
            yield states.get(one.get("name"), {})


def pod_status(obj: Obj, _: datetime.datetime) -> Json:
    """Show the phase, or the reason that explains more."""
    reason = cells.at(obj, "status.reason") or cells.at(obj, "status.phase") or "Unknown"
    starting = _init_reason(obj)
    if starting:
        reason = starting
    else:
        for one in reversed(cells.at(obj, "status.containerStatuses") or ()):
            reason = _container_reason(one) or reason
    if obj["metadata"].get("deletionTimestamp"):
        return "Unknown" if cells.at(obj, "status.reason") == "NodeLost" else "Terminating"
    return reason


def _init_reason(obj: Obj) -> str:
    restartable = {
        one.get("name")
        for one in cells.at(obj, "spec.initContainers") or ()
        if one.get("restartPolicy") == "Always"
    }
    found = cells.at(obj, "status.initContainerStatuses") or ()
    total = len(cells.at(obj, "spec.initContainers") or ())
    for index, one in enumerate(found):
        state = one.get("state") or {}
        ended = state.get("terminated")
        if ended and ended.get("exitCode") == 0:
            continue
        if one.get("name") in restartable and (one.get("started") or one.get("ready")):
            continue
        why = _container_reason(one)
        if why and why not in ("PodInitializing", "Completed"):
            return f"Init:{why}"
        return f"Init:{index}/{total}"
    return ""


def _container_reason(one: Obj) -> str:
    state = one.get("state") or {}
    waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
    if waiting.get("reason"):
        return str(waiting["reason"])
    if ended:
        if ended.get("reason"):
            return str(ended["reason"])
        return (
            f"Signal:{ended['signal']}"
            if ended.get("signal")
            else f"ExitCode:{ended.get('exitCode', 0)}"
        )
    return ""


def pod_restarts(obj: Obj, now: datetime.datetime) -> Json:
    """Show how often containers restarted, and when last."""
    found = [*(cells.at(obj, "status.containerStatuses") or ()), *_sidecars(obj)]
    total = sum(one.get("restartCount", 0) for one in found)
    ends = [cells.at(one, "lastState.terminated.finishedAt") for one in found]
    latest = max((end for end in ends if end), default="")
    return f"{total} ({cells.since(latest, now)} ago)" if total and latest else str(total)


def gates(obj: Obj, _: datetime.datetime) -> Json:
    """Show how many readiness gates are met."""
    gates = [one.get("conditionType") for one in cells.at(obj, "spec.readinessGates") or ()]
    met = {
        one["type"]
        for one in cells.at(obj, "status.conditions") or ()
        if one.get("status") == "True"
    }
    return f"{len(met & set(gates))}/{len(gates)}" if gates else "<none>"
