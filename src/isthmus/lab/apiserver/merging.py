"""Strategic merge patch: lists of objects merge by a key that the schema names.

Directives: `$patch: delete|replace|merge`, `$setElementOrder/<list>`,
`$deleteFromPrimitiveList/<list>`, `$retainKeys`. Custom resources do not take such patches.
"""

from isthmus.lab.apiserver import errors, schemas
from isthmus.lab.apiserver.values import Json, Obj

_ORDER = "$setElementOrder/"
_DELETE = "$deleteFromPrimitiveList/"


def merged(shape: schemas.Schema, target: Json, patch: Json) -> Json:
    """Return `target` with a strategic merge patch applied; shares parts with both."""
    if not isinstance(patch, dict):
        return patch
    directive = patch.get("$patch")
    if directive == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise errors.bad_request(f"unrecognized patch directive: {directive}")
    out = dict(target) if isinstance(target, dict) else {}
    _retain(shape, out, patch)
    for key, value in patch.items():
        if key.startswith(_DELETE):
            name = key.removeprefix(_DELETE)
            out[name] = [one for one in out.get(name) or [] if one not in value]
        elif not key.startswith("$"):
            _merge_field(shape, out, patch, key)
    for key, order in patch.items():
        if key.startswith(_ORDER):
            _reorder(shape, out, patch, name=key.removeprefix(_ORDER), order=order)
    return out


def _retain(shape: schemas.Schema, out: Obj, patch: Obj) -> None:
    kept = patch.get("$retainKeys")
    if isinstance(kept, list):
        for key in [key for key in out if key not in kept]:
            del out[key]


def _merge_field(shape: schemas.Schema, out: Obj, patch: Obj, key: str) -> None:
    value = patch[key]
    if value is None:
        out.pop(key, None)
        return
    inner = shape.field(key) or schemas.ANY
    if not isinstance(value, list):
        out[key] = merged(inner, out.get(key), value)
    elif inner.merges and isinstance(out.get(key), list):
        out[key] = _merged_list(inner, out[key], value)
    else:
        out[key] = _without_directives(inner, value)


def _merged_list(shape: schemas.Schema, target: list[Json], patch: list[Json]) -> list[Json]:
    if any(isinstance(one, dict) and one.get("$patch") == "replace" for one in patch):
        return [one for one in patch if not (isinstance(one, dict) and "$patch" in one)]
    key = shape.merge_key
    if not key:
        return target + [one for one in patch if one not in target]
    out = list(target)
    inner = shape.items or schemas.ANY
    for one in patch:
        if not isinstance(one, dict) or key not in one:
            raise errors.bad_request(f"map: {one} does not contain declared merge key: {key}")
        at = [
            i for i, have in enumerate(out) if isinstance(have, dict) and have.get(key) == one[key]
        ]
        if one.get("$patch") == "delete":
            out = [have for i, have in enumerate(out) if i not in at]
        elif at:
            out[at[0]] = merged(inner, out[at[0]], one)
        else:
            out.append(merged(inner, {}, one))
    return out


def _without_directives(shape: schemas.Schema, patch: list[Json]) -> list[Json]:
    inner = shape.items or schemas.ANY
    out = []
    for one in patch:
        marked = isinstance(one, dict) and "$patch" in one
        if marked and (one["$patch"] == "delete" or set(one) == {"$patch"}):
            continue
        out.append(merged(inner, {}, one) if isinstance(one, dict) else one)
    return out


def _reorder(shape: schemas.Schema, out: Obj, patch: Obj, *, name: str, order: Json) -> None:
    """Put the items that `order` names in its order; others stay behind their neighbour."""
    have = out.get(name)
    if not isinstance(have, list) or not isinstance(order, list):
        return
    key = (shape.field(name) or schemas.ANY).merge_key
    wanted = [_identity(one, key) for one in order]
    rank = {identity: index for index, identity in enumerate(wanted)}
    named = sorted(
        (one for one in have if _identity(one, key) in rank),
        key=lambda one: rank[_identity(one, key)],
    )
    taken = iter(named)
    # Items that the order does not name were added by the server or others: they keep their place.
    out[name] = [next(taken) if _identity(one, key) in rank else one for one in have]


def _identity(one: Json, key: str) -> str:
    return repr(one.get(key)) if isinstance(one, dict) and key else repr(one)
