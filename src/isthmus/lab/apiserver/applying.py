"""Server-side apply of a whole configuration: to a new object or into one that is there."""

import msgspec

from isthmus.lab.apiserver import (
    copying,
    errors,
    fieldsets,
    ownership,
    receiving,
    schemas,
    validation,
    writes,
)
from isthmus.lab.apiserver.resources import Resource
from isthmus.lab.apiserver.state import Options, State
from isthmus.lab.apiserver.values import Json, Obj

_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


async def apply(  # the address of one object and what to make of it
    state: State,
    resource: Resource,
    config: Json,
    *,
    name: str,
    namespace: str,
    options: Options,
) -> tuple[Obj, bool]:
    """Apply `config` on the server's side; returns the object and whether it is new."""
    if not isinstance(config, dict) or not isinstance(config.get("metadata") or {}, dict):
        raise errors.bad_request("the patch and its metadata must be objects")
    if (config.get("metadata") or {}).get("managedFields"):
        raise errors.bad_request("metadata.managedFields must be nil")
    writer = writes.writer_of(state, resource, options, operation=ownership.APPLY)
    recorded = _recorded_by_caller(options)
    wanted = _appliable(state, resource, config, options, name=name, namespace=namespace)
    shape = state.shape(resource)

    def edit(live: Obj) -> Obj:
        remembered, lenient = _remembered(shape, live, config, writer)
        return ownership.applied(
            shape, remembered, wanted, writer=writer, force=options.force, lenient=lenient
        )

    if state.store.get(resource.key, name=name, namespace=namespace) is None:
        if options.subresource:
            raise errors.not_found(resource.plural, name=name, group=resource.group)
        if wanted["metadata"].get("uid") or wanted["metadata"].get("resourceVersion"):
            raise errors.conflict(resource.plural, name=name, group=resource.group)
        empty: Obj = {"metadata": {}}
        return await writes.create(state, resource, edit(empty), options=recorded), True
    changed = await writes.update(
        state, resource, edit, name=name, namespace=namespace, options=recorded
    )
    return changed, False


def _remembered(
    shape: schemas.Schema, live: Obj, config: Obj, writer: ownership.Writer
) -> tuple[Obj, fieldsets.Paths]:
    """Return `live` with what kubectl last applied brought up to date, and what that named.

    kubectl's client-side apply leaves a copy of its configuration in an annotation. When kubectl
    turns to server-side apply, what that copy names is its own and gives no conflicts.
    """
    last = (live["metadata"].get("annotations") or {}).get(_LAST_APPLIED)
    if writer.manager != "kubectl" or not last:
        return live, frozenset()
    try:
        named = fieldsets.leaves(shape, msgspec.json.decode(last, type=dict))
    except msgspec.DecodeError:
        return live, frozenset()
    annotations = {
        **live["metadata"]["annotations"],
        _LAST_APPLIED: msgspec.json.encode(config).decode() + "\n",
    }
    meta = {**live["metadata"], "annotations": annotations}
    return {**live, "metadata": meta}, frozenset(named)


def _appliable(  # as apply
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
    meta = wanted["metadata"] = wanted.get("metadata") or {}
    meta["name"] = name
    if resource.namespaced:
        meta["namespace"] = namespace
    shape = state.shape(resource)
    cleaned, report = validation.clean(shape, wanted, nulls=resource.custom)
    if report.mistyped:
        receiving.refuse_bad(resource, cleaned, report)
    receiving.tell_unknown(resource, report, options)
    if resource.plural == "secrets":
        receiving.encode_string_data(cleaned)
    out: Obj = cleaned
    return out


def _recorded_by_caller(options: Options) -> Options:
    return Options(
        user=options.user,
        subresource=options.subresource,
        dry_run=options.dry_run,
        manager=writes.APPLIED,
        validation="Ignore",
        force=options.force,
        warnings=options.warnings,
    )
