"""What a change of an object leaves as it was, and whether it changed anything at all."""

from collections.abc import Callable, Mapping, Sequence

from isthmus.lab.apiserver import copying, errors
from isthmus.lab.apiserver.resources import Resource
from isthmus.lab.apiserver.values import Obj

ALWAYS_SET = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")
"""Metadata that the server alone sets."""

_DESCRIBED_BY_STATUS = ("labels", "annotations")
"""Metadata of pods that whoever writes their status may change too, as in Kubernetes."""


def kept(resource: Resource, old: Obj, new: Obj, *, subresource: str) -> Obj:
    """Return `new` with everything that this write cannot change taken from `old`."""
    if subresource == "status":
        described = _DESCRIBED_BY_STATUS if resource.key == "pods" else ()
        return _with_status(old, new, described)
    if "status" in resource.subresources:
        new.pop("status", None)
        if "status" in old:
            new["status"] = old["status"]
    _keep_meta(old["metadata"], new["metadata"])
    carry = _CARRIED.get(resource.key)
    if carry is not None and subresource != "finalize":
        carry(old, new)
    return new


def _with_status(old: Obj, new: Obj, described: Sequence[str]) -> Obj:
    out = copying.copied(old)
    for field in described:
        out["metadata"].pop(field, None)
        if new["metadata"].get(field):
            out["metadata"][field] = new["metadata"][field]
    owners = new["metadata"].get("managedFields")
    if owners is not None:
        out["metadata"]["managedFields"] = owners
    out.pop("status", None)
    if "status" in new:
        out["status"] = new["status"]
    return out


def _keep_meta(before: Obj, meta: Obj) -> None:
    for field in (*ALWAYS_SET, "generation", "name", "namespace", "generateName"):
        if field in before:
            meta[field] = before[field]
        else:
            meta.pop(field, None)
    if before.get("deletionTimestamp"):
        # What is being deleted may lose finalizers, not gain any.
        allowed = before.get("finalizers") or []
        meta["finalizers"] = [one for one in meta.get("finalizers") or [] if one in allowed]
        if not meta["finalizers"]:
            del meta["finalizers"]


def _carry_service(old: Obj, new: Obj) -> None:
    """Keep the addresses and ports that clients leave out when they replace a Service."""
    before, after = old.get("spec") or {}, new.get("spec") or {}
    if "ExternalName" in (after.get("type"), before.get("type")):
        return
    for field in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
        if not after.get(field) and before.get(field):
            after[field] = before[field]
    known = {(one.get("name"), one.get("port")): one for one in before.get("ports") or ()}
    for port in after.get("ports") or ():
        same = known.get((port.get("name"), port.get("port")), {})
        if same.get("nodePort") and not port.get("nodePort"):
            port["nodePort"] = same["nodePort"]


def _carry_namespace(old: Obj, new: Obj) -> None:
    new["spec"] = old.get("spec", {})


def _carry_job(old: Obj, new: Obj) -> None:
    new["spec"].setdefault("selector", old["spec"].get("selector"))
    labels = new["spec"]["template"].setdefault("metadata", {}).setdefault("labels", {})
    for key, value in (old["spec"]["template"]["metadata"].get("labels") or {}).items():
        labels.setdefault(key, value)


def _carry_pod(old: Obj, new: Obj) -> None:
    node = (old.get("spec") or {}).get("nodeName")
    if node:
        new.setdefault("spec", {}).setdefault("nodeName", node)


_CARRIED: Mapping[str, Callable[[Obj, Obj], None]] = {
    "services": _carry_service,
    "namespaces": _carry_namespace,
    "jobs.batch": _carry_job,
    "pods": _carry_pod,
}


def refuse_stale(resource: Resource, old: Obj, wanted: Obj) -> None:
    """Raise 409 when the client saw an older object than the stored one."""
    meta, before = wanted.get("metadata") or {}, old["metadata"]
    if not isinstance(meta, dict):
        raise errors.bad_request("metadata must be an object")
    name = before["name"]
    if meta.get("resourceVersion") not in (None, "", "0", before["resourceVersion"]):
        raise errors.conflict(resource.plural, name=name, group=resource.group)
    if meta.get("uid") not in (None, "", before["uid"]):
        why = (
            f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta:"
            f" {before['uid']}"
        )
        raise errors.conflict(resource.plural, name=name, why=why, group=resource.group)


def is_new_generation(resource: Resource, old: Obj, new: Obj) -> bool:
    """Say whether what is wanted changed, rather than metadata or status."""
    if not resource.custom:
        fields = ("spec", "webhooks", "endpoints", "ports")
        return any(old.get(field) != new.get(field) for field in fields)
    ignored = {"metadata", "apiVersion", "kind"}
    if "status" in resource.subresources:
        ignored.add("status")
    names = (old.keys() | new.keys()) - ignored
    return any(old.get(name) != new.get(name) for name in names)


def is_same(old: Obj, new: Obj) -> bool:
    """Say whether two objects differ in nothing that a client sets."""
    if old.keys() != new.keys():
        return False
    return all(
        _meta_for_comparing(value) == _meta_for_comparing(new[key])
        if key == "metadata"
        else value == new[key]
        for key, value in old.items()
    )


def _meta_for_comparing(meta: Obj) -> Obj:
    return {key: value for key, value in meta.items() if key != "resourceVersion"}
