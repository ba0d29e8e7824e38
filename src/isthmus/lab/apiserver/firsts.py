"""What an object gets only once, when it is new: its name, its first status, a Job's selector."""

from isthmus.lab.apiserver import errors
from isthmus.lab.apiserver.resources import Resource
from isthmus.lab.apiserver.state import State
from isthmus.lab.apiserver.values import Obj


def give_name(state: State, resource: Resource, meta: Obj) -> None:
    """Choose a name when only its beginning is given."""
    if not meta.get("name") and meta.get("generateName"):
        meta["name"] = state.new_name(meta["generateName"])
    if not resource.namespaced:
        meta.pop("namespace", None)


def refuse_in_dying_namespace(state: State, resource: Resource, meta: Obj) -> None:
    """Raise 404 or 403 when nothing can be created in the object's namespace."""
    if not resource.namespaced:
        return
    namespace = meta.get("namespace") or ""
    entry = state.store.get("namespaces", name=namespace)
    if entry is None:
        raise errors.not_found("namespaces", name=namespace)
    if entry.obj["metadata"].get("deletionTimestamp"):
        error = errors.forbidden(
            f'{resource.full_name} "{meta.get("name", "")}" is forbidden: unable to create new'
            f" content in namespace {namespace} because it is being terminated",
            resource=resource.plural,
            name=meta.get("name", ""),
            group=resource.group,
        )
        error.details["causes"] = [
            {
                "reason": "NamespaceTerminating",
                "message": f"namespace {namespace} is being terminated",
                "field": "metadata.namespace",
            }
        ]
        raise error


def give_status(resource: Resource, obj: Obj) -> None:
    """Set the status that a new object begins with."""
    match resource.key:
        case "pods":
            obj["status"] = {"phase": "Pending", "qosClass": _quality(obj)}
        case "namespaces":
            obj["status"] = {"phase": "Active"}
        case "services":
            obj["status"] = {"loadBalancer": {}}
        case _ if "status" in resource.subresources and not resource.custom:
            obj.setdefault("status", {})


def _quality(pod: Obj) -> str:
    spec = pod.get("spec") or {}
    amounts = [one.get("resources") or {} for one in spec.get("containers") or ()]
    if not any(one.get("requests") or one.get("limits") for one in amounts):
        return "BestEffort"
    full = all(
        {"cpu", "memory"} <= (one.get("limits") or {}).keys()
        and one.get("requests", one["limits"]) == one["limits"]
        for one in amounts
    )
    return "Guaranteed" if full else "Burstable"


def tie_job_to_pods(resource: Resource, obj: Obj) -> None:
    """Tie a Job to its pods by its own uid, as a user cannot know it beforehand."""
    if resource.key != "jobs.batch" or obj["spec"].get("manualSelector"):
        return
    uid, name = obj["metadata"]["uid"], obj["metadata"].get("name", "")
    obj["spec"]["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    labels = obj["spec"]["template"].setdefault("metadata", {}).setdefault("labels", {})
    for prefix in ("", "batch.kubernetes.io/"):
        labels[f"{prefix}controller-uid"] = uid
        labels[f"{prefix}job-name"] = name
