"""Custom resources: what a CustomResourceDefinition says, checked and turned into resources.

It reads definitions; the state takes what it finds into use. Validation rules in CEL and
conversion by webhook are not served: rules are kept and ignored.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from isthmus.lab.apiserver import copying, schemas
from isthmus.lab.apiserver.errors import Cause
from isthmus.lab.apiserver.resources import Resource
from isthmus.lab.apiserver.validation import REQUIRED
from isthmus.lab.apiserver.values import Json, Obj

_DEEPEST = 64
KEY = "customresourcedefinitions.apiextensions.k8s.io"


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a custom resource.

    Attributes:
        shape: The shape of whole objects.
        scale: The paths of the scale subresource, such as `.spec.replicas`; empty if there is none.
        columns: The additional printer columns as written.
        raw: The OpenAPI schema as written.
    """

    resource: Resource
    shape: schemas.Schema
    scale: Mapping[str, str]
    columns: tuple[Mapping[str, Json], ...]
    raw: Mapping[str, Json]


def versions_of(crd: Obj) -> tuple[Version, ...]:
    """Return the served versions that a definition describes, the storage version first."""
    spec = crd["spec"]
    listed = sorted(spec["versions"], key=lambda one: not one.get("storage"))
    return tuple(_version(spec, one) for one in listed if one.get("served"))


def storage_of(crd: Obj) -> Resource:
    """Return the resource in its storage version, even when that is not served."""
    spec = crd["spec"]
    return _version(spec, next(one for one in spec["versions"] if one.get("storage"))).resource


def _version(spec: Obj, version: Obj) -> Version:
    names = spec["names"]
    subs = version.get("subresources") or {}
    raw = (version.get("schema") or {}).get("openAPIV3Schema") or {}
    resource = Resource(
        spec["group"],
        version["name"],
        names["plural"],
        names["kind"],
        namespaced=spec["scope"] == "Namespaced",
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        subresources=tuple(name for name in ("status", "scale") if name in subs),
        singular=names.get("singular") or names["kind"].lower(),
        generation=True,
        custom=True,
        selectable=tuple(
            str(each.get("jsonPath", "")).lstrip(".")
            for each in version.get("selectableFields") or ()
        ),
        list_kind=names.get("listKind") or names["kind"] + "List",
    )
    return Version(
        resource,
        schemas.custom_object(raw),
        subs.get("scale") or {},
        tuple(version.get("additionalPrinterColumns") or ()),
        raw,
    )


_GROUP = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+")
_VERSION = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


def findings(crd: Obj) -> Iterator[Cause]:
    """Yield what is wrong with a definition."""
    spec, name = crd.get("spec") or {}, crd["metadata"].get("name", "")
    names, group = spec.get("names") or {}, spec.get("group") or ""
    if not _GROUP.fullmatch(group):
        yield Cause(
            "spec.group", f'Invalid value: "{group}": should be a domain with at least one dot'
        )
    if spec.get("scope") not in ("Namespaced", "Cluster"):
        yield Cause(
            "spec.scope",
            f'Unsupported value: "{spec.get("scope", "")}": supported values: "Cluster", "Namespaced"',
            "FieldValueNotSupported",
        )
    for field in ("plural", "kind"):
        if not names.get(field):
            yield Cause(f"spec.names.{field}", "Required value", REQUIRED)
    wanted = f"{names.get('plural', '')}.{group}"
    if name != wanted:
        yield Cause(
            "metadata.name", f'Invalid value: "{name}": must be spec.names.plural+"."+spec.group'
        )
    versions = spec.get("versions") or []
    if sum(bool(one.get("storage")) for one in versions) != 1:
        yield Cause(
            "spec.versions",
            "Invalid value: must have exactly one version marked as storage version",
        )
    for index, version in enumerate(versions):
        yield from _version_findings(version, f"spec.versions[{index}]")


def _version_findings(version: Obj, path: str) -> Iterator[Cause]:
    if not _VERSION.fullmatch(str(version.get("name", ""))):
        yield Cause(
            f"{path}.name", f'Invalid value: "{version.get("name", "")}": must be a DNS label'
        )
    raw = (version.get("schema") or {}).get("openAPIV3Schema")
    where = f"{path}.schema.openAPIV3Schema"
    if raw is None:
        yield Cause(where, "Required value: schemas are required", REQUIRED)
    elif not isinstance(raw, dict) or raw.get("type") != "object":
        yield Cause(f"{where}.type", 'Invalid value: must be "object" at the root')
    else:
        yield from _schema_findings(raw, where, depth=0)


def _schema_findings(raw: Mapping[str, Json], path: str, *, depth: int) -> Iterator[Cause]:
    if depth > _DEEPEST:
        yield Cause(path, "Invalid value: nested too deeply")
        return
    wrong = _wrong_keyword(raw)
    if wrong:
        yield Cause(f"{path}.{wrong}", "Invalid value: not what this keyword takes")
        return
    untyped = not raw.get("type") and not raw.get("x-kubernetes-int-or-string")
    if untyped and not raw.get("x-kubernetes-preserve-unknown-fields"):
        yield Cause(
            f"{path}.type",
            "Required value: must not be empty for specified object fields",
            REQUIRED,
        )
    if raw.get("type") == "array" and not isinstance(raw.get("items"), dict):
        yield Cause(f"{path}.items", "Required value: must be specified", REQUIRED)
    for where, part in _inner_schemas(raw):
        if not isinstance(part, dict):
            yield Cause(f"{path}.{where}", "Invalid value: must be an object")
        elif not (depth == 0 and where in _TOP_FIELDS):
            yield from _schema_findings(part, f"{path}.{where}", depth=depth + 1)
    for where, part in _junctors(raw):
        yield from _keyword_findings(part, f"{path}.{where}", depth=depth + 1)


_TOP_FIELDS = ("properties[metadata]", "properties[apiVersion]", "properties[kind]")
_KEYWORDS: Mapping[str, type | tuple[type, ...]] = {
    "type": str,
    "properties": dict,
    "required": list,
    "enum": list,
    "pattern": str,
    "nullable": bool,
    "minimum": (int, float),
    "maximum": (int, float),
    "multipleOf": (int, float),
    "minLength": int,
    "maxLength": int,
    "minItems": int,
    "maxItems": int,
    "minProperties": int,
    "maxProperties": int,
    "allOf": list,
    "anyOf": list,
    "oneOf": list,
    "not": dict,
    "x-kubernetes-list-type": str,
    "x-kubernetes-list-map-keys": list,
    "x-kubernetes-map-type": str,
}


_TYPES = ("", "object", "array", "string", "integer", "number", "boolean")


def _wrong_keyword(raw: Mapping[str, Json]) -> str:
    """Return the first keyword whose value makes no sense, or nothing."""
    for key, kinds in _KEYWORDS.items():
        if key in raw and not isinstance(raw[key], kinds):
            return key
    for key in ("required", "x-kubernetes-list-map-keys"):
        if not all(isinstance(one, str) for one in raw.get(key, ())):
            return key
    return "" if raw.get("type", "") in _TYPES else "type"


def _inner_schemas(raw: Mapping[str, Json]) -> Iterator[tuple[str, Json]]:
    for name, part in (raw.get("properties") or {}).items():
        yield f"properties[{name}]", part
    if "items" in raw:
        yield "items", raw["items"]
    if "additionalProperties" in raw and not isinstance(raw["additionalProperties"], bool):
        yield "additionalProperties", raw["additionalProperties"]


def _junctors(raw: Mapping[str, Json]) -> Iterator[tuple[str, Json]]:
    for name in ("allOf", "anyOf", "oneOf"):
        for index, part in enumerate(raw.get(name) or ()):
            yield f"{name}[{index}]", part
    if "not" in raw:
        yield "not", raw["not"]


def _keyword_findings(raw: Json, path: str, *, depth: int) -> Iterator[Cause]:
    """Yield what is wrong with a schema that only checks values and so needs no type."""
    if not isinstance(raw, dict) or depth > _DEEPEST:
        yield Cause(path, "Invalid value: must be an object, not nested too deeply")
        return
    wrong = _wrong_keyword(raw)
    if wrong:
        yield Cause(f"{path}.{wrong}", "Invalid value: not what this keyword takes")
        return
    for where, part in (*_inner_schemas(raw), *_junctors(raw)):
        yield from _keyword_findings(part, f"{path}.{where}", depth=depth + 1)


def with_status(crd: Obj, *, now: str, taken: str = "") -> Obj:
    """Return a definition with the status that its acceptance gives.

    Args:
        crd: The definition.
        now: The time to record.
        taken: Why its names cannot be accepted, or empty.
    """
    spec = crd["spec"]
    old = crd.get("status") or {}
    stored = next(one["name"] for one in spec["versions"] if one.get("storage"))
    versions = list(old.get("storedVersions") or [])
    if stored not in versions:
        versions.append(stored)
    accepted = (
        ("False", "NameConflict", taken)
        if taken
        else (
            "True",
            "NoConflicts",
            "no conflicts found",
        )
    )
    established = (
        ("False", "NotAccepted", "not all names are accepted")
        if taken
        else (
            "True",
            "InitialNamesAccepted",
            "the initial names have been accepted",
        )
    )
    conditions = [
        _condition(old, "NamesAccepted", accepted, now),
        _condition(old, "Established", established, now),
    ]
    status = {
        "conditions": conditions,
        "acceptedNames": spec["names"],
        "storedVersions": versions,
    }
    return {**crd, "status": status}


def _condition(old: Obj, kind: str, says: tuple[str, str, str], now: str) -> Obj:
    status, reason, message = says
    for one in old.get("conditions") or ():
        if one["type"] == kind and one["status"] == status:
            now = one.get("lastTransitionTime", now)
    return {
        "type": kind,
        "status": status,
        "lastTransitionTime": now,
        "reason": reason,
        "message": message,
    }


def defaulted(shape: schemas.Schema, value: Json) -> Json:
    """Return a custom object with the defaults of its schema, at every depth."""
    if isinstance(value, dict):
        out = {name: _default_of(shape.field(name), item) for name, item in value.items()}
        for name in shape.names:
            if name not in out:
                inner = shape.field(name)
                if inner is not None and inner.default is not schemas.MISSING:
                    out[name] = defaulted(inner, copying.copied_value(inner.default))
        return out
    if isinstance(value, list) and shape.items is not None:
        return [defaulted(shape.items, item) for item in value]
    return value


def _default_of(shape: schemas.Schema | None, value: Json) -> Json:
    if shape is None:
        return value
    if value is None and not shape.nullable and shape.default is not schemas.MISSING:
        value = copying.copied_value(shape.default)
    return defaulted(shape, value)
