"""Creating and changing objects: prune, default, admit, check, record owners, store.

It decides the order and what a client may not set. Deleting lies in deletion; what a single kind
demands lies in rules and defaults.
"""

from collections.abc import Callable, Iterable
from typing import TypeAlias

from isthmus.lab.apiserver import (
    addresses,
    conversion,
    copying,
    crds,
    defaults,
    deletion,
    errors,
    firsts,
    keeping,
    ownership,
    receiving,
    rules,
)
from isthmus.lab.apiserver.resources import Resource
from isthmus.lab.apiserver.state import Options, State
from isthmus.lab.apiserver.values import AdmissionRequest, Obj

Edit: TypeAlias = Callable[[Obj], Obj]
"""Makes the wanted object from the stored one, which it must not change."""

_TRIES = 8
_KEEPS_STATUS = ("nodes", "persistentvolumes", "apiservices.apiregistration.k8s.io")
_SERVER_SET = (
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "generation",
    "selfLink",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)


async def create(state: State, resource: Resource, given: Obj, *, options: Options) -> Obj:
    """Store a new object; returns it in the stored form."""
    obj = receiving.received(state, resource, given, options)
    meta = obj["metadata"]
    firsts.give_name(state, resource, meta)
    for field in _SERVER_SET:
        meta.pop(field, None)
    if options.manager != APPLIED:
        meta.pop("managedFields", None)
    meta["uid"] = state.new_uid()
    meta["creationTimestamp"] = state.now()
    if resource.generation:
        meta["generation"] = 1
    if "status" in resource.subresources and resource.key not in _KEEPS_STATUS:
        obj.pop("status", None)
    firsts.give_status(resource, obj)
    defaults.fill(resource.key, obj)
    firsts.refuse_in_dying_namespace(state, resource, meta)
    obj = await _admitted(state, resource, obj, {}, options)
    firsts.tie_job_to_pods(resource, obj)
    _check(resource, obj, rules.findings(resource, obj))
    obj = _owned(state, resource, {}, obj, options)
    if state.store.get(resource.key, name=meta["name"], namespace=meta.get("namespace", "")):
        raise errors.already_exists(resource.plural, name=meta["name"], group=resource.group)
    firsts.refuse_in_dying_namespace(state, resource, meta)
    obj = _finished(state, resource, {}, obj)
    if not options.dry_run:
        state.store.put(resource.key, obj)
        _took_effect(state, resource, obj)
        deletion.collect_if_orphan(state, resource.key, obj)
    return obj


async def update(  # the address of one object and what to make of it
    state: State,
    resource: Resource,
    edit: Edit,
    *,
    name: str,
    namespace: str,
    options: Options,
) -> Obj:
    """Change a stored object; tries again when it changed meanwhile and `edit` allows that.

    Args:
        state: The cluster.
        resource: In the version that the client speaks.
        edit: Called with the object in that version, perhaps several times.
        name: Of the object.
        namespace: Of the object, or empty.
        options: Of the write.
    """
    for _ in range(_TRIES):
        entry = state.read(resource, name=name, namespace=namespace)
        old = entry.obj
        seen = conversion.to_wire(resource, old)
        wanted = edit(seen)
        keeping.refuse_stale(resource, old, wanted)
        obj = receiving.received(state, resource, wanted, options)
        obj = keeping.kept(resource, old, obj, subresource=options.subresource)
        defaults.fill(resource.key, obj)
        if keeping.is_same(old, obj):
            return old
        obj = await _admitted(state, resource, obj, old, options)
        _check(resource, obj, rules.findings(resource, obj))
        _check(resource, obj, rules.change_findings(resource, old, obj))
        if state.store.get(resource.key, name=name, namespace=namespace) is not entry:
            continue
        return _stored(state, resource, old, obj, options)
    raise errors.conflict(resource.plural, name=name, group=resource.group)


def _stored(state: State, resource: Resource, old: Obj, obj: Obj, options: Options) -> Obj:
    obj = _finished(state, resource, old, obj)
    meta = obj["metadata"]
    if resource.generation and keeping.is_new_generation(resource, old, obj):
        meta["generation"] = (old["metadata"].get("generation") or 0) + 1
    obj = _owned(state, resource, old, obj, options)
    if keeping.is_same(old, obj):
        return old
    if options.dry_run:
        return obj
    if deletion.is_over(resource.key, obj):
        return deletion.remove(state, resource.key, obj)
    state.store.put(resource.key, obj)
    _took_effect(state, resource, obj)
    deletion.reconsider(state, resource.key, obj)
    return obj


async def _admitted(state: State, resource: Resource, obj: Obj, old: Obj, options: Options) -> Obj:
    if state.admission is None:
        return obj
    meta = obj["metadata"]
    request = AdmissionRequest(
        operation="UPDATE" if old else "CREATE",
        group=resource.group,
        version=resource.version,
        resource=resource.plural,
        kind=resource.kind,
        name=meta.get("name", ""),
        namespace=meta.get("namespace", ""),
        user=options.user,
        obj=obj,
        old=old,
        subresource=options.subresource,
        dry_run=options.dry_run,
    )
    admitted = await state.admission(request)
    if admitted is obj:
        return obj
    stored = state.catalog.named(resource.key)
    out = receiving.received(state, stored, admitted, Options())
    for field in (*keeping.ALWAYS_SET, "name", "namespace"):
        if field in meta:
            out["metadata"][field] = meta[field]
    defaults.fill(resource.key, out)
    return out


def _check(resource: Resource, obj: Obj, found: Iterable[errors.Cause]) -> None:
    causes = list(found)
    if causes:
        name = obj["metadata"].get("name", "")
        raise errors.invalid(resource.kind, name=name, causes=causes, group=resource.group)


def _finished(state: State, resource: Resource, old: Obj, obj: Obj) -> Obj:
    """Add what depends on other objects, with nothing awaited before the write."""
    if resource.key == "services":
        name, space = obj["metadata"]["name"], obj["metadata"].get("namespace", "")
        others = [
            entry.obj
            for entry in state.store.entries("services")
            if (entry.obj["metadata"]["name"], entry.obj["metadata"].get("namespace", ""))
            != (name, space)
        ]
        if not old or old.get("spec") != obj.get("spec"):
            obj = {**obj, "spec": copying.copied(obj["spec"])}
            addresses.assign(obj, others=others, cidr=state.service_cidr)
    elif resource.key == crds.KEY and not obj["metadata"].get("deletionTimestamp"):
        obj = crds.with_status(obj, now=state.now(), taken=_name_conflict(state, obj))
    return obj


def _name_conflict(state: State, crd: Obj) -> str:
    spec = crd["spec"]
    other = state.catalog.of_kind(group=spec["group"], kind=spec["names"]["kind"])
    if other is None or other.full_name == crd["metadata"]["name"]:
        return ""
    return f'"{spec["names"]["kind"]}" is already in use'


def _took_effect(state: State, resource: Resource, obj: Obj) -> None:
    if resource.key != crds.KEY or obj["metadata"].get("deletionTimestamp"):
        return
    conditions = {one["type"]: one["status"] for one in obj["status"]["conditions"]}
    if conditions["Established"] == "True":
        state.learn(obj)


def _owned(state: State, resource: Resource, old: Obj, obj: Obj, options: Options) -> Obj:
    """Record who set what, when the writer has a name or a record exists already."""
    if options.manager == "" and "managedFields" not in old.get("metadata", {}):
        return obj
    if options.manager == APPLIED:
        return obj
    shape = state.shape(state.catalog.named(resource.key))
    writer = writer_of(state, resource, options, operation=ownership.UPDATE)
    return ownership.updated(shape, old, obj, writer=writer)


APPLIED = "\0applied"
"""Stands for a manager whose record the caller has made."""


def writer_of(
    state: State, resource: Resource, options: Options, *, operation: str
) -> ownership.Writer:
    """Return how a write is to be recorded."""
    hidden: set[str] = set()
    if options.subresource == "status":
        hidden = {f"f:{name}" for name in ("spec", "metadata", "data")}
    elif "status" in resource.subresources:
        hidden = {"f:status"}
    return ownership.Writer(
        options.manager or options.user.name,
        operation,
        resource.api_version,
        options.subresource,
        state.now(),
        frozenset(hidden),
    )
