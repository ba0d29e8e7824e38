"""Who owns which field: server-side apply and the record that every other write leaves.

It follows the rules of `managedFields`: an apply conflicts with other owners of the fields whose
values it changes, unless forced; what a manager no longer applies and nobody else owns goes away;
an update takes the fields that it changes from everybody.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from isthmus.lab.apiserver import errors, fieldsets, schemas
from isthmus.lab.apiserver.fieldsets import Path, Paths
from isthmus.lab.apiserver.values import Json, Obj

APPLY = "Apply"
UPDATE = "Update"


@dataclass(frozen=True, slots=True)
class Writer:
    """Who writes, and how.

    Attributes:
        manager: The field manager's name.
        now: The time to record.
        hidden: First steps of paths that this write cannot touch, such as `f:status`.
    """

    manager: str
    operation: str
    api_version: str
    subresource: str
    now: str
    hidden: frozenset[str] = frozenset()

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells two entries apart."""
        return (self.manager, self.operation, self.subresource)


def applied(  # an apply is made of this much
    shape: schemas.Schema,
    live: Obj,
    config: Obj,
    *,
    writer: Writer,
    force: bool,
    lenient: Paths = frozenset(),
) -> Obj:
    """Return `live` with `config` applied and ownership recorded; raises 409 on conflicts.

    Args:
        shape: Of the object.
        live: The object as it is.
        config: All that the writer wants.
        writer: Who it is.
        force: Whether to take fields from other owners.
        lenient: Fields that are taken without force.
    """
    owners = _owners(live)
    mine = _visible(fieldsets.leaves(shape, config), writer)
    before = fieldsets.leaves(shape, live)
    last, when = owners.get(writer.key, (frozenset(), ""))
    others = _others(owners, writer)
    merged = _merged(shape, live, config)
    dropped = _dropped(last - mine.keys(), others)
    if dropped:
        merged = fieldsets.without(shape, merged, dropped)
    after = fieldsets.leaves(shape, merged)
    # Of what is applied empty, and has got something in it since, nothing changes.
    changed = _changed(before, after) & mine.keys()
    if not force:
        _refuse_conflicts(owners, writer, changed - lenient)
    # Who applies the same again is not noted anew, or its object would change every second.
    touched = last != frozenset(mine) or bool(changed)
    owners[writer.key] = (frozenset(mine), writer.now if touched else when)
    kept = _released(owners, writer, changed)
    gone = _gone(before, after)
    return _recorded(merged, kept, gone=gone, writer=writer, touched=touched)


def updated(shape: schemas.Schema, old: Obj, new: Obj, *, writer: Writer) -> Obj:
    """Return `new` with the ownership that this ordinary write results in."""
    owners = _owners(new if "managedFields" in new.get("metadata", {}) else old)
    before, after = fieldsets.leaves(shape, old), fieldsets.leaves(shape, new)
    gone = _gone(before, after)
    changed = frozenset(path for path in _changed(before, after) if path[0] not in writer.hidden)
    touched = bool(changed)
    if changed:
        mine = owners.get(writer.key, (frozenset(), ""))[0]
        owners[writer.key] = (mine | changed, writer.now)
        owners = _released(owners, writer, changed)
    return _recorded(new, owners, gone=gone, writer=writer, touched=touched)


def _changed(before: Mapping[Path, Json], after: Mapping[Path, Json]) -> Paths:
    """Return what is there with another value than before, or is new."""
    return frozenset(
        path for path, value in after.items() if path not in before or before[path] != value
    )


def _gone(before: Mapping[Path, Json], after: Mapping[Path, Json]) -> Paths:
    """Return what is there no more; what was empty and has got something in it still is."""
    missing = frozenset(before) - after.keys()
    if not missing:
        return missing
    return missing - {path[:length] for path in after for length in range(1, len(path))}


_Owners = dict[tuple[str, str, str], tuple[Paths, str]]


def _owners(obj: Obj) -> _Owners:
    found: _Owners = {}
    for entry in obj.get("metadata", {}).get("managedFields") or ():
        key = (
            entry.get("manager", ""),
            entry.get("operation", UPDATE),
            entry.get("subresource", ""),
        )
        found[key] = (fieldsets.from_fields(entry.get("fieldsV1") or {}), entry.get("time", ""))
    return found


def _visible(found: dict[Path, Json], writer: Writer) -> dict[Path, Json]:
    return {path: value for path, value in found.items() if path[0] not in writer.hidden}


def _others(owners: _Owners, writer: Writer) -> Paths:
    return frozenset(
        path for key, (paths, _) in owners.items() if key != writer.key for path in paths
    )


def _dropped(unwanted: Paths, others: Paths) -> Paths:
    """Return what of `unwanted` nobody else owns, itself or in part."""
    shared = {path[:length] for path in others for length in range(1, len(path) + 1)}
    return frozenset(path for path in unwanted if path not in shared)


def _refuse_conflicts(owners: _Owners, writer: Writer, changed: Paths) -> None:
    causes: list[errors.Cause] = []
    for key, (paths, _) in sorted(owners.items()):
        if key == writer.key:
            continue
        hit = sorted(
            path
            for path in changed
            if path in paths
            or any(
                path[:n] in paths for n in range(1, len(path)) if not path[n - 1].startswith("k:")
            )
        )
        who = f'conflict with "{key[0]}"'
        if key[2]:
            who += f' with subresource "{key[2]}"'
        causes.extend(
            errors.Cause(fieldsets.shown(path), who, "FieldManagerConflict") for path in hit
        )
    if causes:
        raise _conflict(causes)


def _conflict(causes: list[errors.Cause]) -> errors.ApiError:
    by_owner: dict[str, list[str]] = {}
    for cause in causes:
        by_owner.setdefault(cause.message, []).append(cause.field)
    parts = [
        f"{who}: {fields[0]}"
        if len(fields) == 1
        else f"{who}:\n" + "\n".join(f"- {one}" for one in fields)
        for who, fields in by_owner.items()
    ]
    plural = "s" if len(causes) > 1 else ""
    return errors.ApiError(
        409,
        "Conflict",
        f"Apply failed with {len(causes)} conflict{plural}: " + "\n".join(parts),
        details={
            "causes": [
                {"reason": cause.reason, "message": cause.message, "field": cause.field}
                for cause in causes
            ]
        },
    )


def _released(owners: _Owners, writer: Writer, changed: Paths) -> _Owners:
    """Take `changed` from everybody but the writer."""
    return {
        key: (paths if key == writer.key else paths - changed, when)
        for key, (paths, when) in owners.items()
    }


def _recorded(obj: Obj, owners: _Owners, *, gone: Paths, writer: Writer, touched: bool) -> Obj:
    entries = []
    for (manager, operation, subresource), (paths, when) in owners.items():
        left = paths - gone if gone else paths
        if not left:
            continue
        entry = {
            "manager": manager,
            "operation": operation,
            "apiVersion": writer.api_version,
            "time": writer.now
            if touched and (manager, operation, subresource) == writer.key
            else when,
            "fieldsType": "FieldsV1",
            "fieldsV1": fieldsets.to_fields(left),
        }
        if subresource:
            entry["subresource"] = subresource
        entries.append(entry)
    entries.sort(key=lambda one: (one["operation"], one["time"], one["manager"]))
    meta = {key: value for key, value in obj.get("metadata", {}).items() if key != "managedFields"}
    if entries:
        meta["managedFields"] = entries
    return {**obj, "metadata": meta}


def _merged(shape: schemas.Schema, live: Json, config: Json) -> Json:
    if isinstance(config, dict) and isinstance(live, dict) and not shape.atomic:
        out = dict(live)
        for name, value in config.items():
            if value is None and name not in live:
                continue
            inner = shape.field(name) or schemas.ANY
            out[name] = _merged(inner, live.get(name), value)
        return out
    if isinstance(config, list) and isinstance(live, list) and shape.list_type in ("map", "set"):
        return _merged_list(shape, live, config)
    return config


def _merged_list(shape: schemas.Schema, live: list[Json], config: list[Json]) -> list[Json]:
    inner = shape.items or schemas.ANY
    have = {fieldsets.step_of(shape, item): item for item in live}
    wanted = {fieldsets.step_of(shape, item): item for item in config}
    merged = {
        step: _merged(inner, have[step], item) if step in have else item
        for step, item in wanted.items()
    }
    if have.keys() <= wanted.keys():
        return list(merged.values())
    kept = [merged.get(step, item) for step, item in have.items()]
    return kept + [item for step, item in merged.items() if step not in have]
