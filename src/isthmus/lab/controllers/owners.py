"""Who owns which object, and what the objects that controllers make have in common.

It decides references, names and hashes. It refuses to know any particular kind's rules.
"""

import datetime
import hashlib
import json
import random
from typing import Any

from isthmus.base import clock
from isthmus.lab.apiserver.values import Obj

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


def reference(owner: Obj) -> Obj:
    """Return the owner reference of a controller's object."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def controller_of(obj: Obj) -> Obj | None:
    """Return the reference to the object's controller, or None."""
    references = obj["metadata"].get("ownerReferences") or ()
    return next((each for each in references if each.get("controller")), None)


def is_owned(obj: Obj, owner: Obj) -> bool:
    """Whether `owner` controls `obj`."""
    found = controller_of(obj)
    return found is not None and found["uid"] == owner["metadata"]["uid"]


def owner_key(obj: Obj, kind: str) -> tuple[str, str] | None:
    """Return the key of the object's controller when it is of `kind`."""
    found = controller_of(obj)
    if found is None or found["kind"] != kind:
        return None
    return obj["metadata"].get("namespace", ""), found["name"]


def template_hash(template: Obj) -> str:
    """Return ten safe characters that differ when a pod template does."""
    text = json.dumps(template, sort_keys=True, separators=(",", ":"))
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    letters = []
    for _ in range(10):
        number, digit = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[digit])
    return "".join(letters)


def suffix() -> str:
    """Return five random safe characters, as generated names end."""
    return "".join(random.choices(_ALPHABET, k=5))


def pod_from(template: Obj, *, owner: Obj, name: str = "") -> Obj:
    """Return the pod that `owner` makes from its template; unnamed ones get a generated name."""
    metadata: dict[str, Any] = {
        "namespace": owner["metadata"]["namespace"],
        "ownerReferences": [reference(owner)],
    }
    for field in ("labels", "annotations", "finalizers"):
        if value := (template.get("metadata") or {}).get(field):
            metadata[field] = value
    if name:
        metadata["name"] = name
    else:
        metadata["generateName"] = f"{owner['metadata']['name']}-"
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def is_active(pod: Obj) -> bool:
    """Whether a pod still counts: neither finished nor on its way out."""
    phase = (pod.get("status") or {}).get("phase")
    return phase not in {"Succeeded", "Failed"} and "deletionTimestamp" not in pod["metadata"]


def is_ready(pod: Obj) -> bool:
    """Whether a pod's condition Ready is true."""
    return condition(pod, "Ready").get("status") == "True"


def condition(obj: Obj, kind: str) -> Obj:
    """Return one condition of an object, or an empty one."""
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return next((each for each in conditions if each["type"] == kind), {})


def is_available(pod: Obj, *, after_s: int, now: clock.Instant) -> bool:
    """Whether a pod has been ready for at least `after_s` seconds."""
    if not is_ready(pod):
        return False
    since = condition(pod, "Ready").get("lastTransitionTime")
    if not after_s or not since:
        return not after_s
    return (now - instant(since)).total_seconds() >= after_s


def stamp(now: clock.Instant) -> str:
    """Return a moment as Kubernetes writes it."""
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")


def instant(text: str) -> clock.Instant:
    """Read a moment as Kubernetes writes it."""
    return datetime.datetime.fromisoformat(text)


def with_condition(conditions: list[Obj], new: Obj, *, now: clock.Instant) -> list[Obj]:
    """Return `conditions` with `new` in it; its transition time moves only with its status."""
    old = next((each for each in conditions if each["type"] == new["type"]), None)
    moment = stamp(now)
    merged = {**new, "lastTransitionTime": moment}
    if old is not None and old["status"] == new["status"]:
        merged["lastTransitionTime"] = old.get("lastTransitionTime", moment)
    if old is None:
        return [*conditions, merged]
    return [merged if each is old else each for each in conditions]
