"""What objects look like: one kind of schema for built-in kinds and for custom resources.

Built-in kinds come from the shipped file kinds.json, in which `t` is the type, `p` the fields,
`v` the type of a map's values, `i` that of a list's items, `r` a reference, `q` the required
fields, `l` and `k` the list type and its keys, `m` and `s` strategic merge's key and strategy,
`a` an atomic map, `d` a default. Custom resources come from their structural OpenAPI schema.

It describes. Checking, merging and defaulting lie in other rooms.
"""

import functools
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from isthmus.lab.apiserver.values import Json, Obj

MISSING: Final = object()
"""The default of a field that has none: null would be a value."""

_LIMITS = (
    "enum",
    "pattern",
    "format",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
    "multipleOf",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
)


class Schema:
    """The shape of one value; its parts are made when they are first asked for.

    Attributes:
        type: `object`, `array`, `string`, `integer`, `number`, `boolean`, `bytes`, `time`,
            `quantity`, `int-or-string` or `any`.
        required: Fields that must be there.
        list_type: `atomic`, `set` or `map`.
        keys: For a list of type `map`, the fields that identify an item.
        merge_key: For strategic merge, the field that identifies an item; empty if lists of
            this type are replaced.
        merges: Whether strategic merge merges lists of this type.
        retains: Whether strategic merge drops fields that `$retainKeys` does not name.
        atomic: Whether a map has one owner as a whole.
        open: Whether unknown fields are kept.
        embedded: Whether the value is a whole Kubernetes object.
        nullable: Whether null is a value.
        default: What a missing value becomes, or `MISSING`.
        name: Of a type that several kinds share, such as `core.v1.PodSpec`; else empty.
        limits: The value checks of a custom resource's schema, as written there.
        text: What a custom resource's schema says about it.
    """

    __slots__ = (
        "_cache",
        "_fields",
        "_items",
        "_make",
        "_values",
        "atomic",
        "default",
        "embedded",
        "keys",
        "limits",
        "list_type",
        "merge_key",
        "merges",
        "name",
        "nullable",
        "open",
        "required",
        "retains",
        "text",
        "type",
    )

    def __init__(self, kind: str) -> None:
        self.type = kind
        self.name = ""
        self.required: tuple[str, ...] = ()
        self.list_type = "atomic"
        self.keys: tuple[str, ...] = ()
        self.merge_key = ""
        self.merges = False
        self.retains = False
        self.atomic = False
        self.open = kind == "any"
        self.embedded = False
        self.nullable = False
        self.default: Json = MISSING
        self.limits: Mapping[str, Json] = {}
        self.text = ""
        self._fields: Mapping[str, Json] = {}
        self._values: Json = None
        self._items: Json = None
        self._make: Callable[[Obj], Schema] = _from_compact
        self._cache: dict[str, Schema] = {}

    def describe(
        self,
        make: Callable[[Obj], "Schema"],
        fields: Mapping[str, Json],
        values: Json,
        items: Json,
    ) -> None:
        """Say what it consists of: raw descriptions, from which `make` makes schemas."""
        self._make = make
        self._fields = fields
        self._values = values
        self._items = items

    @property
    def names(self) -> Iterable[str]:
        """The declared fields."""
        return self._fields.keys()

    @property
    def is_map(self) -> bool:
        """Whether any field name is allowed and all values have one type."""
        return self._values is not None

    @property
    def has_fields(self) -> bool:
        """Whether it declares fields by name."""
        return bool(self._fields)

    def field(self, name: str) -> "Schema | None":
        """Return the shape of a field, also when it is a map's value; None if undeclared."""
        found = self._cache.get(name)
        if found is not None:
            return found
        raw = self._fields.get(name)
        if raw is None:
            return self.values if self._values is not None else None
        made = self._cache[name] = self._make(raw)
        return made

    @property
    def values(self) -> "Schema | None":
        """The shape of a map's values."""
        return self._part("/values", self._values)

    @property
    def items(self) -> "Schema | None":
        """The shape of a list's items."""
        return self._part("/items", self._items)

    def _part(self, slot: str, raw: Json) -> "Schema | None":
        if raw is None:
            return None
        found = self._cache.get(slot)
        if found is None:
            found = self._cache[slot] = self._make(raw)
        return found

    def with_field(self, name: str, shape: "Schema") -> "Schema":
        """Return a copy in which the field `name` has another shape."""
        copy = Schema(self.type)
        for slot in self.__slots__:
            setattr(copy, slot, getattr(self, slot))
        copy._fields = {**self._fields, name: {}}
        copy._cache = {**self._cache, name: shape}
        copy.name = ""
        return copy


@functools.cache
def _file() -> tuple[Mapping[str, str], Mapping[str, Obj]]:
    raw = (pathlib.Path(__file__).parent / "kinds.json").read_bytes()
    parsed = msgspec.json.decode(raw)
    return parsed["kinds"], parsed["types"]


@functools.cache
def builtin(group: str, version: str, kind: str) -> Schema:
    """Return the shape of a built-in kind; `ANY` when it is not one."""
    name = _file()[0].get(f"{group}/{version}/{kind}")
    return _named(name) if name else ANY


@functools.cache
def object_meta() -> Schema:
    """Return the shape of `metadata`."""
    return _named("meta.v1.ObjectMeta")


@functools.cache
def _named(name: str) -> Schema:
    one = _from_compact(_file()[1][name])
    one.name = one.name or name
    return one


def _from_compact(raw: Mapping[str, Json]) -> Schema:
    if "r" in raw:
        return _named(raw["r"])
    one = Schema(raw["t"])
    one.describe(_from_compact, raw.get("p", {}), raw.get("v"), raw.get("i"))
    one.required = tuple(raw.get("q", ()))
    one.list_type = raw.get("l", "atomic")
    one.keys = tuple(raw.get("k", ()))
    strategy = raw.get("s", "").split(",")
    one.merges = "merge" in strategy
    one.retains = "retainKeys" in strategy
    one.merge_key = raw.get("m", "")
    one.atomic = "a" in raw
    one.default = raw.get("d", MISSING)
    one.open = one.type == "any" or (one.type == "object" and not raw.keys() & {"p", "v"})
    return one


ANY = Schema("any")
"""Takes everything."""


def structural(raw: Mapping[str, Json]) -> Schema:
    """Return the shape that a CustomResourceDefinition's OpenAPI schema describes."""
    one = Schema(_structural_type(raw))
    extra = raw.get("additionalProperties")
    values = extra if isinstance(extra, dict) else ({} if extra is True else None)
    one.describe(structural, raw.get("properties") or {}, values, raw.get("items"))
    one.required = tuple(raw.get("required") or ())
    one.list_type = raw.get("x-kubernetes-list-type", "atomic")
    one.keys = tuple(raw.get("x-kubernetes-list-map-keys") or ())
    one.atomic = raw.get("x-kubernetes-map-type") == "atomic"
    one.embedded = bool(raw.get("x-kubernetes-embedded-resource"))
    one.nullable = bool(raw.get("nullable"))
    one.default = raw.get("default", MISSING)
    one.open = bool(raw.get("x-kubernetes-preserve-unknown-fields")) or one.type == "any"
    one.text = str(raw.get("description") or "")
    one.limits = {name: raw[name] for name in _LIMITS if name in raw}
    return one


def custom_object(raw: Mapping[str, Json] | None) -> Schema:
    """Return the shape of a whole custom resource: its schema, with Kubernetes' own fields."""
    top = structural(raw or {"type": "object", "x-kubernetes-preserve-unknown-fields": True})
    for name in ("apiVersion", "kind"):
        top = top.with_field(name, Schema("string"))
    return top.with_field("metadata", object_meta())


def _structural_type(raw: Mapping[str, Json]) -> str:
    if raw.get("x-kubernetes-int-or-string"):
        return "int-or-string"
    kind = raw.get("type")
    if isinstance(kind, str) and kind:
        return kind
    return "object" if "properties" in raw else "any"
