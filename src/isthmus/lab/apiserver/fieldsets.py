"""Which fields an object sets, as sets of paths: the arithmetic of server-side apply.

A path is a tuple of steps in the notation of `managedFields`: `f:name` is a field, `k:{...}` an
item of a keyed list, `v:...` a member of a set. A keyed item has a path of its own, so that the
item itself can have owners.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

import msgspec

from isthmus.lab.apiserver import schemas
from isthmus.lab.apiserver.values import Json, Obj

Path: TypeAlias = tuple[str, ...]
Paths: TypeAlias = frozenset[Path]

ITEM = "\0item"
"""The value that stands for the mere presence of a keyed item."""

_UNOWNED_META = frozenset(
    (
        "f:name",
        "f:namespace",
        "f:uid",
        "f:resourceVersion",
        "f:generation",
        "f:creationTimestamp",
        "f:managedFields",
        "f:selfLink",
        "f:deletionTimestamp",
        "f:deletionGracePeriodSeconds",
        "f:generateName",
    )
)


def leaves(shape: schemas.Schema, obj: Obj) -> dict[Path, Json]:
    """Return every path that `obj` sets and what it holds there, without the server's own."""
    return {
        path: value
        for path, value in _walk(shape, obj, ())
        if path[0] not in ("f:apiVersion", "f:kind")
        and not (path[0] == "f:metadata" and (len(path) == 1 or path[1] in _UNOWNED_META))
    }


def _walk(shape: schemas.Schema, value: Json, path: Path) -> Iterator[tuple[Path, Json]]:
    if isinstance(value, dict) and value and not shape.atomic:
        for name, item in value.items():
            inner = shape.field(name) or schemas.ANY
            yield from _walk(inner, item, (*path, "f:" + name))
    elif isinstance(value, list) and value and shape.list_type in ("map", "set"):
        inner = shape.items or schemas.ANY
        for item in value:
            step = step_of(shape, item)
            yield (*path, step), ITEM
            if shape.list_type == "map":
                yield from _walk(inner, item, (*path, step))
    elif path:
        yield path, value


def step_of(shape: schemas.Schema, item: Json) -> str:
    """Return the path step of an item of a keyed list or a set."""
    if shape.list_type == "set" or not isinstance(item, dict):
        return "v:" + _compact(item)
    inner = shape.items or schemas.ANY
    keys = {}
    for name in sorted(shape.keys):
        value = item.get(name)
        if value is None:
            default = (inner.field(name) or schemas.ANY).default
            value = None if default is schemas.MISSING else default
        if value is not None:
            keys[name] = value
    return "k:" + _compact(keys)


def _compact(value: Json) -> str:
    return msgspec.json.encode(value).decode()


def to_fields(paths: Iterable[Path]) -> Obj:
    """Return paths in the shape of `fieldsV1`."""
    root: Obj = {}
    chosen = sorted(paths)
    for path in chosen:
        at = root
        for step in path:
            at = at.setdefault(step, {})
        at["."] = {}
    _trim(root)
    return root


def _trim(node: Obj) -> None:
    if set(node) == {"."}:
        del node["."]
        return
    for name, child in node.items():
        if name != ".":
            _trim(child)


def from_fields(fields: Mapping[str, Json]) -> Paths:
    """Return the paths that `fieldsV1` lists."""
    return frozenset(_read(fields, ()))


def _read(node: Mapping[str, Json], path: Path) -> Iterator[Path]:
    for step, child in node.items():
        if step == ".":
            yield path
        elif not child:
            yield (*path, step)
        else:
            yield from _read(child, (*path, step))


def shown(path: Path) -> str:
    """Return a path for people, such as `.spec.containers[name="app"].image`."""
    out = ""
    for step in path:
        kind, _, rest = step.partition(":")
        if kind == "f":
            out += "." + rest
        elif kind == "k":
            keys = msgspec.json.decode(rest)
            out += "[" + ",".join(f"{name}={_compact(value)}" for name, value in keys.items()) + "]"
        else:
            out += f"[={rest}]"
    return out


def without(shape: schemas.Schema, value: Json, paths: Iterable[Path]) -> Json:
    """Return `value` without what lies at `paths`; what becomes empty by that goes too."""
    tree: Obj = {}
    for path in paths:
        at = tree
        for step in path:
            at = at.setdefault(step, {})
        at["."] = {}
    return _without(shape, value, tree)


def _without(shape: schemas.Schema, value: Json, tree: Obj) -> Json:
    if isinstance(value, dict):
        out = {}
        for name, item in value.items():
            cut = tree.get("f:" + name)
            if cut is None:
                out[name] = item
                continue
            kept = (
                None if set(cut) == {"."} else _without(shape.field(name) or schemas.ANY, item, cut)
            )
            if kept not in (None, {}, []):
                out[name] = kept
        return out
    if isinstance(value, list):
        inner = shape.items or schemas.ANY
        items = []
        for item in value:
            cut = tree.get(step_of(shape, item))
            if cut is None:
                items.append(item)
            elif "." not in cut:
                items.append(_without(inner, item, cut))
        return items
    return value
