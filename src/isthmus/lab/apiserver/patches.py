"""JSON Patch (RFC 6902) and JSON Merge Patch (RFC 7386), pure functions of two JSON values."""

from isthmus.lab.apiserver import copying, errors
from isthmus.lab.apiserver.values import Json

_MOST_OPERATIONS = 10_000


def merged(target: Json, patch: Json) -> Json:
    """Return `target` with a merge patch applied; shares parts with both."""
    if not isinstance(patch, dict):
        return patch
    out = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = merged(out.get(key), value)
    return out


def operated(target: Json, operations: Json) -> Json:
    """Return a copy of `target` with a JSON patch applied; raises 400 or 422."""
    if not isinstance(operations, list):
        raise errors.bad_request("a JSON patch must be a list of operations")
    if len(operations) > _MOST_OPERATIONS:
        raise errors.ApiError(
            413, "RequestEntityTooLarge", f"the patch has more than {_MOST_OPERATIONS} operations"
        )
    box = {"root": copying.copied_value(target)}
    for operation in operations:
        if not isinstance(operation, dict):
            raise errors.bad_request("an operation of a JSON patch must be an object")
        _operate(box, operation)
    return box["root"]


def _operate(box: dict[str, Json], operation: dict[str, Json]) -> None:
    kind, path = operation.get("op"), _path(operation, "path")
    match kind:
        case "add":
            _add(box, path, _value(operation))
        case "remove":
            _remove(box, path)
        case "replace":
            _get(box, path)
            _replace(box, path, _value(operation))
        case "move":
            source = _path(operation, "from")
            value = _get(box, source)
            _remove(box, source)
            _add(box, path, value)
        case "copy":
            _add(box, path, copying.copied_value(_get(box, _path(operation, "from"))))
        case "test":
            if _get(box, path) != operation.get("value"):
                raise _refused(f"testing value {operation['path']} failed")
        case _:
            raise errors.bad_request(f"unknown operation of a JSON patch: {kind}")


def _refused(why: str) -> errors.ApiError:
    return errors.ApiError(
        422,
        "Invalid",
        f"the server rejected our request due to an error in our request: {why}",
    )


def _value(operation: dict[str, Json]) -> Json:
    if "value" not in operation:
        raise errors.bad_request("an operation of the JSON patch lacks its value")
    return copying.copied_value(operation["value"])


def _path(operation: dict[str, Json], key: str) -> list[str]:
    text = operation.get(key)
    if not isinstance(text, str) or (text and not text.startswith("/")):
        raise errors.bad_request(f"bad JSON pointer in a patch: {text!r}")
    parts = text.split("/")[1:]
    return ["root", *(part.replace("~1", "/").replace("~0", "~") for part in parts)]


def _get(box: dict[str, Json], path: list[str]) -> Json:
    value: Json = box
    for part in path:
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list):
            value = value[_index(value, part)]
        else:
            raise _refused(f"the path /{'/'.join(path[1:])} does not exist")
    return value


def _index(found: list[Json], part: str, *, beyond: int = 0) -> int:
    if not part.isdigit() or int(part) >= len(found) + beyond:
        raise _refused(f"index out of bounds: {part}")
    return int(part)


def _add(box: dict[str, Json], path: list[str], value: Json) -> None:
    parent, last = _get(box, path[:-1]), path[-1]
    if isinstance(parent, dict):
        parent[last] = value
    elif isinstance(parent, list):
        at = len(parent) if last == "-" else _index(parent, last, beyond=1)
        parent.insert(at, value)
    else:
        raise _refused(f"the path /{'/'.join(path[1:])} does not exist")


def _replace(box: dict[str, Json], path: list[str], value: Json) -> None:
    parent, last = _get(box, path[:-1]), path[-1]
    if isinstance(parent, list):
        parent[_index(parent, last)] = value
    else:
        parent[last] = value


def _remove(box: dict[str, Json], path: list[str]) -> None:
    parent, last = _get(box, path[:-1]), path[-1]
    if isinstance(parent, list):
        del parent[_index(parent, last)]
    elif isinstance(parent, dict) and last in parent:
        del parent[last]
    else:
        raise _refused(f"unable to remove nonexistent key: {last}")
