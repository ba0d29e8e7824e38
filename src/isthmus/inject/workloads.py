"""What a pod belongs to: the names under which its proxy speaks of itself.

Source: spec section 5.3 (`ISTIO_META_WORKLOAD_NAME`, `ISTIO_META_OWNER`, canonical labels).
"""

from dataclasses import dataclass
from typing import Final

from isthmus.inject import shapes
from isthmus.inject.shapes import Obj

HASH: Final = "pod-template-hash"
STAMP_DIGITS: Final = 8
"""A CronJob's jobs end in at least that many digits: the minute of their start."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What a pod belongs to.

    Attributes:
        name: Of the Deployment, Job, or whatever else made the pod.
        owner: The same as Istio writes it: an address of the object.
        service: Canonical name of the service.
        revision: Canonical revision of the service.
    """

    name: str
    owner: str
    service: str
    revision: str


def of(pod: Obj, *, namespace: str) -> Workload:
    """Find what a pod belongs to.

    Raises:
        InjectionRefused: The pod is malformed (ISM-INJ-001).
    """
    metadata = shapes.below(pod, "metadata")
    labels = shapes.texts(metadata, "labels")
    version, kind, name = _owner(metadata, labels)
    return Workload(
        name=name,
        owner=f"kubernetes://apis/{version}/namespaces/{namespace}/{kind.lower()}s/{name}",
        service=labels.get("service.istio.io/canonical-name")
        or labels.get("app.kubernetes.io/name")
        or labels.get("app")
        or name,
        revision=labels.get("service.istio.io/canonical-revision")
        or labels.get("app.kubernetes.io/version")
        or labels.get("version")
        or "latest",
    )


def _owner(metadata: Obj, labels: dict[str, str]) -> tuple[str, str, str]:
    owners = shapes.listed(metadata, "ownerReferences")
    owner = next((each for each in owners if each.get("controller")), None)
    if owner is None:
        own = str(metadata.get("name") or metadata.get("generateName") or "").rstrip("-")
        return "v1", "Pod", own
    version, kind = str(owner.get("apiVersion", "")), str(owner.get("kind", ""))
    name = str(owner.get("name", ""))
    suffix = f"-{labels.get(HASH, '')}"
    if kind == "ReplicaSet" and labels.get(HASH) and name.endswith(suffix):
        return "apps/v1", "Deployment", name.removesuffix(suffix)
    stem, _, stamp = name.rpartition("-")
    if kind == "Job" and stem and stamp.isdecimal() and len(stamp) >= STAMP_DIGITS:
        return version, "CronJob", stem
    return version, kind, name
