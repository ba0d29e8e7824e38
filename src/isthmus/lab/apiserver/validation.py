"""Checks an object against its schema: unknown fields, wrong types, missing and bad values.

It reports and prunes, and decides nothing about the meaning of a kind: that is the work of rules.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from isthmus.lab.apiserver import patterns, schemas
from isthmus.lab.apiserver.errors import Cause
from isthmus.lab.apiserver.values import Json, Obj

REQUIRED = "FieldValueRequired"
INVALID = "FieldValueInvalid"
WRONG_TYPE = "FieldValueTypeInvalid"
NOT_SUPPORTED = "FieldValueNotSupported"
TOO_MANY = "FieldValueTooMany"
TOO_LONG = "FieldValueTooLong"
DUPLICATE = "FieldValueDuplicate"

_OBJECT_FIELDS = ("apiVersion", "kind", "metadata")
_JSON_NAMES = {
    dict: "object",
    list: "array",
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    type(None): "null",
}


@dataclass(slots=True)
class Report:
    """What was found.

    Attributes:
        unknown: Paths of fields that the schema does not know, in the order found.
        mistyped: Values of the wrong JSON type.
        causes: Missing and bad values.
    """

    unknown: list[str] = field(default_factory=list)
    mistyped: list[Cause] = field(default_factory=list)
    causes: list[Cause] = field(default_factory=list)


def clean(shape: schemas.Schema, value: Json, *, nulls: bool = False) -> tuple[Json, Report]:
    """Return `value` without unknown fields, and what was found.

    With `nulls`, as for custom resources, nulls that the schema does not allow are findings;
    without, as for built-in kinds, they are dropped silently.
    """
    report = Report()
    return _Cleaner(report, nulls=nulls).value(shape, value, ""), report


class _Cleaner:
    def __init__(self, report: Report, *, nulls: bool) -> None:
        self._report = report
        self._nulls = nulls

    def value(self, shape: schemas.Schema, value: Json, path: str) -> Json:
        kind = shape.type
        if kind == "any" and not shape.has_fields and not shape.limits:
            return value
        if value is None:
            if self._nulls and not shape.nullable and kind != "any":
                self._mistyped(path, shape, value)
            return None
        if kind == "object" or (shape.has_fields and isinstance(value, dict)):
            if not isinstance(value, dict):
                return self._mistyped(path, shape, value)
            value = self._object(shape, value, path)
        elif kind == "array":
            if not isinstance(value, list):
                return self._mistyped(path, shape, value)
            value = self._array(shape, value, path)
        elif not _SCALARS[kind](value):
            return self._mistyped(path, shape, value)
        if shape.limits:
            self._report.causes.extend(limits(shape, value, path))
        return value

    def _object(self, shape: schemas.Schema, value: Obj, path: str) -> Obj:
        out: Obj = {}
        for name, item in value.items():
            inner = shape.field(name)
            if inner is None:
                if shape.open or (shape.embedded and name in _OBJECT_FIELDS):
                    out[name] = item
                else:
                    self._report.unknown.append(f"{path}.{name}"[1:])
                continue
            if item is None and not self._nulls and inner.type != "any":
                continue
            where = f"{path}[{name}]" if shape.is_map and not shape.has_fields else f"{path}.{name}"
            if item is None and not inner.nullable and inner.default is not schemas.MISSING:
                continue
            out[name] = self.value(inner, item, where)
        for name in shape.required:
            if name not in out:
                self._report.causes.append(Cause(f"{path}.{name}"[1:], "Required value", REQUIRED))
        return out

    def _array(self, shape: schemas.Schema, value: list[Json], path: str) -> list[Json]:
        inner = shape.items
        if inner is None:
            return value
        out = [
            self.value(inner, item, f"{path}[{index}]")
            for index, item in enumerate(value)
            if self._nulls or item is not None
        ]
        if shape.list_type == "map" and self._nulls:
            self._duplicates([_key(item, shape.keys) for item in out], path)
        elif shape.list_type == "set" and self._nulls:
            self._duplicates([repr(item) for item in out], path)
        return out

    def _duplicates(self, keys: list[str], path: str) -> None:
        seen: set[str] = set()
        for index, key in enumerate(keys):
            if key in seen:
                self._report.causes.append(
                    Cause(f"{path}[{index}]"[1:], f"Duplicate value: {key}", DUPLICATE)
                )
            seen.add(key)

    def _mistyped(self, path: str, shape: schemas.Schema, value: Json) -> Json:
        got = _JSON_NAMES.get(type(value), "value")
        shown = f'"{got}"'
        text = (
            f"Invalid value: {shown}: {path[1:] or '<root>'} in body must be of type"
            f" {_WIRE_TYPES.get(shape.type, shape.type)}: {shown}"
        )
        self._report.mistyped.append(Cause(path[1:], text, WRONG_TYPE))
        return value


_WIRE_TYPES = {"bytes": "string", "time": "string", "quantity": "string"}


def _key(item: Json, keys: tuple[str, ...]) -> str:
    if not isinstance(item, dict):
        return repr(item)
    return ",".join(f"{key}={item.get(key)!r}" for key in keys)


def _anything(_: Json) -> bool:
    return True


def _is_int(value: Json) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (isinstance(value, float) and value.is_integer())


def _is_bytes(value: Json) -> bool:
    if not isinstance(value, str):
        return False
    try:
        base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


_QUANTITY = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?\d+)?", re.ASCII)
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _is_quantity(value: Json) -> bool:
    if isinstance(value, str):
        return _QUANTITY.fullmatch(value) is not None
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_SCALARS: Mapping[str, Callable[[Json], bool]] = {
    "any": _anything,
    "string": lambda value: isinstance(value, str),
    "integer": _is_int,
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "bytes": _is_bytes,
    "time": lambda value: isinstance(value, str) and _TIME.fullmatch(value) is not None,
    "quantity": _is_quantity,
    "int-or-string": lambda value: isinstance(value, str) or _is_int(value),
}


def limits(shape: schemas.Schema, value: Json, path: str) -> Iterator[Cause]:
    """Yield what breaks the value checks of a custom resource's schema."""
    where = path[1:]
    rules = shape.limits
    if "enum" in rules and value not in rules["enum"]:
        known = ", ".join(f'"{one}"' for one in rules["enum"])
        yield Cause(
            where, f"Unsupported value: {_shown(value)}: supported values: {known}", NOT_SUPPORTED
        )
    if isinstance(value, str):
        yield from _string_limits(rules, value, where)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield from _number_limits(rules, value, where)
    elif isinstance(value, list):
        yield from _size_limits(rules, len(value), where, ("minItems", "maxItems", "items"))
    elif isinstance(value, dict):
        yield from _size_limits(
            rules, len(value), where, ("minProperties", "maxProperties", "properties")
        )
    yield from _junctors(rules, value, path)


def _string_limits(rules: Mapping[str, Json], value: str, where: str) -> Iterator[Cause]:
    yield from _size_limits(rules, len(value), where, ("minLength", "maxLength", "chars long"))
    if "pattern" in rules and not patterns.matches(rules["pattern"], value):
        yield Cause(
            where,
            f"Invalid value: {_shown(value)}: {where} in body should match '{rules['pattern']}'",
        )


def _number_limits(rules: Mapping[str, Json], value: float, where: str) -> Iterator[Cause]:
    low, high = rules.get("minimum"), rules.get("maximum")
    if low is not None and (value < low or (rules.get("exclusiveMinimum") and value == low)):
        sign = "greater than" if rules.get("exclusiveMinimum") else "greater than or equal to"
        yield Cause(where, f"Invalid value: {value}: {where} in body should be {sign} {low}")
    if high is not None and (value > high or (rules.get("exclusiveMaximum") and value == high)):
        sign = "less than" if rules.get("exclusiveMaximum") else "less than or equal to"
        yield Cause(where, f"Invalid value: {value}: {where} in body should be {sign} {high}")
    step = rules.get("multipleOf")
    if step and value % step:
        yield Cause(
            where, f"Invalid value: {value}: {where} in body should be a multiple of {step}"
        )


def _size_limits(
    rules: Mapping[str, Json], size: int, where: str, names: tuple[str, str, str]
) -> Iterator[Cause]:
    low, high, what = names
    if low in rules and size < rules[low]:
        yield Cause(
            where,
            f"Invalid value: {size}: {where} in body should have at least {rules[low]} {what}",
        )
    if high in rules and size > rules[high]:
        reason = TOO_MANY if what == "items" else TOO_LONG
        yield Cause(where, f"Too many: {size}: must have at most {rules[high]} {what}", reason)


def _junctors(rules: Mapping[str, Json], value: Json, path: str) -> Iterator[Cause]:
    where = path[1:]
    for part in rules.get("allOf") or ():
        yield from _inner(part, value, path)
    if rules.get("anyOf") and not any(_fits(one, value, path) for one in rules["anyOf"]):
        yield Cause(
            where,
            f"Invalid value: {_shown(value)}: {where} in body must validate at least one schema (anyOf)",
        )
    if rules.get("oneOf"):
        fits = sum(_fits(one, value, path) for one in rules["oneOf"])
        if fits != 1:
            found = "none" if fits == 0 else str(fits)
            yield Cause(
                where,
                f"Invalid value: {_shown(value)}: {where} in body must validate one and only"
                f" one schema (oneOf). Found {found} valid",
            )
    if "not" in rules and _fits(rules["not"], value, path):
        yield Cause(
            where,
            f"Invalid value: {_shown(value)}: {where} in body must not validate the schema (not)",
        )


def _fits(raw: Obj, value: Json, path: str) -> bool:
    return next(_inner(raw, value, path), None) is None


def _inner(raw: Obj, value: Json, path: str) -> Iterator[Cause]:
    """Yield what breaks a schema inside allOf, anyOf, oneOf or not: no pruning, no unknowns."""
    shape = schemas.structural(raw)
    if raw.get("type") and not _SCALARS.get(shape.type, _anything)(value):
        yield Cause(
            path[1:], f"Invalid value: {_shown(value)}: must be of type {shape.type}", WRONG_TYPE
        )
        return
    yield from limits(shape, value, path)
    if isinstance(value, dict):
        for name in raw.get("required") or ():
            if name not in value:
                yield Cause(f"{path}.{name}"[1:], "Required value", REQUIRED)
        for name, part in (raw.get("properties") or {}).items():
            if name in value:
                yield from _inner(part, value[name], f"{path}.{name}")
    if isinstance(value, list) and isinstance(raw.get("items"), dict):
        for index, item in enumerate(value):
            yield from _inner(raw["items"], item, f"{path}[{index}]")


def _shown(value: Json) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, (dict, list)):
        return f'"{_JSON_NAMES[type(value)]}"'
    return str(value).lower() if isinstance(value, bool) else str(value)
