"""Deleting: grace, finalizers, owners and what they own, namespaces and what lies in them.

Everything that follows from a removal happens before the call returns, so that there is no
collector to wait for. Pods alone take time: their kubelet ends them.
"""

import datetime
from dataclasses import dataclass, field

from isthmus.lab.apiserver import copying, crds, errors
from isthmus.lab.apiserver.resources import Resource
from isthmus.lab.apiserver.state import Options, State, shown
from isthmus.lab.apiserver.values import AdmissionRequest, Obj

BACKGROUND = "Background"
FOREGROUND = "Foreground"
ORPHAN = "Orphan"

_PERMANENT = ("default", "kube-system", "kube-public")
_WAITS_FOR_DEPENDENTS = "foregroundDeletion"
_LEAVES_DEPENDENTS = "orphan"
_CRD_CLEANUP = "customresourcecleanup.apiextensions.k8s.io"


@dataclass(frozen=True, slots=True)
class How:
    """How to delete.

    Attributes:
        grace_s: None for the object's own.
        propagation: `Background`, `Foreground` or `Orphan`.
        uid: Delete only the object with this uid, unless empty.
        revision: Delete only the object in this state, unless empty.
    """

    grace_s: int | None = None
    propagation: str = BACKGROUND
    uid: str = ""
    revision: str = ""
    options: Options = field(default_factory=Options)


async def delete(
    state: State, resource: Resource, *, name: str, namespace: str, how: How
) -> tuple[Obj, bool]:
    """Delete an object, or mark it; returns its state and whether it is gone."""
    old = state.read(resource, name=name, namespace=namespace).obj
    _refuse_unmet(resource, old, how)
    await _admit(state, resource, old, how)
    entry = state.store.get(resource.key, name=name, namespace=namespace)
    if entry is None:
        raise errors.not_found(resource.plural, name=name, group=resource.group)
    _refuse_unmet(resource, entry.obj, how)
    if how.options.dry_run:
        return entry.obj, True
    return begin(state, resource.key, entry.obj, how=how)


def _refuse_unmet(resource: Resource, obj: Obj, how: How) -> None:
    meta = obj["metadata"]
    for wanted, have, what in (
        (how.uid, meta["uid"], "UID"),
        (how.revision, meta["resourceVersion"], "ResourceVersion"),
    ):
        if wanted and wanted != have:
            why = f"Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {have}"
            raise errors.conflict(resource.plural, name=meta["name"], why=why, group=resource.group)


async def _admit(state: State, resource: Resource, old: Obj, how: How) -> None:
    if state.admission is None:
        return
    meta = old["metadata"]
    await state.admission(
        AdmissionRequest(
            operation="DELETE",
            group=resource.group,
            version=resource.version,
            resource=resource.plural,
            kind=resource.kind,
            name=meta["name"],
            namespace=meta.get("namespace", ""),
            user=how.options.user,
            obj={},
            old=old,
            dry_run=how.options.dry_run,
        )
    )


def begin(state: State, key: str, obj: Obj, *, how: How) -> tuple[Obj, bool]:
    """Delete without asking admission; returns the object's state and whether it is gone."""
    if key == "namespaces" and obj["metadata"]["name"] in _PERMANENT:
        raise errors.forbidden(
            f'namespaces "{obj["metadata"]["name"]}" is forbidden: this namespace may not be'
            " deleted",
            resource="namespaces",
            name=obj["metadata"]["name"],
        )
    grace_s = _grace_s(key, obj, how)
    marked = _marked(state, key, obj, how, grace_s)
    if is_over(key, marked):
        return remove(state, key, marked), True
    if marked["metadata"] != obj["metadata"] or marked.get("status") != obj.get("status"):
        state.store.put(key, marked)
    if key == "namespaces":
        _empty_namespace(state, marked["metadata"]["name"])
    elif key == crds.KEY:
        _empty_resource(state, marked["metadata"]["name"])
    _settle_dependents(state, key, marked)
    left = state.store.by_uid(marked["metadata"]["uid"])
    return (marked, True) if left is None else (left[1].obj, False)


def _grace_s(key: str, obj: Obj, how: How) -> int:
    if key != "pods":
        return 0
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    if not spec.get("nodeName") or status.get("phase") in ("Succeeded", "Failed"):
        return 0
    wanted = (
        how.grace_s if how.grace_s is not None else spec.get("terminationGracePeriodSeconds", 30)
    )
    before = obj["metadata"].get("deletionGracePeriodSeconds")
    return max(0, wanted if before is None else min(before, wanted))


def _marked(state: State, key: str, obj: Obj, how: How, grace_s: int) -> Obj:
    out = copying.copied(obj)
    meta = out["metadata"]
    finalizers = meta.get("finalizers") or []
    if how.propagation == FOREGROUND and _WAITS_FOR_DEPENDENTS not in finalizers:
        finalizers = [*finalizers, _WAITS_FOR_DEPENDENTS]
    elif how.propagation == ORPHAN and _LEAVES_DEPENDENTS not in finalizers:
        finalizers = [*finalizers, _LEAVES_DEPENDENTS]
    if key == crds.KEY and _CRD_CLEANUP not in finalizers and "deletionTimestamp" not in meta:
        finalizers = [*finalizers, _CRD_CLEANUP]
    if finalizers:
        meta["finalizers"] = finalizers
    before = meta.get("deletionGracePeriodSeconds")
    if "deletionTimestamp" not in meta or (before is not None and grace_s < before):
        end = state.clock.now() + datetime.timedelta(seconds=grace_s)
        meta["deletionTimestamp"] = shown(end)
        meta["deletionGracePeriodSeconds"] = grace_s
    if key == "namespaces":
        out["status"] = {**(out.get("status") or {}), "phase": "Terminating"}
    return out


def is_over(key: str, obj: Obj) -> bool:
    """Say whether nothing holds an object that is being deleted any more."""
    meta = obj["metadata"]
    if not meta.get("deletionTimestamp") or meta.get("finalizers"):
        return False
    if key == "pods":
        return not meta.get("deletionGracePeriodSeconds")
    if key == "namespaces":
        return not (obj.get("spec") or {}).get("finalizers")
    return True


def remove(state: State, key: str, obj: Obj) -> Obj:
    """Take an object out of storage, with everything that follows; returns its last state."""
    last = state.store.remove(key, obj)
    meta = last["metadata"]
    if key == crds.KEY:
        state.unlearn(last)
    for resource, entry in state.store.owned_by(meta["uid"]):
        collect_if_orphan(state, resource, entry.obj)
    for owner in meta.get("ownerReferences") or ():
        found = state.store.by_uid(owner.get("uid", ""))
        if found is not None:
            _settle_dependents(state, found[0], found[1].obj)
    if meta.get("namespace"):
        _finish_namespace(state, meta["namespace"])
    _finish_resource(state, key)
    return last


def reconsider(state: State, key: str, obj: Obj) -> None:
    """Do what follows from a change of an object: owners that waited for it, lost owners."""
    collect_if_orphan(state, key, obj)
    for owner in obj["metadata"].get("ownerReferences") or ():
        found = state.store.by_uid(owner.get("uid", ""))
        if found is not None and found[1].obj["metadata"].get("deletionTimestamp"):
            _settle_dependents(state, found[0], found[1].obj)


def collect_if_orphan(state: State, key: str, obj: Obj) -> None:
    """Delete an object that names owners none of which exists."""
    owners = obj["metadata"].get("ownerReferences")
    if not owners or obj["metadata"].get("deletionTimestamp"):
        return
    if any(state.store.by_uid(owner.get("uid", "")) for owner in owners):
        return
    begin(state, key, obj, how=How())


def _settle_dependents(state: State, key: str, obj: Obj) -> None:
    """Do what an owner that is being deleted waits for; drop its finalizer when that is done."""
    finalizers = obj["metadata"].get("finalizers") or []
    uid = obj["metadata"]["uid"]
    if not obj["metadata"].get("deletionTimestamp"):
        return
    if _LEAVES_DEPENDENTS in finalizers:
        for resource, entry in state.store.owned_by(uid):
            _disown(state, resource, entry.obj, uid)
        _drop_finalizer(state, uid, _LEAVES_DEPENDENTS)
    elif _WAITS_FOR_DEPENDENTS in finalizers:
        for resource, entry in state.store.owned_by(uid):
            if not entry.obj["metadata"].get("deletionTimestamp"):
                begin(state, resource, entry.obj, how=How(propagation=FOREGROUND))
        if not any(_blocks(entry.obj, uid) for _, entry in state.store.owned_by(uid)):
            _drop_finalizer(state, uid, _WAITS_FOR_DEPENDENTS)


def _blocks(obj: Obj, uid: str) -> bool:
    return any(
        owner.get("uid") == uid and owner.get("blockOwnerDeletion")
        for owner in obj["metadata"].get("ownerReferences") or ()
    )


def _disown(state: State, key: str, obj: Obj, uid: str) -> None:
    out = copying.copied(obj)
    left = [one for one in out["metadata"]["ownerReferences"] if one.get("uid") != uid]
    out["metadata"]["ownerReferences"] = left
    if not left:
        del out["metadata"]["ownerReferences"]
    state.store.put(key, out)


def _drop_finalizer(state: State, uid: str, finalizer: str) -> None:
    found = state.store.by_uid(uid)
    if found is None:
        return
    key, obj = found[0], copying.copied(found[1].obj)
    left = [one for one in obj["metadata"].get("finalizers") or [] if one != finalizer]
    obj["metadata"]["finalizers"] = left
    if not left:
        del obj["metadata"]["finalizers"]
    if is_over(key, obj):
        remove(state, key, obj)
    else:
        state.store.put(key, obj)


def _empty_namespace(state: State, namespace: str) -> None:
    for key, entry in list(state.store.resources_in(namespace)):
        meta = entry.obj["metadata"]
        current = state.store.get(key, name=meta["name"], namespace=namespace)
        if current is not None and not current.obj["metadata"].get("deletionTimestamp"):
            begin(state, key, current.obj, how=How())
    _finish_namespace(state, namespace)


def _finish_namespace(state: State, namespace: str) -> None:
    entry = state.store.get("namespaces", name=namespace)
    if entry is None or not entry.obj["metadata"].get("deletionTimestamp"):
        return
    if next(state.store.resources_in(namespace), None) is not None:
        return
    obj = copying.copied(entry.obj)
    obj["spec"] = {
        **(obj.get("spec") or {}),
        "finalizers": [
            one for one in (obj.get("spec") or {}).get("finalizers") or () if one != "kubernetes"
        ],
    }
    if is_over("namespaces", obj):
        remove(state, "namespaces", obj)
    elif obj["spec"] != entry.obj.get("spec"):
        state.store.put("namespaces", obj)


def _empty_resource(state: State, key: str) -> None:
    for entry in state.store.entries(key):
        if not entry.obj["metadata"].get("deletionTimestamp"):
            begin(state, key, entry.obj, how=How())
    _finish_resource(state, key)


def _finish_resource(state: State, key: str) -> None:
    """Let a definition that is being deleted go once its last object has gone."""
    entry = state.store.get(crds.KEY, name=key)
    if entry is None or not entry.obj["metadata"].get("deletionTimestamp"):
        return
    if not state.store.entries(key):
        _drop_finalizer(state, entry.obj["metadata"]["uid"], _CRD_CLEANUP)
