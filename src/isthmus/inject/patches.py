"""The difference of two JSON documents as a JSON patch.

Lists of named objects are compared by name, so that a container which is added is one addition
and whatever another webhook does to the rest stands.

Source: RFC 6902, RFC 6901.
"""

from collections.abc import Iterator
from typing import Any

from isthmus.inject.shapes import Obj


def difference(old: object, new: object, *, path: str = "") -> Iterator[Obj]:
    """Yield the operations that turn `old` into `new`."""
    if old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        yield from _objects(old, new, path)
    elif isinstance(old, list) and isinstance(new, list) and _is_extension(old, new):
        yield from _lists(old, new, path)
    else:
        yield {"op": "replace", "path": path, "value": new}


def pointed(path: str, key: str) -> str:
    """Return the pointer to `key` below `path`."""
    return f"{path}/{key.replace('~', '~0').replace('/', '~1')}"


def _objects(old: dict[str, Any], new: dict[str, Any], path: str) -> Iterator[Obj]:
    for key in old.keys() - new.keys():
        yield {"op": "remove", "path": pointed(path, key)}
    for key in sorted(new):
        if key in old:
            yield from difference(old[key], new[key], path=pointed(path, key))
        else:
            yield {"op": "add", "path": pointed(path, key), "value": new[key]}


def _is_extension(old: list[Any], new: list[Any]) -> bool:
    """Tell whether `new` has the named objects of `old`, in their order, and perhaps more."""
    names = [_name(each) for each in old]
    known = set(names)
    if None in known or len(known) != len(names):
        return False
    return [name for name in map(_name, new) if name in known] == names


def _lists(old: list[Any], new: list[Any], path: str) -> Iterator[Obj]:
    before = {_name(each): each for each in old}
    for position, each in enumerate(new):
        if _name(each) in before:
            yield from difference(before[_name(each)], each, path=f"{path}/{position}")
        else:
            yield {"op": "add", "path": f"{path}/{position}", "value": each}


def _name(each: object) -> object:
    return each.get("name") if isinstance(each, dict) else None
