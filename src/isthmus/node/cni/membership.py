"""Which pods of a node take part in ambient mode, and why the others do not.

Decides from labels, annotations and the pod's phase alone. Refuses to know how a pod is captured.

Source: spec section 7.2; the default selectors of Istio's CNI agent.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from isthmus.kube import objects

MODE: Final = "istio.io/dataplane-mode"
AMBIENT, NONE = "ambient", "none"
SIDECAR: Final = "sidecar.istio.io/status"
REDIRECTION: Final = "ambient.istio.io/redirection"
ENABLED, PENDING = "enabled", "pending"

DNS: Final = "ambient.istio.io/dns-capture"
BYPASS: Final = "ambient.istio.io/bypass-inbound-capture"

_AGENTS = (("app", "ztunnel"), ("k8s-app", "istio-cni-node"))
_ENDED = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a pod takes part; `why` says it in the words of whoever decides."""

    takes_part: bool
    why: str


def verdict_of(
    pod: objects.Pod, *, namespace: Mapping[str, str] | None, excluded: Collection[str]
) -> Verdict:
    """Decide about one pod; the first rule that applies holds.

    Args:
        pod: The pod.
        namespace: The labels of its namespace; None while that is not known.
        excluded: Namespaces of which no pod takes part.
    """
    if (reason := _hindrance(pod, excluded)) or namespace is None:
        return Verdict(False, reason or "its namespace is not known")
    own = pod.metadata.label(MODE)
    if own in (AMBIENT, NONE):
        return Verdict(own == AMBIENT, f"the pod's label {MODE}={own}")
    if namespace.get(MODE) == AMBIENT:
        return Verdict(True, f"the namespace's label {MODE}={AMBIENT}")
    return Verdict(False, f"neither pod nor namespace has the label {MODE}={AMBIENT}")


def _hindrance(pod: objects.Pod, excluded: Collection[str]) -> str:
    if has_ended(pod):
        return "it has ended"
    if pod.spec.host_network:
        return "it lives in its node's network"
    if pod.metadata.annotation(SIDECAR):
        return "it has a proxy of its own"
    if pod.metadata.namespace in excluded:
        return "its namespace is left out"
    if any(pod.metadata.label(name) == value for name, value in _AGENTS):
        return "it is an agent of the node"
    return ""


def has_ended(pod: objects.Pod) -> bool:
    """Say whether no program of the pod will run again."""
    return pod.status.phase in _ENDED


def was_captured(pod: objects.Pod) -> bool:
    """Say whether rules of ours may be in the pod's network; a sidecar's own are not."""
    return bears_mark(pod) and not pod.metadata.annotation(SIDECAR)


def captures_dns(pod: objects.Pod, *, usual: bool) -> bool:
    """Say whether the proxy answers the pod's questions for names; its annotation decides."""
    said = _claim(pod, DNS)
    return usual if said is None else said


def captures_arriving(pod: objects.Pod) -> bool:
    """Say whether plain calls to the pod go to the proxy: not where the pod takes them itself."""
    return not _claim(pod, BYPASS)


def _claim(pod: objects.Pod, annotation: str) -> bool | None:
    return {"true": True, "false": False}.get(pod.metadata.annotation(annotation).lower())


def bears_mark(pod: objects.Pod) -> bool:
    """Say whether some agent has begun to capture this pod, by what it wrote on it."""
    return pod.metadata.annotation(REDIRECTION) in (ENABLED, PENDING)
