"""OpenAPI version 3 as far as clients need it: what can be validated and explained.

kubectl asks whether a kind's operations take `fieldValidation`, and reads field types for
`explain`. The hash in the index changes with the custom resources, so that clients reload.
"""

from collections.abc import Iterator

from isthmus.lab.apiserver import discovery, schemas
from isthmus.lab.apiserver.resources import Resource
from isthmus.lab.apiserver.state import State
from isthmus.lab.apiserver.values import Obj

OLD_MEDIA = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
OLD = b"\x0a\x032.0"
"""The document in its old form: version 2.0 (field 1), without types, so that clients that ask for
unknown kinds go on to say that there is no such kind."""
_DEEPEST = 24
_QUERY = ("dryRun", "fieldManager", "fieldValidation", "force")
_WRITES = ("post", "put", "patch")


def index(state: State) -> Obj:
    """Return where the document of each version lies."""
    paths = {}
    for one in state.catalog:
        prefix = one.prefix[1:]
        url = f"/openapi/v3/{prefix}?hash={state.catalog.edition:08X}"
        paths[prefix] = {"serverRelativeURL": url}
    return {"paths": paths}


def document(state: State, prefix: str) -> Obj | None:
    """Return the document of one version, such as `apis/apps/v1`, if served."""
    found = [one for one in state.catalog if one.prefix[1:] == prefix]
    if not found:
        return None
    paths: Obj = {}
    parts: Obj = {}
    for one in found:
        paths.update(_paths(one))
        if not one.virtual:
            parts[_name(one)] = _component(state, one, parts)
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": discovery.VERSION["gitVersion"]},
        "paths": paths,
        "components": {"schemas": parts},
    }


def _name(one: Resource) -> str:
    return ".".join([*reversed(one.group.split(".")), one.version, one.kind]).lstrip(".")


def _paths(one: Resource) -> Obj:
    space = "/namespaces/{namespace}" if one.namespaced else ""
    base = f"{one.prefix}{space}/{one.plural}"
    kinds = {"group": one.group, "version": one.version, "kind": one.kind}

    def operation(action: str) -> Obj:
        body = {
            "content": {
                "application/json": {"schema": {"$ref": f"#/components/schemas/{_name(one)}"}}
            }
        }
        taken = _QUERY if action in _WRITES else ()
        return {
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": kinds,
            "parameters": [
                {"name": name, "in": "query", "schema": {"type": "string"}} for name in taken
            ],
            "responses": {"200": {"description": "OK", **({} if one.virtual else body)}},
        }

    found: Obj = {base: {"post": operation("post")}}
    if not one.virtual:
        found[base]["get"] = operation("list")
        found[base + "/{name}"] = {
            "get": operation("get"),
            "put": operation("put"),
            "patch": operation("patch"),
            "delete": operation("delete"),
        }
    return found


def _component(state: State, one: Resource, parts: Obj) -> Obj:
    return {
        **_Describing(parts).whole(state.shape(one)),
        "x-kubernetes-group-version-kind": [
            {"group": one.group, "version": one.version, "kind": one.kind}
        ],
    }


_TYPES = {"bytes": "string", "time": "string", "quantity": "string"}


class _Describing:
    """Describes shapes; types with a name of their own once, among `parts`, whoever has them."""

    def __init__(self, parts: Obj) -> None:
        self._parts = parts

    def whole(self, shape: schemas.Schema, *, depth: int = 0) -> Obj:
        """Describe a shape with all that it consists of."""
        if depth > _DEEPEST:
            return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        if shape.type == "any":
            return {"x-kubernetes-preserve-unknown-fields": True}
        if shape.type == "int-or-string":
            return {"x-kubernetes-int-or-string": True}
        out: Obj = {"type": _TYPES.get(shape.type, shape.type)}
        if shape.text:
            out["description"] = shape.text
        out.update(self._within(shape, depth + 1))
        if shape.required:
            out["required"] = list(shape.required)
        if shape.open:
            out["x-kubernetes-preserve-unknown-fields"] = True
        if shape.list_type != "atomic":
            out["x-kubernetes-list-type"] = shape.list_type
        if shape.keys:
            out["x-kubernetes-list-map-keys"] = list(shape.keys)
        return out

    def _within(self, shape: schemas.Schema, depth: int) -> Iterator[tuple[str, object]]:
        fields = {
            name: self._named(inner, depth)
            for name in shape.names
            if (inner := shape.field(name)) is not None
        }
        if fields:
            yield "properties", fields
        if shape.values is not None:
            yield "additionalProperties", self._named(shape.values, depth)
        if shape.items is not None:
            yield "items", self._named(shape.items, depth)

    def _named(self, shape: schemas.Schema, depth: int) -> Obj:
        if not (shape.name and shape.has_fields):
            return self.whole(shape, depth=depth)
        home = "apimachinery.pkg.apis" if shape.name.startswith("meta.") else "api"
        name = f"io.k8s.{home}.{shape.name}"
        if name not in self._parts:
            self._parts[name] = {}  # those that hold themselves find it
            self._parts[name] = self.whole(shape)
        return {"$ref": f"#/components/schemas/{name}"}
