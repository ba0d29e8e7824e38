"""What a pod's status says, from what is known of its containers.

Decides phase, conditions and the shape of each field, as Kubernetes documents them. Reads no
clock: moments are handed in.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from isthmus.base import clock

Obj = dict[str, Any]

CREATING, INITIALIZING = "ContainerCreating", "PodInitializing"
_OURS = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")


@dataclass(frozen=True, slots=True)
class Ended:
    """How one run of a container ended."""

    code: int
    reason: str
    message: str
    began: clock.Instant
    ended: clock.Instant


@dataclass(slots=True)
class ContainerState:
    """What is known of one container now.

    Attributes:
        waiting: Why it does not run, and a message; meaningless while it runs or has ended.
        ended: How its last run ended, if it does not run and will not be started again soon.
        last: How the run before ended.
        started: Whether its startup probe has passed, or there is none.
        helper: An init container that goes on running beside the others.
    """

    name: str
    image: str
    initial: bool
    helper: bool = False
    waiting: tuple[str, str] = (CREATING, "")
    running_since: clock.Instant | None = None
    ended: Ended | None = None
    last: Ended | None = None
    restarts: int = 0
    started: bool = False
    ready: bool = False

    def shown(self, pod_uid: str) -> Obj:
        """Return its entry in the pod's status."""
        fields: Obj = {
            "name": self.name,
            "image": self.image,
            "imageID": f"isthmus-lab://{self.image}",
            "restartCount": self.restarts,
            "ready": self.ready or self._has_done_its_part,
            "started": self.started,
            "state": self._state(pod_uid),
            "lastState": {"terminated": _terminated(self.last, "")} if self.last else {},
        }
        if self.running_since or self.ended:
            fields["containerID"] = self._identifier(pod_uid)
        return fields

    def _identifier(self, pod_uid: str) -> str:
        return f"isthmus-lab://{pod_uid}/{self.name}/{self.restarts}"

    def _state(self, pod_uid: str) -> Obj:
        if self.running_since:
            return {"running": {"startedAt": stamp(self.running_since)}}
        if self.ended:
            return {"terminated": _terminated(self.ended, self._identifier(pod_uid))}
        reason, message = self.waiting
        return {"waiting": {"reason": reason, **({"message": message} if message else {})}}

    @property
    def _has_done_its_part(self) -> bool:
        return self.initial and not self.helper and self.is_complete

    @property
    def is_complete(self) -> bool:
        """Whether an init container no longer holds back those after it."""
        if self.helper:
            return self.running_since is not None and self.started
        return self.ended is not None and self.ended.code == 0


def _terminated(ended: Ended, identifier: str) -> Obj:
    fields = {
        "exitCode": ended.code,
        "reason": ended.reason,
        "startedAt": stamp(ended.began),
        "finishedAt": stamp(ended.ended),
    }
    if identifier:
        fields["containerID"] = identifier
    if ended.message:
        fields["message"] = ended.message
    return fields


def stamp(moment: clock.Instant) -> str:
    """Write a moment as Kubernetes does."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Facts of a pod beside its containers."""

    pod_ip: str
    host_ip: str
    began: clock.Instant


def states_of(pod: Obj) -> list[ContainerState]:
    """Return the states in which a pod's containers begin, init containers first."""
    spec = pod["spec"]
    initial = [
        ContainerState(
            each["name"],
            each["image"],
            initial=True,
            helper=each.get("restartPolicy") == "Always",
            waiting=(INITIALIZING, ""),
        )
        for each in spec.get("initContainers") or ()
    ]
    waiting = (INITIALIZING if initial else CREATING, "")
    main = [
        ContainerState(each["name"], each["image"], initial=False, waiting=waiting)
        for each in spec["containers"]
    ]
    return [*initial, *main]


def of_pod(
    pod: Obj, states: Sequence[ContainerState], *, sandbox: Sandbox, final: bool, now: clock.Instant
) -> Obj:
    """Return the status of a pod.

    Args:
        pod: The pod as last seen, for its conditions.
        states: Its containers, init containers first.
        sandbox: Its addresses and when its node took it.
        final: No container will be started again.
        now: The moment for what changes.
    """
    uid = pod["metadata"]["uid"]
    phase = _phase(states, final=final)
    status: Obj = {
        "phase": phase,
        "conditions": _conditions(pod, states, phase, now),
        "hostIP": sandbox.host_ip,
        "hostIPs": [{"ip": sandbox.host_ip}],
        "startTime": stamp(sandbox.began),
        "qosClass": qos_class(pod),
        "containerStatuses": [each.shown(uid) for each in states if not each.initial],
    }
    if any(each.initial for each in states):
        status["initContainerStatuses"] = [each.shown(uid) for each in states if each.initial]
    if sandbox.pod_ip:
        status["podIP"] = sandbox.pod_ip
        status["podIPs"] = [{"ip": sandbox.pod_ip}]
    return status


def _phase(states: Iterable[ContainerState], *, final: bool) -> str:
    main = [each for each in states if not each.initial]
    if final:
        ended = [each.ended for each in states if each.ended and not each.helper]
        complete = all(each.ended for each in main)
        return "Succeeded" if complete and all(one.code == 0 for one in ended) else "Failed"
    if any(each.running_since or each.ended or each.last for each in main):
        return "Running"
    return "Pending"


def _conditions(
    pod: Obj, states: Sequence[ContainerState], phase: str, now: clock.Instant
) -> list[Obj]:
    old = {each["type"]: each for each in (pod.get("status") or {}).get("conditions") or ()}
    initial = all(each.is_complete for each in states if each.initial)
    unready = [each.name for each in states if not each.ready and (each.helper or not each.initial)]
    serving = phase == "Running" and not unready
    gates = [gate["conditionType"] for gate in pod["spec"].get("readinessGates") or ()]
    gates_pass = all((old.get(gate) or {}).get("status") == "True" for gate in gates)
    why = "PodCompleted" if phase == "Succeeded" else "ContainersNotReady"
    message = (
        "" if phase == "Succeeded" else f"containers with unready status: [{' '.join(unready)}]"
    )
    wanted: list[tuple[str, bool, str, str]] = [
        ("Initialized", initial or phase == "Running", "ContainersNotInitialized", ""),
        (
            "Ready",
            serving and gates_pass,
            why if not serving else "ReadinessGatesNotReady",
            message,
        ),
        ("ContainersReady", serving, why, message),
        ("PodScheduled", True, "", ""),
    ]
    mine = [_condition(old.get(each[0]), *each, now) for each in wanted]
    return [*mine, *(each for kind, each in old.items() if kind not in _OURS)]


def _condition(  # the fields of a condition
    old: Obj | None,
    kind: str,
    holds: bool,
    reason: str,
    message: str,
    now: clock.Instant,
) -> Obj:
    value = "True" if holds else "False"
    same = old is not None and old.get("status") == value
    since = old["lastTransitionTime"] if old and same and old.get("lastTransitionTime") else None
    made: Obj = {"type": kind, "status": value, "lastTransitionTime": since or stamp(now)}
    if not holds:
        made["reason"] = reason
        if message:
            made["message"] = message
    return made


def qos_class(pod: Obj) -> str:
    """Return the pod's quality of service class."""
    resources = [each.get("resources") or {} for each in pod["spec"].get("containers", ())]
    if not any(each.get("requests") or each.get("limits") for each in resources):
        return "BestEffort"
    for each in resources:
        limits, requests = (
            each.get("limits") or {},
            each.get("requests") or each.get("limits") or {},
        )
        for name in ("cpu", "memory"):
            if not limits.get(name) or str(limits[name]) != str(requests.get(name, limits[name])):
                return "Burstable"
    return "Guaranteed"
