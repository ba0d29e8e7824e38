"""Creating and changing objects: prune, default, admit, check, record owners, store.

It decides the order and what a client may not set. Deleting lies in deletion; what a single kind
demands lies in rules and defaults.
"""

import base64
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
    ownership,
    rules,
    schemas,
    validation,
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
_ALWAYS_SET = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")


async def create(state: State, resource: Resource, given: Obj, *, options: Options) -> Obj:
    """Store a new object; returns it in the stored form."""
    obj = _received(state, resource, given, options)
    meta = obj["metadata"]
    _named(state, resource, meta)
    for field in _SERVER_SET:
        meta.pop(field, None)
    if options.manager != _APPLIED:
        meta.pop("managedFields", None)
    meta["uid"] = state.new_uid()
    meta["creationTimestamp"] = state.now()
    if resource.generation:
        meta["generation"] = 1
    if "status" in resource.subresources and resource.key not in _KEEPS_STATUS:
        obj.pop("status", None)
    _first_status(resource, obj)
    defaults.fill(resource.key, obj)
    refuse_in_dying_namespace(state, resource, meta)
    obj = await _admitted(state, resource, obj, {}, options)
    _job_selector(resource, obj)
    _check(resource, obj, rules.findings(resource, obj))
    obj = _owned(state, resource, {}, obj, options)
    if state.store.get(resource.key, name=meta["name"], namespace=meta.get("namespace", "")):
        raise errors.already_exists(resource.plural, name=meta["name"], group=resource.group)
    refuse_in_dying_namespace(state, resource, meta)
    obj = _finished(state, resource, {}, obj)
    if not options.dry_run:
        state.store.put(resource.key, obj)
        _took_effect(state, resource, obj)
        deletion.collect_if_orphan(state, resource.key, obj)
    return obj


async def update(  # noqa: PLR0913  # the address of one object and what to make of it
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
        _refuse_stale(resource, old, wanted)
        obj = _received(state, resource, wanted, options)
        obj = _kept(state, resource, old, obj, options)
        defaults.fill(resource.key, obj)
        if _same(old, obj):
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
    if resource.generation and _is_new_generation(resource, old, obj):
        meta["generation"] = (old["metadata"].get("generation") or 0) + 1
    obj = _owned(state, resource, old, obj, options)
    if _same(old, obj):
        return old
    if options.dry_run:
        return obj
    if deletion.is_over(resource.key, obj):
        return deletion.remove(state, resource.key, obj)
    state.store.put(resource.key, obj)
    _took_effect(state, resource, obj)
    deletion.reconsider(state, resource.key, obj)
    return obj


def _received(state: State, resource: Resource, given: Obj, options: Options) -> Obj:
    """Return a clean copy in the stored form."""
    if not isinstance(given.get("metadata", {}), dict):
        raise errors.bad_request("metadata must be an object")
    if given.get("apiVersion", resource.api_version) != resource.api_version:
        raise errors.bad_request(
            f"the API version in the data ({given['apiVersion']}) does not match the expected API"
            f" version ({resource.api_version})"
        )
    if given.get("kind", resource.kind) != resource.kind:
        raise errors.bad_request(
            f'{given["kind"]} in version "{resource.version}" cannot be handled as a'
            f" {resource.kind}"
        )
    obj = copying.copied(given)
    meta = obj.get("metadata") or {}
    obj = {"apiVersion": resource.api_version, "kind": resource.kind, **obj, "metadata": meta}
    shape = state.shape(resource)
    if resource.custom:
        obj = crds.defaulted(shape, obj)
    cleaned, report = validation.clean(shape, obj, nulls=resource.custom)
    _refuse_bad(resource, cleaned, report)
    _tell_unknown(resource, report, options)
    if resource.plural == "secrets":
        _encode_string_data(cleaned)
    stored = state.catalog.named(resource.key)
    return conversion.to_storage(resource, cleaned, stored=stored)


def _refuse_bad(resource: Resource, obj: Obj, report: validation.Report) -> None:
    if report.mistyped and not resource.custom:
        first = report.mistyped[0]
        what = first.message.removeprefix("Invalid value: ")
        raise errors.bad_request(
            f'{resource.kind} in version "{resource.version}" cannot be handled as a'
            f" {resource.kind}: {first.field}: {what}"
        )
    # The status of a built-in kind comes from components, which may leave zero values out.
    causes = report.mistyped + [
        cause
        for cause in report.causes
        if resource.custom or not cause.field.startswith(("status.", "metadata."))
    ]
    if causes:
        name = (obj.get("metadata") or {}).get("name") or ""
        raise errors.invalid(resource.kind, name=name, causes=causes, group=resource.group)


def _tell_unknown(resource: Resource, report: validation.Report, options: Options) -> None:
    if not report.unknown or options.validation == "Ignore":
        return
    texts = [f'unknown field "{path}"' for path in report.unknown]
    if options.validation == "Warn":
        options.warnings.extend(texts)
        return
    raise errors.bad_request(
        f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}:'
        f" strict decoding error: {', '.join(texts)}"
    )


def _encode_string_data(secret: Obj) -> None:
    given = secret.pop("stringData", None)
    if given:
        data = secret.setdefault("data", {})
        data.update({key: _base64(value) for key, value in given.items()})


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _named(state: State, resource: Resource, meta: Obj) -> None:
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


def _first_status(resource: Resource, obj: Obj) -> None:
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


def _job_selector(resource: Resource, obj: Obj) -> None:
    """Tie a Job to its pods by its own uid, as a user cannot know it beforehand."""
    if resource.key != "jobs.batch" or obj["spec"].get("manualSelector"):
        return
    uid, name = obj["metadata"]["uid"], obj["metadata"].get("name", "")
    obj["spec"]["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    labels = obj["spec"]["template"].setdefault("metadata", {}).setdefault("labels", {})
    for prefix in ("", "batch.kubernetes.io/"):
        labels[f"{prefix}controller-uid"] = uid
        labels[f"{prefix}job-name"] = name


def _kept(state: State, resource: Resource, old: Obj, new: Obj, options: Options) -> Obj:
    """Return `new` with everything that this write cannot change taken from `old`."""
    if options.subresource == "status":
        meta = copying.copied(old["metadata"])
        meta["managedFields"] = new["metadata"].get("managedFields", meta.get("managedFields"))
        kept = {**copying.copied(old), "metadata": meta}
        if "status" in new:
            kept["status"] = new["status"]
        else:
            kept.pop("status", None)
        if meta["managedFields"] is None:
            del meta["managedFields"]
        return kept
    if "status" in resource.subresources:
        new.pop("status", None)
        if "status" in old:
            new["status"] = old["status"]
    meta = new["metadata"]
    before = old["metadata"]
    for field in (*_ALWAYS_SET, "generation", "name", "namespace", "generateName"):
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
    if options.subresource != "finalize":
        _carry_over(resource, old, new)
    return new


def _carry_over(resource: Resource, old: Obj, new: Obj) -> None:
    """Keep what the server once filled in and clients leave out when they replace an object."""
    if resource.key == "services":
        before, after = old.get("spec") or {}, new.get("spec") or {}
        if after.get("type") != "ExternalName" and before.get("type") != "ExternalName":
            for field in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
                if not after.get(field) and before.get(field):
                    after[field] = before[field]
            ports = {
                (p.get("name"), p.get("port")): p.get("nodePort") for p in before.get("ports") or ()
            }
            for port in after.get("ports") or ():
                known = ports.get((port.get("name"), port.get("port")))
                if known and not port.get("nodePort"):
                    port["nodePort"] = known
    elif resource.key == "namespaces":
        new["spec"] = old.get("spec", {})
    elif resource.key == "jobs.batch":
        new["spec"].setdefault("selector", old["spec"].get("selector"))
        labels = new["spec"]["template"].setdefault("metadata", {}).setdefault("labels", {})
        for key, value in (old["spec"]["template"]["metadata"].get("labels") or {}).items():
            labels.setdefault(key, value)
    elif resource.key == "pods" and (old.get("spec") or {}).get("nodeName"):
        (new.get("spec") or {}).setdefault("nodeName", old["spec"]["nodeName"])


def _refuse_stale(resource: Resource, old: Obj, wanted: Obj) -> None:
    meta, before = wanted.get("metadata") or {}, old["metadata"]
    name = before["name"]
    if meta.get("resourceVersion") not in (None, "", "0", before["resourceVersion"]):
        raise errors.conflict(resource.plural, name=name, group=resource.group)
    if meta.get("uid") not in (None, "", before["uid"]):
        why = (
            f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta:"
            f" {before['uid']}"
        )
        raise errors.conflict(resource.plural, name=name, why=why, group=resource.group)


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
    out = _received(state, stored, admitted, Options())
    for field in (*_ALWAYS_SET, "name", "namespace"):
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


def _is_new_generation(resource: Resource, old: Obj, new: Obj) -> bool:
    if not resource.custom:
        fields = ("spec", "webhooks", "endpoints", "ports")
        return any(old.get(field) != new.get(field) for field in fields)
    ignored = {"metadata", "apiVersion", "kind"}
    if "status" in resource.subresources:
        ignored.add("status")
    names = (old.keys() | new.keys()) - ignored
    return any(old.get(name) != new.get(name) for name in names)


def _same(old: Obj, new: Obj) -> bool:
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


def _owned(state: State, resource: Resource, old: Obj, obj: Obj, options: Options) -> Obj:
    """Record who set what, when the writer has a name or a record exists already."""
    if options.manager == "" and "managedFields" not in old.get("metadata", {}):
        return obj
    if options.manager == _APPLIED:
        return obj
    shape = state.shape(state.catalog.named(resource.key))
    writer = writer_of(state, resource, options, operation=ownership.UPDATE)
    return ownership.updated(shape, old, obj, writer=writer)


_APPLIED = "\0applied"
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


async def apply(  # noqa: PLR0913  # the address of one object and what to make of it
    state: State,
    resource: Resource,
    config: Obj,
    *,
    name: str,
    namespace: str,
    options: Options,
) -> tuple[Obj, bool]:
    """Apply `config` on the server's side; returns the object and whether it is new."""
    if (config.get("metadata") or {}).get("managedFields"):
        raise errors.bad_request("metadata.managedFields must be nil")
    writer = writer_of(state, resource, options, operation=ownership.APPLY)
    recorded = _recorded_by_caller(options)
    wanted = _appliable(state, resource, config, options, name=name, namespace=namespace)
    shape = state.shape(resource)

    def edit(live: Obj) -> Obj:
        return ownership.applied(shape, live, wanted, writer=writer, force=options.force)

    if state.store.get(resource.key, name=name, namespace=namespace) is None:
        if options.subresource:
            raise errors.not_found(resource.plural, name=name, group=resource.group)
        if wanted["metadata"].get("uid") or wanted["metadata"].get("resourceVersion"):
            raise errors.conflict(resource.plural, name=name, group=resource.group)
        empty: Obj = {"metadata": {}}
        return await create(state, resource, edit(empty), options=recorded), True
    changed = await update(state, resource, edit, name=name, namespace=namespace, options=recorded)
    return changed, False


def _appliable(  # noqa: PLR0913  # as apply
    state: State,
    resource: Resource,
    config: Obj,
    options: Options,
    *,
    name: str,
    namespace: str,
) -> Obj:
    """Return what is to be applied, pruned, so that unknown fields get no owner."""
    wanted = copying.copied(config)
    meta = wanted.setdefault("metadata", {})
    meta["name"] = name
    if resource.namespaced:
        meta["namespace"] = namespace
    shape: schemas.Schema = state.shape(resource)
    cleaned, report = validation.clean(shape, wanted, nulls=resource.custom)
    if report.mistyped:
        _refuse_bad(resource, cleaned, report)
    _tell_unknown(resource, report, options)
    if resource.plural == "secrets":
        _encode_string_data(cleaned)
    out: Obj = cleaned
    return out


def _recorded_by_caller(options: Options) -> Options:
    return Options(
        user=options.user,
        subresource=options.subresource,
        dry_run=options.dry_run,
        manager=_APPLIED,
        validation="Ignore",
        force=options.force,
        warnings=options.warnings,
    )
